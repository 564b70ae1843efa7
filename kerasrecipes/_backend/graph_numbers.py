"""What JAX and TensorFlow share: numbers are scalar tensors, since a graph is made once."""

import math
import types

from keras import ops

number = types.SimpleNamespace(
    where=ops.where,
    clip=ops.clip,
    isfinite=ops.isfinite,
    isinf=ops.isinf,
    sqrt=ops.sqrt,
    integer=lambda value: ops.cast(value, "int32"),
)


def numbers(tensor):
    """What a tensor holds: a number for a scalar, a list of numbers for a vector."""
    return ops.unstack(tensor) if len(tensor.shape) else tensor


def packed(values, like):
    """Numbers as a tensor of the shape and dtype of `like`."""
    if not len(like.shape):
        return ops.cast(values, like.dtype)
    return ops.stack([ops.cast(value, like.dtype) for value in values])


def dot(a, b):
    """The product of two vectors, a number."""
    return ops.sum(a * b)


def square(vector):
    """The product of a vector with itself, a number."""
    return dot(vector, vector)


def unit(index, like):
    """The unit vector of the shape and dtype of `like` in the direction `index`."""
    return ops.cast(ops.arange(like.shape[0], dtype="int32") == index, like.dtype)


def largest(vector):
    """The largest absolute entry, a number."""
    return ops.max(ops.abs(vector))


cond = ops.cond


def parts(vector, shapes):
    """The tensors of these shapes that `flat` has laid into a vector."""
    found, begin = [], 0
    for shape in shapes:
        size = math.prod(shape)
        found.append(ops.reshape(vector[begin : begin + size], shape))
        begin += size
    return found
