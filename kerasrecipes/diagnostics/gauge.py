"""Gauge freedom: other weights with which a ReLU network computes the same function.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.diagnostics import rescale_units
    >>> layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(1)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> x = np.random.default_rng(0).normal(size=(5, 4))
    >>> before = model.predict(x, verbose=0)
    >>> model.set_weights(rescale_units(model, "hidden", 100.0))
    >>> np.allclose(model.predict(x, verbose=0), before, atol=1e-5)
    True

Suggested hyperparameters
    `c`: one number for all units, 10 or 100; or 10 to a random power between -2 and 2, drawn for
    each unit, which makes the layer as unbalanced as in the paper.

When not to use
    To improve a network: the function is the same. What differs is what training makes of it,
    and that is what to look at: the same optimizer from both sets of weights.

Technical details
    What enters a unit (kernel and bias) is multiplied by c > 0, what leaves it is divided by c.
    A ReLU hands c through, so the outputs agree up to rounding. SGD's steps do not: the gradient
    of what was multiplied by c is divided by c. Path-SGD's steps do.

Attribution
    Neyshabur, Salakhutdinov, Srebro, Path-SGD, 2015, https://arxiv.org/abs/1506.02617, section 2.
"""

import numpy as np
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._model.chain import chain


def rescale_units(model, layer, c):
    """Weights of the same function, with the units of one hidden layer scaled by `c`.

    Args:
        model: built chain of Dense, convolution and average pooling layers with activations
            relu, leaky_relu or linear; left as it is.
        layer: the hidden layer whose units are scaled, or its name.
        c: number above 0, or an array of one for each unit.

    Returns:
        List of arrays for `model.set_weights`.

    Raises:
        ValueError: if a layer does not belong into such a chain, if `layer` is not one of its
            hidden layers with weights, or if `c` is not positive or of another length.
    """
    links = chain(model)
    name = getattr(layer, "name", layer)
    weighted = [i for i, link in enumerate(links) if "kernel" in link]
    hidden = {links[i]["name"]: n for n, i in enumerate(weighted[:-1])}
    if name not in hidden:
        raise ValueError(
            f"`layer` must be one of the hidden layers {', '.join(map(repr, hidden)) or '(none)'}. "
            f"Received: {name!r}"
        )
    begin, end = weighted[hidden[name]], weighted[hidden[name] + 1]
    units, inputs = links[begin]["kernel"][-1], links[end]["kernel"][-2]
    c = np.asarray(c, "float64")
    if c.shape not in ((), (units,)) or not np.isfinite(c).all() or (c <= 0).any():
        raise ValueError(f"`c` must be above 0, one number or {units} of them. Received: {c}")
    regrouped = any(link["kind"] == "reshape" and not link["flat"] for link in links[begin:end])
    if regrouped or inputs % units:
        raise ValueError(
            f"Between {name!r} and {links[end]['name']!r} units are regrouped (Reshape, groups): "
            "they cannot be followed there."
        )
    c = np.broadcast_to(c, (units,))
    _backend.sync(model)
    entering, leaving = model.get_layer(name), model.get_layer(links[end]["name"])
    factors = {id(v): c for v in entering.weights}
    factors[id(leaving.kernel)] = 1 / np.tile(c, inputs // units)[:, None]
    return [
        np.asarray(ops.convert_to_numpy(v) * factors.get(id(v), 1.0), v.dtype)
        for v in model.weights
    ]
