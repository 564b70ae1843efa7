"""Schedules made of schedules: Keras's and PyTorch's numbers, boundaries, precision, one fit."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes import schedules as ours
from kerasrecipes.callbacks import HyperparameterSchedule
from tests.entries.schedules import TAILS
from tests.problems import classes, network, values

theirs = keras.optimizers.schedules


def curve(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


def test_warm_up_is_the_one_of_keras_cosine_decay():
    schedule = ours.WarmUp(theirs.CosineDecay(0.1, 30, alpha=0.2), 10, start=0.01)
    reference = theirs.CosineDecay(0.01, 30, alpha=0.2, warmup_target=0.1, warmup_steps=10)
    steps = range(50)
    np.testing.assert_allclose(curve(schedule, steps), curve(reference, steps), rtol=1e-6)


def test_warm_up_and_join_are_pytorchs_sequence():
    """LinearLR before ExponentialLR in SequentialLR: each counts from its own beginning."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    rates = torch.optim.lr_scheduler
    sequence = rates.SequentialLR(
        optimizer,
        [rates.LinearLR(optimizer, 0.25, 1.0, total_iters=6), rates.ExponentialLR(optimizer, 0.9)],
        milestones=[6],
    )
    expected = []
    for _ in range(15):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        sequence.step()
    decay = theirs.ExponentialDecay(0.4, 1, 0.9)
    for schedule in (
        ours.WarmUp(decay, 6, start=0.1),
        ours.Join([ours.WarmUp(0.4, 6, start=0.1), decay], [6]),
    ):
        np.testing.assert_allclose(curve(schedule, range(15)), expected, rtol=1e-6)


def test_boundaries_are_met_at_the_step():
    cubic = theirs.PolynomialDecay(0.3, 100, 0.01, power=3.0)
    schedule = ours.Join([0.2, cubic, 0.05], [10**7, 10**7 + 3])
    near = range(10**7 - 2, 10**7 + 5)
    inside = curve(cubic, range(3))
    expected = np.float32([0.2, 0.2, *inside, 0.05, 0.05])
    np.testing.assert_array_equal(np.float32(curve(schedule, near)), expected)
    warm = ours.WarmUp(cubic, 10**7)
    assert float(warm(10**7)) == float(cubic(0)) > float(warm(10**7 - 10**5))
    assert float(warm(10**7 + 2)) == float(cubic(2))


def test_a_schedule_is_not_asked_before_its_beginning():
    """At step -1 this decay divides by zero; a choice of a finite branch is not enough for all."""

    class Counted(theirs.LearningRateSchedule):
        seen = []

        def __call__(self, step):
            self.seen.append(int(step))
            return 0.1

    for schedule in (ours.WarmUp(Counted(), 10), ours.Join([0.1, Counted()], [10])):
        curve(schedule, range(12))
    assert min(Counted.seen) == 0 and max(Counted.seen) == 1


def test_staircase_is_keras_staircase():
    for decay in (theirs.ExponentialDecay, theirs.InverseTimeDecay):
        schedule, reference = ours.Staircase(decay(0.1, 7, 0.5), 7), decay(0.1, 7, 0.5, True)
        steps = [*range(30), 6999, 7000, 7001]
        np.testing.assert_allclose(curve(schedule, steps), curve(reference, steps), rtol=1e-6)


def test_stairs_are_exact_beyond_float32():
    """2^24 + 1 is the first integer that float32 does not have."""
    seen = []

    class Seen(theirs.LearningRateSchedule):
        def __call__(self, step):
            seen.append(int(step))
            return 0.1

    schedule = ours.Staircase(Seen(), 2**24 + 1)
    curve(schedule, [0, 2**24, 2**24 + 1, 2**25 + 1, 2**25 + 2])
    assert seen == [0, 0, 2**24 + 1, 2**24 + 1, 2**25 + 2]
    last = ours.WarmupStableDecay(0.1, 2**24 + 3, warmup=0, decay=2.0**-23)
    assert curve(last, range(2**24, 2**24 + 4)) == pytest.approx([0.1, 0.1, 0.05, 0])


