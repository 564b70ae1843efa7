"""Mean and variance of every layer's activations and gradients: does the signal get through?

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.diagnostics import signal_report
    >>> small = keras.initializers.RandomNormal(stddev=0.01, seed=0)
    >>> hidden = [keras.layers.Dense(64, "relu", kernel_initializer=small) for _ in range(5)]
    >>> model = keras.Sequential([keras.Input((64,)), *hidden])
    >>> report = signal_report(model, np.random.default_rng(0).normal(size=(200, 64)))
    >>> [bool(row["variance"] < 1e-2) for row in report.rows[:2]]
    [True, True]
    >>> bool(report.rows[-1]["variance"] < 1e-10)
    True

    `print(report.table)` shows one line a layer.

Suggested hyperparameters
    `x`: some hundred examples, preprocessed as for training. `y`: give it, since a start that
    keeps the activations can still lose the gradients. `training`: True to see the network as
    the first training step does, with batch normalization by the batch and with dropout.

When not to use
    To watch a whole training: it is one look. Units within a layer are lumped together, so dead
    units show only in their share of the variance.

Technical details
    One row for each call of each layer, in the order of the calls; layers in nested models have
    rows of their own, what other layers contain (cells, wrapped layers) has not. Mean and
    variance are over examples, positions and units together, of what the layer passes on, after
    its activation, in float64. Gradients are those of the compiled loss on `(x, y)`, so with the
    mean over N examples they are N times smaller than the gradient of one example's loss. They are
    taken with respect to the same outputs by adding a zero to each of them, in one backward pass.
    Everything runs on copies of the model's state, which stays as it was bit for bit. Under
    float16 small gradients vanish, as in a training without loss scaling.

Attribution
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks,
    2010.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._model.batches import as_arrays, as_tensors, check_lengths
from kerasrecipes._model.calls import replaced_calls
from kerasrecipes._model.state import check_ready, restored, state_variables
from kerasrecipes._report.plots import lines
from kerasrecipes._report.table import text_table


class SignalReport(NamedTuple):
    """`rows`, a dict for each call of a layer; the same as a text `table`; the `figure`."""

    rows: list
    table: str
    figure: Any = None


def signal_report(model, x, y=None, training=False, plot=False):
    """Measures mean and variance of activations, and of gradients where `y` is given.

    Args:
        model: built `keras.Model`, compiled if `y` is given; left as it was found.
        x: one batch of inputs, an array or a nest of arrays of shape `(examples, ...)`.
        y: targets, likewise; None leaves the gradients out.
        training: whether layers run in training mode.
        plot: whether to draw the variances by layer. A notebook shows the figure once
            `matplotlib.pyplot` is imported.

    Returns:
        `SignalReport(rows, table, figure)`. A row has "layer" (its name, with the number of the
        call from the second on), "shape" (of its output, without examples), "mean", "variance",
        "gradient_mean" and "gradient_variance" (None without `y`).

    Raises:
        TypeError: if `model` is no Keras model, or the data holds no numbers.
        ValueError: if the model is unbuilt, or uncompiled where `y` is given, if the data is
            empty or has NaN, or if no layer of the model is called.

    Reference:
        Glorot and Bengio, 2010, section 4
    """
    check_ready(model, compiled=y is not None)
    x, y = as_arrays("x", x), None if y is None else as_arrays("y", y)
    check_lengths(x=x, y=y)
    x, y = as_tensors(x), as_tensors(y)
    with restored(model):
        run = _Run(model, bool(training))
        run.forward(x, y)
        if not run.calls:
            raise ValueError(f"No layer of `model` {model.name!r} returns floats that can be seen.")
        slopes = [None] * len(run.calls) if y is None else run.backward(x, y)
    rows = [
        _row(name, values, slope) for (name, values), slope in zip(run.calls, slopes, strict=True)
    ]
    return SignalReport(rows, _table(rows, y is not None), _draw(rows, y) if plot else None)


class _Run:
    """The model run on copies of its state, with an eye or a hand on each layer's outputs."""

    def __init__(self, model, training):
        self.model, self.training = model, training
        self.layers = list({id(one): one for one in _visible(model)}.values())
        self.calls = []

    def forward(self, x, y):
        """Notes (name, values) of each call; the loss is run too, so that metrics are made."""
        counts = {}

        def note(layer, tensor):
            counts[layer.name] = counts.get(layer.name, 0) + 1
            again = f" ({counts[layer.name]})" if counts[layer.name] > 1 else ""
            self.calls.append((layer.name + again, np.array(ops.convert_to_numpy(tensor))))
            return tensor

        self._loss(note, self._state(), x, y)

    def backward(self, x, y):
        """The gradients of the loss with respect to the outputs of the noted calls."""
        shapes = [values.shape for _, values in self.calls]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

        def loss(zeros, state, x, y):
            parts = iter(zip(shapes, ends, strict=True))

            def add(_, tensor):
                shape, end = next(parts)
                part = ops.reshape(zeros[end - int(np.prod(shape)) : end], shape)
                return tensor + ops.cast(part, tensor.dtype)

            return self._loss(add, state, x, y)

        zeros = ops.zeros((int(ends[-1]),), "float32")
        _, slope = _backend.value_and_gradient(loss)(zeros, self._state(), x, y)
        parts = np.split(np.asarray(ops.convert_to_numpy(slope)), ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _state(self):
        return [ops.convert_to_tensor(v) for v in state_variables(self.model)]

    def _loss(self, touch, state, x, y):
        mapping = list(zip(state_variables(self.model), state, strict=True))
        with keras.StatelessScope(mapping, collect_losses=True):
            with _touched(self.layers, touch):
                outputs = self.model(x, training=self.training)
            if y is None:
                return None
            return self.model.compute_loss(x, y, outputs, training=self.training)


def _visible(model):
    """The layers of a model and of the models in it; what other layers contain is theirs."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _visible(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def _touched(layers, touch):
    """Within the context each float tensor that a layer returns is `touch(layer, tensor)`."""

    def spied(layer, call):
        def one(tensor):
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            return touch(layer, tensor) if "float" in dtype else tensor

        def touched_call(*args, **kwargs):
            return keras.tree.map_structure(one, call(*args, **kwargs))

        return touched_call

    return replaced_calls(layers, spied)


def _row(name, values, slope):
    row = {"layer": name, "shape": values.shape[1:]}
    for prefix, found in (("", values), ("gradient_", slope)):
        wide = None if found is None else np.asarray(found, "float64")
        row[f"{prefix}mean"] = None if wide is None else float(wide.mean())
        row[f"{prefix}variance"] = None if wide is None else float(wide.var())
    return row


def _table(rows, gradients):
    heads = ["mean", "variance"] + ["gradient_mean", "gradient_variance"] * gradients
    cells = [
        [r["layer"], " x ".join(map(str, r["shape"])) or "1", *(r[h] for h in heads)] for r in rows
    ]
    return text_table(["layer", "shape", *(h.replace("_", " ") for h in heads)], cells)


def _draw(rows, y):
    curves = {"activations": [row["variance"] for row in rows]}
    if y is not None:
        curves["gradients"] = [row["gradient_variance"] for row in rows]
    return lines(
        range(1, len(rows) + 1),
        curves,
        xlabel="layer, in the order of the calls",
        ylabel="variance",
        title="Signals by layer",
        log_y=True,
    )
