"""Batch normalization merged into the layers beside it: the same function with fewer layers.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.inference import fold_batch_normalization
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, use_bias=False, name="conv"),
    ...     keras.layers.BatchNormalization(name="norm"), keras.layers.ReLU(name="relu"),
    ...     keras.layers.BatchNormalization(name="last"),
    ... ])
    >>> folded, report = fold_batch_normalization(model, return_report=True)
    >>> [layer.name for layer in folded.layers]
    ['conv', 'relu', 'last']
    >>> print(report)
    1 of 2 batch normalizations folded.
    norm: into conv
    last: kept; before it, 'relu' (ReLU) is not linear or not known; after it, the model returns
    its output

Suggested hyperparameters
    `return_report`: True, to see what was left and why.

When not to use
    On a model that is to be trained on: fold a copy at the very end. Before the statistics are
    good: where training was short, call `reestimate_batch_normalization` first. For speed alone
    under JAX: see the last lines of the next part.

Technical details
    In inference y = s x + t with s = gamma / sqrt(variance + epsilon) and t = beta - mean * s. A
    linear layer before it, with nothing else reading its output, takes kernel * s and
    bias * s + t. Otherwise a linear layer after it takes its kernel times s on the side of its
    inputs, and what the kernel makes of t as bias; not with zero padding, whose zeros have not
    passed through the normalization, and not in a transposed convolution, whose edges see fewer
    taps. Linear layers are Dense, EinsumDense and convolutions: depthwise, separable, grouped
    and transposed ones too, also within WeightNormalization, which goes with it. On the way s
    and t pass through dropout, average pooling, maximum pooling where all s > 0, backward to the
    branches of Add and Average and the parts of Concatenate, and forward through Flatten and
    global average pooling.
    A layer called several times is folded if that is right for all its calls, a nested model
    inside itself. All is computed in float64, and the result differs by float32 rounding, about
    1e-6 of the scale of the outputs (in half precision by its rounding).

    The new model is uncompiled, has its own weights and, where no class of your own stands in
    it, needs no kerasrecipes to load. A Sequential stays one; everything else is a plain
    `keras.Model`. Where the last layer was folded away the output has the name of the layer
    before it. What is inside a layer or model with a `call` of its own stays.
    Regularizers see the merged kernels and activations: their losses are not those of before.
    Time of `predict_on_batch`, folded over unfolded, MobileNetV2 at batch 1 and 32, ResNet50 at
    1 and 32 (benchmarks/inference.py, medians of 5 rounds, CPU, Keras 3.15.1): TensorFlow 2.21.0
    0.52, 0.56, 0.89, 0.81; torch 2.13.0 0.81, 0.58, 0.94, 0.69; JAX 0.10.2 (9 rounds) 0.99, 0.98,
    1.03, 1.02, within its noise of 1: there XLA merges the two by itself.

Attribution
    Ioffe and Szegedy, 2015, Section 3.1, https://arxiv.org/abs/1502.03167
"""

import itertools
from typing import NamedTuple

import keras
import numpy as np

from kerasrecipes._model.calls import sublayers
from kerasrecipes._model.graph import (
    check_graph,
    copy_layer,
    copy_model,
    copy_state,
    has_graph,
    read_graph,
)
from kerasrecipes._model.kernels import einsum_parts
from kerasrecipes.inference._merging import (
    Affine,
    Kept,
    along,
    channel_axis,
    check_mergeable,
    core_of,
    inference_affine,
    is_linear,
    merge_after,
    merge_before,
    weights_of,
)
from kerasrecipes.layers import BatchRenormalization, MeanOnlyBatchNormalization

L = keras.layers
_NORMS = (L.BatchNormalization, BatchRenormalization, MeanOnlyBatchNormalization)
_IDLE = (
    *(L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.AlphaDropout),
    *(L.GaussianDropout, L.GaussianNoise, L.Identity),
)
_AVERAGES = (L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D)
_MAXIMA = (L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D)
_GLOBAL = (L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D)


