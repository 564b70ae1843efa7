"""Full-batch minimization of a compiled model's loss, without `fit`.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.optimizers import minimize
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x = np.array([[0.0, 1], [1, 0], [1, 1], [2, 0]])
    >>> history = minimize(model, x, x @ [[2.0], [-1.0]] + 3, method="lbfgs")
    >>> history.params["status"], bool(history.history["loss"][-1] < 1e-8)
    ('converged', True)

Suggested hyperparameters
    `method`: "lbfgs"; "gauss_newton" for squared errors and some hundred weights;
    "saddle_free_newton" where training hangs at a saddle. `tolerance`: 1e-5 for a loss of the
    order of 1; in float32 gradients below 1e-6 are rounding. `batch_size`: None while all
    examples fit into memory at once.

When not to use
    On more data than one evaluation can afford: in recipes/logistic_lbfgs.py, 60,000 images, SGD
    needed 4.6 passes where L-BFGS needed 28, in about the same seconds (seeds 0 to 2, JAX). To
    regularize by stopping early: it runs to the minimum of the training loss. For metrics,
    callbacks or validation in between: compile with LBFGS or NonlinearCG and call `fit`, or take
    NewtonSteps.

Technical details
    "lbfgs" and "nonlinear_cg" are the machine of LBFGS and NonlinearCG in one loop, compiled on
    TensorFlow and JAX; on PyTorch it runs a trace of the model's operations, where one can be made
    that gives the same to the last bit. Give an `Objective` instead of model and data to keep what
    was compiled for a further call. The Newton methods are Python loops around compiled products.
    All see the loss of an Objective: regularization included, dropout off unless `training`. The
    best point is written into the model at the end; after an error the weights are as before. An
    optimizer's slots, if the model has one, do not take part. The comparison with SciPy, optax,
    jaxopt, optimistix, torch.optim and TensorFlow Probability, in evaluations and in seconds, is
    in docs/evidence.md (benchmarks/second_order.py).

Attribution
    Nocedal and Wright, Numerical Optimization, 2006.
"""

import functools

import keras
import numpy as np
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._checks import integer, nearest, number, one_of, unconstrained
from kerasrecipes.objective import Objective
from kerasrecipes.optimizers._line_search import (
    CONVERGED,
    NUMBERS,
    RUNNING,
    Limits,
    advance,
    read,
    start,
)
from kerasrecipes.optimizers.gauss_newton import GaussNewton
from kerasrecipes.optimizers.lbfgs import LBFGS
from kerasrecipes.optimizers.newton import Newton
from kerasrecipes.optimizers.nonlinear_cg import NonlinearCG
from kerasrecipes.optimizers.saddle_free_newton import SaddleFreeNewton

_SEARCH = ("curvature", "sufficient_decrease", "max_trials")
_METHODS = {
    "lbfgs": (LBFGS, ("memory_size", *_SEARCH)),
    "nonlinear_cg": (NonlinearCG, ("formula", *_SEARCH)),
    "newton": (Newton, ("damping", "krylov", "merit")),
    "saddle_free_newton": (SaddleFreeNewton, ("damping", "krylov")),
    "gauss_newton": (GaussNewton, ("damping", "krylov")),
}


def minimize(
    model,
    x=None,
    y=None,
    method="lbfgs",
    steps=200,
    tolerance=None,
    sample_weight=None,
    batch_size=None,
    training=False,
    **settings,
):
    """Minimizes the loss of a model on all of the data.

    Args:
        model: built and compiled `keras.Model`; or an `Objective`, and then no data.
        x: array, or a list or dict of arrays, of shape `(examples, ...)`.
        y: targets, likewise, or None if the model's loss needs none.
        method: "lbfgs", "nonlinear_cg", "newton", "saddle_free_newton", "gauss_newton", or a
            step such as `Newton(damping=1.0)`: a function of an objective and a vector that
            returns the next vector and a report; or an LBFGS or NonlinearCG.
        steps: number of accepted steps, at most.
        tolerance: it ends where no entry of the gradient is larger; None stands for 1e-5, or for
            the tolerance of a given LBFGS or NonlinearCG.
        sample_weight: weights of the examples, as for `fit`.
        batch_size: examples per evaluation of the model; None takes all at once.
        training: whether layers run in training mode.
        **settings: arguments of the method's class. For "lbfgs" `memory_size`, for
            "nonlinear_cg" `formula` (NonlinearCG's `method`), for both `curvature`,
            `sufficient_decrease` and `max_trials`; for the others `damping` and `krylov`.

    Returns:
        A `keras.callbacks.History`, one entry for each accepted step: "loss" and
        "largest_gradient" there, and "evaluations" of the loss until then. Its `params` hold
        "method", "steps" and "status": "converged", "stalled" (no step lowers the loss, often
        because it is lost in rounding) or "running" (out of steps).

    Raises:
        TypeError: if `model` is no Keras model, or a setting has the wrong type.
        ValueError: if the model is unbuilt or uncompiled, if the data is empty, of unequal
            lengths or has NaN, if a setting is unknown or out of range, if weights have
            constraints, or if the loss or its gradient is not finite at the start.
    """
    integer("steps", steps, 1)
    made = _made(method, settings)
    tolerance = getattr(made, "tolerance", 1e-5) if tolerance is None else tolerance
    number("tolerance", tolerance, 0)
    if not isinstance(model, Objective):
        objective = Objective(model, x, y, sample_weight, batch_size, training)
    elif training or any(given is not None for given in (x, y, sample_weight, batch_size)):
        raise ValueError(
            "An Objective brings its data and how to go through it: leave `x`, `y`, "
            "`sample_weight`, `batch_size` and `training` out, or give them to the Objective."
        )
    else:
        objective = model
    unconstrained("minimize", objective.model.trainable_variables)
    run = _searching if isinstance(made, (LBFGS, NonlinearCG)) else _stepwise
    w, rows, status = run(made, objective, objective.get_vector(), steps, tolerance)
    objective.set_vector(w)
    history = keras.callbacks.History()
    history.set_model(objective.model)
    name = method if isinstance(method, str) else type(made).__name__
    history.set_params({"method": name, "steps": len(rows), "status": status})
    keys = ("loss", "largest_gradient", "evaluations")
    # At once: its `on_epoch_end` sets an attribute of the model, which Keras looks at, each time.
    history.history = {k: [row[i] for row in rows] for i, k in enumerate(keys) if rows}
    history.epoch = list(range(len(rows)))
    history.model.history = history
    return history


