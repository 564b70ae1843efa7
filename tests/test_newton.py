"""Newton, saddle-free Newton, Gauss-Newton: their steps, `minimize`, and steps between epochs."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.callbacks import NewtonSteps
from kerasrecipes.objective import Objective
from kerasrecipes.optimizers import (
    LBFGS,
    SAM,
    GaussNewton,
    Masked,
    Newton,
    SaddleFreeNewton,
    minimize,
)
from kerasrecipes.optimizers._curvature import lanczos
from kerasrecipes.optimizers.lbfgs import LBFGSRule
from tests import references
from tests.problems import assert_unchanged, classes, everything, network, values

L = keras.layers


class Saddle:
    """f = x²/2 - y²/2 + y⁴/4: a saddle at 0, minima -1/4 at (0, ±1)."""

    def value(self, w):
        return w[0] ** 2 / 2 - w[1] ** 2 / 2 + w[1] ** 4 / 4

    def value_and_gradient(self, w):
        return self.value(w), np.array([w[0], w[1] ** 3 - w[1]])

    def hessian(self, w):
        return np.diag([1.0, 3 * w[1] ** 2 - 1])

    def hessian_vector_product(self, w, v):
        return self.hessian(w) @ v

    gauss_newton_vector_product = hessian_vector_product


class Quadratic:
    """f = w'Aw/2 - b'w, in units s of w."""

    def __init__(self, a, b, units=1.0):
        self.a, self.b, self.units = a, b, units

    def value(self, w):
        return (self.units * w) @ self.a @ (self.units * w) / 2 - self.b @ (self.units * w)

    def value_and_gradient(self, w):
        return self.value(w), self.units * (self.a @ (self.units * w) - self.b)

    def hessian(self, w):
        return self.a * np.multiply.outer(
            self.units * np.ones(len(w)), self.units * np.ones(len(w))
        )

    def hessian_vector_product(self, w, v):
        return self.units * (self.a @ (self.units * v))

    gauss_newton_vector_product = hessian_vector_product


def indefinite(n=6, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, n))
    return a + a.T, rng.normal(size=n)


def walk(step, objective, w, count):
    reports = []
    for _ in range(count):
        w, report = step(objective, w)
        reports.append(report)
    return w, reports


def test_newton_jumps_to_the_saddle_and_saddle_free_newton_leaves_it():
    start = np.array([1.0, 1e-3])
    w, (report,) = walk(Newton(damping=(0.0,)), Saddle(), start, 1)
    assert np.linalg.norm(Saddle().value_and_gradient(w)[1]) < 1e-8
    assert report == {
        "loss": pytest.approx(0, abs=1e-12),
        "largest_gradient": 1.0,
        "smallest_eigenvalue": pytest.approx(-1, abs=1e-5),
        "damping": 0.0,
        "accepted": True,
    }
    w, reports = walk(SaddleFreeNewton(), Saddle(), start, 20)
    assert Saddle().value(w) == pytest.approx(-0.25, abs=1e-9)
    # y doubles at each step while |H| is 1.
    assert reports[4]["loss"] == pytest.approx(-((2**5 * 1e-3) ** 2) / 2, rel=0.02)
    # At the inflection a damping of 1e-3 alone leads uphill, and is refused.
    w, reports = walk(SaddleFreeNewton(damping=(1e-3,)), Saddle(), start, 20)
    assert not reports[-1]["accepted"] and abs(Saddle().hessian(w)[1, 1]) < 0.1
    # On the ridge itself the gradient shows no way down, and at the saddle there is none.
    w, _ = walk(SaddleFreeNewton(), Saddle(), np.array([1.0, 0.0]), 5)
    assert w[1] == 0
    w, report = SaddleFreeNewton()(Saddle(), np.zeros(2))
    assert report == {"loss": 0.0, "largest_gradient": 0.0, "accepted": False}


def test_newton_on_the_gradient_seeks_the_saddle_uphill():
    start = np.array([0.01, 0.3])
    assert Saddle().value(start) < 0
    w, _ = walk(Newton(merit="gradient"), Saddle(), start, 30)
    assert np.abs(w).max() < 1e-8
    w, _ = walk(Newton(), Saddle(), start, 30)
    assert Saddle().value(w) < -0.04


def test_newton_on_the_gradient_is_damped_least_squares_and_leads_down_in_its_norm():
    a, b = np.diag([-0.05, 1.0]), np.zeros(2)
    w, damping = np.array([1.0, 0.01]), 0.1
    stacked = np.vstack([a, np.sqrt(damping) * np.eye(2)])
    target = np.concatenate([-(a @ w - b), np.zeros(2)])
    step = np.linalg.lstsq(stacked, target, rcond=None)[0]
    found, report = Newton(damping=(damping,), merit="gradient")(Quadratic(a, b), w)
    np.testing.assert_allclose(found, w + step, rtol=1e-10)
    assert report["accepted"] and np.linalg.norm(a @ found) < np.linalg.norm(a @ w)
    # -(H + damping I)^-1 g would lead up: the first eigenvalue is between -damping and 0.
    uphill = w - np.linalg.solve(a + damping * np.eye(2), a @ w)
    assert np.linalg.norm(a @ uphill) > np.linalg.norm(a @ w)


def test_damped_newton_takes_the_best_of_its_grid_and_never_a_worse_point():
    a, b = indefinite()
    objective, w, grid = Quadratic(a, b), np.ones(6), (50.0, 5.0, 0.5)
    trials = {d: w - np.linalg.solve(a + d * np.eye(6), a @ w - b) for d in grid}
    best = min(grid, key=lambda d: objective.value(trials[d]))
    found, report = Newton(damping=grid)(objective, w)
    np.testing.assert_allclose(found, trials[best], rtol=1e-10)
    assert report["damping"] == best
    # A maximum is where the undamped step leads from everywhere.
    hill = Quadratic(-np.eye(2), np.zeros(2))
    found, report = Newton(damping=(0.0,))(hill, np.array([1.0, 2.0]))
    np.testing.assert_array_equal(found, [1, 2])
    assert not report["accepted"] and report["loss"] == -2.5


def test_marquardts_rule():
    a = np.diag([1.0, 10.0, 100.0])
    # Where the model is right the gain is what it promised: damping falls by a third.
    w, reports = walk(Newton(damping=1.0), Quadratic(a, np.ones(3)), np.zeros(3), 4)
    np.testing.assert_allclose([r["damping"] for r in reports], (2 / 3) ** np.arange(4))

    class Wide(Saddle):
        """f = sqrt(1 + x²): Newton's step from x leads to -x³."""

        def value(self, w):
            return float(np.sqrt(1 + w[0] ** 2))

        def value_and_gradient(self, w):
            return self.value(w), w / np.sqrt(1 + w**2)

        def hessian(self, w):
            return np.array([[(1 + w[0] ** 2) ** -1.5]])

    step, w, used = Newton(damping=1e-3), np.array([3.0]), 1e-3
    f = Wide()
    while True:
        trial = w - f.value_and_gradient(w)[1] / (f.hessian(w)[0] + used)
        if f.value(trial) < f.value(w):
            break
        used *= 4
    found, report = step(f, w)
    assert report["damping"] == pytest.approx(used) and used > 1e-3
    np.testing.assert_allclose(found, trial)
    promised = f.value_and_gradient(w)[1] @ (trial - w) + f.hessian(w)[0, 0] * (trial - w) ** 2 / 2
    ratio = (f.value(trial) - f.value(w)) / promised[0]
    after = used * (1.5 if ratio < 0.25 else 2 / 3 if ratio > 0.75 else 1)
    assert step(f, found)[1]["damping"] in (pytest.approx(after * 4**k) for k in range(9))