@pytest.mark.parametrize("shape, half", [("linear", 0.5), ("cosine", 0.5), ("sqrt", 1 - 0.5**0.5)])
def test_corners_of_warmup_stable_decay(shape, half):
    schedule = ours.WarmupStableDecay(
        0.2, 100, warmup=0.1, decay=0.2, shape=shape, start=0.04, end=0.01
    )
    at = dict(zip(range(130), curve(schedule, range(130)), strict=True))
    assert at[0] == pytest.approx(0.04)
    assert at[5] == pytest.approx(0.12)
    assert {at[t] for t in range(10, 81)} == {float(np.float32(0.2))}
    assert at[81] < at[80]
    assert at[90] == pytest.approx(0.01 + 0.19 * half)
    assert at[99] > at[100] == at[129] == pytest.approx(0.01)


def test_a_prolonged_run_goes_on_at_the_peak():
    short = ours.WarmupStableDecay(0.2, 100, warmup=0.1, decay=0.2)
    longer = ours.WarmupStableDecay(0.2, 300, warmup=0.1, decay=0.2)
    assert float(short(80)) == float(longer(80)) == float(longer(240)) > float(longer(241))


def test_parts_of_a_run_that_do_not_divide():
    """Half and half of three steps: the decay gives way, so that the peak is met once."""
    assert curve(ours.WarmupStableDecay(1.0, 3, 0.5, 0.5), range(4)) == pytest.approx(
        [0, 0.5, 1, 0]
    )


def test_sutskevers_momentum_is_the_papers_series():
    schedule = ours.SutskeverMomentum(0.995)
    found = curve(schedule, [0, 249, 250, 500, 750, 1000, 24_999, 25_000, 10**7])
    assert found == pytest.approx([0.5, 0.5, 0.75, 5 / 6, 0.875, 0.9, 0.995, 0.995, 0.995])
    lowered = ours.SutskeverMomentum(0.995, steps=25_000)
    assert curve(lowered, [0, 23_999, 24_000, 24_999]) == pytest.approx(
        [0.5, 1 - 1 / 192, 0.9, 0.9]
    )
    short = ours.SutskeverMomentum(0.995, steps=1100)
    assert curve(short, [99, 100, 1099]) == pytest.approx([0.5, 0.5, 0.9])


EACH = {
    "WarmUp": lambda: ours.WarmUp(theirs.CosineDecay(0.5, 8), 3, start=0.1),
    "Join": lambda: ours.Join([0.3, ours.WarmUp(0.2, 2)], [3]),
    "Staircase": lambda: ours.Staircase(theirs.ExponentialDecay(0.5, 1, 0.5), 2),
    "WarmupStableDecay": lambda: ours.WarmupStableDecay(0.5, 9, 0.34, 0.34, "cosine"),
    "SutskeverMomentum": lambda: ours.SutskeverMomentum(0.8, 2, steps=9, last=2, final=0.6),
}


@pytest.mark.parametrize("name", EACH)
def test_compiled_steps_move_by_the_rates_that_python_sees(name):
    """Three epochs of plain SGD in `fit` against the same batches with each rate set by hand."""
    x, y = classes()
    inside, outside = network(optimizer=keras.optimizers.SGD(EACH[name]())), network()
    outside.compile(keras.optimizers.SGD(0.1), outside.loss)
    inside.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    for step, rate in enumerate(curve(EACH[name](), range(9))):
        outside.optimizer.learning_rate = rate
        batch = slice(16 * (step % 3), 16 * (step % 3) + 16)
        outside.train_on_batch(x[batch], y[batch])
    ends = zip(*(values(m.trainable_variables) for m in (inside, outside)), strict=True)
    for one, other in ends:
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", EACH)
def test_steps_may_be_integers_tensors_variables_or_many(name):
    schedule = EACH[name]()
    many = ops.convert_to_numpy(schedule(ops.arange(12)))
    assert many.dtype == "float32" and many.shape == (12,)
    for step in range(12):
        counter = keras.Variable(step, dtype="int", trainable=False)
        for given in (step, np.int64(step), ops.convert_to_tensor(step), counter):
            rate = schedule(given)
            assert keras.backend.standardize_dtype(rate.dtype) == "float32"
            np.testing.assert_allclose(float(rate), many[step], rtol=1e-6, atol=1e-9)


