"""The graph of layers of a Sequential or Functional model: reading it, and building it anew."""

import os
import tempfile
from typing import Any, NamedTuple

import keras

from kerasrecipes._model.calls import sublayers
from kerasrecipes._model.state import check_ready


class Call(NamedTuple):
    """One call of a layer, or of a single operation, in a graph; tensors are integers."""

    layer: Any
    inputs: list
    outputs: list
    training: bool


class Graph(NamedTuple):
    """All calls in order, the shapes of tensors, and the tensors that the model returns."""

    calls: list
    shapes: dict
    outputs: list

    def of(self, layer):
        return [call for call in self.calls if call.layer is layer]

    def readers(self, tensor):
        return [call for call in self.calls if tensor in call.inputs]

    def head(self, tensor):
        """The call that `tensor` comes from, past layers of one input without weights, or None."""
        call = next((call for call in self.calls if tensor in call.outputs), None)
        if call and len(call.inputs) == 1 and not getattr(call.layer, "weights", None):
            return self.head(call.inputs[0])
        return call


def has_graph(model):
    """Whether calling `model` runs a graph of layers, and no method of a class of its own."""
    if isinstance(model, keras.Sequential):
        return type(model).call is keras.Sequential.call and bool(getattr(model, "inputs", None))
    call = getattr(type(model), "call", None)
    return isinstance(model, keras.Model) and getattr(call, "__qualname__", "") == "Functional.call"


def check_graph(model):
    """Raises unless `model` is a built Keras model that has a graph."""
    check_ready(model)
    if not has_graph(model):
        raise ValueError(
            f"{type(model).__name__} has a `call` of its own, so the graph of its layers is not "
            "known. Give a Sequential or Functional model, such as a part of this one."
        )


class _StandIn(keras.Operation):
    """Takes a layer's place in a graph, so that the layer does not see the call."""

    def __init__(self, layer):
        super().__init__(name=layer.name)
        self.layer = layer

    def compute_output_spec(self, *args, **kwargs):
        return self.layer.compute_output_spec(*args, **kwargs)


def read_graph(model):
    """The `Graph` of a model that has one; calls inside nested models are not part of it."""
    calls, shapes, names = [], {}, {}

    def number(tensors):
        flat = [t for t in keras.tree.flatten(tensors) if isinstance(t, keras.KerasTensor)]
        for one in flat:
            # The tensor is kept, so that no other gets its id.
            names.setdefault(id(one), (len(names), one))
            shapes[names[id(one)][0]] = tuple(one.shape)
        return [names[id(one)][0] for one in flat]

    def record(stand_in, *args, **kwargs):
        outputs = stand_in(*args, **kwargs)
        training = bool(kwargs.get("training")) or any(a is True for a in args[1:])
        calls.append(Call(stand_in.layer, number((args, kwargs)), number(outputs), training))
        return outputs

    copy = _built_on_new_inputs(model, _StandIn, record)
    return Graph(calls, shapes, number(copy.outputs))


def copy_model(model, copy, skip=(), fill=None):
    """A new, uncompiled model on the graph of `model` and of those nested in it, with weights.

    Args:
        model: a model that has a graph.
        copy: function that gives the new layer for a layer (or operation) of the old model. A
            layer that is called several times is copied once.
        skip: ids of layers that are left out: what they receive is passed on.
        fill: function of an old and a new layer that gives the new one its weights.
    """
    copies, kept = {}, {}

    def once(layer):
        if id(layer) not in copies:
            nested = has_graph(layer)
            copies[id(layer)] = _rebuild(layer, once, skip) if nested else copy(layer)
            if isinstance(layer, keras.layers.Layer) and not nested:
                kept[id(layer)] = layer
        return copies[id(layer)]

    new = _rebuild(model, once, skip)
    for key, layer in kept.items():
        (fill or copy_state)(layer, copies[key])
    return new


def _rebuild(model, copy, skip):
    if isinstance(model, keras.Sequential):
        kept = [copy(layer) for layer in model.layers if id(layer) not in skip]
        return keras.Sequential([_new_input(model, model.inputs[0]), *kept], name=model.name)

    def call(layer, *args, **kwargs):
        return args[0] if id(layer) in skip else layer(*args, **kwargs)

    return _built_on_new_inputs(model, lambda one: one if id(one) in skip else copy(one), call)


def copy_layer(layer, config=None):
    """A layer of the same class and configuration (or `config`), without its weights."""
    config = layer.get_config() if config is None else config
    if isinstance(layer, keras.layers.Lambda):
        # A function that already runs in this process need not pass through its bytes.
        config |= {"function": layer.function, "mask": layer.mask, "arguments": layer.arguments}
        config["output_shape"] = layer.compute_output_shape if "output_shape" in config else None
        return type(layer)(**config)
    return type(layer).from_config(config)


def copy_state(old, new):
    """Gives `new`, a built copy of the layer `old`, its weights and tables."""
    if [tuple(v.shape) for v in old.weights] != [tuple(v.shape) for v in new.weights]:
        raise ValueError(
            f"The layer {old.name!r} cannot be copied: {type(old).__name__}.from_config("
            "layer.get_config()) gives other weights. Let its `get_config` return all that its "
            "`__init__` takes."
        )
    new.set_weights(old.get_weights())
    for one, other in zip([old, *sublayers(old)], [new, *sublayers(new)], strict=True):
        if isinstance(other, keras.layers.Normalization):
            other.finalize_state()
        if hasattr(one, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                one.save_assets(folder)
                if os.listdir(folder):
                    other.load_assets(folder)


def _new_input(model, tensor):
    """The InputLayer behind an input of the model, made anew."""
    layers = [one for one in _view(model).layers if isinstance(one, keras.layers.InputLayer)]
    layer = next(one for one in layers if one.output is tensor)
    return keras.layers.InputLayer.from_config(layer.get_config())


def _view(model):
    """The model's graph without its class and without what it was compiled with."""
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs, model.outputs, name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


def _built_on_new_inputs(model, layer_of, call):
    view = _view(model)
    inputs = keras.tree.map_structure(lambda t: _new_input(view, t).output, view.input)
    return keras.models.clone_model(view, inputs, clone_function=layer_of, call_function=call)