def test_gauss_newton_counts_negative_curvature_as_none():
    a, b = np.diag([2.0, -1.0]), np.array([1.0, 1.0])
    found, report = GaussNewton(damping=(0.5,))(Quadratic(a, b), np.zeros(2))
    np.testing.assert_allclose(found, [1 / 2.5, 1 / 0.5])
    assert report["smallest_eigenvalue"] == -1


class Rosenbrock:
    """f = |r|²/2 with r = (10 (y - x²), 1 - x): its Hessian is not J'J."""

    def residual(self, w):
        return np.array([10 * (w[1] - w[0] ** 2), 1 - w[0]])

    def jacobian(self, w):
        return np.array([[-20 * w[0], 10.0], [-1.0, 0.0]])

    def value(self, w):
        return self.residual(w) @ self.residual(w) / 2

    def value_and_gradient(self, w):
        return self.value(w), self.jacobian(w).T @ self.residual(w)

    def gauss_newton_vector_product(self, w, v):
        return self.jacobian(w).T @ (self.jacobian(w) @ v)

    def hessian(self, w):
        return self.jacobian(w).T @ self.jacobian(w) - np.diag([20 * self.residual(w)[0], 0])


@pytest.mark.parametrize("krylov", [None, 2])
def test_gauss_newton_is_levenbergs_step(krylov):
    fit, w, damping = Rosenbrock(), np.array([-1.2, 1.0]), 10.0
    stacked = np.vstack([fit.jacobian(w), np.sqrt(damping) * np.eye(2)])
    step = np.linalg.lstsq(stacked, np.append(-fit.residual(w), [0, 0]), rcond=None)[0]
    found, report = GaussNewton(damping=(damping,), krylov=krylov)(fit, w)
    np.testing.assert_allclose(found, w + step, rtol=1e-9)
    assert report["accepted"]


