"""Curriculum by examples: a pool that grows from the easiest examples to all of them.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import Curriculum
    >>> from kerasrecipes.data import CurriculumDataset
    >>> x, y = np.random.uniform(size=(640, 3)), np.random.uniform(size=(640, 1))
    >>> dataset = CurriculumDataset(x, y, difficulty=np.abs(y[:, 0] - 0.5), batch_size=32)
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(dataset, epochs=3, callbacks=[Curriculum(dataset)], verbose=0)
    >>> history.history["curriculum"]
    [0.0, 0.5, 1.0]

Suggested hyperparameters
    `start`: the share that is in at first, 0.2 to 0.5. `mode`: "mix" where "plain" forgets or
    stalls (Zaremba and Sutskever), with `share` 0.2. `classes`: the labels, whenever one class
    is easier than another. `softness`: 0.1 to 0.3 lets examples enter gradually.

When not to use
    As a matter of course: on data without a strong order from easy to hard the epochs spent on
    the easy part are lost. Compare with shuffled training at equal updates. In
    recipes/curriculum_text.py short sums first won on each of seeds 0 to 4, by 0.02 to 0.47 of
    accuracy on JAX, and "one_pass" lost on all. In recipes/curriculum_shapes.py, Bengio's task in
    miniature, mixing both sets from the start was better. A difficulty from a teacher trained on
    the same data leaks.

Technical details
    The level goes from 0 to 1 and admits the share a = start (1 - level) + level. An example's
    rank r is the share of strictly easier examples (of its class, with `classes`), so that equal
    difficulties enter together. Weights W: "plain" 1[r < a], or with `softness` s
    clip((a - (1 - s) r) / s, 0, 1); "mix" (1 - share) W + share mean(W), so that this share of
    all draws is from everything; "one_pass" only what entered last. At level 1 plain and mix are
    all ones: the data's own distribution. In both no weight falls with the level, and the
    entropy of what is drawn grows: the weights of harder examples grow by larger factors.
    one_pass has neither property.
    An epoch is always `steps_per_epoch` full batches: Keras asks a PyDataset for its length only
    once. Examples are drawn without replacement as far as possible: each stands in the epoch as
    often as its weight asks, give or take one. The draw is a function of seed, epoch, level and
    batch size alone, so a resumed fit gets the batches of an uninterrupted one; their order
    within the epoch too with `fit(shuffle=False)`. There are no `workers`: Keras's queue carries
    batches over (with two workers the first batches of each epoch were those of the one before).
    A source of batches (PyDataset, tf.data, any iterable that starts again) takes a function
    `difficulty(x, y)` that returns shares in [0, 1]. Its examples are accepted with chance W and
    put into full batches, one batch of the source in memory at a time. It goes on where it was
    at each epoch, and a resumed fit starts it from its beginning.

Attribution
    Bengio, Louradour, Collobert, Weston, Curriculum Learning, ICML 2009; Zaremba, Sutskever,
    Learning to Execute, 2014, https://arxiv.org/abs/1410.4615 (mix); Cirik, Hovy, Morency, 2016,
    https://arxiv.org/abs/1611.06204 (one-pass).
"""

import numpy as np

from kerasrecipes._checks import integer, number, one_of
from kerasrecipes._model.batches import check_lengths
from kerasrecipes.data._driven import Driven, check_classes
from kerasrecipes.data._stream import Stream, is_stream

MODES = ("plain", "mix", "one_pass")


def ranks(difficulty, classes=None):
    """The share of strictly easier examples (of the same class) of each example.

    Args:
        difficulty: array of shape `(n,)`.
        classes: optional array of shape `(n,)` of labels.

    Returns:
        float array of shape `(n,)` with values in [0, 1).
    """
    if classes is None:
        return np.searchsorted(np.sort(difficulty), difficulty, side="left") / len(difficulty)
    found = np.empty(len(difficulty))
    for one in np.unique(classes):
        found[classes == one] = ranks(difficulty[classes == one])
    return found


