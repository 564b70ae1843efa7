"""LBFGS and NonlinearCG: the line search, their directions, and both inside `fit`."""

import warnings

import keras
import numpy as np
import pytest
import scipy.optimize
from keras import ops

from kerasrecipes import _backend
from kerasrecipes.callbacks import SwapAcceptedWeights
from kerasrecipes.data import FullBatch
from kerasrecipes.optimizers import LBFGS, Masked, NonlinearCG, inject_hyperparams
from kerasrecipes.optimizers._full_batch import _advance
from kerasrecipes.optimizers._line_search import (
    NUMBERS,
    STALLED,
    Evaluation,
    Limits,
    advance,
    read,
    start,
)
from kerasrecipes.optimizers.lbfgs import LBFGSRule
from kerasrecipes.optimizers.nonlinear_cg import METHODS, NonlinearCGRule
from tests.entries.second_order_fit import bfgs, fitted, least_squares, linear
from tests.mgh import PROBLEMS
from tests.problems import classes, network, values

BACKEND = keras.config.backend()
X, Y = least_squares()


@pytest.fixture
def double():
    """Float64 on JAX, which has it only where it is switched on."""
    if BACKEND != "jax":
        yield
        return
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def as_double(value):
    return ops.convert_to_tensor(np.asarray(value, "float64"), dtype="float64")


def descend(function, begin, rule, limits, with_values=True, budget=2000):
    """Every evaluation until the search ends: (trial, value, gradient, state after it)."""
    state, rate = start(as_double(begin), rule), as_double(1.0)
    step = _backend.compiled(lambda s, t, v, g: advance(s, t, v, g, rate, rule, limits))
    blind = _backend.compiled(lambda s, t, g: advance(s, t, None, g, rate, rule, limits))
    trial, seen = state["point"], []
    while len(seen) < budget:
        at = ops.convert_to_numpy(trial).copy()
        with np.errstate(all="ignore"):
            value, gradient = function(at)
        held = (as_double(value), as_double(gradient)) if with_values else (as_double(gradient),)
        state, trial = (step if with_values else blind)(state, trial, *held)
        numbers = {name: ops.convert_to_numpy(part).copy() for name, part in state.items()}
        seen.append((at, value, gradient, numbers))
        if numbers["numbers"][NUMBERS.index("status")]:
            break
    return seen


def count(seen, name="accepted"):
    return int(seen[-1][3]["numbers"][NUMBERS.index(name)])


def quadratic(matrix):
    return lambda w: (w @ matrix @ w / 2, matrix @ w)


def spd(eigenvalues, seed=0):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return turn @ np.diag(eigenvalues) @ turn.T


# The formulas ------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_size", [5, 12])
def test_the_direction_is_that_of_dense_bfgs(double, memory_size):
    """Of all pairs, and of the last five after the memory has been overwritten twice."""
    matrix = spd(np.geomspace(1, 300, 16))
    begin = np.random.default_rng(1).normal(size=16)
    limits = Limits(0.9, tolerance=1e-3)
    seen = descend(quadratic(matrix), begin, LBFGSRule(memory_size), limits)
    points = [s[3]["point"] for s in seen]
    kept = [0, *(i for i in range(1, len(seen)) if (points[i] != points[i - 1]).any())]
    assert len(kept) > 12
    checked = 0
    for k in range(1, 12):
        accepted = [(seen[i][3]["point"], seen[i][3]["gradient"]) for i in kept[: k + 1]]
        expected = -bfgs(accepted[-memory_size - 1 :]) @ accepted[-1][1]
        ours = seen[kept[k]][3]["direction"]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
        checked += 1
    assert checked == 11


