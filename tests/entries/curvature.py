"""Newton and its relatives, minimization without `fit`, Path-SGD."""

import keras
import numpy as np
from keras import ops

from kerasrecipes import callbacks, diagnostics, optimizers
from kerasrecipes.objective import Objective
from tests import references
from tests.entry import Entry, Fault, faults
from tests.problems import classes, network, values

L = keras.layers


class Bowl:
    """f = w'Aw/2 - b'w with A of both signs, for NumPy to follow."""

    def __init__(self):
        rng = np.random.default_rng(0)
        root = rng.normal(size=(5, 5))
        self.a, self.b, self.w = root + root.T, rng.normal(size=5), rng.normal(size=5)

    def value(self, w):
        return w @ self.a @ w / 2 - self.b @ w

    def value_and_gradient(self, w):
        return self.value(w), self.a @ w - self.b

    def hessian(self, w):
        return self.a

    def hessian_vector_product(self, w, v):
        return self.a @ v


class Fit(Bowl):
    """f = |Jw - b|²/2, whose Gauss-Newton matrix is J'J."""

    def __init__(self):
        super().__init__()
        self.a = self.a.T @ self.a

    gauss_newton_vector_product = Bowl.hessian_vector_product


def _step_equality(method, bowl, reference):
    def triples():
        for damping in (20.0, 200.0):
            w, _ = method(damping=(damping,))(bowl, bowl.w)
            gradient = bowl.value_and_gradient(bowl.w)[1]
            yield w - bowl.w, reference(bowl.a, gradient, damping), 1e-8

    return triples


def _minimize_equality():
    x, y = classes()
    model = network()
    objective = Objective(model, x, y)
    w = objective.get_vector()
    step = optimizers.Newton(damping=(1.0,))
    history = optimizers.minimize(model, x, y, method=step, steps=3).history
    for loss in history["loss"]:
        value, gradient = references.softmax_regression(w, x, y, 3)
        w = w + references.newton_step(objective.hessian(w), gradient, 1.0)
        yield loss, references.softmax_regression(w, x, y, 3)[0], 1e-4
    yield objective.get_vector(), w, 1e-3


def _callback_equality():
    x, y = classes()
    model = network(optimizer=keras.optimizers.SGD(0.0))
    objective = Objective(model, x, y)
    w = objective.get_vector()
    expected = w + references.newton_step(
        objective.hessian(w), references.softmax_regression(w, x, y, 3)[1], 1.0
    )
    model.fit(x, y, verbose=0, callbacks=[_callback(x, y)])
    yield objective.get_vector(), expected, 1e-4


def _callback(x=None, y=None):
    x, y = classes() if x is None else (x, y)
    return callbacks.NewtonSteps(optimizers.Newton(damping=(1.0,)), x, y)


def relu(**kwargs):
    """A chain, trained by Path-SGD."""
    keras.utils.set_random_seed(0)
    model = network(L.Dense(5, "relu", bias_initializer="glorot_uniform"))
    settings = {"learning_rate": 0.05, "momentum": 0.5, **kwargs}
    model.compile(optimizers.PathSGD(model, **settings), "sparse_categorical_crossentropy")
    return model


def _optimizer():
    return relu().optimizer


def _scaling_of(model):
    weights = [w.astype("float64") for w in model.get_weights()]
    kernels, biases = references.path_scaling(weights[::2], weights[1::2])
    return [part for pair in zip(kernels, biases, strict=True) for part in pair]


def _scaling_equality():
    model = relu()
    for ours, reference in zip(optimizers.path_scaling(model), _scaling_of(model), strict=True):
        yield ours, reference, 1e-5


