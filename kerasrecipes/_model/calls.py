"""Watching what single layers of a model receive, whatever kind of model it is."""

import contextlib

import keras


def sublayers(layer):
    """All layers inside `layer`, nested ones too, each once, without `layer` itself."""
    found, queue = {}, [layer]
    while queue:
        current = queue.pop(0)
        # In a layer that is no model the name `layers` is free for anything.
        inner = list(current.layers) if isinstance(current, keras.Model) else []
        inner += [v for v in vars(current).values() if isinstance(v, keras.layers.Layer)]
        inner += [
            item
            for value in vars(current).values()
            if isinstance(value, (list, tuple))
            for item in value
            if isinstance(item, keras.layers.Layer)
        ]
        for one in inner:
            if one is not layer and id(one) not in found:
                found[id(one)] = one
                queue.append(one)
    return list(found.values())


@contextlib.contextmanager
def replaced_calls(layers, change):
    """Within the context `layer.call` of each layer is `change(layer, its own call)`.

    Only for eager calls `model(x)`: a compiled `predict` made earlier does not look here again.
    """
    # `call` looked up on the instance wins over the class, and its deletion restores the class.
    for layer in layers:
        object.__setattr__(layer, "call", change(layer, layer.call))
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


def watched(layers, seen):
    """Within the context each call of one of `layers` first calls `seen(layer, inputs, mask)`."""

    def spy(layer, call):
        def watched_call(inputs, *args, **kwargs):
            seen(layer, inputs, kwargs.get("mask"))
            return call(inputs, *args, **kwargs)

        return watched_call

    return replaced_calls(layers, spy)