def test_a_pair_without_curvature_is_not_remembered_and_a_dropped_memory_is_empty(double):
    rule = LBFGSRule(2)
    begin = np.random.default_rng(1).normal(size=6)
    seen = descend(quadratic(spd(np.geomspace(1, 30, 6))), begin, rule, Limits(0.9))
    held = {k: v if k == "stage" else as_double(v) for k, v in seen[5][3].items()}
    before = {k: ops.convert_to_numpy(v).copy() for k, v in held.items()}
    n = read(held, rule)
    assert float(n["pairs"]) > 2, "the memory is full"
    step, gradient = as_double(np.arange(1.0, 7)), as_double(np.ones(6))
    uphill = Evaluation(
        *(step, -step, gradient, gradient, gradient, n["length"], n["slope"], n["slope"]),
        *(n["square"], n["square"], *[_backend.square(step)] * 2, -_backend.square(step)),
    )
    bent, _, after, numbers = rule.turn(rule.remember(held, n, uphill, True), n, uphill, True)
    del before["products"]
    for name, value in before.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(after[name]), value)
    assert {k: float(v) for k, v in numbers.items()} == pytest.approx(
        {k: float(v) for k, v in n.items()}, nan_ok=True, rel=0
    )

    assert np.abs(ops.convert_to_numpy(bent) + 1).max() > 1e-3
    memory, numbers = rule.forget(after, n, True)
    straight, *_ = rule.turn({**after, **memory}, numbers, uphill, True)
    np.testing.assert_array_equal(ops.convert_to_numpy(straight), -1.0)


