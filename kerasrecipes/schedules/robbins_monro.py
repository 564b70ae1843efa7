"""Whether the rates of a schedule meet the Robbins–Monro conditions: large enough, small enough.

How to use
    >>> import keras
    >>> from kerasrecipes.schedules import is_robbins_monro
    >>> harmonic = keras.optimizers.schedules.InverseTimeDecay(0.1, 1000, decay_rate=1.0)
    >>> is_robbins_monro(harmonic)
    True
    >>> is_robbins_monro(keras.optimizers.schedules.CosineDecay(0.1, 1000))
    False

Suggested hyperparameters
    `schedule`: Keras's InverseTimeDecay is the common one that qualifies, with staircase=True
    too, also after a WarmUp or as the last part of a Join.

When not to use
    As a criterion for a real run. It speaks of infinitely many steps: in a hundred epochs a
    schedule that "fails" is often better, and one that "passes" may have moved nowhere.

Technical details
    Conditions: the rates sum to infinity, so that any distance can be covered, and their squares
    to a finite number, so that the noise dies out. Common schedules that do not meet them: every
    constant; PiecewiseConstantDecay, OneCycle, CosineDecay, WarmupStableDecay and
    PolynomialDecay, deck 004's linear decay to 1 % among them, since they end in a constant,
    whose squares sum to infinity, or in 0, which adds nothing; ExponentialDecay, whose rates sum
    to a finite number; CosineDecayRestarts as it comes, which restarts at full height. Two meet
    them with arguments that hardly anybody gives: CosineDecayRestarts with alpha = 0 and
    1 / t_mul <= m_mul < 1 / sqrt(t_mul), and PolynomialDecay with cycle=True, an end of 0 and
    1/2 < power <= 1, whose cycles shrink like (1 / k)^power.
    The answer follows from the formula of each class; its float32 values end one day. A subclass
    may change the formula, and a Staircase may see nothing but the zeros of a cyclic decay: there
    the function raises, as it does for every schedule that it does not know.
    What the conditions buy: on x²/2 with gradient noise of variance s² the rate 1/k gives
    E[x²] = s² / k, a constant rate e stays at s² e / (2 - e), and a rate whose sum is finite
    never quite forgets where it began.

Attribution
    Robbins and Monro, A Stochastic Approximation Method, 1951,
    https://doi.org/10.1214/aoms/1177729586
"""

import numbers

from keras.optimizers import schedules

from kerasrecipes._checks import number
from kerasrecipes.schedules.join import Join
from kerasrecipes.schedules.one_cycle import OneCycle
from kerasrecipes.schedules.staircase import Staircase
from kerasrecipes.schedules.sutskever_momentum import SutskeverMomentum
from kerasrecipes.schedules.warm_up import WarmUp
from kerasrecipes.schedules.warmup_stable_decay import WarmupStableDecay


def _never(config):
    return False


def _inverse_time(config):
    return config["initial_learning_rate"] > 0 and config["decay_rate"] > 0


def _cycles(config):
    """Height of cycle k is (initial / k)^power, its length is the same: a harmonic series."""
    falls = config["cycle"] and config["end_learning_rate"] == 0
    return falls and config["initial_learning_rate"] > 0 and 0.5 < config["power"] <= 1


def _restarts(config):
    """Cycle k is t^k long and m^k high: sums of (t m)^k for the rates, of (t m²)^k for squares."""
    length, height = config["t_mul"], config["m_mul"]
    falls = config["initial_learning_rate"] > 0 and config["alpha"] == 0 and height > 0
    return falls and length * height >= 1 > length * height**2


TAILS = {
    schedules.CosineDecay: _never,
    schedules.CosineDecayRestarts: _restarts,
    schedules.ExponentialDecay: _never,
    schedules.InverseTimeDecay: _inverse_time,
    schedules.PiecewiseConstantDecay: _never,
    schedules.PolynomialDecay: _cycles,
    OneCycle: _never,
    SutskeverMomentum: _never,
    WarmupStableDecay: _never,
}


def is_robbins_monro(schedule):
    """Whether the rates sum to infinity and their squares to a finite number.

    Args:
        schedule: a rate, a schedule of Keras, or one of `kerasrecipes.schedules`.

    Returns:
        True or False.

    Raises:
        TypeError: for any other callable, also a subclass, since its tail is not known.
        ValueError: if a rate is negative or not finite, and for a `Staircase` over a cyclic
            `PolynomialDecay` that meets the conditions itself.

    Reference:
        Robbins and Monro, 1951, https://doi.org/10.1214/aoms/1177729586
    """
    stairs = False
    # What comes before the tail is finite and changes neither sum from finite to infinite.
    while type(schedule) in (WarmUp, Join, Staircase):
        stairs |= isinstance(schedule, Staircase)
        schedule = schedule.schedules[-1] if isinstance(schedule, Join) else schedule.schedule
    if isinstance(schedule, numbers.Real):
        number("schedule", schedule, 0)
        return False
    if type(schedule) not in TAILS:
        known = sorted(one.__name__ for one in (*TAILS, WarmUp, Join, Staircase))
        raise TypeError(
            "`schedule` must be a rate or a schedule whose tail is known: one of "
            f"{', '.join(known)}. Received: {schedule!r}. For another, compare its tail with "
            "1 / step^p: the conditions hold for 1/2 < p <= 1."
        )
    meets = bool(TAILS[type(schedule)](schedule.get_config()))
    if meets and stairs and type(schedule) is schedules.PolynomialDecay:
        raise ValueError(
            "A Staircase over a PolynomialDecay with cycle=True may see nothing but the zeros at "
            "the ends of the cycles, so its tail is not known. Received: "
            f"{schedule.get_config()}. Use InverseTimeDecay."
        )
    return meets
