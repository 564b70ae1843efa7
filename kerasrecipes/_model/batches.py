"""Arrays in and out of methods that look at data batch by batch."""

import keras
import numpy as np
from keras import ops


def as_arrays(name, data):
    """`data` (an array or a nest of arrays) as NumPy, floats in Keras's own precision."""

    def convert(value):
        value = np.asarray(value)
        if value.dtype == object or value.dtype.kind in "US":
            raise TypeError(f"`{name}` must hold numbers. Received an array of {value.dtype}")
        if value.ndim == 0:
            raise ValueError(f"`{name}` must have a first axis of examples. Received: {value}")
        if value.dtype.kind == "f":
            if not np.isfinite(value).all():
                raise ValueError(f"`{name}` has NaN or infinite values: clean them first.")
            value = value.astype(keras.config.floatx(), copy=False)
        return value

    return keras.tree.map_structure(convert, data)


def check_lengths(**named):
    """Returns the common number of examples; raises where lengths differ or are zero."""
    lengths = {
        name: {len(leaf) for leaf in keras.tree.flatten(data)}
        for name, data in named.items()
        if data is not None
    }
    every = set().union(*lengths.values())
    if len(every) != 1:
        shown = ", ".join(f"{name}: {sorted(n)}" for name, n in lengths.items())
        raise ValueError(f"All arrays must have the same number of examples. Received {shown}")
    (count,) = every
    if count == 0:
        raise ValueError(f"There must be at least one example. Received empty {list(named)}")
    return count


def slices(count, batch_size):
    """Slices of at most `batch_size` that cover `count` examples (all in one if None)."""
    size = batch_size or count
    return [slice(begin, min(begin + size, count)) for begin in range(0, count, size)]


def take(data, part):
    """The examples `part` (a slice or indices) of a nest of arrays; None stays None."""
    return None if data is None else keras.tree.map_structure(lambda a: a[part], data)


def same_rank(one, other):
    """Adds or takes a last axis of size 1, as Keras does around a loss given as a function."""
    if len(one.shape) < len(other.shape):
        return same_rank(other, one)[::-1]
    if len(one.shape) == len(other.shape) + 1 and one.shape[-1] == 1:
        if len(other.shape) == 1:
            return one, ops.expand_dims(other, -1)
        return ops.squeeze(one, -1), other
    return one, other


def as_tensors(data):
    """A nest of arrays as tensors of the backend; None stays None."""
    return None if data is None else keras.tree.map_structure(ops.convert_to_tensor, data)
