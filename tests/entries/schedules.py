"""The schedules that Keras lacks."""

import functools

import keras
import numpy as np

from kerasrecipes import schedules as ours
from tests.entry import Entry, faults
from tests.problems import network

theirs = keras.optimizers.schedules
STEPS = [0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 14, 15, 19, 20, 21, 35, 1000, 10**7 - 1, 10**7]


def _compare(schedule, reference, steps=STEPS):
    for step in steps:
        yield float(schedule(step)), reference(step), 2e-6


def _harmonic(step):
    """What `_decay` computes, in NumPy."""
    return 0.1 / (1 + 0.5 * step / 4)


def _decay():
    return theirs.InverseTimeDecay(0.1, decay_steps=4, decay_rate=0.5)


def _warm_up_equality():
    def expected(step, steps, start):
        return start + (0.1 - start) * step / steps if step < steps else _harmonic(step - steps)

    yield from _compare(ours.WarmUp(_decay(), 10), lambda t: expected(t, 10, 0.0))
    yield from _compare(ours.WarmUp(_decay(), 20, start=0.3), lambda t: expected(t, 20, 0.3))
    yield from _compare(ours.WarmUp(0.2, 4), lambda t: 0.2 * min(t / 4, 1))


def _join_equality():
    def expected(step):
        return 0.3 if step < 5 else _harmonic(step - 5) if step < 20 else 0.01

    yield from _compare(ours.Join([0.3, _decay(), 0.01], [5, 20]), expected)
    yield from _compare(
        ours.Join([_decay(), _decay()], [10**7]),
        lambda t: _harmonic(t if t < 10**7 else t - 10**7),
    )