class FoldReport(NamedTuple):
    """Names of normalizations: `folded` with the layers that took them, `kept` with the reason."""

    folded: dict
    kept: dict

    def __str__(self):
        total = len(self.folded) + len(self.kept)
        lines = [f"{len(self.folded)} of {total} batch normalizations folded."]
        lines += [f"{name}: into {', '.join(into)}" for name, into in self.folded.items()]
        lines += [f"{name}: kept; {reason}" for name, reason in self.kept.items()]
        return "\n".join(lines)


def fold_batch_normalization(model, return_report=False):
    """A new model of the same function, with batch normalization merged into linear layers.

    Args:
        model: built Sequential or Functional `keras.Model`; it is left unchanged.
        return_report: whether to return also what was folded, and what was kept and why.

    Returns:
        An uncompiled `keras.Model`, or `(model, report)`. The report has the dicts `folded`
        (name of the normalization: names of the layers that took it) and `kept` (name: reason),
        names within a nested model being "model/layer", the second of one name inside a layer
        "layer/norm (2)", and prints as text.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is unbuilt, has no batch normalization, is no graph of layers, or if a
            layer of it cannot be copied.

    Reference:
        Ioffe and Szegedy, 2015, Section 3.1, https://arxiv.org/abs/1502.03167
    """
    check_graph(model)
    if not any(map(_is_norm, sublayers(model))):
        raise ValueError(f"`model` {model.name!r} has no BatchNormalization to fold.")
    graphs, report = _graphs(model, "", False, {}), FoldReport({}, {})
    folding = _Folding([graph for graph, *_ in graphs])
    for graph, prefix, training in graphs:
        folding.fold(graph, prefix, training, report)
    folded = folding.rebuild(model)
    return (folded, report) if return_report else folded


def _is_norm(layer):
    return isinstance(layer, _NORMS)


def _through(call, affine, shapes):
    """What the inputs of a call must undergo so that its output undergoes `affine`."""
    layer, (scale, shift, axis) = call.layer, affine
    if _passes(call, affine, shapes):
        return [(call.inputs[0], affine)]
    alike = len({shapes[one] for one in (*call.inputs, *call.outputs)}) == 1
    if type(layer) in (L.Add, L.Average) and alike:
        # In equal parts, so that a layer shared by the branches serves all of them.
        parts = len(call.inputs) if type(layer) is L.Add else 1
        return [(one, Affine(scale, shift / parts, axis)) for one in call.inputs]
    if type(layer) is L.Concatenate:
        if layer.axis % len(shapes[call.inputs[0]]) != axis:
            return [(one, affine) for one in call.inputs]
        ends = np.cumsum([shapes[one][axis] for one in call.inputs])[:-1]
        parts = zip(np.split(scale, ends), np.split(shift, ends), strict=True)
        return [(one, Affine(*p, axis)) for one, p in zip(call.inputs, parts, strict=True)]
    raise Kept(f"{layer.name!r} ({type(layer).__name__}) is not linear or not known")


def _onward(call, affine, shapes):
    """What the output of a call undergoes if its input undergoes `affine`."""
    layer, (scale, shift, axis) = call.layer, affine
    shape, rank = shapes[call.inputs[0]], len(shapes[call.inputs[0]])
    if _passes(call, affine, shapes):
        return affine
    if type(layer) in _GLOBAL and channel_axis(layer, rank) == axis:
        return Affine(scale, shift, axis if layer.keepdims else 1)
    if type(layer) is L.Flatten and layer.data_format != "channels_first" and None not in shape[1:]:
        spread = [np.broadcast_to(along(range(1, rank), axis, v), shape[1:]) for v in affine[:2]]
        return Affine(*map(np.ravel, spread), 1)
    raise Kept(f"{layer.name!r} ({type(layer).__name__}) is not linear or not known")