def admitted(rank, level, start=0.2, softness=0.0):
    """Weights in [0, 1] of a growing pool: no weight falls with `level`, at 1 all are 1.

    Args:
        rank: array of ranks in [0, 1].
        level: from 0 (the share `start` is in) to 1 (everything).
        start: share in (0, 1].
        softness: range of ranks over which weights go from 1 to 0, in [0, 1).

    Returns:
        Array of the shape of `rank`.
    """
    if level >= 1:
        return np.ones(np.shape(rank))
    share = start * (1 - level) + level
    if softness == 0:
        return (np.asarray(rank) < share - 1e-9).astype("float64")
    return np.clip((share - (1 - softness) * np.asarray(rank)) / softness, 0.0, 1.0)


class CurriculumDataset(Driven):
    """A `keras.utils.PyDataset` of fixed length that draws from a growing pool.

    `callbacks.Curriculum` moves it; until then it draws from everything, and after a fit from
    what was in last. So do `evaluate`, `predict` and `validation_data`. A fit of more than one
    epoch needs the callback.

    Args:
        x: array, or a list or dict of arrays, of shape `(examples, ...)`; or a source of batches
            (a PyDataset, a tf.data.Dataset or another iterable that starts again).
        y: targets, likewise; None for a source of batches.
        difficulty: array of shape `(examples,)`, larger is harder; or, for a source of batches,
            a function of a batch's `x` and `y` that returns shares in [0, 1]. None puts all in
            from the start.
        batch_size: examples a batch.
        steps_per_epoch: batches an epoch. None takes as many as all examples fill.
        sample_weight: optional weights of shape `(examples,)`, handed to the model.
        classes: optional labels of shape `(examples,)`: the same share of each is in the pool.
        mode: "plain", "mix" or "one_pass".
        start: share of the examples that is in the pool at level 0, in (0, 1].
        softness: 0 lets examples enter at once; in (0, 1) their weight grows over that range.
        share: with "mix", the share of all draws that is from everything, in [0, 1].
        seed: optional int. With None each data set draws another sequence.

    Raises:
        TypeError: if an argument has the wrong type, or a source can be read only once.
        ValueError: if lengths differ, `difficulty` has NaN, an argument is out of range, or the
            pool is smaller than a batch.

    Reference:
        Bengio et al., 2009, Curriculum Learning
    """

    def __init__(
        self,
        x,
        y=None,
        difficulty=None,
        batch_size=32,
        steps_per_epoch=None,
        sample_weight=None,
        classes=None,
        mode="plain",
        start=0.2,
        softness=0.0,
        share=0.2,
        seed=None,
    ):
        self.mode = one_of("mode", mode, MODES)
        self.start = number("start", start, 0, 1, open_low=True)
        self.softness = number("softness", softness, 0, 1, open_high=True)
        self.share = number("share", share, 0, 1)
        self.level, self.previous = 1.0, None
        self._stream = None
        if is_stream(x):
            self._from_stream(
                x, difficulty, batch_size, steps_per_epoch, (y, sample_weight, classes), seed
            )
        else:
            super().__init__(x, y, sample_weight, batch_size, steps_per_epoch, seed)
            self.rank = self._ranked(difficulty, classes)
            self.check_levels([0.0])

    def _from_stream(self, source, difficulty, batch_size, steps_per_epoch, others, seed):
        if any(other is not None for other in others):
            raise ValueError(
                "Where `x` yields batches, `y` and `sample_weight` come with them, and `classes` "
                "are the function's affair: leave them None."
            )
        if not callable(difficulty):
            raise TypeError(
                "Where `x` yields batches, `difficulty` must be a function of a batch's x and y "
                f"that returns shares in [0, 1]. Received: {type(difficulty).__name__}"
            )
        if steps_per_epoch is None:
            raise ValueError("Where `x` yields batches, `steps_per_epoch` must be given.")
        # The base class's own start takes arrays.
        super(Driven, self).__init__()
        self.batch_size = integer("batch_size", batch_size, 1)
        self._start_driving(steps_per_epoch, seed)
        self._stream = Stream(source, difficulty)
        self._rng = np.random.default_rng([self.seed, self.epoch])
        # A stream's ranks are shares, so evenly spread.
        self.rank = (np.arange(1000) + 0.5) / 1000

    def _ranked(self, difficulty, classes):
        if difficulty is None:
            return np.zeros(self.count)
        if callable(difficulty):
            raise TypeError(
                "With arrays `difficulty` must be an array. Received a function: give "
                "`difficulty=function(x, y)`."
            )
        difficulty = np.asarray(difficulty)
        if difficulty.ndim != 1 or difficulty.dtype.kind not in "biuf":
            raise TypeError(
                "`difficulty` must hold one number an example. Received an array of "
                f"{difficulty.dtype} of shape {difficulty.shape}"
            )
        check_lengths(x=self.x, difficulty=difficulty)
        if np.isnan(difficulty).any():
            raise ValueError("`difficulty` has NaN: say of each example how hard it is.")
        return ranks(difficulty, check_classes(classes, self.count))

    def begin_epoch(self, epoch, batch_size=None, level=None, previous=None):
        """Moves to an epoch: from now on batches are those of this epoch and level.

        Args:
            epoch: index of the epoch.
            batch_size: examples a batch from now on; None leaves it.
            level: from 0 (the share `start` is in) to 1 (everything); None leaves it.
            previous: with `mode="one_pass"`, the level before, or None if there was none.

        Raises:
            ValueError: if the pool is smaller than a batch.
        """
        if self._plan:
            self._check_plan(epoch)
        if level is not None:
            self.level, self.previous = number("level", level, 0, 1), previous
        super().begin_epoch(epoch, batch_size)
        if self._stream:
            self._stream.begin()
            self._rng = np.random.default_rng([self.seed, self.epoch])

    def weights(self, rank=None, level=None, previous=None):
        """W of the examples, or of given ranks, at the present or a given level.

        Args:
            rank: optional array of ranks; None takes those of the examples.
            level: optional level.
            previous: with `level` and `mode="one_pass"`, the level before it.

        Returns:
            float array with values in [0, 1].
        """
        rank = self.rank if rank is None else rank
        level, previous = (self.level, self.previous) if level is None else (level, previous)
        settings = {"start": self.start, "softness": self.softness}
        weights = admitted(rank, level, **settings)
        if self.mode == "mix":
            return (1 - self.share) * weights + self.share * np.mean(
                admitted(self.rank, level, **settings)
            )
        if self.mode == "one_pass" and previous is not None:
            return weights - admitted(rank, previous, **settings)
        return weights

    def predecessors(self, levels):
        """For each of the rising `levels` the last one before it with a smaller pool, or None."""
        pools = [admitted(self.rank, one, self.start, self.softness).sum() for one in levels]
        return [
            next((levels[j] for j in range(i)[::-1] if pools[j] < pools[i]), None)
            for i in range(len(levels))
        ]

    def check_levels(self, levels, sizes=None, first=0):
        """Raises a ValueError if the pool of one of the successive `levels` is below a batch.

        Args:
            levels: the level of each epoch.
            sizes: the batch size of each epoch; None takes the present one for all.
            first: the epoch from which.
        """
        if self._stream:
            return
        sizes = [self.batch_size] * len(levels) if sizes is None else sizes
        epochs = list(zip(levels, self.predecessors(levels), sizes, strict=True))
        for level, previous, size in epochs[first:]:
            weights = self.weights(level=level, previous=previous)
            pool = int(np.count_nonzero(weights))
            if pool < size:
                raise ValueError(
                    f"At level {level:g} the pool is smaller than a batch: {pool} of "
                    f"{self.count} examples, batch_size={size}. Raise `start`, lower "
                    "`batch_size` or pace in larger steps."
                )

    def _check_plan(self, epoch):
        """What all callbacks of a fit will do, before the first batch."""
        levels, sizes = self._plan.get("levels"), self._plan.get("sizes")
        self._plan = {}
        if levels is not None:
            self.check_levels(levels, sizes, epoch)
        else:
            self.check_batch_size(max(sizes[epoch:]))
        self._planned = True

    def check_batch_size(self, batch_size):
        if not self._stream:
            super().check_batch_size(batch_size)

    def _weights(self):
        return self.weights()

    def __getitem__(self, index):
        if self._stream:
            return self._stream.take(self.batch_size, self.weights, self._rng)
        return super().__getitem__(index)
