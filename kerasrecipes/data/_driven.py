"""Data sets of a fixed number of batches whose content a callback sets at each epoch's begin."""

import keras
import numpy as np

from kerasrecipes._checks import integer
from kerasrecipes._model.batches import as_arrays, check_lengths, take


def systematic(weights, count, rng):
    """`count` indices in random order, each as often as its weight asks, give or take one.

    Args:
        weights: array of shape `(n,)`, not negative, not all zero.
        count: number of indices.
        rng: a `numpy.random.Generator`.

    Returns:
        int array of shape `(count,)`; index i stands in it floor or ceil of
        `count * weights[i] / sum(weights)` times.
    """
    order = rng.permutation(np.flatnonzero(weights))
    ends = np.cumsum(weights[order])
    points = (np.arange(count) + rng.uniform()) * (ends[-1] / count)
    # Rounding can put the last point on the last end.
    found = np.minimum(np.searchsorted(ends, points, side="right"), len(order) - 1)
    return rng.permutation(order[found])


def check_classes(classes, count):
    """`classes` as an array of one label an example, or None; raises where it is no such thing."""
    if classes is None:
        return None
    classes = np.asarray(classes)
    if classes.ndim != 1:
        raise ValueError(
            f"`classes` must be one label an example. Received shape {classes.shape}: for one-hot "
            "targets give `y.argmax(-1)`."
        )
    if len(classes) != count:
        raise ValueError(
            "`classes` and the data must have the same number of examples. Received "
            f"{len(classes)} labels for {count} examples."
        )
    # Only NaN differs from itself.
    if (classes != classes).any():
        raise ValueError("`classes` has NaN: give each example a label.")
    return classes


class Driven(keras.utils.PyDataset):
    """Arrays of which each epoch draws by weight: what the data sets of this room share.

    A subclass says with which weights (`_weights`) and may change the batch (`_weight_of`).
    """

    def __init__(self, x, y, sample_weight, batch_size, steps_per_epoch, seed):
        super().__init__()
        self.batch_size = integer("batch_size", batch_size, 1)
        self.x = as_arrays("x", x)
        self.y = None if y is None else as_arrays("y", y)
        self.sample_weight = (
            None if sample_weight is None else as_arrays("sample_weight", sample_weight)
        )
        self.count = check_lengths(x=self.x, y=self.y, sample_weight=self.sample_weight)
        if steps_per_epoch is None:
            steps_per_epoch = -(-self.count // self.batch_size)
        self._start_driving(steps_per_epoch, seed)

    def _start_driving(self, steps_per_epoch, seed):
        self.steps_per_epoch = integer("steps_per_epoch", steps_per_epoch, 1)
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        self.seed = integer("seed", seed, 0)
        self.epoch = 0
        self._order = None
        # "new" (a loop of Keras begins), "peeked" (it builds the model), "ready", "moved",
        # "running" and "over".
        self._state = "new"
        self._plan, self._planned = {}, False

    @property
    def workers(self):
        # Keras asks once as each fit, evaluate or predict begins, and in no other place.
        self._state, self._plan = "new", {}
        # Keras's queue of workers carries batches over from one epoch into the next.
        return 1

    def __len__(self):
        return self.steps_per_epoch

    def begin_epoch(self, epoch, batch_size=None):
        """Moves to an epoch: from now on batches are those of this epoch.

        Args:
            epoch: index of the epoch.
            batch_size: examples a batch from now on; None leaves it.

        Raises:
            ValueError: if fewer examples than a batch can be drawn.
        """
        self.epoch = integer("epoch", epoch, 0)
        if batch_size is not None:
            self.batch_size = integer("batch_size", batch_size, 1)
        self._order, self._state = None, "moved"
        # Where two callbacks move it one after the other, only the plan knows both.
        if not self._planned:
            self.check_batch_size(self.batch_size)

    def plan(self, **parts):
        """Takes down what a callback will do: its `levels`, its `sizes`, one an epoch."""
        self._plan |= parts
        self._planned = False

    def check_batch_size(self, batch_size):
        """Raises a ValueError if there are fewer examples to draw from than `batch_size`."""
        pool = int(np.count_nonzero(self._weights()))
        if pool < batch_size:
            raise ValueError(
                f"The pool of epoch {self.epoch} is smaller than a batch: {pool} of {self.count} "
                f"examples, batch_size={batch_size}. Raise `start` or lower `batch_size`."
            )

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"There are {len(self)} batches an epoch. Received: {index}")
        if self._order is None:
            rng = np.random.default_rng([self.seed, self.epoch])
            self._order = systematic(self._weights(), len(self) * self.batch_size, rng)
        part = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        batch = take(self.x, part), take(self.y, part), self._weight_of(part)
        return batch if batch[2] is not None else batch[: 1 if self.y is None else 2]

    def _weight_of(self, part):
        return take(self.sample_weight, part)

    def check_steps(self, steps):
        """Raises a ValueError before training if `fit` takes another number of steps an epoch."""
        if steps != len(self):
            raise ValueError(
                f"This fit takes {steps} steps an epoch, the {type(self).__name__} of the "
                f"callback has {len(self)}. Call `fit(dataset)` with this very data set, and "
                "without `steps_per_epoch`."
            )

    def check_running(self):
        """Raises a ValueError before a step on other data."""
        if self._state != "running":
            raise ValueError(
                f"This fit runs other data than the {type(self).__name__} of the callback: call "
                "`fit(dataset, callbacks=[...])` with this very data set."
            )

    def finish(self):
        """Makes ready for another `fit`."""
        self._plan, self._planned = {}, False

    def on_epoch_begin(self):
        if self._state == "over":
            raise RuntimeError(
                f"Nothing moved this {type(self).__name__} to its next epoch. Give its callback "
                "to fit, such as `callbacks=[Curriculum(dataset)]`, or call "
                "`dataset.begin_epoch` before each fit of one epoch."
            )
        # Keras says that an epoch ended before the first; only a look at a batch comes earlier.
        self._state = "peeked" if self._state == "new" else "running"

    def on_epoch_end(self):
        self._state = {"running": "over", "moved": "moved"}.get(self._state, "ready")