def _passes(call, affine, shapes):
    """Whether in inference the layer changes place with any map of single channels."""
    layer = call.layer
    if type(layer) in _IDLE:
        return not call.training
    pools = type(layer) in _AVERAGES and layer.padding == "valid"
    pools |= type(layer) in _MAXIMA and bool((affine.scale > 0).all())
    linear = type(layer) is L.Activation and layer.activation is keras.activations.linear
    return linear or pools and channel_axis(layer, len(shapes[call.inputs[0]])) == affine.axis


def _graphs(model, prefix, training, seen):
    """[graph, prefix of names, whether it runs in training mode] of `model` and nested ones."""
    if id(model) not in seen:
        seen[id(model)] = [read_graph(model), prefix, training]
    seen[id(model)][2] |= training
    for call in seen[id(model)][0].calls:
        if has_graph(call.layer):
            mode = training or call.training
            _graphs(call.layer, f"{prefix}{call.layer.name}/", mode, seen)
    return list(seen.values())


class _Folding:
    """The changes to all graphs of one model, and the model made with them."""

    def __init__(self, graphs):
        self.graphs = graphs
        self.gone = set()
        self.changed = {}

    def fold(self, graph, prefix, training, report):
        """Folds what can be folded within one graph, first backward, then forward."""
        layers = list({id(call.layer): call.layer for call in graph.calls}.values())
        norms = [layer for layer in layers if _is_norm(layer)]
        reasons = {id(norm): [] for norm in norms}
        for step, order in ((self._backward, norms), (self._forward, norms[::-1])):
            for norm in order:
                try:
                    if id(norm) not in self.gone:
                        self._check(norm, graph, training)
                        report.folded[prefix + norm.name] = step(norm, graph)
                except Kept as reason:
                    reasons[id(norm)].append(str(reason))
        for norm in norms:
            if id(norm) not in self.gone:
                before, after = reasons[id(norm)]
                both = before if before == after else f"before it, {before}; after it, {after}"
                report.kept[prefix + norm.name] = both
        for layer in layers:
            hidden = isinstance(layer, L.Layer) and not has_graph(layer)
            for one in filter(_is_norm, sublayers(layer) if hidden else []):
                name, kind = f"{prefix}{layer.name}/{one.name}", type(layer).__name__
                # Layers inside different sublayers may have the same name.
                numbered = itertools.chain([name], (f"{name} ({i})" for i in itertools.count(2)))
                name = next(free for free in numbered if free not in report.kept)
                report.kept[name] = f"{layer.name!r} ({kind}) is no graph of layers"

    def _check(self, norm, graph, training):
        if type(norm) not in _NORMS:
            raise Kept(f"{type(norm).__name__} has a `call` of its own")
        if training or any(call.training for call in graph.of(norm)):
            raise Kept("it is called with training=True and uses the statistics of the batch")
        if not all(np.isfinite(v).all() for v in inference_affine(norm, 1)[:2]):
            raise Kept("its statistics are not finite")
        self._check_single(norm, graph)

    def _check_single(self, layer, graph):
        if any(other.of(layer) for other in self.graphs if other is not graph):
            raise Kept(f"{layer.name!r} is part of several models")

    def _backward(self, norm, graph):
        """Merges `norm` into what comes before it; returns the names of the layers it is in."""
        rank, asked = len(graph.shapes[graph.of(norm)[0].inputs[0]]), {}
        inside = graph.of(norm)
        queue = [(call.inputs[0], inference_affine(norm, rank)) for call in inside]
        while queue:
            tensor, affine = queue.pop()
            tensor = self._source(tensor, graph)
            made = next((call for call in graph.calls if tensor in call.outputs), None)
            if made is None:
                raise Kept("the model receives its input")
            if not asked.setdefault(tensor, (affine, made))[0].same(affine):
                raise Kept(f"the output of {made.layer.name!r} would have to change in two ways")
            if not is_linear(made.layer) and made not in inside:
                inside = [*inside, made]
                queue += _through(made, affine, graph.shapes)
        for tensor, (_, made) in asked.items():
            if others := [c for c in self._readers(tensor, graph) if c not in inside]:
                raise Kept(f"{others[0].layer.name!r} also reads the output of {made.layer.name!r}")
            if tensor in self._returned(graph):
                raise Kept(f"the model also returns the output of {made.layer.name!r}")
        ranked = [(affine, made, graph.shapes[made.outputs[0]]) for affine, made in asked.values()]
        return self._merge(norm, graph, ranked, merge_after)

    def _forward(self, norm, graph):
        """Merges `norm` into what comes after it."""
        rank, asked = len(graph.shapes[graph.of(norm)[0].inputs[0]]), []
        queue = [(call.outputs[0], inference_affine(norm, rank)) for call in graph.of(norm)]
        while queue:
            tensor, affine = queue.pop()
            if tensor in self._returned(graph):
                raise Kept("the model returns its output")
            for call in self._readers(tensor, graph):
                if is_linear(call.layer):
                    asked.append((affine, call, graph.shapes[call.inputs[0]]))
                else:
                    queue.append((call.outputs[0], _onward(call, affine, graph.shapes)))
        return self._merge(norm, graph, asked, merge_before)

    def _source(self, tensor, graph):
        """`tensor`, or what it has become where normalizations are gone."""
        for call in graph.calls:
            if tensor in call.outputs and id(call.layer) in self.gone:
                return self._source(call.inputs[0], graph)
        return tensor

    def _readers(self, tensor, graph):
        found = []
        for call in graph.readers(tensor):
            gone = id(call.layer) in self.gone
            found += self._readers(call.outputs[0], graph) if gone else [call]
        return found

    def _returned(self, graph):
        return [self._source(tensor, graph) for tensor in graph.outputs]

    def _merge(self, norm, graph, asked, merge):
        """Changes the weights of all linear layers in `asked`, or raises and changes none."""
        changed, by_layer = {}, {}
        for affine, call, shape in asked:
            if is_linear(call.layer):
                by_layer.setdefault(id(call.layer), []).append((affine, call, shape))
        for key, asks in by_layer.items():
            affine, call, shape = asks[0]
            check_mergeable(call.layer, norm)
            self._check_single(call.layer, graph)
            if len(asks) < len(graph.of(call.layer)) or not all(affine.same(a) for a, *_ in asks):
                raise Kept(f"{call.layer.name!r} is called elsewhere too")
            changed[key] = dict(self.changed.get(key) or weights_of(call.layer))
            if "bias_axes" in changed[key]:
                changed[key]["bias_axes"] = set(changed[key]["bias_axes"])
            merge(core_of(call.layer), changed[key], affine, len(shape))
        self.changed |= changed
        self.gone.add(id(norm))
        return [asks[0][1].layer.name for asks in by_layer.values()]

    def rebuild(self, model):
        """The new model, with its weights."""
        return copy_model(model, self._copy, self.gone, self._fill)

    def _copy(self, layer):
        if id(layer) not in self.changed:
            return copy_layer(layer)
        config = {**core_of(layer).get_config(), "name": layer.name, "use_bias": True}
        if "bias_axes" in self.changed[id(layer)]:
            del config["use_bias"]
            given = self.changed[id(layer)]["bias_axes"]
            config["bias_axes"] = "".join(c for c in einsum_parts(layer)[2] if c in given)
        return copy_layer(core_of(layer), config)

    def _fill(self, old, new):
        if id(old) not in self.changed:
            copy_state(old, new)
            return
        weights = {k: v for k, v in self.changed[id(old)].items() if k != "bias_axes"}
        for name, value in weights.items():
            shape = tuple(getattr(new, name).shape)
            # An EinsumDense's bias has no leading axes of 1; one of 0 may still be a scalar.
            value = value.reshape(shape) if value.size == np.prod(shape) else value
            getattr(new, name).assign(np.broadcast_to(value, shape))