def _path_sgd_equality():
    model = relu()
    w, rng = [v.astype("float64") for v in model.get_weights()], np.random.default_rng(0)
    velocity = [0.0] * 4
    for _ in range(5):
        gradients = [rng.normal(size=v.shape) for v in w]
        scaling = references.path_scaling(w[::2], w[1::2])
        scaling = [part for pair in zip(*scaling, strict=True) for part in pair]
        steps = zip(velocity, gradients, scaling, strict=True)
        velocity = [0.5 * v - 0.05 * g / k for v, g, k in steps]
        w = [a + v for a, v in zip(w, velocity, strict=True)]
        tensors = [ops.convert_to_tensor(g.astype("float32")) for g in gradients]
        model.optimizer.apply(tensors, model.trainable_variables)
    for ours, reference in zip(values(model.trainable_variables), w, strict=True):
        yield ours, reference, 1e-4


def _units_equality():
    model = relu()
    a, b, c, d = model.get_weights()
    s = np.array([0.1, 1.0, 2.0, 10.0, 100.0])
    ours = diagnostics.rescale_units(model, model.layers[0], s)
    for one, reference in zip(ours, (a * s, b * s, c / s[:, None], d), strict=True):
        yield one, reference, 1e-6


def _damping_errors(method):
    return [
        (TypeError, "`damping` must be a number", lambda *_: method(damping="small")),
        (ValueError, "empty grid", lambda *_: method(damping=())),
        (ValueError, "0 <= damping", lambda *_: method(damping=(-1.0,))),
        (ValueError, "0 < damping", lambda *_: method(damping=0.0)),
        (ValueError, "at least 1", lambda *_: method(krylov=0)),
    ]


def _minimize(model, x, y, **kwargs):
    return optimizers.minimize(model, x, y, **kwargs)


_NORMED = keras.Sequential([keras.Input((3,)), L.LayerNormalization(name="norm"), L.Dense(1)])
_NO_CHAIN = (ValueError, "Layer 'norm'")

