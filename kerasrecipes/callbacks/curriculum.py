"""Moves a CurriculumDataset or a SelfPacedDataset from the easy examples to all, epoch by epoch.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import Curriculum
    >>> from kerasrecipes.data import CurriculumDataset
    >>> x, y = np.random.uniform(size=(640, 3)), np.random.uniform(size=(640, 1))
    >>> dataset = CurriculumDataset(x, y, difficulty=np.abs(y[:, 0] - 0.5))
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> callbacks = [Curriculum(dataset, [(0, 0), (0.5, 1)])]
    >>> model.fit(dataset, epochs=4, callbacks=callbacks, verbose=0).history["curriculum"]
    [0.0, 0.0, 1.0, 1.0]

Suggested hyperparameters
    `pacing`: "linear", or "root" to reach the hard examples sooner (Platanios et al. found it
    better). `epochs`: half of the fit's, so that the other half trains on everything.

When not to use
    See the cards of `data.CurriculumDataset` and `data.SelfPacedDataset`. Do not stop by
    validation loss before the move is over: the model has not seen the hard examples.

Technical details
    Progress is 0 in the first epoch, 1 in the last of the move and stays 1; a move of one epoch is
    at 1. It counts from epoch 0, so that a resumed fit goes on where it was. All levels are
    computed before training and compared with the batch sizes of all epochs. The level is set at
    the begin of an epoch, before Keras asks for its first batch; that no batch of an epoch is
    fetched earlier was measured on the three backends. A SelfPacedDataset is given the model's
    losses instead, at the weights that the optimizer stands on. A fit that ends before the move
    does warns. The logs hold "curriculum": the level, or the share of the examples that is in.

Attribution
    Bengio, Louradour, Collobert, Weston, Curriculum Learning, ICML 2009; the root: Platanios et
    al., Competence-based Curriculum Learning, 2019, https://arxiv.org/abs/1903.09848.
"""

import math
import warnings

import keras
import numpy as np

from kerasrecipes._checks import integer, nearest
from kerasrecipes.callbacks._knobs import copied
from kerasrecipes.data import CurriculumDataset, SelfPacedDataset
from kerasrecipes.optimizers._trial import trial_optimizers

PACES = {"linear": float, "root": math.sqrt}


def stages(pairs):
    """A pacing that jumps: `pairs` of (progress from which, level), both rising.

    Raises:
        ValueError: if there are none, if they do not begin at 0, or if they do not rise.
    """
    pairs = [tuple(map(float, pair)) for pair in pairs]
    if not pairs:
        raise ValueError("`pacing` has no stages: give pairs such as [(0, 0), (0.5, 1)].")
    begins = [begin for begin, _ in pairs]
    if begins[0] != 0 or any(b <= a for a, b in zip(begins, begins[1:], strict=False)):
        raise ValueError(
            "The stages of `pacing` must begin at progress 0 and rise. Received: "
            f"{pairs}. Sort them, and give each begin once."
        )

    def level(progress):
        return [level for begin, level in pairs if begin <= progress][-1]

    return level


def levels(pacing, epochs, total=None):
    """The levels of the first `total` epochs of a move that takes `epochs`.

    Args:
        pacing: function of progress.
        epochs: epochs of the move.
        total: number of levels; None gives `epochs`.

    Returns:
        A list of floats in [0, 1].

    Raises:
        ValueError: if a level is not in [0, 1], falls, or is not 1 at progress 1.
    """
    found = []
    for epoch in range(max(epochs, total or epochs)):
        progress = 1.0 if epoch >= epochs - 1 else epoch / (epochs - 1)
        try:
            level = float(pacing(progress))
        except (TypeError, ValueError):
            level = math.nan
        low = found[-1] if found else 0.0
        if not low <= level <= 1:
            raise ValueError(
                f"`pacing` returned {level} at progress {progress:g} (epoch {epoch}): levels must "
                f"lie in [0, 1] and never fall. The level before was {low:g}."
            )
        found.append(level)
    if found[-1] != 1:
        raise ValueError(
            f"`pacing` returned {found[-1]} at progress 1: it must reach exactly 1, or the last "
            "epoch would not draw from everything."
        )
    return found[: total or epochs]


