"""Drawing single examples out of a source of batches, one batch in memory at a time."""

import keras
import numpy as np

_PATIENCE = 10_000


def is_stream(x):
    """Whether `x` yields batches: a PyDataset, tf.data or the like, and no nest of arrays."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    return hasattr(x, "__iter__") and not (
        hasattr(x, "__array__") or isinstance(x, (list, tuple, dict, str))
    )


class Stream:
    """Batches of a given size, of examples that are accepted by chance.

    Args:
        source: iterable of batches `(x,)`, `(x, y)` or `(x, y, sample_weight)`, each time anew.
        difficulty: function of `x` and `y` of one batch.
    """

    def __init__(self, source, difficulty):
        if not isinstance(source, keras.utils.PyDataset) and iter(source) is source:
            raise TypeError(
                "`x` is a generator, which can be read only once. Give a PyDataset, a "
                "tf.data.Dataset or an object whose `__iter__` starts again."
            )
        self.source, self.difficulty = source, difficulty
        self._batches = None
        self._left = []

    def begin(self):
        """Forgets what was accepted but not yet given out: it was accepted by older chances."""
        self._left = []

    def take(self, count, chance, rng):
        """A batch of `count` examples; `chance` maps difficulties to chances of acceptance."""
        parts, have = self._left, sum(len(keras.tree.flatten(p)[0]) for p in self._left)
        ends = refused = 0
        while have < count:
            self._batches = self._batches or iter(self.source)
            batch = next(self._batches, None)
            if batch is None:
                self._batches, ends = None, ends + 1
                if isinstance(self.source, keras.utils.PyDataset):
                    self.source.on_epoch_end()
            # The first end may come soon, the second only after a whole pass.
            if ends == 2 or refused == _PATIENCE:
                raise ValueError(
                    f"A whole pass over `x`, or {_PATIENCE} batches of it, gave no example that "
                    f"is in the pool, and a batch needs {count}: raise `start`, or check that "
                    "`difficulty` returns shares in [0, 1]."
                )
            if batch is None:
                continue
            part = self._accepted(batch, chance, rng)
            # The source's own batch must be gone before the next one is asked for.
            del batch
            if len(keras.tree.flatten(part)[0]):
                parts, have = [*parts, part], have + len(keras.tree.flatten(part)[0])
                ends = refused = 0
            else:
                refused += 1
        joined = keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *parts)
        rest = keras.tree.map_structure(lambda a: a[count:].copy(), joined)
        self._left = [rest] if have > count else []
        return keras.tree.map_structure(lambda a: a[:count], joined)

    def _accepted(self, batch, chance, rng):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        size = len(keras.tree.flatten(x)[0])
        difficulty = np.asarray(self.difficulty(x, y), "float64")
        if difficulty.shape != (size,) or not ((difficulty >= 0) & (difficulty <= 1)).all():
            raise ValueError(
                f"`difficulty` must return {size} shares in [0, 1], one an example: the share of "
                f"the data that is easier. Received shape {difficulty.shape}, values "
                f"{difficulty.ravel()[:3]}..."
            )
        kept = rng.uniform(size=size) < chance(difficulty)
        given = tuple(part for part in (x, y, weight) if part is not None)
        return keras.tree.map_structure(lambda leaf: np.asarray(leaf)[kept], given)