ENTRIES = {
    "optimizers.Newton": Entry(
        kind="tool",
        equality=_step_equality(optimizers.Newton, Bowl(), references.newton_step),
        errors=[
            *_damping_errors(optimizers.Newton),
            (ValueError, "Did you mean 'loss'", lambda *_: optimizers.Newton(merit="los")),
        ],
    ),
    "optimizers.SaddleFreeNewton": Entry(
        kind="tool",
        equality=_step_equality(optimizers.SaddleFreeNewton, Bowl(), references.saddle_free_step),
        errors=_damping_errors(optimizers.SaddleFreeNewton),
    ),
    "optimizers.GaussNewton": Entry(
        kind="tool",
        equality=_step_equality(optimizers.GaussNewton, Fit(), references.newton_step),
        errors=_damping_errors(optimizers.GaussNewton),
    ),
    "optimizers.minimize": Entry(
        kind="function",
        equality=_minimize_equality,
        errors=[
            (TypeError, "must be a keras.Model", lambda m, x, y: _minimize(0, x, y)),
            (ValueError, "Did you mean 'lbfgs'", lambda m, x, y: _minimize(m, x, y, method="bfgs")),
            (
                ValueError,
                "Did you mean 'krylov'",
                lambda m, x, y: _minimize(m, x, y, method="newton", krilov=3),
            ),
            (
                TypeError,
                "must be a name or a step",
                lambda m, x, y: _minimize(m, x, y, method=optimizers.Newton),
            ),
            (ValueError, "at least 1", lambda m, x, y: _minimize(m, x, y, steps=0)),
            (ValueError, "0 <= tolerance", lambda m, x, y: _minimize(m, x, y, tolerance=-1)),
            (ValueError, "brings its data", lambda m, x, y: _minimize(Objective(m, x, y), x, y)),
            (ValueError, "same number", lambda m, x, y: _minimize(m, x, y[1:])),
            (ValueError, "NaN", lambda m, x, y: _minimize(m, x * np.nan, y)),
        ],
        skip={"leaves": "its purpose is to change the weights"},
    ),
    "callbacks.NewtonSteps": Entry(
        kind="callback",
        equality=_callback_equality,
        make=_callback,
        skip={"no_retrace": "a fit compiles its Objective anew: the loss may be another one"},
        errors=[
            (
                TypeError,
                "with the brackets",
                lambda m, x, y: callbacks.NewtonSteps(optimizers.Newton, x, y),
            ),
            (
                ValueError,
                '"epoch", "plateau"',
                lambda m, x, y: callbacks.NewtonSteps(optimizers.Newton(), x, y, when="batch"),
            ),
            (
                ValueError,
                "at least 1",
                lambda m, x, y: callbacks.NewtonSteps(optimizers.Newton(), x, y, when=0),
            ),
            (
                ValueError,
                "`patience`",
                lambda m, x, y: callbacks.NewtonSteps(optimizers.Newton(), x, y, patience=0),
            ),
        ],
    ),
    "optimizers.PathSGD": Entry(
        kind="optimizer",
        equality=_path_sgd_equality,
        make=_optimizer,
        model=relu,
        errors=[
            (*_NO_CHAIN, lambda *_: optimizers.PathSGD(_NORMED)),
            (ValueError, "0 <= momentum", lambda *_: optimizers.PathSGD(relu(), momentum=1.0)),
            (ValueError, "`every`", lambda *_: optimizers.PathSGD(relu(), every=0)),
        ],
    ),
    "optimizers.path_scaling": Entry(
        kind="function",
        equality=_scaling_equality,
        model=relu,
        call=lambda m, x, y: optimizers.path_scaling(m),
        errors=[
            (*_NO_CHAIN, lambda *_: optimizers.path_scaling(_NORMED)),
            (ValueError, "must be a built", lambda *_: optimizers.path_scaling(0)),
        ],
    ),
    "diagnostics.rescale_units": Entry(
        kind="function",
        equality=_units_equality,
        model=relu,
        call=lambda m, x, y: diagnostics.rescale_units(m, m.layers[0], 10.0),
        errors=[
            (*_NO_CHAIN, lambda *_: diagnostics.rescale_units(_NORMED, "norm", 2.0)),
            (ValueError, "hidden layers", lambda m, x, y: diagnostics.rescale_units(m, "head", 2)),
            (ValueError, "above 0", lambda m, x, y: diagnostics.rescale_units(m, m.layers[0], 0)),
        ],
    ),
}