def test_a_direction_that_overflows_is_replaced_by_the_gradient(double):
    class Steep(NonlinearCGRule):
        def turn(self, state, n, seen, accepted):
            direction, first, *more = super().turn(state, n, seen, accepted)
            return direction * np.inf, first, *more

    ended = descend(quadratic(np.eye(2)), [3.0, 4.0], Steep(), Limits(0.9), budget=1)[-1][3]
    np.testing.assert_array_equal(ended["direction"], [-3.0, -4.0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("distinct", [[1.0, 7.0, 20.0, 90.0], [2.0, 5.0]])
def test_cg_ends_in_as_many_steps_as_distinct_eigenvalues(double, method, distinct):
    matrix = spd(np.repeat(distinct, 30 // len(distinct)))
    begin = np.random.default_rng(2).normal(size=len(matrix))
    limits = Limits(1e-9, tolerance=1e-7)
    seen = descend(quadratic(matrix), begin, NonlinearCGRule(method), limits)
    assert count(seen, "status") == 1
    assert count(seen) == len(distinct)


@pytest.mark.parametrize("method", METHODS)
def test_beta_is_the_papers(double, method):
    """On Beale's function: there the five differ."""
    seen = descend(
        PROBLEMS["beale"].value_and_gradient,
        [1.0, 1.0],
        NonlinearCGRule(method, 9.0),
        Limits(0.1, tolerance=1e-2),
    )
    state = [s[3] for s in seen]
    checked = 0
    for before, after in zip(state, state[1:], strict=False):
        if (before["point"] == after["point"]).all() or after["numbers"][0]:
            continue
        g, d, new = before["gradient"], before["direction"], after["gradient"]
        y = new - g
        beta = {
            "polak_ribiere_plus": max(0, new @ y / (g @ g)),
            "fletcher_reeves": new @ new / (g @ g),
            "hestenes_stiefel": new @ y / (d @ y),
            "dai_yuan": new @ new / (d @ y),
            "hager_zhang": max(
                (y - 2 * d * (y @ y) / (d @ y)) @ new / (d @ y),
                -1 / (np.sqrt(d @ d) * min(0.01, np.sqrt(g @ g))),
            ),
        }[method]
        expected = -new + beta * d
        restarts = method != "polak_ribiere_plus" and abs(new @ g) >= 9 * new @ new
        if expected @ new < 0 and not restarts:
            np.testing.assert_allclose(after["direction"], expected, rtol=1e-9)
            checked += beta != 0
    assert checked >= 2


# The line search ---------------------------------------------------------------------------

CI = {
    *("helical_valley", "gaussian", "box", "variably_dimensioned", "brown_dennis"),
    *("trigonometric", "rosenbrock", "powell_singular", "beale", "wood"),
}
EVERY = [pytest.param(n, marks=[] if n in CI else [pytest.mark.evidence], id=n) for n in PROBLEMS]
RULES = {
    "L-BFGS-B": (LBFGSRule(10), Limits(0.9)),
    "CG": (NonlinearCGRule(), Limits(0.1)),
}


def of_scipy(problem, method):
    options = {"gtol": 1e-5, "maxiter": 5000, **({"ftol": 0} if method == "L-BFGS-B" else {})}
    found = scipy.optimize.minimize(
        problem.value_and_gradient, problem.start, jac=True, method=method, options=options
    )
    return found.fun, found.nfev


# Not within 1.5 times SciPy's evaluations: docs/evidence.md has the figures.
BEYOND = {
    "L-BFGS-B": {"powell_badly_scaled"},
    "CG": {"gulf"} if BACKEND == "jax" else set(),
}
# Where SciPy ends elsewhere: another minimum, or the gradient is small before the minimum.
ELSEWHERE = {("CG", "biggs_exp6"), ("L-BFGS-B", "biggs_exp6"), ("CG", "trigonometric")}


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_minima_of_more_garbow_and_hillstrom(double, name, method):
    problem = PROBLEMS[name]
    seen = descend(problem.value_and_gradient, problem.start, *RULES[method])
    assert count(seen, "status") == 1
    found = problem.value(seen[-1][3]["point"])
    minimum, evaluations = of_scipy(problem, method)
    if (method, name) not in ELSEWHERE:
        assert found <= minimum + 1e-5 * max(1, abs(minimum))
    ratio = len(seen) / evaluations
    print(f"{name} {method}: {len(seen)} evaluations, SciPy {evaluations}, ratio {ratio:.2f}")
    if name not in BEYOND[method]:
        assert ratio <= 1.5


@pytest.mark.parametrize(
    "unit, with_values, expected",
    [
        (2 / 3, True, 2 / 3),  # the minimum of the cubic itself
        (2 / 3, False, 4 / 9),  # the zero of the secant of the slopes
        (0.4, True, (0.4 + 0.24) / 2),  # a higher end: halfway to the parabola's minimum
    ],
)
def test_a_bracket_is_shrunk_by_the_cubic_through_its_ends(double, unit, with_values, expected):
    """On u^3 - 3 u with u = w / unit, from 0, where the first trial at w = 1 is too far."""

    def cubic(w):
        u = w[0] / unit
        return u**3 - 3 * u, np.array([3 * u**2 - 3]) / unit

    limits = Limits(0.1)
    seen = descend(cubic, [0.0], NonlinearCGRule(), limits, with_values, budget=3)
    assert [len(seen), *seen[1][0]] == [3, 1.0]
    np.testing.assert_allclose(seen[2][0], expected, rtol=1e-12)


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX compiles conditions outside of a step")
def test_a_hand_written_loop_compiles_the_search_once():
    turns = []

    class Counted(NonlinearCGRule):
        def turn(self, *arguments):
            turns.append(arguments)
            return super().turn(*arguments)

    point = ops.ones((3,))
    state = start(point, rule := Counted())
    for _ in range(6):
        state, point = _advance(state, point, None, point, 1.0, rule=rule, limits=Limits(0.1))
    assert 1 <= len(turns) <= 2, "the first state differs in what JAX calls weak types"


@pytest.mark.parametrize("name", sorted(CI))
@pytest.mark.parametrize("method", RULES)
def test_accepted_steps_meet_the_wolfe_conditions(double, name, method):
    problem, (rule, limits) = PROBLEMS[name], RULES[method]
    seen = descend(problem.value_and_gradient, problem.start, rule, limits)
    for (_, _, _, before), (_, value, gradient, after) in zip(seen, seen[1:], strict=False):
        if after["numbers"][2] == before["numbers"][2]:
            continue
        n = dict(zip((*NUMBERS, *rule.numbers), before["numbers"], strict=True))
        assert abs(gradient @ before["direction"]) <= limits.curvature * abs(n["slope"]) * 1.0001
        bound = n["value"] + limits.decrease * n["length"] * n["slope"]
        assert value <= bound + 1e-6 * abs(n["value"])


def uphill(w):
    """Down to 0.4, a wall of height 1 at 0.6, and behind it a plain with the slope of the start."""
    t = w[0]
    wall = 1 / (1 + np.exp(-40 * (t - 0.6)))
    return wall + np.exp(-t / 10), np.array([40 * wall * (1 - wall) - 0.1 * np.exp(-t / 10)])


def test_the_loss_keeps_the_search_from_going_uphill(double):
    """The first trial jumps over the wall, where the slope alone looks like a good step."""
    limits, highest = Limits(0.95, tolerance=1e-3), {}
    for known in (True, False):
        seen = descend(uphill, [0.0], LBFGSRule(5), limits, with_values=known, budget=40)
        highest[known] = max(uphill(state["point"])[0] for *_, state in seen)
    begin = uphill(np.zeros(1))[0]
    assert highest[True] <= begin * (1 + 1e-6)
    assert highest[False] > begin + 0.5


@pytest.mark.parametrize("with_values", [True, False])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_trial_that_is_not_finite_is_shortened_and_not_remembered(double, with_values, broken):
    def walled(w):
        value, gradient = w @ w / 2 + np.log1p(w @ w), w + 2 * w / (1 + w @ w)
        return (broken, gradient * broken) if np.abs(w - 1.2).max() > 1.3 else (value, gradient)

    limits = Limits(0.9, tolerance=1e-7)
    seen = descend(walled, [2.0, 2.4], LBFGSRule(3), limits, with_values)
    assert any(not np.isfinite(s[1]) for s in seen[1:])
    assert count(seen, "status") == 1
    assert np.abs(seen[-1][3]["point"]).max() < 1e-6
    for _, _, _, state in seen:
        for part in ("steps", "changes", "inverse", "point", "gradient", "direction"):
            assert np.isfinite(state[part]).all()


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_known_loss_that_is_not_finite_is_no_step_though_its_gradient_is(double, broken):
    def half(w):
        return (w - 3) @ (w - 3) if w[0] < 1 else broken, 2 * (w - 3)

    seen = descend(half, [0.5], LBFGSRule(3), Limits(0.9, tolerance=1e-7), budget=60)
    assert any(at[0] >= 1 for at, *_ in seen)
    assert all(state["point"][0] < 1 for *_, state in seen)


def test_weights_set_from_outside_begin_a_new_search():
    """A stall, or a start that is not finite, says nothing about other weights."""
    variable, optimizer = keras.Variable([1.0, 2.0]), LBFGS(max_trials=3)
    optimizer.apply([ops.array([np.nan, 1.0])], [variable])
    variable.assign([3.0, 4.0])
    optimizer.apply([ops.ones(2)], [variable])
    assert optimizer.status.state == "running"
    for _ in range(12):  # the slope goes up wherever the search looks
        here = (ops.convert_to_numpy(variable) == [3, 4]).all()
        optimizer.apply([ops.ones(2) if here else -ops.ones(2)], [variable])
    assert optimizer.status.state == "stalled" and "unequal" not in optimizer.status.why
    variable.assign([5.0, 6.0])
    for _ in range(10):
        optimizer.apply([2 * ops.convert_to_tensor(variable)], [variable])
        assert optimizer.status.state != "stalled"
    assert optimizer.status.state == "converged"


def test_from_a_start_that_is_not_finite_nothing_moves():
    variable, optimizer = keras.Variable([1.0, 2.0]), LBFGS()
    optimizer.apply([ops.array([np.nan, 1.0])], [variable])
    np.testing.assert_array_equal(values([variable])[0], [1.0, 2.0])
    assert optimizer.status.state == "stalled" and "not finite" in optimizer.status.why


def test_other_data_after_a_stall_begin_a_new_search():
    """A stall says that batches were equal until then."""
    variable, optimizer = keras.Variable([3.0, 4.0]), LBFGS(max_trials=3)
    for _ in range(12):  # the slope goes up wherever the search looks
        here = (ops.convert_to_numpy(variable) == [3, 4]).all()
        optimizer.apply([ops.ones(2) if here else -ops.ones(2)], [variable])
    assert optimizer.status.state == "stalled" and "unequal" not in optimizer.status.why
    for _ in range(10):
        optimizer.apply([2 * ops.convert_to_tensor(variable)], [variable])
        assert optimizer.status.state != "stalled"
    assert optimizer.status.state == "converged"


def test_a_search_whose_trials_are_not_finite_is_tried_again_from_the_gradient(double):
    """It ends in a stall: the accepted point itself is finite."""
    seen = descend(
        lambda w: (np.sqrt(w[0]), 0.5 / np.sqrt(w)), [1e-3], LBFGSRule(3), Limits(0.9, max_trials=3)
    )
    assert all(np.isnan(value) for at, value, *_ in seen if at[0] != 1e-3)
    assert count(seen, "status") == STALLED and count(seen, "failures") == 2
    np.testing.assert_array_equal(seen[-1][3]["point"], [1e-3])


def test_a_search_that_finds_nothing_stalls(double):
    """The fed gradient points uphill."""
    seen = descend(lambda w: (w @ w, -2 * w), [1.0, 2.0], LBFGSRule(3), Limits(0.9, max_trials=6))
    assert count(seen, "status") == STALLED
    np.testing.assert_array_equal(seen[-1][3]["point"], [1.0, 2.0])


def test_the_path_does_not_depend_on_units(double):
    """A rotation changes nothing, and CG and L-BFGS know only inner products."""
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))
    wood = PROBLEMS["wood"].value_and_gradient

    def turned(w):
        value, gradient = wood(turn @ w)
        return value, turn.T @ gradient

    begin = PROBLEMS["wood"].start
    for rule, limits in RULES.values():
        one = descend(wood, begin, rule, limits, budget=25)
        other = descend(turned, turn.T @ begin, rule, limits, budget=25)
        for (at, *_), (there, *_) in zip(one[:20], other[:20], strict=True):
            np.testing.assert_allclose(turn @ there, at, rtol=1e-6, atol=1e-6)


# Inside fit --------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("make", [LBFGS, NonlinearCG])


def whole(model, epochs=30, callbacks=(), **kwargs):
    return fitted(model, X, Y, batch_size=len(X), epochs=epochs, callbacks=callbacks, **kwargs)


def least():
    return np.linalg.lstsq(X.astype("float64"), Y.astype("float64"), rcond=None)[0]


@BOTH
def test_fit_reaches_the_least_squares_solution_and_stops(make):
    model = linear(make())
    history = whole(model, 100, [SwapAcceptedWeights()])
    assert len(history.epoch) < 30
    assert model.optimizer.status.state == "converged"
    np.testing.assert_allclose(model.get_weights()[0], least(), atol=1e-4)


@BOTH
def test_validation_and_checkpoints_see_the_accepted_weights(make, tmp_path):
    model, kept = linear(make()), []
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.weights.h5", save_weights_only=True
    )
    keep = keras.callbacks.LambdaCallback()
    keep.on_epoch_end = lambda epoch, logs=None: kept.append(keep.model.get_weights())
    history = whole(
        model, 6, [SwapAcceptedWeights(), checkpoint, keep], validation_data=(X[:7], Y[:7])
    )
    twin = linear(make())
    for i, weights in enumerate(kept):
        twin.set_weights(weights)
        found = twin.evaluate(X[:7], Y[:7], verbose=0)
        assert history.history["val_loss"][i] == pytest.approx(found, rel=1e-6)
    losses = [((X @ w[0] - Y) ** 2).mean() for w in kept]
    assert all(b <= a * (1 + 1e-5) for a, b in zip(losses, losses[1:], strict=False))
    twin.optimizer.build(twin.trainable_variables)
    twin.load_weights(tmp_path / "4.weights.h5")
    np.testing.assert_array_equal(twin.get_weights()[0], kept[3][0])


@BOTH
@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_from_a_checkpoint_of_keras_the_search_goes_on_bit_for_bit(make, epoch, tmp_path):
    keras.utils.set_random_seed(0)
    x, y = classes()
    settings = {"batch_size": len(x), "epochs": 9}
    model = network(
        keras.layers.Dense(4, "tanh"), optimizer=make(curvature=0.02, sufficient_decrease=1e-3)
    )
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    fitted(model, x, y, callbacks=[SwapAcceptedWeights(), checkpoint], **settings)
    resumed = keras.saving.load_model(tmp_path / f"{epoch}.keras")
    assert ops.convert_to_numpy(resumed.optimizer.swapped)
    fitted(resumed, x, y, callbacks=[SwapAcceptedWeights()], initial_epoch=epoch, **settings)
    assert 0 < model.optimizer.accepted_steps < 9
    for one, other in ((model, resumed), (model.optimizer, resumed.optimizer)):
        for a, b in zip(values(one.variables), values(other.variables), strict=True):
            np.testing.assert_array_equal(a, b)


@BOTH
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("swapped", [False, True])
def test_saved_within_a_search_it_goes_on_bit_for_bit(make, steps, swapped, tmp_path):
    keras.utils.set_random_seed(0)
    x, y = classes()
    model = network(
        keras.layers.Dense(4, "tanh"), optimizer=make(curvature=0.02, sufficient_decrease=1e-3)
    )
    for _ in range(steps):
        model.train_on_batch(x, y)
    if swapped:
        model.optimizer.hold_accepted()
    model.save(tmp_path / "middle.keras")
    resumed = keras.saving.load_model(tmp_path / "middle.keras")
    for one in (model, resumed):
        if swapped:
            one.optimizer.hold_trial()
        for _ in range(9):
            one.train_on_batch(x, y)
    assert 0 < model.optimizer.accepted_steps < 9
    for a, b in zip(model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@BOTH
def test_full_batch_and_accumulated_batches_are_the_same_search(make):
    def trained(data, epochs, **kwargs):
        model = linear(make(**kwargs))
        settings = {} if isinstance(data[0], FullBatch) else {"batch_size": 5, "shuffle": False}
        model.fit(*data, epochs=epochs, verbose=0, callbacks=[SwapAcceptedWeights()], **settings)
        return model.get_weights()[0]

    one = linear(make())
    whole(one, 4, [SwapAcceptedWeights()])
    np.testing.assert_allclose(
        trained((FullBatch(X, Y, steps=2),), 2), one.get_weights()[0], rtol=1e-5
    )
    accumulated = trained((X, Y), 4, gradient_accumulation_steps=4)
    np.testing.assert_allclose(accumulated, one.get_weights()[0], rtol=1e-4)


@BOTH
def test_fits_of_one_evaluation_are_warned_of_and_go_on_with_the_callback(make):
    model, once = linear(make()), linear(make())
    for _ in range(2):
        with pytest.warns(UserWarning, match="one evaluation, with which"):
            whole(model, 1)
    assert model.optimizer.accepted_steps == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        whole(once, 6, [SwapAcceptedWeights()])
        model = linear(make())
        for _ in range(6):
            whole(model, 1, [SwapAcceptedWeights()])
        whole(linear(make()), 2)
    np.testing.assert_array_equal(model.get_weights()[0], once.get_weights()[0])


@BOTH
def test_weights_that_a_callback_sets_at_the_end_of_an_epoch_begin_a_new_search(make):
    setting, seen = keras.callbacks.LambdaCallback(), []
    there = np.array([[3.0], [4.0], [5.0]], "float32")

    def on_epoch_end(epoch, logs=None):
        if epoch == 2:
            setting.model.set_weights([there])

    setting.on_epoch_end = on_epoch_end
    setting.on_train_batch_begin = lambda batch, logs=None: seen.append(
        setting.model.get_weights()[0]
    )
    model = linear(make())
    whole(model, 30, [SwapAcceptedWeights(every_batch=False), setting])
    np.testing.assert_array_equal(seen[3], there)
    np.testing.assert_allclose(model.get_weights()[0], least(), atol=1e-4)


def test_full_batch_takes_what_fit_takes():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    total = keras.layers.Add()([keras.layers.Dense(1)(a), keras.layers.Dense(1)(b)])
    for inputs, x in (([a, b], [X, X**2]), ({"a": a, "b": b}, {"a": X, "b": X**2})):
        ends = []
        for data in ((x, Y), (FullBatch(x, Y, steps=1),)):
            model = keras.Model(inputs, total)
            model.set_weights([np.ones(w.shape) / 8 for w in model.get_weights()])
            model.compile(LBFGS(), "mse")
            settings = {"batch_size": len(X)} if len(data) > 1 else {}
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                model.fit(*data, epochs=8, shuffle=False, verbose=0, **settings)
            ends.append(model.get_weights())
        for one, other in zip(*ends, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4)
    heads = keras.Model(a, [keras.layers.Dense(1)(a), keras.layers.Dense(1)(a)])
    heads.compile(LBFGS(), ["mse", "mse"])
    heads.fit(FullBatch(X, [Y, -Y], steps=30), verbose=0)
    first, second = heads.predict(X, verbose=0)
    np.testing.assert_allclose(first, -second, atol=1e-3)


def test_a_search_is_neither_masked_nor_are_its_limits_moved():
    with pytest.raises(ValueError, match="Masked cannot hold LBFGS"):
        Masked(LBFGS())
    for name in ("curvature", "sufficient_decrease", "tolerance"):
        with pytest.raises(ValueError, match="fixed while the search runs"):
            inject_hyperparams(LBFGS(), name)


@BOTH
@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution > 1 on PyTorch")
def test_several_steps_per_execution_are_the_same_search(make):
    models = linear(make()), linear(make())
    models[1].steps_per_execution = 3
    for model in models:
        model.fit(FullBatch(X, Y, steps=6), epochs=1, verbose=0)
    assert models[0].optimizer.accepted_steps == models[1].optimizer.accepted_steps > 1
    ours, theirs = (values(model.variables) for model in models)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@BOTH
@pytest.mark.skipif(BACKEND != "tensorflow", reason="inside Keras's layers float64 is not kept")
def test_a_model_in_float64_sees_further(make):
    layer = keras.layers.Dense(1, use_bias=False, dtype="float64")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(make(tolerance=1e-11), keras.losses.MeanSquaredError(dtype="float64"))
    model.fit(FullBatch(X, Y, steps=60), epochs=1, verbose=0)
    assert model.optimizer.status.state == "converged"
    np.testing.assert_allclose(model.get_weights()[0], least(), atol=1e-9)


@pytest.mark.filterwarnings("ignore:This `fit` made one evaluation")
@pytest.mark.parametrize("batches", [1, 4])
def test_the_loss_is_seen_in_fit(batches):
    model = linear(LBFGS(gradient_accumulation_steps=batches if batches > 1 else None))
    model.fit(X, Y, batch_size=len(X) // batches, shuffle=False, verbose=0, epochs=1)
    numbers = ops.convert_to_numpy(model.optimizer._part("numbers"))
    start = np.full((3, 1), 0.2)
    assert numbers[NUMBERS.index("value")] == pytest.approx(((X @ start - Y) ** 2).mean(), rel=1e-5)


@BOTH
def test_unequal_batches_are_named(make):
    model = linear(make(max_trials=4, curvature=0.01, sufficient_decrease=1e-3))
    seen = set()
    rng = np.random.default_rng(0)
    for _ in range(60):
        rows = rng.choice(len(X), 3, replace=False)
        model.train_on_batch(X[rows], 5 * rng.normal(size=(3, 1)).astype("f"))
        seen.add(model.optimizer.status)
    whys = [s.why for s in seen if s.state == "stalled"]
    assert any("unequal" in w and "batch_size=len(x)" in w for w in whys)


def test_a_shared_layer_and_a_frozen_one():
    x, y = classes()
    inputs, shared = keras.Input((6,)), keras.layers.Dense(6, "tanh")
    frozen = keras.layers.Dense(6, trainable=False)
    outputs = keras.layers.Dense(3, "softmax")(shared(frozen(shared(inputs))))
    model = keras.Model(inputs, outputs)
    model.compile(LBFGS(), "sparse_categorical_crossentropy")
    before = values(frozen.weights)
    first = model.evaluate(x, y, verbose=0)
    model.fit(x, y, batch_size=48, epochs=25, verbose=0, callbacks=[SwapAcceptedWeights()])
    assert model.evaluate(x, y, verbose=0) < first / 4
    for one, other in zip(values(frozen.weights), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_digits_in_an_unmodified_fit():
    """Softmax regression on digits: SciPy's minimum, in at most 1.05 times its evaluations."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, one_hot = (x / 16).astype("float32"), np.eye(10)[y]

    def reference(w):
        kernel, bias = w[:640].reshape(64, 10), w[640:]
        z = x @ kernel + bias
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        error = (p - one_hot) / len(x)
        slope = np.concatenate([(x.T @ error + 2e-3 * kernel).ravel(), error.sum(axis=0)])
        return -np.log((p * one_hot).sum(axis=1)).mean() + 1e-3 * (kernel**2).sum(), slope

    losses = []

    def watched(w):
        losses.append(reference(w)[0])
        return reference(w)

    scipy.optimize.minimize(
        watched, np.zeros(650), jac=True, method="L-BFGS-B", options={"ftol": 0}
    )
    minimum = min(losses)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(
                10, kernel_initializer="zeros", kernel_regularizer=keras.regularizers.L2(1e-3)
            ),
        ]
    )
    model.compile(
        LBFGS(tolerance=1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    history = model.fit(
        x, y, batch_size=len(x), epochs=120, verbose=0, callbacks=[SwapAcceptedWeights()]
    ).history["loss"]
    assert model.optimizer.status.state == "converged"
    assert min(history) == pytest.approx(minimum, rel=1e-4)
    needed = [next(i for i, f in enumerate(h) if f < minimum + 1e-4) + 1 for h in (history, losses)]
    assert needed[0] <= 1.05 * needed[1]


def test_several_different_batches_an_epoch_are_refused_before_training():
    model = linear(LBFGS())
    before = model.get_weights()[0]
    with pytest.raises(ValueError, match="FullBatch"):
        fitted(model, X, Y, batch_size=5, callbacks=[SwapAcceptedWeights()])
    np.testing.assert_array_equal(model.get_weights()[0], before)


def test_inside_a_loss_scale_optimizer_it_is_refused_also_after_an_error():
    variable, optimizer = keras.Variable([1.0]), LBFGS()
    optimizer.build([variable])
    with pytest.raises(ValueError):
        optimizer.apply([ops.ones(1)], [keras.Variable([2.0])])
    with pytest.raises(ValueError, match="cannot go inside LossScaleOptimizer"):
        keras.optimizers.LossScaleOptimizer(optimizer)


class Slope(keras.layers.Layer):
    """The derivative of a Dense layer's output by its input, as physics-informed losses take it."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(1, use_bias=False)

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, x):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(x)
                u = self.inner(x)
            return tape.gradient(u, x)
        if BACKEND == "jax":
            import jax

            return jax.vmap(jax.grad(lambda row: self.inner(row[None])[0, 0]))(x)
        import torch

        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            return torch.autograd.grad(self.inner(x).sum(), x, create_graph=True)[0]


def test_a_loss_with_inner_derivatives():
    model = keras.Sequential([keras.Input((2,)), Slope()])
    model.compile(LBFGS(), "mse")
    x, y = np.ones((6, 2)), np.tile([3.0, -1.0], (6, 1))
    model.fit(x, y, batch_size=6, epochs=20, verbose=0, callbacks=[SwapAcceptedWeights()])
    assert model.optimizer.status.state == "converged"
    np.testing.assert_allclose(values(model.weights)[0], [[3], [-1]], atol=1e-4)


class Stepping(keras.Model):
    """A `train_step` of one's own, which hands over no loss."""

    def train_step(self, *given):
        if BACKEND == "jax":
            import jax

            state, (x, y) = given
            own, rest, slots, metrics = state

            def loss(own):
                return ops.mean((self.stateless_call(own, rest, x)[0] - y) ** 2)

            value, slopes = jax.value_and_grad(loss)(own)
            own, slots = self.optimizer.stateless_apply(slots, slopes, own)
            return {"loss": value}, (own, rest, slots, metrics)
        ((x, y),) = given
        if BACKEND == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                value = ops.mean((self(x) - y) ** 2)
            slopes = tape.gradient(value, self.trainable_weights)
        else:
            self.zero_grad()
            value = ops.mean((self(x) - y) ** 2)
            value.backward()
            slopes = [weight.value.grad for weight in self.trainable_weights]
        self.optimizer.apply(slopes, self.trainable_weights)
        return {"loss": value}


@BOTH
def test_a_train_step_of_ones_own(make):
    inputs = keras.Input((3,))
    model = Stepping(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    model.compile(make())
    model.fit(X, Y, batch_size=len(X), epochs=30, verbose=0, callbacks=[SwapAcceptedWeights()])
    assert model.optimizer.status.state == "converged"
    np.testing.assert_allclose(values(model.weights)[0], least(), atol=1e-3)


def test_mixed_float16_is_refused():
    with pytest.raises(ValueError, match="cannot go inside LossScaleOptimizer"):
        keras.optimizers.LossScaleOptimizer(LBFGS())


def test_constraints_and_half_precision_are_refused():
    bound = keras.layers.Dense(1, kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((3,)), bound])
    with pytest.raises(ValueError, match="constraints bend"):
        LBFGS().build(model.trainable_variables)
    with pytest.raises(ValueError, match="float32 or float64"):
        LBFGS().build([keras.Variable([1.0], dtype="bfloat16")])