def test_lanczos_keeps_its_vectors_orthogonal_where_the_plain_recursion_does_not():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    matrix = basis @ np.diag(np.geomspace(1e-6, 1e6, 200) * rng.choice([-1, 1], 200)) @ basis.T
    vectors, projected = lanczos(lambda v: matrix @ v, rng.normal(size=200), 60)
    assert vectors.shape == (200, 60)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(60), atol=1e-13)
    np.testing.assert_allclose(projected, vectors.T @ matrix @ vectors, atol=1e-6)
    outside = np.abs(np.subtract.outer(range(60), range(60))) > 1
    assert np.abs(projected[outside]).max() < 1e-6  # of 1e6
    ends = np.linalg.eigvalsh(matrix)[[0, -1]]
    np.testing.assert_allclose(np.linalg.eigvalsh(projected)[[0, -1]], ends, rtol=1e-8)
    # Three distinct eigenvalues: the space is closed after three vectors.
    few = basis @ np.diag(np.repeat([1.0, 2.0, 3.0], [100, 50, 50])) @ basis.T
    assert lanczos(lambda v: few @ v, rng.normal(size=200), 60)[0].shape == (200, 3)


@pytest.mark.parametrize("method", [Newton, SaddleFreeNewton, GaussNewton])
def test_the_whole_krylov_space_is_the_whole_space(method):
    a, b = indefinite()
    steps = [
        method(damping=(3.0, 30.0), krylov=k)(Quadratic(a, b), np.ones(6))[0] for k in (None, 6)
    ]
    np.testing.assert_allclose(*steps, rtol=1e-8)


def test_steps_on_a_network_are_those_of_its_hessian():
    x, y = classes()
    model = network(L.Dense(4, "tanh"))
    objective = Objective(model, x, y)
    w = objective.get_vector()
    hessian, gradient = objective.hessian(w), objective.value_and_gradient(w)[1]
    for method, reference in (
        (Newton(damping=(1.0,)), references.newton_step),
        (SaddleFreeNewton(damping=(1.0,)), references.saddle_free_step),
        (SaddleFreeNewton(damping=(1.0,), krylov=100), references.saddle_free_step),
    ):
        found, report = method(objective, w)
        assert report["accepted"]
        np.testing.assert_allclose(found - w, reference(hessian, gradient, 1.0), atol=2e-5)
        assert found.dtype == w.dtype


