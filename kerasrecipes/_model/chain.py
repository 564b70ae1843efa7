"""Chains of layers that scale with their inputs: what a network of ReLU units is made of."""

import keras
from keras import ops

from kerasrecipes._model.graph import has_graph, read_graph

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_POOLS = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
)
_MEANS = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)
_HOMOGENEOUS = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)


def chain(model):
    """The links of a chain of Dense, convolutions and average pooling, as plain data.

    Args:
        model: built `keras.Sequential` or functional model. Between the layers with weights only
            activations for which f(c z) = c f(z), c > 0, dropout, flattening and reshaping are
            allowed; after the last of them any activation.

    Returns:
        A list of dictionaries: the input's shape without the batch, then one for each link, in
        order. Those with a "kernel" (its shape) hold the trainable variables in their order.

    Raises:
        ValueError: if a layer does not belong into such a chain; it is named.
    """
    layers = _in_line(model)
    weighted = [i for i, layer in enumerate(layers) if isinstance(layer, _with_kernel())]
    if not weighted:
        raise ValueError(f"`model` {model.name!r} has no Dense or convolution layer.")
    links = [_start(model)]
    for i, layer in enumerate(layers):
        if i > weighted[-1] and isinstance(layer, _activations()):
            continue
        link = _link(layer)
        if i < weighted[-1] and not _is_homogeneous(layer):
            _refuse(layer, "its activation is none of linear, relu, leaky_relu")
        if "kernel" in link and (
            len(layer.trainable_variables) != 1 + link["bias"]
            or len(layer.weights) != 1 + link["bias"]
        ):
            _refuse(layer, "its weights are frozen or not kernel and bias alone")
        links.append({"name": layer.name, **link})
    return links


def run(links, weights, batch=1):
    """What the chain makes of ones, with given kernels and biases and without activations.

    Args:
        links: what `chain` returns.
        weights: list of tensors in the order of the model's trainable variables.

    Returns:
        Tensor of shape `(batch, ...)`.
    """
    weights = iter(weights)
    h = ops.ones((batch, *links[0]["shape"]), dtype="float32")
    for link in links[1:]:
        if link["kind"] == "dense":
            h = ops.matmul(h, next(weights))
        elif link["kind"] == "conv":
            sizes = tuple(link["strides"]), link["padding"]
            h = ops.conv(h, next(weights), *sizes, dilation_rate=tuple(link["dilation"]))
        elif link["kind"] == "pool":
            h = ops.average_pool(h, tuple(link["size"]), tuple(link["strides"]), link["padding"])
        elif link["kind"] == "mean":
            h = ops.mean(h, axis=list(range(1, len(h.shape) - 1)), keepdims=link["keepdims"])
        elif link["kind"] == "reshape":
            h = ops.reshape(h, (batch, *link["shape"]))
        if link.get("bias"):
            h = h + next(weights)
    return h


def _in_line(model):
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError("`model` must be a built keras.Model: call `model.build(shape)` first.")
    if isinstance(model, keras.Sequential):
        return [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    if not has_graph(model) or len(model.inputs) != 1:
        _refuse(model, "the model is not one chain of layers")
    graph = read_graph(model)
    reached = graph.calls[0].inputs if graph.calls else []
    for call in graph.calls:
        if graph.of(call.layer) != [call]:
            _refuse(call.layer, "it is called several times")
        if call.inputs != reached or len(reached) != 1:
            _refuse(call.layer, "the model is not one chain of layers")
        reached = call.outputs
    return [call.layer for call in graph.calls]


def _start(model):
    shape = model.input_shape
    if not isinstance(shape, tuple) or None in shape[1:]:
        raise ValueError(f"`model` must have one input of fixed size. Its input shape is {shape}")
    return {"shape": list(shape[1:])}


def _with_kernel():
    return (keras.layers.Dense, *_CONVOLUTIONS)


def _activations():
    return (
        keras.layers.Activation,
        keras.layers.ReLU,
        keras.layers.LeakyReLU,
        keras.layers.Softmax,
    )


def _is_homogeneous(layer):
    if isinstance(layer, keras.layers.ReLU):
        return layer.max_value is None and layer.threshold == 0
    return getattr(layer, "activation", keras.activations.linear) in _HOMOGENEOUS and not (
        isinstance(layer, keras.layers.Softmax)
    )


def _link(layer):
    if getattr(layer, "data_format", None) == "channels_first":
        _refuse(layer, "it has its channels first")
    if isinstance(layer, keras.layers.Dense):
        return {"kind": "dense", **_weights(layer)}
    if isinstance(layer, _CONVOLUTIONS):
        if layer.padding == "causal":
            _refuse(layer, "it has causal padding")
        sizes = {"strides": list(layer.strides), "dilation": list(layer.dilation_rate)}
        return {"kind": "conv", "padding": layer.padding, **sizes, **_weights(layer)}
    if isinstance(layer, _POOLS):
        sizes = {"size": list(layer.pool_size), "strides": list(layer.strides)}
        return {"kind": "pool", "padding": layer.padding, **sizes}
    if isinstance(layer, _MEANS):
        return {"kind": "mean", "keepdims": layer.keepdims}
    if isinstance(layer, (keras.layers.Flatten, keras.layers.Reshape)):
        shape = [int(size) for size in layer.output.shape[1:]]
        return {"kind": "reshape", "shape": shape, "flat": isinstance(layer, keras.layers.Flatten)}
    if isinstance(layer, (keras.layers.Dropout, *_activations())):
        return {"kind": "same"}
    return _refuse(layer, f"it is a {type(layer).__name__}")


def _weights(layer):
    return {"kernel": list(layer.kernel.shape), "bias": bool(layer.use_bias)}


def _refuse(layer, reason):
    raise ValueError(
        f"Layer {layer.name!r}: {reason}. Only a chain of trainable Dense, convolution, average "
        "pooling, Flatten, Reshape, Dropout and ReLU layers is allowed, without normalization."
    )