def _made(method, settings):
    """The method as an object, of its class with its settings."""
    if not isinstance(method, str):
        is_search = isinstance(method, (LBFGS, NonlinearCG))
        if not (is_search or callable(method)) or isinstance(method, type) or settings:
            raise TypeError(
                "`method` must be a name or a step such as Newton(damping=1.0), which holds its "
                f"own settings. Received: {method!r} and settings {sorted(settings)}"
            )
        return method
    made, allowed = _METHODS[one_of("method", method, tuple(_METHODS))]
    for name in settings:
        if name not in allowed:
            raise ValueError(
                f"{method!r} has the settings {', '.join(map(repr, allowed))}. Received: "
                f"{name!r}.{nearest(name, allowed)}"
            )
    if not settings and made in (LBFGS, NonlinearCG):
        return _as_it_is(made)
    # `method` is taken: it says "nonlinear_cg".
    return made(**{"method" if k == "formula" else k: v for k, v in settings.items()})


@functools.cache
def _as_it_is(search):
    # Making an optimizer, of which only the settings are read, takes as long as an evaluation.
    return search()


def _stepwise(step, objective, w, steps, tolerance):
    counted, rows, status = _Counted(objective), [], "running"
    value, gradient = counted.value_and_gradient(w)
    _check_start(value, gradient)
    largest = np.abs(gradient).max()
    while largest > tolerance and len(rows) < steps:
        w, report = step(counted, w)
        if not report["accepted"]:
            status = "stalled"
            break
        largest = np.abs(counted.value_and_gradient(w)[1]).max()
        rows.append((report["loss"], float(largest), counted.evaluations))
    return w, rows, "converged" if largest <= tolerance else status


class _Counted:
    """An objective that counts its evaluations, and makes none twice in a row."""

    def __init__(self, objective):
        self.objective, self.evaluations, self._last = objective, 0, None

    def value(self, w):
        self.evaluations += 1
        return self.objective.value(w)

    def value_and_gradient(self, w):
        if self._last is None or not np.array_equal(self._last[0], w):
            self.evaluations += 1
            self._last = np.array(w), self.objective.value_and_gradient(w)
        return self._last[1]

    def __getattr__(self, name):
        return getattr(self.objective, name)


def _searching(search, objective, w, steps, tolerance):
    rule, rate = search.rule, float(search.learning_rate)
    limits = Limits(search.curvature, search.sufficient_decrease, tolerance, search.max_trials)

    def begin(w):
        rows, used = ops.zeros((steps + 1, 3), w.dtype), ops.zeros((), w.dtype)
        return {"search": start(w, rule), "trial": w, "used": used, "rows": rows}

    def going_on(state):
        n = read(state["search"], rule)
        return (n["status"] == RUNNING) & (n["accepted"] < steps)

    def body(state, value, gradient):
        search, trial = advance(
            state["search"], state["trial"], value, gradient, rate, rule, limits
        )
        used, n = _backend.numbers(state["used"]) + 1.0, read(search, rule)
        row = _backend.packed([n["value"], n["largest"], used], state["rows"][0])
        # A later evaluation of the same accepted point is not one that it took to get there.
        new = (n["accepted"] > read(state["search"], rule)["accepted"]) | (used == 1)
        index = _backend.number.integer(n["accepted"])
        rows = _backend.with_row(state["rows"], index, row, new)
        used = _backend.packed(used, state["used"])
        return {"search": search, "trial": trial, "used": used, "rows": rows}

    run = objective.loop(("minimize", rule, limits, rate, steps), begin, going_on, body)
    last = run(ops.convert_to_tensor(w))
    held = ops.convert_to_numpy(last["search"]["numbers"])
    code, accepted = (int(held[NUMBERS.index(name)]) for name in ("status", "accepted"))
    rows = ops.convert_to_numpy(last["rows"])[: accepted + 1].tolist()
    if not np.isfinite(rows[0][:2]).all() or (not accepted and code not in (RUNNING, CONVERGED)):
        _check_start(*objective.value_and_gradient(w))
    status = {RUNNING: "running", CONVERGED: "converged"}.get(code, "stalled")
    return last["search"]["point"], [(a, b, int(c)) for a, b, c in rows[1:]], status


def _check_start(value, gradient):
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        raise ValueError(
            f"At the model's weights the loss is {value} and its gradient has "
            f"{int((~np.isfinite(gradient)).sum())} entries that are not finite: start elsewhere."
        )
