"""LBFGS and NonlinearCG inside `fit`, and the data set that feeds them."""

import keras
import numpy as np
from keras import ops

from kerasrecipes.callbacks import SwapAcceptedWeights
from kerasrecipes.data import FullBatch
from kerasrecipes.optimizers import LBFGS, NonlinearCG
from tests.entries.trial_points import fitted, least_squares, linear
from tests.entry import Entry, Fault, faults
from tests.problems import network, values

__all__ = ["bfgs", "fitted", "least_squares", "linear"]


def bfgs(accepted):
    """The dense BFGS inverse Hessian of successive (point, gradient): Nocedal & Wright, 6.17."""
    pairs = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(accepted, accepted[1:], strict=False)]
    s, y = pairs[-1]
    eye = np.eye(len(s))
    inverse = s @ y / (y @ y) * eye
    for s, y in pairs:
        left = eye - np.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
    return inverse


CURVATURES = np.array([1.0, 3.0, 0.5, 2.0])
START = np.array([1.0, -2.0, 0.5, 1.5])


def _path(optimizer, steps):
    """Accepted points on w'diag(a)w / 2, fed to two variables of two weights each."""
    variables = [keras.Variable(part.astype("float32")) for part in np.split(START, 2)]
    points = [START]
    for _ in range(steps):
        gradient = (CURVATURES * np.concatenate(values(variables))).astype("float32")
        optimizer.apply([ops.convert_to_tensor(g) for g in np.split(gradient, 2)], variables)
        accepted = optimizer.accepted_steps
        optimizer.hold_accepted()
        if accepted == len(points):
            points.append(np.concatenate(values(variables)).astype("float64"))
        optimizer.hold_trial()
    return points


def _lbfgs_equality():
    """Each full step is that of dense BFGS from the accepted points before it."""
    points = _path(LBFGS(curvature=0.99, tolerance=1e-3), 6)
    for k in range(2, len(points)):
        before = [(p, CURVATURES * p) for p in points[:k]]
        step = -bfgs(before) @ before[-1][1]
        yield (
            points[k] - points[k - 1],
            step * ((points[k] - points[k - 1]) @ step) / (step @ step),
            2e-3,
        )


def _cg_equality():
    """The linear conjugate gradient method, whose searches are exact."""
    points = _path(NonlinearCG(curvature=1e-4, sufficient_decrease=0, tolerance=1e-6), 7)
    w, g, d = START, CURVATURES * START, -CURVATURES * START
    for point in points[1:4]:
        w = w - g @ d / (d @ (CURVATURES * d)) * d
        new = CURVATURES * w
        g, d = new, -new + new @ new / (g @ g) * d
        yield point, w, 1e-3


def _full_batch_equality():
    x, y = least_squares()
    data = FullBatch(x, y, steps=3)
    assert len(data) == 3
    for i in range(3):
        for ours, given in zip(data[i], (x, y), strict=True):
            yield ops.convert_to_numpy(ours), given, 1e-12


def _model(make):
    def model(**kwargs):
        keras.utils.set_random_seed(0)
        return network(keras.layers.Dense(5, "tanh"), optimizer=make(**kwargs))

    return model


_SKIP = {
    "float16": "LossScaleOptimizer is refused: test_second_order_fit.py",
    "bfloat16": "rounded gradients have no curvature; the card asks for float32 or float64",
    "accumulation": "three unequal batches are refused; test_second_order_fit.py has equal sums",
    "ema": "use_ema is refused: trial points are no weights to average",
    "compiled": "a search on unequal batches is chaotic; test_second_order_fit.py has whole ones",
    "several_steps": "unequal batches make it chaotic; test_second_order_fit.py has whole ones",
}


def _refused(make):
    lessons = [
        ({"weight_decay": 0.1}, ValueError, "does not take `weight_decay`"),
        ({"clipnorm": 1.0}, ValueError, "does not take `clipnorm`"),
        ({"clipvalue": 1.0}, ValueError, "does not take `clipvalue`"),
        ({"global_clipnorm": 1.0}, ValueError, "does not take `global_clipnorm`"),
        ({"loss_scale_factor": 2.0}, ValueError, "does not take `loss_scale_factor`"),
        ({"use_ema": True}, ValueError, "does not take `use_ema`"),
        ({"learning_rate": lambda: 0.1}, TypeError, "schedule would only move"),
        ({"learning_rate": 0.0}, ValueError, "0 < learning_rate"),
        ({"curvature": 1.0}, ValueError, "curvature < 1"),
        ({"curvature": 0.1, "sufficient_decrease": 0.2}, ValueError, "must be less than"),
        ({"max_trials": 1}, ValueError, "at least 3"),
    ]
    return [(kind, text, lambda *_, k=k: make(**k)) for k, kind, text in lessons]


ENTRIES = {
    "optimizers.LBFGS": Entry(
        kind="optimizer",
        equality=_lbfgs_equality,
        make=LBFGS,
        model=_model(LBFGS),
        skip=_SKIP,
        errors=[
            *_refused(LBFGS),
            (ValueError, "at least 1", lambda *_: LBFGS(memory_size=0)),
            (
                ValueError,
                "FullBatch",
                lambda m, x, y: m.fit(x, y, batch_size=16, callbacks=[SwapAcceptedWeights()]),
            ),
        ],
    ),
    "optimizers.NonlinearCG": Entry(
        kind="optimizer",
        equality=_cg_equality,
        make=NonlinearCG,
        model=_model(NonlinearCG),
        skip=_SKIP,
        errors=[
            *_refused(NonlinearCG),
            (ValueError, "Did you mean", lambda *_: NonlinearCG(method="polak_ribiere")),
        ],
    ),
    "data.FullBatch": Entry(
        kind="data",
        equality=_full_batch_equality,
        errors=[
            (ValueError, "at least 1", lambda m, x, y: FullBatch(x, y, steps=0)),
            (ValueError, "same number", lambda m, x, y: FullBatch(x, y[:3])),
        ],
    ),
}

