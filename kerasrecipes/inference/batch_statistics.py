"""Batch normalization's statistics, measured anew over a data set.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.inference import reestimate_batch_normalization
    >>> norm = keras.layers.BatchNormalization()
    >>> model = keras.Sequential([keras.Input((2,)), norm])
    >>> reestimate_batch_normalization(model, np.array([[0.0, 1.0], [2.0, 5.0]]))
    >>> norm.moving_mean.numpy().tolist(), norm.moving_variance.numpy().tolist()
    ([1.0, 3.0], [1.0, 4.0])

Suggested hyperparameters
    `x`: some thousand training examples, without augmentation. `batch_size`: what fits into
    memory; the result does not depend on it.

When not to use
    With a long training run at a small rate, where the moving averages are as good. With very
    deep networks and much data: there is one pass over the data per normalization layer.

Technical details
    Layers are taken in the order in which the model calls them; each gets mean and (biased, as
    Keras keeps it) variance of its inputs over all examples while the layers below, already
    measured, run in inference mode. So the result is what the network meets in use: it does not
    depend on how the examples fall into batches, also when the last batch is short, unlike an
    average over batches in training mode. Means and variances are merged in float64. Positions
    under a mask are left out; a layer called several times pools its calls.

Attribution
    Ioffe and Szegedy, 2015, Algorithm 2, https://arxiv.org/abs/1502.03167; merging of variances:
    Chan, Golub, LeVeque, 1979.
"""

import functools

import keras
import numpy as np
from keras import ops

from kerasrecipes._checks import integer
from kerasrecipes._model.batches import as_arrays, as_tensors, check_lengths, slices, take
from kerasrecipes._model.calls import sublayers, watched
from kerasrecipes._model.state import check_ready, restored


def reestimate_batch_normalization(model, x, batch_size=256):
    """Replaces the moving statistics of every BatchNormalization by the population's.

    Args:
        model: built `keras.Model` with at least one `BatchNormalization`; changed in place.
        x: inputs, an array or a nest of arrays of shape `(examples, ...)`.
        batch_size: examples per forward pass.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is unbuilt or has no batch normalization, if `x` is empty, has NaN, one
            example or none that differ, or if a layer sees fewer than two values of a channel,
            or one that is not finite. The statistics are then as before.

    Reference:
        Ioffe and Szegedy, 2015, Algorithm 2, https://arxiv.org/abs/1502.03167
    """
    check_ready(model)
    integer("batch_size", batch_size, 1)
    x = as_arrays("x", x)
    count = check_lengths(x=x)
    if all((leaf == leaf[:1]).all() for leaf in keras.tree.flatten(x)):
        raise ValueError(
            f"`x` must have examples that differ, for statistics over them. Received: {count} "
            "example(s), all alike"
        )
    layers = [one for one in sublayers(model) if is_batch_normalization(one)]
    if not layers:
        raise ValueError(f"`model` {model.name!r} has no BatchNormalization to re-estimate.")
    order = {}
    with watched(layers, lambda layer, *_: order.setdefault(id(layer), layer)):
        model(as_tensors(take(x, slice(0, 1))), training=False)
    with restored(model, always=False):
        for layer in order.values():
            _measure(layer, model, x, slices(count, batch_size))


def is_batch_normalization(layer):
    """Whether `layer` keeps moving statistics as Keras's BatchNormalization does."""
    return isinstance(layer, keras.layers.BatchNormalization)


def merge_moments(first, second):
    """The (count, mean, variance) of two groups of examples together; counts may be arrays."""
    (n, mean, variance), (m, other_mean, other_variance) = first, second
    total, shift = n + m, other_mean - mean
    parts = np.maximum(total, 1)
    merged = (n * variance + m * other_variance) / parts + n * m * (shift / parts) ** 2
    return total, mean + shift * m / parts, merged


def _measure(layer, model, x, parts):
    moments = []

    def add(_, inputs, mask):
        values = np.asarray(ops.convert_to_numpy(inputs), "float64")
        seen = True if mask is None else np.asarray(ops.convert_to_numpy(mask), bool)[..., None]
        # Where the axis is that of time, its channels are masked unequally often.
        seen = np.moveaxis(np.broadcast_to(seen, values.shape), layer.axis, -1)
        values = np.moveaxis(values, layer.axis, -1)
        seen, values = (a.reshape(-1, a.shape[-1]) for a in (seen, values))
        count = seen.sum(axis=0)
        divisor = np.maximum(count, 1)
        mean = values.sum(axis=0, where=seen) / divisor
        squares = np.square(values - mean).sum(axis=0, where=seen)
        moments.append((count, mean, squares / divisor))

    with watched([layer], add):
        for part in parts:
            model(as_tensors(take(x, part)), training=False)
    total, mean, variance = functools.reduce(merge_moments, moments)
    if total.min() < 2 or not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise ValueError(
            f"Layer {layer.name!r} has no statistics: it saw {total.min()} value(s) of a channel, "
            "and needs two, all finite. Give more, or other, examples."
        )
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