def _staircase_equality():
    for every in (1, 4, 5):
        yield from _compare(
            ours.Staircase(_decay(), every), lambda t, n=every: _harmonic(t // n * n)
        )


def warmup_stable_decay(step, peak, steps, rising, falling, shape, start=0.0, end=0.0):
    """Hu et al. 2024 and Hägele et al. 2024, with the lengths of both ends in steps."""
    if step < rising:
        return start + (peak - start) * step / rising
    x = min(max(step - (steps - falling), 0) / falling, 1)
    share = {"linear": 1 - x, "cosine": (1 + np.cos(np.pi * x)) / 2, "sqrt": 1 - np.sqrt(x)}
    return end + (peak - end) * share[shape]


def _trapezoid_equality():
    for shape in ("linear", "cosine", "sqrt"):
        schedule = ours.WarmupStableDecay(0.2, 20, warmup=0.25, decay=0.5, shape=shape)
        reference = functools.partial(
            warmup_stable_decay, peak=0.2, steps=20, rising=5, falling=10, shape=shape
        )
        # Beside 1 - 1 the last place of a cosine is all there is.
        yield from _compare(schedule, reference, [t for t in STEPS if t < 20])
        yield schedule(10**7) + 1.0, 1.0, 1e-7
    ends = {"start": 0.01, "end": 0.05}
    schedule = ours.WarmupStableDecay(0.2, 10**7, warmup=2e-7, decay=4e-7, **ends)
    reference = functools.partial(
        warmup_stable_decay, peak=0.2, steps=10**7, rising=2, falling=4, shape="linear", **ends
    )
    near_the_end = [10**7 - 5, 10**7 - 4, 10**7 - 3, 10**7 - 2, 10**7 - 1, 10**7, 2 * 10**7]
    yield from _compare(schedule, reference, STEPS + near_the_end)


def _momentum_equality():
    def expected(step, interval, maximum):
        return min(1 - 2.0 ** (-1 - np.log2(step // interval + 1)), maximum)

    for interval, maximum in ((250, 0.99), (3, 0.9), (10, 0.999)):
        yield from _compare(
            ours.SutskeverMomentum(maximum, interval),
            functools.partial(expected, interval=interval, maximum=maximum),
            [*STEPS, 249, 250, 499, 500, 750],
        )
    lowered = ours.SutskeverMomentum(0.99, 2, steps=30, last=10, final=0.9)
    yield from _compare(
        lowered, lambda t: min(expected(t, 2, 0.99), 0.9 if t >= 20 else 1), range(40)
    )


# Schedule, and whether the conditions hold, by the formula alone.
TAILS = [
    (0.1, False),
    (theirs.InverseTimeDecay(0.1, 10, 0.5), True),
    (theirs.InverseTimeDecay(0.1, 10, 0.5, staircase=True), True),
    (theirs.InverseTimeDecay(0.1, 10, 0.0), False),
    (theirs.InverseTimeDecay(0.0, 10, 0.5), False),
    (theirs.ExponentialDecay(0.1, 10, 0.9), False),
    (theirs.ExponentialDecay(0.1, 10, 1.0), False),
    (theirs.PiecewiseConstantDecay([10], [0.1, 0.01]), False),
    (theirs.CosineDecay(0.1, 50), False),
    (theirs.PolynomialDecay(0.1, 50, 0.001), False),
    (theirs.PolynomialDecay(0.1, 50, 0.0), False),
    (theirs.PolynomialDecay(0.1, 8, 0.0, cycle=True), True),
    (theirs.PolynomialDecay(0.1, 8, 0.0, power=0.75, cycle=True), True),
    (theirs.PolynomialDecay(0.1, 8, 0.0, power=0.5, cycle=True), False),
    (theirs.PolynomialDecay(0.1, 8, 0.0, power=1.5, cycle=True), False),
    (theirs.PolynomialDecay(0.1, 8, 0.001, cycle=True), False),
    (theirs.CosineDecayRestarts(0.1, 8), False),
    (theirs.CosineDecayRestarts(0.1, 8, m_mul=0.6), True),
    (theirs.CosineDecayRestarts(0.1, 8, m_mul=0.4), False),
    (theirs.CosineDecayRestarts(0.1, 8, m_mul=0.75), False),
    (theirs.CosineDecayRestarts(0.1, 8, m_mul=0.6, alpha=0.01), False),
    (ours.OneCycle(0.1, 50), False),
    (ours.WarmupStableDecay(0.1, 50), False),
    (ours.SutskeverMomentum(), False),
    (ours.WarmUp(_decay(), 5), True),
    (ours.WarmUp(0.1, 5), False),
    (ours.Join([0.1, _decay()], [5]), True),
    (ours.Join([_decay(), 0.1], [5]), False),
    (ours.Staircase(_decay(), 5), True),
    (ours.WarmUp(ours.Join([0.1, ours.Staircase(_decay(), 3)], [5]), 5), True),
]


def _conditions_equality():
    for schedule, expected in TAILS:
        yield ours.is_robbins_monro(schedule), expected, 0


class Unknown(theirs.InverseTimeDecay):
    """A subclass may compute anything."""


def _model(schedule):
    def build(**kwargs):
        # Plain SGD of Keras would be saved under PyTorch's name for it.
        from kerasrecipes.optimizers import PerturbedSGD

        settings = {"momentum": 0.5, "threshold": 0.0, "seed": 0, **kwargs}
        return network(optimizer=PerturbedSGD(schedule(), **settings))

    return build


def _entry(equality, make, errors):
    return Entry(
        kind="schedule",
        equality=equality,
        make=make,
        model=_model(make),
        errors=errors,
        skip={"accumulation": "Keras calls a schedule with the count of batches, not updates"},
    )


_WSD, _SM = ours.WarmupStableDecay, ours.SutskeverMomentum

ENTRIES = {
    "schedules.WarmUp": _entry(
        _warm_up_equality,
        lambda: ours.WarmUp(ours.Staircase(_decay(), 2), 4, start=0.01),
        [
            (ValueError, "at least 1", lambda *_: ours.WarmUp(0.1, 0)),
            (TypeError, "`steps` must be an integer", lambda *_: ours.WarmUp(0.1, 2.5)),
            (ValueError, "0 <= start", lambda *_: ours.WarmUp(0.1, 2, start=-0.1)),
            (ValueError, "0 <= schedule", lambda *_: ours.WarmUp(-0.1, 2)),
            (TypeError, "LearningRateSchedule", lambda *_: ours.WarmUp(lambda t: 0.1, 2)),
            (TypeError, "LearningRateSchedule", lambda *_: ours.WarmUp("cosine", 2)),
        ],
    ),
    "schedules.Join": _entry(
        _join_equality,
        lambda: ours.Join([ours.WarmUp(0.1, 2), _decay(), 0.01], [3, 6]),
        [
            (ValueError, "must not be empty", lambda *_: ours.Join([0.1], [])),
            (ValueError, "must increase", lambda *_: ours.Join([0.1, 0.2, 0.3], [5, 5])),
            (ValueError, "must increase", lambda *_: ours.Join([0.1, 0.2, 0.3], [7, 5])),
            (ValueError, "one boundary fewer", lambda *_: ours.Join([0.1, 0.2], [5, 7])),
            (ValueError, "at least 1", lambda *_: ours.Join([0.1, 0.2], [0])),
            (TypeError, r"boundaries\[0\]", lambda *_: ours.Join([0.1, 0.2], [1.5])),
            (TypeError, "must be a list", lambda *_: ours.Join([0.1, 0.2], 5)),
            (TypeError, r"schedules\[1\]", lambda *_: ours.Join([0.1, "cosine"], [5])),
            (ValueError, r"schedules\[0\]", lambda *_: ours.Join([np.nan, 0.1], [5])),
        ],
    ),
    "schedules.Staircase": _entry(
        _staircase_equality,
        lambda: ours.Staircase(theirs.CosineDecay(0.1, 20), 2),
        [
            (ValueError, "at least 1", lambda *_: ours.Staircase(_decay(), 0)),
            (TypeError, "`every` must be an integer", lambda *_: ours.Staircase(_decay(), 0.5)),
            (TypeError, "LearningRateSchedule", lambda *_: ours.Staircase(abs, 5)),
        ],
    ),
    "schedules.WarmupStableDecay": _entry(
        _trapezoid_equality,
        lambda: _WSD(0.2, 10, warmup=0.2, decay=0.5, shape="sqrt", start=0.01, end=0.001),
        [
            (ValueError, "0 < peak", lambda *_: _WSD(0, 10)),
            (TypeError, "`steps` must be an integer", lambda *_: _WSD(0.1, 10.0)),
            (ValueError, "warmup < 1", lambda *_: _WSD(0.1, 10, warmup=2)),
            (ValueError, "0 < decay", lambda *_: _WSD(0.1, 10, decay=0)),
            (ValueError, "at most 1", lambda *_: _WSD(0.1, 10, warmup=0.6, decay=0.5)),
            (ValueError, "a step or more", lambda *_: _WSD(0.1, 10, warmup=0.01)),
            (ValueError, "a step or more", lambda *_: _WSD(0.1, 10, warmup=0, decay=0.01)),
            (ValueError, "Did you mean 'cosine'", lambda *_: _WSD(0.1, 100, shape="cosin")),
            (ValueError, "end <= 0.1", lambda *_: _WSD(0.1, 100, end=0.2)),
            (ValueError, "start <= 0.1", lambda *_: _WSD(0.1, 100, start=0.2)),
        ],
    ),
    "schedules.SutskeverMomentum": _entry(
        _momentum_equality,
        lambda: _SM(0.9, 2, steps=12, last=4, final=0.5),
        [
            (ValueError, "maximum < 1", lambda *_: _SM(1.0)),
            (ValueError, "at least 1", lambda *_: _SM(interval=0)),
            (ValueError, "`last` must not exceed", lambda *_: _SM(steps=100)),
            (ValueError, "final < 1", lambda *_: _SM(final=1.5)),
            (TypeError, "`steps` must be an integer", lambda *_: _SM(steps=1e6)),
        ],
    ),
    "schedules.is_robbins_monro": Entry(
        kind="theory",
        equality=_conditions_equality,
        errors=[
            (TypeError, "InverseTimeDecay", lambda *_: ours.is_robbins_monro(lambda t: 1 / t)),
            (
                TypeError,
                "tail is known",
                lambda *_: ours.is_robbins_monro(Unknown(0.1, 10, 0.5)),
            ),
            (
                TypeError,
                "tail is known",
                lambda *_: ours.is_robbins_monro(ours.WarmUp(Unknown(0.1, 10, 0.5), 4)),
            ),
            (ValueError, "finite", lambda *_: ours.is_robbins_monro(float("nan"))),
            (
                ValueError,
                "zeros",
                lambda *_: ours.is_robbins_monro(
                    ours.Staircase(theirs.PolynomialDecay(0.1, 8, 0.0, cycle=True), 8)
                ),
            ),
        ],
    ),
}

_PARTS = "test_schedule_parts.py"

FAULTS = [
    *faults(
        "schedules.WarmUp",
        "schedules/warm_up.py",
        _PARTS,
        ("ops.minimum(step, self.steps)", "ops.minimum(step + 1, self.steps)"),
        ("since(step, self.steps))", "step)"),
        ("self.start + (rate", "(rate"),
    ),
    *faults(
        "schedules.Join",
        "schedules/join.py",
        _PARTS,
        ("ops.where(step < begin", "ops.where(step <= begin"),
        ("rate_at(schedule, since(step, begin))", "rate_at(schedule, step)"),
        ('keras.saving.deserialize_keras_object(config["schedules"])', 'config["schedules"]'),
    ),
    *faults(
        "schedules.Join",
        "schedules/_nested.py",
        _PARTS,
        ("return ops.maximum(step - begin, 0)", "return step - begin"),
    ),
    *faults(
        "schedules.Staircase",
        "schedules/staircase.py",
        _PARTS,
        ("step - step % self.every)", "step // self.every)"),
        ("step - step % self.every)", "step)"),
        ("step - step % self.every)", "step - (step + 1) % self.every)"),
    ),
    *faults(
        "schedules.Staircase",
        "schedules/_nested.py",
        _PARTS,
        ("return ops.convert_to_tensor(step)", 'return ops.cast(step, "float32")'),
    ),
    *faults(
        "schedules.WarmupStableDecay",
        "schedules/warmup_stable_decay.py",
        _PARTS,
        ("0.5 * (1.0 + ops.cos(math.pi * x))", "ops.cos(0.5 * math.pi * x)"),
        ("1.0 - ops.sqrt(x)", "ops.sqrt(1.0 - x)"),
        ("(self.steps - falling), 0, falling)", "(self.steps - falling) + 1, 0, falling)"),
        ("self.steps - rising)", "self.steps)"),
    ),
    *faults(
        "schedules.SutskeverMomentum",
        "schedules/sutskever_momentum.py",
        _PARTS,
        ("1.0 - 0.5 / (stage + 1.0)", "1.0 - 1.0 / (stage + 1.0)"),
        ("ops.cast(step // self.interval", "ops.cast(step / self.interval"),
        ("step >= self.steps - self.last", "step > self.steps - self.last"),
        ("ops.minimum(momentum, self.final), momentum)", "self.final, momentum)"),
    ),
    *faults(
        "schedules.is_robbins_monro",
        "schedules/robbins_monro.py",
        _PARTS,
        ("length * height >= 1 > length * height**2", "length * height >= 1"),
        ("and 0.5 < config", "and 0.4 < config"),
        ("schedule.schedules[-1]", "schedule.schedules[0]"),
        ('and config["decay_rate"] > 0', ""),
        ("while type(schedule) in (WarmUp, Join, Staircase):", "while False:"),
    ),
]