_HERE = "test_second_order_fit.py"
FAULTS = [
    *faults(
        "optimizers.LBFGS",
        "optimizers/lbfgs.py",
        _HERE,
        ("new - matvec(kept, products)", "new"),
        ('beside = products - state["products"]', "beside = products"),
        ("rest = gradient - vecmat", "rest = gradient + vecmat"),
        ("* others[:, None]", "* others[None]"),
        ("where(use, seen.curvature / seen.changed, ", "where(use, 1.0, "),
        ("accepted & useful", "accepted"),
        ("lambda: ops.zeros_like(inverse)", "lambda: inverse"),
    ),
    *faults(
        "optimizers.NonlinearCG",
        "optimizers/nonlinear_cg.py",
        _HERE,
        ("number.where(beta > 0, beta, 0.0)", "beta"),
        ("- 2 * seen.changed * seen.slope / bend", "- seen.changed * seen.slope / bend"),
        ("return seen.square / (seen.slope - seen.old_slope)", "return seen.square / seen.slope"),
    ),
    *faults(
        "optimizers.LBFGS",
        "optimizers/_line_search.py",
        _HERE,
        ("too_high = (value > bound) | ~finite", "too_high = ~finite"),
        ("flat = abs(slope) <= limits.curvature", "flat = abs(slope) <= 2 * limits.curvature"),
        ('unequal = ~anew & (n["failures"] > 0) & other_batch', "unequal = accept & ~accept"),
        ("anew = accept | (seen.moved > 0) |", "anew = accept |"),
        (' | ((n["status"] == STALLED) & other_batch)', ""),
        ("where(fresh & ~finite, NOT_FINITE", "where(stuck & ~finite, NOT_FINITE"),
        ("finite &= number.isfinite(value)", "pass"),
        ("finite & (fresh | accept),", "fresh | accept,"),
        ("(down < 0) & number.isfinite(down)", "down < 0"),
        ("where(trusted, careful, where", "where(trusted & ~trusted, careful, where"),
        ("(cubic + parabola) / 2, cubic)", "cubic, cubic)"),
        ("where(ended, 0.0, length)", "length"),
    ),
    *faults(
        "optimizers.LBFGS",
        "optimizers/_full_batch.py",
        _HERE,
        ("point.assign(held)", "pass"),
        ("held + ops.cast(loss, held.dtype)", "ops.cast(loss, held.dtype)"),
        ('if getattr(self, "_made", False):', "if False:"),
        ("if trial_was_in and self._evaluations == before + 1:", "if False:"),
        ("self._evaluations == before + 1:", "True:"),
        ('("curvature", "sufficient_decrease", "tolerance")', "()"),
    ),
    Fault(
        ("optimizers.LBFGS",),
        "_backend/jax.py",
        "return jax.jit(function, static_argnames=static)",
        "return function",
        f"tests/{_HERE}::test_a_hand_written_loop_compiles_the_search_once",
        backend="jax",
    ),
    *faults(
        "data.FullBatch",
        "data/full_batch.py",
        "test_contracts.py",
        ("        check_lengths(**parts)\n", ""),
        ("        return self.batch\n", "        return self.batch[:1]\n"),
        ('integer("steps", steps, 1)', "steps"),
    ),
    Fault(
        ("callbacks.SwapAcceptedWeights",),
        "callbacks/swap_accepted_weights.py",
        "            optimizer.watch()\n",
        "            pass\n",
        f"tests/{_HERE}",
    ),
    Fault(
        ("data.FullBatch",),
        "data/full_batch.py",
        "keras.tree.lists_to_tuples(batch)",
        "tuple(batch)",
        f"tests/{_HERE}",
        backend="tensorflow",
    ),
    Fault(
        ("optimizers.minimize",),
        "objective/objective.py",
        "_backend.eager(body, static=())",
        "body",
        "tests/test_newton.py",
        backend="jax",
    ),
    *faults(
        "callbacks.NewtonSteps",
        "callbacks/newton_steps.py",
        "test_newton.py",
        ("isinstance(part, Masked)", "False"),
        ('        unconstrained("NewtonSteps", self.model.trainable_variables)\n', ""),
    ),
    *faults(
        "optimizers.minimize",
        "optimizers/minimize.py",
        "test_newton.py",
        ('    unconstrained("minimize", objective.model.trainable_variables)\n', ""),
        ("(x, y, sample_weight, batch_size))", "(x, y, sample_weight))"),
        ("elif training or any(", "elif any("),
    ),
    Fault(
        ("objective.Objective",),
        "_backend/torch.py",
        "with sdpa_kernel(SDPBackend.MATH), torch",
        "with torch",
        "tests/test_curvature.py",
        backend="torch",
    ),
    Fault(
        ("objective.Objective",),
        "objective/objective.py",
        "            self._learn_from(w, data)\n",
        "            self._learn_from(w, data)\n            break\n",
        "tests/test_curvature.py",
        backend="jax",
    ),
    *faults(
        "optimizers.Masked",
        "optimizers/masked.py",
        _HERE,
        ('if hasattr(one, "status"):', "if False:"),
    ),
]