def test_units_of_measurement():
    """Deck 002: with w = s u, Newton's and Adadelta's steps in u are those in w, SGD's are not."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    a, b, s = root @ root.T + np.eye(4), rng.normal(size=4), np.array([1e-2, 0.1, 10.0, 100.0])
    w = rng.normal(size=4)
    ours, theirs = Quadratic(a, b), Quadratic(a, b, units=s)
    newton = Newton(damping=(0.0,))
    np.testing.assert_allclose(s * newton(theirs, w / s)[0], newton(ours, w)[0], rtol=1e-8)

    def step(optimizer, point, gradient, accumulated):
        variable = keras.Variable(point.astype("float32"))
        optimizer.build([variable])
        slots = [v for v in optimizer.variables if tuple(v.shape) == (4,)]
        for slot, value in zip(slots, accumulated, strict=False):
            slot.assign(value)
        optimizer.apply([ops.convert_to_tensor(gradient.astype("float32"))], [variable])
        return values([variable])[0] - point.astype("float32")

    slopes = [f.value_and_gradient(p)[1] for f, p in ((ours, w), (theirs, w / s))]
    squares, moves = rng.uniform(1, 2, size=(2, 4))
    for optimizer, consistent in (
        (lambda: keras.optimizers.Adadelta(1.0, epsilon=1e-12), True),
        (lambda: keras.optimizers.SGD(1e-3), False),
    ):
        one = step(optimizer(), w, slopes[0], (squares, moves))
        other = step(optimizer(), w / s, slopes[1], (squares * s**2, moves / s**2))
        assert np.allclose(s * other, one, rtol=1e-3) == consistent


def softmax_problem():
    x, y = classes()
    penalty = keras.regularizers.L2(0.05)
    head = L.Dense(3, kernel_regularizer=penalty, bias_regularizer=penalty)
    model = keras.Sequential([keras.Input((6,)), head])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, x, y


def optimum(x, y):
    from scipy.optimize import minimize as scipy_minimize

    def f(w):
        value, gradient = references.softmax_regression(w, x.astype("float64"), y, 3)
        return value + 0.05 * w @ w, gradient + 0.1 * w

    return scipy_minimize(f, np.zeros(21), jac=True, tol=1e-12).x


@pytest.mark.parametrize(
    "method, settings",
    [
        ("lbfgs", {}),
        ("lbfgs", {"memory_size": 3, "batch_size": 20}),
        ("nonlinear_cg", {"formula": "hager_zhang"}),
        ("newton", {"damping": 1.0}),
        ("saddle_free_newton", {"krylov": 10}),
        ("gauss_newton", {"batch_size": 30, "krylov": 12, "damping": (0.01,)}),
        (Newton(), {}),
    ],
    ids=str,
)
def test_minimize_reaches_the_minimum(method, settings):
    model, x, y = softmax_problem()
    start = Objective(model, x, y)
    first = start.value(start.get_vector())
    history = minimize(model, x, y, method=method, **settings)
    assert history.params["status"] == "converged"
    w = start.get_vector()
    np.testing.assert_allclose(w, optimum(x, y), atol=2e-4)
    rows = history.history
    assert rows["loss"][-1] == pytest.approx(start.value(w), rel=1e-5)
    assert (np.diff([first, *rows["loss"]]) < 1e-6).all()
    largest = np.abs(start.value_and_gradient(w)[1]).max()
    assert rows["largest_gradient"][-1] == pytest.approx(largest, abs=2e-6)
    assert largest <= 1.2e-5
    assert len(rows["loss"]) == history.params["steps"] == len(history.epoch)
    assert (np.diff([1, *rows["evaluations"]]) >= 1).all()
    assert model.history is history


def test_minimize_stops_after_its_steps_and_goes_on_from_there():
    model, x, y = softmax_problem()
    objective = Objective(model, x, y)
    start = objective.get_vector()
    whole = minimize(objective, steps=6, tolerance=0.0).history["loss"]
    objective.set_vector(start)
    short = minimize(objective, steps=4, tolerance=0.0)
    assert short.params == {"method": "lbfgs", "steps": 4, "status": "running"}
    np.testing.assert_allclose(short.history["loss"], whole[:4], rtol=1e-6)
    assert minimize(objective, steps=50).params["status"] == "converged"
    again = minimize(objective, steps=50)
    assert again.params["status"] == "converged" and again.history == {}


@pytest.mark.parametrize("method", ["lbfgs", "nonlinear_cg", "newton"])
def test_minimize_counts_evaluations_until_each_accepted_step(method):
    model, x, y = softmax_problem()
    objective, seen = Objective(model, x, y, batch_size=30), []

    def watched(evaluate):
        def noting(w):
            found = evaluate(w)
            seen.append(found[0] if isinstance(found, tuple) else found)
            return found

        return noting

    objective.value = watched(objective.value)
    objective.value_and_gradient = watched(objective.value_and_gradient)
    rows = minimize(objective, method=method, steps=12).history
    for loss, evaluations in zip(rows["loss"], rows["evaluations"], strict=True):
        assert seen[evaluations - 1] == pytest.approx(loss, rel=1e-6)


class Looking(L.Dense):
    """Doubled where its kernel's first entry is positive, as a Python `if` finds it."""

    def call(self, x):
        return super().call(x) * (2.0 if float(self.kernel[0, 0]) > 0 else 1.0)


