"""Fixup: deep residual networks that train without normalization, by the scale of their start.

How to use
    >>> import keras
    >>> from kerasrecipes.initializers import fixup
    >>> he = {"kernel_initializer": "he_normal"}
    >>> inputs = x = keras.Input((16,))
    >>> for _ in range(50):
    ...     branch = keras.layers.Dense(16, "relu", **he)(x)
    ...     x = keras.layers.Add()([x, keras.layers.Dense(16, **he)(branch)])
    >>> model = keras.Model(inputs, keras.layers.Dense(10)(x))
    >>> [round(row["scale"], 3) for row in fixup(model)[:4]]
    [0.141, 0.0, 0.141, 0.0]

Suggested hyperparameters
    `zero_head`: True, as in the paper; False where the head is no classifier. Start the kernels
    with "he_normal" before, which this scales. Take scalar biases, a factor for each branch,
    and strong regularization (the paper: mixup) for its final accuracy.

When not to use
    With normalization in the branches, which undoes every scale, or on trained weights. Where
    shortcuts are concatenated (DenseNet) instead of added.

Technical details
    A residual branch is what leads to an `Add` beside a shortcut that has fewer layers with
    kernels (none, or a projection). In each of the L branches of m such layers, all but the last
    are multiplied by L ** (-1 / (2 m - 2)), and kernel and bias of the last become 0, so that
    every block begins as its shortcut and one step changes the outputs by the order of the rate,
    however deep the network is. The head's kernel and bias become 0 too. The scalar biases and
    factors of the paper are layers of the model and cannot be added to one that is built.
    A `WeightNormalization` has its g scaled.

Attribution
    Zhang, Dauphin, Ma, Fixup Initialization, 2019, https://arxiv.org/abs/1901.09321
"""

import collections

import keras
import numpy as np
from keras import ops

from kerasrecipes._model.calls import sublayers
from kerasrecipes._model.graph import has_graph, read_graph
from kerasrecipes._model.kernels import SUPPORTED, inner_kernel_layer
from kerasrecipes._model.state import check_ready, restored

_NORMALIZERS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)


def branch_scale(branches, layers):
    """What all kernels of a residual branch but its last are multiplied with.

    Args:
        branches: number of residual branches of the network.
        layers: number of layers with kernels in this branch, at least 2.

    Returns:
        A Python float.
    """
    return branches ** (-1 / (2 * layers - 2))


def fixup(model, zero_head=True):
    """Scales the residual branches of a built, untrained model so that depth does not matter.

    Args:
        model: built `keras.Model` with a graph (Functional, or nested in one) that adds residual
            branches to shortcuts; its weights are changed.
        zero_head: whether the layer that computes the outputs begins at 0.

    Returns:
        A list of dicts, one a layer that was scaled, branch by branch: "layer" (its name),
        "branch" (the name of the `Add` it leads to, None for the head) and "scale".

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is unbuilt or has no residual branch, or if a branch has normalization,
            kernels of other layers than Dense, EinsumDense and convolutions (separable ones are
            not supported), or layers that are in another branch or called elsewhere too. The
            weights are then as before.

    Reference:
        Zhang, Dauphin, Ma, 2019, section 3, https://arxiv.org/abs/1901.09321
    """
    check_ready(model)
    graphs = [read_graph(one) for one in [model, *sublayers(model)] if _is_graph(one)]
    branches = [branch for graph in graphs for branch in _branches(graph)]
    if not branches:
        raise ValueError(
            f"`model` {model.name!r} has no residual branch: no keras.layers.Add in a Functional "
            "graph joins a branch of layers with kernels and a shortcut with fewer of them."
        )
    _check_apart(branches, [call.layer for graph in graphs for call in graph.calls])
    scales = []
    for add, layers in branches:
        inner = branch_scale(len(branches), len(layers)) if len(layers) > 1 else 0.0
        scales += [(one, add.name, inner) for one in layers[:-1]] + [(layers[-1], add.name, 0.0)]
    head = _head(model) if zero_head else None
    scales += [] if head is None else [(head, None, 0.0)]
    with restored(model, always=False):
        for layer, _, scale in scales:
            _multiply(layer, scale)
    return [{"layer": one.name, "branch": add, "scale": scale} for one, add, scale in scales]


