"""Dauphin et al. 2014 on the digits: saddle-free Newton, damped Newton, momentum."""

import keras
import numpy as np
import pytest

from kerasrecipes.objective import Objective
from kerasrecipes.optimizers import Newton, SaddleFreeNewton
from tests.problems import mostly_on_tensorflow

L = keras.layers


def digits(units, count, seed=0):
    """The digits, as small as the paper's images, and a tanh network near the saddle at 0."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = found.data[:count] / 16 - 0.3, found.target[:count]
    rng = np.random.default_rng(seed)
    settings = {
        "kernel_regularizer": keras.regularizers.L2(1e-6),
        "bias_regularizer": keras.regularizers.L2(1e-6),
    }
    hidden = [L.Dense(units, "tanh", **settings) for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *hidden, L.Dense(10, **settings)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.set_weights([0.05 * rng.normal(size=w.shape) for w in model.get_weights()])
    return Objective(model, x, y)


def stepped(step, objective, steps):
    w = objective.get_vector()
    for _ in range(steps):
        w, report = step(objective, w)
        if not report["accepted"]:
            break
    return w


def momentum(objective, rate, steps, beta=0.9):
    """Full-batch momentum by hand: the points of `fit` with one batch an epoch."""
    w = objective.get_vector()
    velocity = np.zeros_like(w)
    for _ in range(steps):
        velocity = beta * velocity - rate * objective.value_and_gradient(w)[1]
        w = w + velocity
    return w


def seen(objective, w):
    """Loss, norm of the gradient, most negative eigenvalue, share of negative eigenvalues."""
    value, gradient = objective.value_and_gradient(w)
    eigenvalues = np.linalg.eigvalsh(objective.hessian(w).astype("float64"))
    return value, np.linalg.norm(gradient), eigenvalues[0], np.mean(eigenvalues < 0)


@mostly_on_tensorflow
def test_saddle_free_newton_gets_lower_than_damped_newton_on_the_digits():
    objective = digits(units=5, count=200)
    start = seen(objective, objective.get_vector())
    newton, free = (
        seen(objective, stepped(step, objective, 20)) for step in (Newton(), SaddleFreeNewton())
    )
    assert start[2] < -0.01, "the start is no saddle"
    assert free[0] < 0.1 * newton[0] < start[0]
    assert newton[2] < -1e-2 < -1e-3 < free[2]


@pytest.mark.evidence
def test_the_comparison_in_full():
    if keras.config.backend() != "tensorflow":
        pytest.skip("curvatures of 1e-6 need float64, which Keras layers have on TensorFlow alone")
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        objective = digits(units=8, count=1797)
        newton, free = (
            seen(objective, stepped(step, objective, 60)) for step in (Newton(), SaddleFreeNewton())
        )
        rates = [seen(objective, momentum(objective, rate, 2000)) for rate in (0.3, 1.0, 2.0)]
    finally:
        keras.config.set_floatx("float32")
    print(newton, free, rates)
    best = min(rates, key=lambda r: r[0])
    assert free[0] < 0.6 * best[0] and free[0] < 0.2 * newton[0]
    assert free[2] > -1e-4 > newton[2]
