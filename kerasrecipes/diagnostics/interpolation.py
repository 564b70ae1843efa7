"""Loss on the straight line between two weight settings, such as start and end of training.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.diagnostics import interpolate
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> x, y = np.ones((4, 1)), np.ones((4, 1))
    >>> line = interpolate(model, x, y, start=[np.zeros((1, 1))], end=[np.ones((1, 1))], steps=5)
    >>> line.loss
    [1.0, 0.5625, 0.25, 0.0625, 0.0]

Suggested hyperparameters
    `steps`: 25. `bounds`: (0, 1), or (-0.25, 1.5) to look beyond both ends. `x`, `y`: a fixed
    subset of some thousand examples; `validation_data` to see both curves.

When not to use
    As proof that training moved along this line: it did not, it only could have. Between two
    independently trained networks expect a barrier.

Technical details
    All trainable weights are interpolated, w = (1 - a) * start + a * end, and the loss is that
    of `evaluate`: no dropout, no other training noise. Interpolated moving variances mean
    nothing, so batch normalization's statistics are measured anew on `x` at each point, and
    what else is not trained keeps the model's value. `start` must be the initial weights of the
    very run that ended in `end`. Reproduced with its negative control (a barrier between two
    independent solutions) by recipes/linear_interpolation.py.

Attribution
    Goodfellow, Vinyals, Saxe, Qualitatively characterizing neural network optimization problems,
    2015, https://arxiv.org/abs/1412.6544. Exceptions: Lucas et al., 2021,
    https://arxiv.org/abs/2104.11044.
"""

from typing import Any, NamedTuple

import numpy as np

from kerasrecipes._checks import integer, number, pair
from kerasrecipes._model.calls import sublayers
from kerasrecipes._model.state import check_ready, restored
from kerasrecipes._report.plots import lines
from kerasrecipes.inference.batch_statistics import (
    is_batch_normalization,
    reestimate_batch_normalization,
)
from kerasrecipes.objective import Objective


class Interpolation(NamedTuple):
    """Loss at each point of a line of weights; `val_loss` and `figure` where asked for."""

    alpha: list
    loss: list
    val_loss: list | None = None
    figure: Any = None


def interpolate(
    model,
    x,
    y,
    start,
    end,
    steps=25,
    bounds=(0.0, 1.0),
    validation_data=None,
    batch_size=None,
    plot=False,
):
    """Measures the loss on the straight line from `start` to `end`.

    Args:
        model: built and compiled `keras.Model`; left as it was found.
        x, y: examples on which the loss is measured.
        start, end: lists of arrays as `model.get_weights()` gives them.
        steps: number of points, both ends of `bounds` included.
        bounds: first and last position; 0 is `start` and 1 is `end`.
        validation_data: optional pair `(x, y)` measured beside.
        batch_size: examples per evaluation; None takes all at once.
        plot: whether to draw the curves. A notebook shows the figure once `matplotlib.pyplot`
            is imported.

    Returns:
        `Interpolation(alpha, loss, val_loss, figure)`: three lists of floats and, with `plot`, a
        `matplotlib.figure.Figure`.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if the model is unbuilt or uncompiled, if weights do not fit it or have NaN,
            or if the data is empty.
    """
    check_ready(model, compiled=True)
    start, end = _checked("start", start, model), _checked("end", end, model)
    integer("steps", steps, 2)
    low, high = pair("bounds", bounds)
    low = number("bounds[0]", low)
    high = number("bounds[1]", high, low, open_low=True)
    objectives = [Objective(model, x, y, batch_size=batch_size)]
    if validation_data is not None:
        pair("validation_data", validation_data)
        objectives.append(Objective(model, *validation_data, batch_size=batch_size))
    normalized = any(is_batch_normalization(one) for one in sublayers(model))
    alpha, rows = np.linspace(low, high, steps).tolist(), []
    with restored(model):
        for a in alpha:
            w = np.concatenate(
                [np.ravel((1 - a) * s + a * e) for s, e in zip(start, end, strict=True)]
            )
            if normalized:
                objectives[0].set_vector(w)
                reestimate_batch_normalization(model, x, batch_size or 256)
            rows.append([objective.value(w) for objective in objectives])
    loss, *rest = ([float(v) for v in column] for column in zip(*rows, strict=True))
    val_loss = rest[0] if rest else None
    return Interpolation(alpha, loss, val_loss, _draw(alpha, loss, val_loss) if plot else None)


def _checked(name, weights, model):
    """The trainable ones of `weights`, in the order of `trainable_variables`."""
    shapes = [tuple(v.shape) for v in model.weights]
    listed = isinstance(weights, (list, tuple))
    given = [np.shape(w) for w in weights] if listed else repr(weights)
    if given != shapes:
        raise ValueError(
            f"`{name}` must be a list of arrays as `model.get_weights()` gives it, of shapes "
            f"{shapes}. Received shapes {given}"
        )
    by_variable = {id(v): np.asarray(w) for v, w in zip(model.weights, weights, strict=True)}
    trained = [by_variable[id(v)] for v in model.trainable_variables]
    if not all(w.dtype.kind in "biuf" and np.isfinite(w).all() for w in trained):
        raise ValueError(f"`{name}` has weights that are NaN, infinite or no numbers.")
    return trained


def _draw(alpha, loss, val_loss):
    curves = {"training": loss} if val_loss is None else {"training": loss, "validation": val_loss}
    return lines(
        alpha,
        curves,
        xlabel="position between start (0) and end (1)",
        ylabel="loss",
        title="Loss on a straight line of weights",
    )
