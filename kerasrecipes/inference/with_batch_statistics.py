"""Batch normalization that keeps, in use, its behaviour in training: statistics of the batch.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.inference import with_batch_statistics
    >>> norm = keras.layers.BatchNormalization(epsilon=0.0)
    >>> model = keras.Sequential([keras.Input((1,)), norm])
    >>> x = np.array([[1.0], [3.0]])
    >>> model.predict(x, verbose=0).round(3).tolist()
    [[1.0], [3.0]]
    >>> with_batch_statistics(model).predict(x, verbose=0).tolist()
    [[-1.0], [1.0]]

Suggested hyperparameters
    None of its own. `model`: predict with batches as large, and as mixed, as those of training
    (predict takes 32 examples at a time unless told otherwise).

When not to use
    Where one example is predicted at a time: its statistics are its own (a Dense layer's are
    then 0, and all outputs alike). Where an answer must not depend on what else is in the batch.
    To mend moving averages that lag behind: `reestimate_batch_normalization` does that and
    predictions stay those of single examples. `callbacks.FreezeBatchStatistics` takes the other
    way, training in the behaviour of use.

Technical details
    In inference each BatchNormalization of the new model takes mean and biased variance over all
    axes but its own, of the batch that it is given (of the unmasked steps under a mask), and
    moves no average. All other layers are as in inference: dropout is off. In training it is
    the layer it was. The last batch of `predict` may be short: drop or fill it if that matters.
    Layers that renormalize (`renorm=True`, `layers.BatchRenormalization`) are left as they are:
    in use they do what they trained on. So is `layers.MeanOnlyBatchNormalization`.

    The new model is uncompiled and has copies of the weights, as `keras.models.clone_model` with
    `set_weights` gives them: what is done to one model does not change the other. A saved file
    of it needs `import kerasrecipes` to load.

Attribution
    The layer: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167. One of two remedies for
    batch norm's mismatch of training and test that the lectures name.
"""

import keras
from keras import ops

from kerasrecipes._model.calls import sublayers
from kerasrecipes._model.graph import check_graph, copy_layer, copy_model


def normalize_by_batch(x, gamma, beta, axis, epsilon, mask=None):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta with the statistics of `x` itself.

    Args:
        x: floating-point tensor.
        gamma, beta: tensors of one value a channel, or None.
        axis: the axis of the channels.
        epsilon: added to the variance.
        mask: optional tensor of the shape of `x` without its last axis, True where it counts.

    Returns:
        A tensor of the shape of `x`.
    """
    axes = [i for i in range(len(x.shape)) if i != axis % len(x.shape)]
    counts = ops.ones_like(x)
    if mask is not None:
        counts = counts * ops.cast(ops.expand_dims(mask, -1), x.dtype)
    total = ops.maximum(ops.sum(counts, axis=axes, keepdims=True), 1.0)
    mean = ops.sum(ops.where(counts > 0, x, 0.0), axis=axes, keepdims=True) / total
    squares = ops.where(counts > 0, ops.square(x - mean), 0.0)
    variance = ops.sum(squares, axis=axes, keepdims=True) / total
    return ops.batch_normalization(
        x,
        mean=ops.reshape(mean, (-1,)),
        variance=ops.reshape(variance, (-1,)),
        axis=axis,
        offset=beta,
        scale=gamma,
        epsilon=epsilon,
    )


@keras.saving.register_keras_serializable("kerasrecipes")
class BatchStatistics(keras.layers.BatchNormalization):
    """The layer that `with_batch_statistics` puts in the place of each BatchNormalization."""

    def call(self, inputs, training=None, mask=None):
        if training:
            return super().call(inputs, training=training, mask=mask)
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        parameters = (None if v is None else ops.cast(v, x.dtype) for v in (self.gamma, self.beta))
        outputs = normalize_by_batch(x, *parameters, self.axis, self.epsilon, mask)
        return ops.cast(outputs, self.compute_dtype)


def with_batch_statistics(model):
    """A copy of `model` that in inference normalizes by the statistics of the batch.

    Args:
        model: built Sequential or Functional `keras.Model`; it is left unchanged.

    Returns:
        An uncompiled `keras.Model` with weights of its own.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is unbuilt, has no BatchNormalization, is no graph of layers, hides one
            inside a layer that is none, or if a layer of it cannot be copied.

    Reference:
        Ioffe and Szegedy, 2015, Algorithm 1, https://arxiv.org/abs/1502.03167
    """
    check_graph(model)
    norms = [one for one in sublayers(model) if _is_plain(one)]
    if not norms:
        raise ValueError(
            f"`model` {model.name!r} has no BatchNormalization (other than renormalizing ones)."
        )

    def copy(layer):
        if _is_plain(layer):
            return BatchStatistics.from_config(layer.get_config())
        hidden = [one.name for one in sublayers(layer) if _is_plain(one)]
        if isinstance(layer, keras.layers.Layer) and hidden:
            raise ValueError(
                f"{hidden[0]!r} is inside {layer.name!r} ({type(layer).__name__}), which is no "
                "graph of layers, so its copy cannot be changed."
            )
        return copy_layer(layer)

    return copy_model(model, copy)


def _is_plain(layer):
    kind = type(layer) in (keras.layers.BatchNormalization, BatchStatistics)
    return kind and not layer.renorm
