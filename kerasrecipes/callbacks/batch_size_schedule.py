"""Batch size that changes from epoch to epoch within one `fit`.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import BatchSizeSchedule
    >>> from kerasrecipes.data import CurriculumDataset
    >>> x, y = np.random.uniform(size=(640, 3)), np.random.uniform(size=(640, 1))
    >>> dataset = CurriculumDataset(x, y, batch_size=16, steps_per_epoch=20)
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> grow = BatchSizeSchedule(dataset, {0: 16, 2: 64})
    >>> model.fit(dataset, epochs=3, callbacks=[grow], verbose=0).history["batch_size"]
    [16, 16, 64]

Suggested hyperparameters
    `schedule`: where a rate schedule would divide the rate by 5, multiply the batch by 5 instead
    (Smith et al.), up to a tenth of the data; from there on lower the rate. Few distinct sizes.

When not to use
    To save memory or time on one CPU: larger batches save updates, not arithmetic. With
    gradient accumulation, whose effective batch this changes too.

Technical details
    Keras asks a data set for its length once, so an epoch keeps its number of updates
    (`steps_per_epoch`) and sees more examples as the batch grows: steps times batch size. To keep
    the examples of a stage, give it fewer epochs. The size is set at the begin of an epoch. Each
    distinct size costs one compilation. The data set is a `CurriculumDataset` (`difficulty=None`
    makes it a plain shuffled one) or a `SelfPacedDataset`, so that the schedule composes with
    `Curriculum` in one fit, in either order: the sizes and pools of all epochs are compared before
    the first batch. The logs hold "batch_size".

Attribution
    Smith, Kindermans, Ying, Le, Don't Decay the Learning Rate, Increase the Batch Size, 2018,
    https://arxiv.org/abs/1711.00489.
"""

import numbers

import keras

from kerasrecipes._checks import integer
from kerasrecipes.callbacks._knobs import copied
from kerasrecipes.data import CurriculumDataset, SelfPacedDataset


class BatchSizeSchedule(keras.callbacks.Callback):
    """Sets the batch size of a data set before each epoch.

    Args:
        dataset: the `CurriculumDataset` or `SelfPacedDataset` that is given to `fit`.
        schedule: a function of the epoch's index that returns the number of examples a batch, or
            a dict of stages: the epoch from which, and the size.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the stages are empty, unsorted or do not begin at 0; before training if a
            size is no positive integer or exceeds the number of examples.

    Reference:
        Smith et al., 2018, https://arxiv.org/abs/1711.00489
    """

    def __init__(self, dataset, schedule):
        super().__init__()
        if not isinstance(dataset, (CurriculumDataset, SelfPacedDataset)):
            raise TypeError(
                "`dataset` must be a CurriculumDataset or a SelfPacedDataset. Received: "
                f"{type(dataset).__name__}. CurriculumDataset(x, y) is a plain shuffled one."
            )
        if isinstance(schedule, dict):
            begins = list(schedule)
            if not begins or begins[0] != 0 or sorted(begins) != begins:
                raise ValueError(
                    "The stages of `schedule` must begin at epoch 0 and rise. Received: "
                    f"{schedule}. Write for example {{0: 32, 10: 128}}."
                )
        elif not callable(schedule):
            raise TypeError(
                "`schedule` must be a function of the epoch or a dict of stages. Received: "
                f"{schedule!r}"
            )
        self.dataset, self.schedule = dataset, schedule

    def __deepcopy__(self, memo):
        return copied(self, [self.dataset], memo)

    def on_train_begin(self, logs=None):
        self.dataset.check_steps(self.params["steps"])
        self.dataset.plan(sizes=[self._size(epoch) for epoch in range(self.params["epochs"])])

    def on_epoch_begin(self, epoch, logs=None):
        self.dataset.begin_epoch(epoch, batch_size=self._size(epoch))

    def on_train_batch_begin(self, batch, logs=None):
        self.dataset.check_running()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["batch_size"] = self.dataset.batch_size

    def on_train_end(self, logs=None):
        self.dataset.finish()

    def _size(self, epoch):
        if isinstance(self.schedule, dict):
            given = [size for begin, size in self.schedule.items() if begin <= epoch][-1]
        else:
            given = self.schedule(epoch)
        if not isinstance(given, numbers.Integral):
            raise ValueError(
                f"`schedule` returned {given!r} at epoch {epoch}: it must return an integer."
            )
        return integer("batch_size", given, 1, getattr(self.dataset, "count", None))