def _is_graph(layer):
    return has_graph(layer) and not isinstance(layer, keras.Sequential)


def _ancestors(graph, tensor):
    """Indices of the calls that `tensor` depends on."""
    maker = {t: i for i, call in enumerate(graph.calls) for t in call.outputs}
    found, queue = set(), [tensor]
    while queue:
        index = maker.get(queue.pop())
        if index is not None and index not in found:
            found.add(index)
            queue += graph.calls[index].inputs
    return found


def _branches(graph):
    """Pairs of an Add and the kernel layers, in order, of each branch that it joins."""
    found = []
    for call in graph.calls:
        if type(call.layer).__name__ != "Add":  # the layer, or the operation behind `x + y`
            continue
        sides = [_ancestors(graph, tensor) for tensor in call.inputs]
        own = [
            [graph.calls[i].layer for i in sorted(side - set().union(*sides[:n], *sides[n + 1 :]))]
            for n, side in enumerate(sides)
        ]
        for layers in own:
            _check_known(call.layer, layers)
        kernels = [_kernel_layers(layers) for layers in own]
        shortcut = min(len(layers) for layers in kernels)
        for layers, held in zip(own, kernels, strict=True):
            if len(held) > shortcut:
                _check_not_normalized(call.layer, layers)
                found.append((call.layer, held))
    return found


def _within(layers):
    return [one for layer in layers for one in (layer, *sublayers(layer))]


def _kernel_layers(layers):
    """Those with kernels among `layers` and what is nested in them; wrappers, not the wrapped."""
    every = _within(layers)
    wrapped = {id(one.layer) for one in every if inner_kernel_layer(one) is not one}
    return [one for one in every if id(one) not in wrapped and _is_known(one)]


def _is_known(layer):
    return isinstance(layer, SUPPORTED) or inner_kernel_layer(layer) is not layer


def _check_known(add, layers):
    every = _within(layers)
    known = {id(w) for one in every if _is_known(one) for w in one.weights}
    for one in every:
        held = {id(w) for inner in sublayers(one) for w in inner.weights} | known
        if any("kernel" in w.name and id(w) not in held for w in one.weights):
            kinds = ", ".join(kind.__name__ for kind in SUPPORTED)
            raise ValueError(
                f"Layer {one.name!r} ({type(one).__name__}) of a branch that leads to "
                f"{add.name!r} has a kernel that fixup does not know. Supported are {kinds}, "
                "alone or within WeightNormalization."
            )


def _check_not_normalized(add, layers):
    for one in _within(layers):
        if isinstance(one, _NORMALIZERS):
            raise ValueError(
                f"The branch that leads to {add.name!r} is normalized by {one.name!r}, so its "
                "scale has no effect. Fixup takes the place of normalization: build the model "
                "without it."
            )


def _check_apart(branches, called):
    count = collections.Counter(map(id, called))
    # With a model that is called several times all layers inside are.
    again = {id(one) for one in _within([one for one in called if count[id(one)] > 1])}
    seen = set()
    for add, layers in branches:
        for one in layers:
            if id(one) in seen or id(one) in again:
                raise ValueError(
                    f"Layer {one.name!r} of the branch that leads to {add.name!r} is used "
                    "elsewhere too. Branches within branches, and layers that are called several "
                    "times, have no scale of their own."
                )
            seen.add(id(one))


def _head(model):
    """The layer with a kernel that computes the output; None where there is no such one."""
    graph = read_graph(model) if has_graph(model) else None
    if graph is None or len(graph.outputs) != 1:
        return None
    call = graph.head(graph.outputs[0])
    if call and isinstance(call.layer, keras.Model):
        return _head(call.layer)
    return call.layer if call and _kernel_layers([call.layer]) == [call.layer] else None


def _multiply(layer, scale):
    core = inner_kernel_layer(layer)
    weight = core.kernel if core is layer else layer.g
    weight.assign(ops.convert_to_numpy(weight) * np.float32(scale))
    if scale == 0 and core.bias is not None:
        core.bias.assign(np.zeros(core.bias.shape))