_NEWTON, _PATHS = "test_newton.py", "test_paths.py"
_DAMPING = ("optimizers/_curvature.py", _NEWTON)
FAULTS = [
    *faults(
        "objective.Objective",
        "objective/objective.py",
        "test_curvature.py",
        ("product + self._sum(self._added_product, w, v) if", "product if"),
        ("(whole + whole.T) / 2", "whole"),
        ("own or abs(seen - whole)", "abs(seen - seen)"),
        ("total += np.asarray(share * ops", "total += np.asarray(ops"),
    ),
    *[
        Fault(
            ("objective.Objective",),
            "_backend/tensorflow.py",
            right,
            wrong,
            f"tests/test_curvature.py::{test}",
            backend="tensorflow",
        )
        for test, right, wrong in (
            (
                "test_products_are_those_of_central_differences",
                "with _right_moments(), tf.GradientTape() as tape:",
                "with tf.GradientTape() as tape:",
            ),
            (
                "test_products_are_those_of_central_differences",
                "tf.square(wide - mean)",
                "tf.square(wide - tf.stop_gradient(mean))",
            ),
            (
                "test_gauss_newton_of_a_loss_that_standardizes_outputs",
                "with _right_moments():\n",
                "if True:\n",
            ),
        )
    ],
    *faults(
        "optimizers.Newton",
        "optimizers/newton.py",
        "test_contracts.py",
        ("(curvature.eigenvalues + damping)", "(curvature.eigenvalues - damping)"),
    ),
    *faults(
        "optimizers.Newton",
        "optimizers/newton.py",
        "test_newton.py",
        ("(values**2 + damping)", "(values + damping)"),
        ('newton_step if merit == "loss" else stationary_step', "newton_step"),
    ),
    *faults(
        "optimizers.Newton",
        *_DAMPING,
        ("4.0**k", "8.0**k"),
        ("1.5 if ratio < 0.25 else 2 / 3 if", "1.5 if ratio < 0.25 else 0.5 if"),
        ("for _ in range(2):", "for _ in range(0):"),
        ("near and _norm(objective, point) <", "False and _norm(objective, point) <"),
        ("min(trials, key=lambda t: t[0])", "trials[0]"),
    ),
    *faults(
        "optimizers.SaddleFreeNewton",
        "optimizers/saddle_free_newton.py",
        "test_newton.py",
        ("np.abs(curvature.eigenvalues) + damping", "curvature.eigenvalues + damping"),
        ("np.abs(curvature.eigenvalues) + damping", "np.abs(curvature.eigenvalues)"),
        ("Damping(damping, krylov)", "Damping(damping, None if krylov is None else 1)"),
    ),
    *faults(
        "optimizers.GaussNewton",
        "optimizers/gauss_newton.py",
        "test_newton.py",
        ("np.maximum(curvature.eigenvalues, 0)", "curvature.eigenvalues"),
        ("gauss_newton_step, matrix, product", "gauss_newton_step, objective.hessian, product"),
        ("Damping(damping, krylov)", "Damping(damping, 1)"),
    ),
    *faults(
        "optimizers.minimize",
        "optimizers/minimize.py",
        "test_newton.py",
        ("objective.set_vector(w)", "pass"),
        ("(np.isfinite(value) and np.isfinite(gradient).all())", "True"),
        ('(n["accepted"] < steps)', '(n["accepted"] < steps - 1)'),
        ('number.integer(n["accepted"])', "number.integer(used - 1)"),
        ("index, row, new)", "index, row, used > 0)"),
        ('getattr(made, "tolerance", 1e-5)', "1e-5"),
    ),
    *[
        Fault(
            ("optimizers.minimize",),
            "_backend/torch.py",
            right,
            wrong,
            "tests/test_newton.py::test_minimize_descends_on_the_very_function_of_the_objective",
            backend="torch",
        )
        for right, wrong in (
            ("if torch.Tag.nondeterministic_seeded in", "if None in"),
            ("except Exception:", "except ZeroDivisionError:"),
        )
    ],
    *faults(
        "callbacks.NewtonSteps",
        "callbacks/newton_steps.py",
        "test_newton.py",
        ("            self._objective.set_vector(w)", "            pass"),
        ("(epoch + 1) %", "epoch %"),
        ("if trial_optimizers(self.model.optimizer):", "if False:"),
        ("self._best, self._waited = current, 0", "self._best, self._waited = current, 1"),
    ),
    *faults(
        "optimizers.PathSGD",
        "optimizers/path_sgd.py",
        _PATHS,
        ("self.iterations % self.every == 0", "self.iterations == 0"),
        ("reached = scaling > 0", "reached = scaling > -1"),
        ("if found != shapes:", "if False:"),
    ),
    *faults(
        "optimizers.path_scaling",
        "_model/chain.py",
        _PATHS,
        ('if link.get("bias"):', 'if False and link.get("bias"):'),
        ("h = ops.average_pool(", "h = ops.max_pool("),
        ("layer.max_value is None and layer.threshold == 0", "True"),
    ),
    *faults(
        "diagnostics.rescale_units",
        "diagnostics/gauge.py",
        _PATHS,
        ("1 / np.tile(c, inputs // units)", "1 / np.repeat(c, inputs // units)"),
        ("for v in entering.weights}", "for v in entering.weights[:1]}"),
        ("(c <= 0).any()", "False"),
    ),
]