@pytest.mark.parametrize("inside", ["regularizer", "unseeded dropout", "a look at a value"])
def test_minimize_descends_on_the_very_function_of_the_objective(inside):
    """Also where a trace of it would be another function."""
    if inside == "a look at a value" and keras.config.backend() != "torch":
        pytest.skip("refused by the tracing of TensorFlow and JAX themselves")
    x, y = classes()
    layer = {
        "regularizer": L.Dense(5, "tanh", kernel_regularizer="l2"),
        "unseeded dropout": L.Dropout(0.5),
        "a look at a value": Looking(5),
    }[inside]
    model = keras.Sequential([keras.Input((6,)), layer, L.Dense(3)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    objective = Objective(model, x, y, training=True)
    for first in (-0.1, 0.1):
        w = 0.3 * np.random.default_rng(0).normal(size=objective.size)
        w[0] = first
        objective.set_vector(w)
        keras.utils.set_random_seed(0)
        loss = minimize(objective, steps=3, tolerance=0.0).history["loss"][-1]
        assert loss == pytest.approx(objective.value(objective.get_vector()), rel=1e-6)


def test_minimize_keeps_the_tolerance_of_a_given_search():
    objective, steps = Objective(*softmax_problem()), []
    start = objective.get_vector()
    for tolerance in (1e3, 1e-2, 1e-5):
        objective.set_vector(start)
        history = minimize(objective, method=LBFGS(tolerance=tolerance))
        objective.set_vector(start)
        other = minimize(objective, tolerance=tolerance)
        assert history.params["status"] == "converged" and history.epoch == other.epoch
        steps.append(len(history.epoch))
    assert 0 == steps[0] < steps[1] < steps[2]


def test_damping_is_as_before_after_a_step_that_was_not_taken():
    class Grows(Quadratic):
        def value(self, w):
            return super().value(w) if (w == 1).all() else np.inf

    step, a = Newton(damping=1.0), np.eye(2)
    assert not step(Grows(a, np.zeros(2)), np.ones(2))[1]["accepted"]
    assert step(Quadratic(a, np.zeros(2)), np.ones(2))[1]["damping"] == 1.0


def test_minimize_leaves_the_model_where_the_loss_is_not_finite():
    model, x, y = softmax_problem()
    for broken in (lambda _, z: ops.log(-1.0 - z), lambda _, z: ops.sqrt(-1.0 - z * z)):
        model.compile(loss=broken)
        before = everything(model)
        for method in ("lbfgs", "nonlinear_cg", "newton", "saddle_free_newton", "gauss_newton"):
            with pytest.raises(ValueError, match="start"):
                minimize(model, x, y, method=method)
            assert_unchanged(model, before)


def still(*hidden):
    """A network whose own optimizer does not move it."""
    return network(*hidden, optimizer=keras.optimizers.SGD(0.0))


@pytest.mark.parametrize("when, taken", [("epoch", [1, 1, 1, 1]), (2, [0, 1, 0, 1])])
def test_newton_steps_between_epochs_are_the_steps(when, taken):
    x, y = classes()
    model = still(L.Dense(4, "tanh"))
    by_hand = Objective(model, x, y)
    w, losses, logged = by_hand.get_vector(), [], []
    for count in taken:
        logged.append(by_hand.value(w))
        if count:
            w, report = SaddleFreeNewton()(by_hand, w)
        losses.append(report["loss"] if count else np.nan)
    newton = NewtonSteps(SaddleFreeNewton(), x, y, when=when)
    history = model.fit(x, y, epochs=4, batch_size=20, callbacks=[newton], verbose=0).history
    assert history["newton_steps"] == taken
    np.testing.assert_allclose(history["newton_loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(by_hand.get_vector(), w, atol=1e-4)
    # What an epoch logs is from before the step after it.
    np.testing.assert_allclose(history["loss"], logged, rtol=1e-4)


def test_newton_steps_take_over_on_a_plateau():
    x, y = classes()
    model = still(L.Dense(4, "tanh"))
    newton = NewtonSteps(SaddleFreeNewton(), x, y, "plateau", steps=3, patience=2)
    history = model.fit(x, y, epochs=7, callbacks=[newton], verbose=0).history
    assert history["newton_steps"] == [0, 0, 3, 0, 0, 3, 0]
    assert history["loss"][2] == pytest.approx(history["loss"][0], rel=1e-5)
    assert history["loss"][3] < 0.8 * history["loss"][0]
    again = model.fit(x, y, epochs=2, callbacks=[newton], verbose=0).history
    assert again["newton_steps"] == [0, 0], "a second fit counts anew"
    moving = NewtonSteps(SaddleFreeNewton(), x, y, "plateau", patience=1)
    moved = network().fit(x, y, epochs=4, callbacks=[moving], verbose=0).history
    assert moved["newton_steps"] == [0, 0, 0, 0]


def test_newton_steps_refuse_what_cannot_be():
    x, y = classes()
    model = network(optimizer=SAM(keras.optimizers.SGD(0.1)))
    with pytest.raises(ValueError, match="does not go with SAM"):
        model.fit(x, y, callbacks=[NewtonSteps(Newton(), x, y)], verbose=0)
    plateau = NewtonSteps(Newton(), x, y, "plateau", monitor="val_loss")
    with pytest.raises(ValueError, match="'val_loss' is not in the logs"):
        network().fit(x, y, callbacks=[plateau], verbose=0)
    model = network()
    before = everything(model)
    with pytest.raises(ValueError, match="same number of examples"):
        model.fit(x, y, callbacks=[NewtonSteps(Newton(), x, y[1:])], verbose=0)
    assert_unchanged(model, before)


def test_newton_steps_refuse_what_would_be_overrun():
    x, y = classes()
    bound = network(keras.layers.Dense(4, kernel_constraint="non_neg"))
    for model, words in (
        (bound, "constraints bend"),
        (network(optimizer=Masked("sgd")), "those that Masked holds"),
    ):
        model.optimizer.build(model.trainable_variables)
        before = everything(model)
        with pytest.raises(ValueError, match=words):
            model.fit(x, y, callbacks=[NewtonSteps(Newton(), x, y)], verbose=0)
        assert_unchanged(model, before)


def test_minimize_refuses_constraints_and_arguments_that_an_objective_brings():
    x, y = classes()
    bound = network(keras.layers.Dense(4, kernel_constraint="non_neg"))
    for method in ("lbfgs", "newton"):
        with pytest.raises(ValueError, match="constraints bend"):
            minimize(bound, x, y, method=method)
    objective = Objective(network(), x, y)
    weights = np.ones(len(x))
    for given in ({"sample_weight": weights}, {"batch_size": 8}, {"training": True}, {"x": x}):
        with pytest.raises(ValueError, match="brings its data"):
            minimize(objective, **given)


@pytest.mark.skipif(keras.config.backend() != "jax", reason="JAX alone compiles it there")
def test_minimize_in_batches_compiles_the_search_once():
    turns = []

    class Counted(LBFGSRule):
        def turn(self, *arguments):
            turns.append(arguments)
            return super().turn(*arguments)

    class Search(LBFGS):
        rule = property(lambda self: Counted(self.memory_size))

    x, y = classes()
    history = minimize(network(), x, y, method=Search(), steps=9, batch_size=20)
    assert len(history.epoch) == 9 and 1 <= len(turns) <= 2