class Curriculum(keras.callbacks.Callback):
    """Sets the level of a `CurriculumDataset`, or the weights of a `SelfPacedDataset`.

    Args:
        dataset: the data set that is given to `fit`.
        pacing: "linear", "root", a function of progress in [0, 1] that returns a level in
            [0, 1], never falls and is 1 at 1, or stages: pairs of a progress and the level from
            there on. None is "linear"; a SelfPacedDataset paces itself and takes None only.
        epochs: epochs of the move, counted from epoch 0. None takes those of the fit.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `pacing` is unknown, has no stages or unsorted ones; before training if a
            level falls or 1 is not reached, if a pool is smaller than a batch, or if `fit` runs
            other data.

    Reference:
        Bengio et al., 2009, Curriculum Learning
    """

    def __init__(self, dataset, pacing=None, epochs=None):
        super().__init__()
        if not isinstance(dataset, (CurriculumDataset, SelfPacedDataset)):
            raise TypeError(
                "`dataset` must be a CurriculumDataset or a SelfPacedDataset. Received: "
                f"{type(dataset).__name__}"
            )
        if pacing is not None and isinstance(dataset, SelfPacedDataset):
            raise ValueError(
                "A SelfPacedDataset paces itself by its `growth`: leave `pacing` None."
            )
        self.dataset = dataset
        self.pacing = pacing
        self.epochs = None if epochs is None else integer("epochs", epochs, 1)
        self._pace = _pace("linear" if pacing is None else pacing)

    def __deepcopy__(self, memo):
        return copied(self, [self.dataset], memo)

    def on_train_begin(self, logs=None):
        self._value = None
        total = self.params["epochs"]
        self.dataset.check_steps(self.params["steps"])
        self._move = self.epochs or total
        if isinstance(self.dataset, CurriculumDataset):
            self._levels = levels(self._pace, self._move, total)
            self._previous = self.dataset.predecessors(self._levels)
            self.dataset.plan(levels=self._levels)

    def on_epoch_begin(self, epoch, logs=None):
        if isinstance(self.dataset, CurriculumDataset):
            self._value = self._levels[epoch]
            self.dataset.begin_epoch(epoch, level=self._value, previous=self._previous[epoch])
            return
        if epoch >= self._move - 1:
            self.dataset.begin_epoch(epoch, everything=True)
        else:
            self.dataset.begin_epoch(epoch, losses=self._losses())
        self._value = float(np.mean(self.dataset.v > 0))

    def on_train_batch_begin(self, batch, logs=None):
        self.dataset.check_running()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["curriculum"] = self._value

    def on_train_end(self, logs=None):
        self.dataset.finish()
        if self._value is not None and self._value < 1:
            warnings.warn(
                f"This fit ended within the curriculum, at {self._value:g} of 1: the model never "
                "trained on everything. Train for more epochs, or give Curriculum fewer `epochs`.",
                stacklevel=2,
            )

    def _losses(self):
        # Between two steps SAM and its like hold a point that is not the one they stand on.
        found = trial_optimizers(self.model.optimizer)
        moved = [optimizer for optimizer in found if optimizer.hold_accepted()]
        try:
            return self.dataset.losses(self.model)
        finally:
            for optimizer in moved:
                optimizer.hold_trial()


def _pace(pacing):
    if isinstance(pacing, str):
        if pacing not in PACES:
            raise ValueError(
                f"`pacing` must be one of {', '.join(map(repr, PACES))}, a function or stages. "
                f"Received: {pacing!r}.{nearest(pacing, PACES)}"
            )
        return PACES[pacing]
    if callable(pacing):
        return pacing
    if isinstance(pacing, (list, tuple)):
        return stages(pacing)
    raise TypeError(
        "`pacing` must be a name, a function of progress or a list of pairs. Received: "
        f"{type(pacing).__name__}"
    )