def test_a_deserialized_config_is_left_as_it_was():
    schedule = EACH["Join"]()
    config = schedule.get_config()
    before = str(config)
    revived = ours.Join.from_config(config)
    assert str(config) == before
    assert curve(revived, range(9)) == pytest.approx(curve(schedule, range(9)))


def increments(schedule, windows=11):
    """Sums of rates and of their squares over the steps 2^i to 2^(i + 1)."""
    if isinstance(schedule, theirs.PiecewiseConstantDecay):  # on torch it takes one step only
        rates = curve(schedule, range(2**windows))
    else:
        rates = ops.convert_to_numpy(schedule(ops.arange(2**windows))).astype("float64")
    parts = [rates[2**i : 2 ** (i + 1)] for i in range(windows)]
    return np.array([part.sum() for part in parts]), np.array([(part**2).sum() for part in parts])


@pytest.mark.parametrize("case", range(len(TAILS)))
def test_robbins_monro_against_the_sums_themselves(case):
    """A sum is infinite if the parts of doubled length do not shrink by a constant factor."""
    schedule, expected = TAILS[case]
    assert ours.is_robbins_monro(schedule) is expected
    if isinstance(schedule, float):
        return
    sums, squares = increments(schedule)
    grows = sums[-1] > 0.93 * sums[-2] > 0
    stays = squares[-1] < 0.93 * squares[-2]
    assert (grows and stays) == expected


def test_the_rate_one_over_k_is_exact_and_others_are_not():
    """E[x²] of SGD on x²/2 with noise of variance 1: m <- (1 - e)² m + e², from m = 4."""

    def second_moment(schedule, steps=1000):
        moment = 4.0
        for rate in curve(schedule, range(steps)):
            moment = (1 - rate) ** 2 * moment + rate**2
        return moment

    harmonic = theirs.InverseTimeDecay(1.0, 1, 1.0)
    constant = ours.Join([0.1, 0.1], [1])
    finite = theirs.ExponentialDecay(0.1, 1, 0.9)
    assert ours.is_robbins_monro(harmonic)
    assert second_moment(harmonic) == pytest.approx(1 / 1000, rel=1e-4)
    assert not ours.is_robbins_monro(constant)
    assert second_moment(constant) == pytest.approx(0.1 / (2 - 0.1), rel=1e-4)
    assert not ours.is_robbins_monro(finite)
    kept = np.prod((1 - 0.1 * 0.9 ** np.arange(1000)) ** 2)
    assert second_moment(finite) > 4 * kept > 0.4


def test_keras_sgd_with_one_over_k_is_the_mean_of_the_noise():
    noise = np.random.default_rng(0).normal(size=(30, 2000)).astype("float32")
    x = keras.Variable(np.ones(2000, "float32"))
    sgd = keras.optimizers.SGD(theirs.InverseTimeDecay(1.0, 1, 1.0))
    for step in range(30):
        gradient = ops.convert_to_tensor(x) + ops.convert_to_tensor(noise[step])
        sgd.apply([gradient], [x])
    found = ops.convert_to_numpy(x)
    np.testing.assert_allclose(found, -noise.mean(axis=0), atol=1e-6)
    # The mean of 2000 squares has a relative deviation of sqrt(2 / 2000), 3 %.
    assert 30 * np.mean(found**2) == pytest.approx(1, abs=0.1)


def test_sutskevers_momentum_in_a_fit_is_the_loop():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(8, n)).astype("float32") for n in (3, 1))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.02, momentum=0.5), "mse")
    w, velocity = values(model.trainable_variables)[0], 0.0
    schedule = ours.SutskeverMomentum(0.85, interval=4)
    callback = HyperparameterSchedule("momentum", schedule)
    model.fit(x, y, batch_size=4, epochs=8, shuffle=False, verbose=0, callbacks=[callback])
    for step in range(16):
        momentum = min(1 - 0.5 / (step // 4 + 1), 0.85)
        part = slice(0, 4) if step % 2 == 0 else slice(4, 8)
        gradient = x[part].T @ (x[part] @ w - y[part]) / 2
        velocity = momentum * velocity - 0.02 * gradient
        w = w + velocity
    np.testing.assert_allclose(values(model.trainable_variables)[0], w, rtol=1e-5, atol=1e-6)
