"""Descent along directions by reverse communication: one call of `advance` a gradient evaluation.

Whoever holds the function evaluates it where `advance` says, and calls again. All that is known
between two calls is a dictionary of tensors, so the same code runs as a Keras optimizer inside
`fit`, where the gradients come by themselves, and in one compiled loop over a flat vector:

    rule = LBFGSRule(10)  # or NonlinearCGRule: which direction comes next
    state = start(point, rule)
    trial = point
    while status is RUNNING:
        value, gradient = evaluate(trial)
        state, trial = advance(state, trial, value, gradient, rate, rule, limits)

`state["point"]` is the accepted point, `state["stage"]` is 0 while the trial is that point itself,
and `read` tells what `state["numbers"]` holds.

The line search looks for a step t along d with the strong Wolfe conditions, for f(t) = f(w + t d):

    |f'(t)| <= curvature |f'(0)|   and   f(t) <= f(0) + decrease t f'(0) + NOISE |f(0)|,

the second only where values are known. The last term lets a step through whose gain is lost in
the rounding of f, as Hager and Zhang's approximate Wolfe conditions do. A bracket whose lower end
goes down and whose upper end goes up, is too high or not finite is shrunk by the cubic through
values and slopes of both ends, in Moré and Thuente's way where the upper end is the higher one; by
the secant of the slopes where values are unknown or differ by rounding alone; and each fourth
time by halves. Without an upper end the secant of the last two slopes leads further out.

Hager and Zhang, A New Conjugate Gradient Method with Guaranteed Descent and an Efficient Line
Search, 2005, https://doi.org/10.1137/030601880; Moré and Thuente, Line Search Algorithms with
Guaranteed Sufficient Decrease, 1994, https://doi.org/10.1145/192115.192132; Nocedal and Wright,
Numerical Optimization, 2006, chapter 3.
"""

import dataclasses
import math
import typing

import numpy as np
from keras import ops

from kerasrecipes._backend import cond, dot, largest, number, numbers, packed, square

RUNNING, CONVERGED, STALLED, UNEQUAL, NOT_FINITE = range(5)
NUMBERS = (
    "status",
    "trials",  # of this search
    "accepted",  # steps so far
    "failures",  # searches that found nothing, since the last step
    "value",  # f(0) of this search, NaN where values are unknown
    "slope",  # f'(0)
    "length",  # of the trial under way
    "low",
    "low_slope",
    "low_value",
    "high",  # inf while there is no upper end
    "high_slope",  # NaN where the upper end is not finite
    "high_value",  # likewise, and where values are unknown
    "largest",  # largest entry of the gradient at the accepted point
    "square",  # of its length
)
NOISE = 1e-6


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the line search is told: fixed while it runs."""

    curvature: float
    decrease: float = 1e-4
    tolerance: float = 1e-5
    max_trials: int = 20


def start(point, rule):
    """The state before the first evaluation, which is due at `point`.

    Args:
        point: vector of shape `(n,)`, float32 or float64.
        rule: which direction comes next, such as `LBFGSRule`.

    Returns:
        A dictionary of tensors.
    """
    state = {
        name: ops.zeros(shape, dtype=dtype or point.dtype)
        for name, (shape, dtype) in shapes(point.shape[0], rule).items()
    }
    return {**state, "point": point}


def shapes(size, rule):
    """Shape and dtype of each part of the state; dtype None is that of the weights."""
    return {
        "point": ((size,), None),
        "gradient": ((size,), None),
        "direction": ((size,), None),
        "numbers": ((len(NUMBERS) + len(rule.numbers),), None),
        "stage": ((), "int32"),
        **rule.shapes(size),
    }


def read(state, rule):
    """The numbers by name, those of the rule among them, for arithmetic as of `_backend`."""
    return dict(zip((*NUMBERS, *rule.numbers), numbers(state["numbers"]), strict=True))


@np.errstate(all="ignore")
def advance(state, trial, value, gradient, rate, rule, limits, fresh=False):
    """Takes one evaluation and says where the next one is due.

    Args:
        state: what `start` or the call before returned; its arrays must not be used again.
        trial: vector of shape `(n,)`, where the evaluation was made.
        value: the function there, a scalar, or None where it is unknown.
        gradient: the gradient there, of shape `(n,)`.
        rate: factor on the first trial of each search, a scalar of the dtype of the vectors or a
            float.
        rule: which direction comes next.
        limits: `Limits`.
        fresh: whether the trial is the accepted point, whatever the stage is.

    Returns:
        The next state, and the next trial point of shape `(n,)`: the accepted point itself
        where the search has converged or stalled.
    """
    n = read(state, rule)
    slope, steepness = dot(gradient, state["direction"]), square(gradient)
    finite = number.isfinite(steepness)
    if value is None:
        value = n["value"] * math.nan
    else:
        value = numbers(ops.cast(value, gradient.dtype))
        finite &= number.isfinite(value)
    fresh |= numbers(state["stage"]) == 0
    bound = n["value"] + limits.decrease * n["length"] * n["slope"] + NOISE * abs(n["value"])
    too_high = (value > bound) | ~finite
    flat = abs(slope) <= limits.curvature * abs(n["slope"])
    given_up = n["trials"] > limits.max_trials
    accept = ~fresh & (given_up | (flat & ~too_high))
    step, change = trial - state["point"], gradient - state["gradient"]
    seen = Evaluation(
        *(step, change, gradient, state["gradient"], state["direction"], n["length"]),
        *(n["slope"], slope, steepness, n["square"], square(step), square(change)),
        dot(step, change),
    )
    # Outside of the branches: a matrix that one of them returns, XLA copies.
    state = rule.remember(state, n, seen, accept)
    moved, trial = cond(
        finite & (fresh | accept),
        lambda: _arrived(state, n, trial, value, seen, accept, rate, rule, limits),
        lambda: _missed(
            state, n, trial, value, seen, finite, fresh, given_up, too_high, rule, limits
        ),
    )
    return {**state, **moved}, trial


def _arrived(state, n, trial, value, seen, accept, rate, rule, limits):
    """The trial is the accepted point; the next search begins there."""
    gradient = seen.gradient
    steepest = largest(gradient)

    # Weights that were set from outside begin anew, and so do other data after a stall, in which
    # batches were equal; else only where the weights stay can batches differ.
    other_batch = seen.changed > 1e-6 * n["square"]
    anew = accept | (seen.moved > 0) | ((n["status"] == STALLED) & other_batch)
    unequal = ~anew & (n["failures"] > 0) & other_batch
    halted = ~anew & (n["status"] == STALLED)
    done = steepest <= limits.tolerance
    ended = done | halted
    where = number.where
    status = where(anew | (~halted & (n["status"] != UNEQUAL)), RUNNING, n["status"])
    status = where(done, CONVERGED, where(unequal, UNEQUAL, status))

    direction, first, state, n = rule.turn(state, n, seen, accept)
    down = dot(gradient, direction)
    astray = ~((down < 0) & number.isfinite(down))
    direction = where(astray, -gradient, direction)
    down = where(astray, -seen.square, down)
    length = rate * where(astray, unscaled(seen.square), first)
    memory, n = rule.forget(state, n, astray & ~ended)
    n = {
        **n,
        "status": status,
        "trials": 1.0,
        "accepted": where(accept, n["accepted"] + 1, n["accepted"]),
        "failures": where(anew, 0.0, n["failures"]),
        "value": value,
        "slope": down,
        "length": length,
        "low": 0.0,
        "low_slope": down,
        "low_value": value,
        "high": math.inf,
        "high_slope": math.nan,
        "high_value": math.nan,
        "largest": steepest,
        "square": seen.square,
    }
    moved = {"point": trial, "gradient": gradient, "direction": direction}
    trial = trial + where(ended, 0.0, length) * direction
    return {**moved, **memory, **_packed(state, n, ended, rule)}, trial


def _missed(state, n, trial, value, seen, finite, fresh, given_up, too_high, rule, limits):
    """The accepted point stays; the next trial is elsewhere on the line, or the search ends."""
    slope, where = seen.slope, number.where
    bracket = _narrowed(n, value, slope, too_high, finite)
    failed = ~fresh & (n["trials"] >= limits.max_trials)
    # A search that finds nothing ends at its lower end, where the slope still goes down.
    length = where(failed, bracket["low"], _next_length(n, bracket, slope, finite))
    stuck = (failed & (bracket["low"] <= 0)) | (~finite & (fresh | given_up))
    failures = where(stuck, n["failures"] + 1, n["failures"])
    stalled = stuck & (failures > 1) & (n["status"] != UNEQUAL)
    status = where(stalled, STALLED, n["status"])
    status = where(fresh & ~finite, NOT_FINITE, status)
    memory, n = rule.forget(state, n, stuck)
    counts = {"status": status, "trials": n["trials"] + 1, "failures": failures}
    n = {**n, **counts, **bracket, "length": length}
    kept = {name: state[name] for name in ("gradient", "direction")}
    kept["point"] = where(fresh, trial, state["point"])
    trial = where(stuck, kept["point"], kept["point"] + length * state["direction"])
    return {**kept, **memory, **_packed(state, n, stuck, rule)}, trial


def _packed(state, n, ended, rule):
    return {
        "stage": packed(number.where(ended, 0, 1), state["stage"]),
        "numbers": packed([n[name] for name in (*NUMBERS, *rule.numbers)], state["numbers"]),
    }


class Evaluation(typing.NamedTuple):
    """What a rule may look at: vectors of shape `(n,)`, and numbers as of `_backend.numbers`."""

    step: typing.Any  # from the accepted point before
    change: typing.Any  # of the gradient
    gradient: typing.Any
    old_gradient: typing.Any
    direction: typing.Any  # step = length * direction
    length: typing.Any
    old_slope: typing.Any  # old_gradient . direction
    slope: typing.Any  # gradient . direction
    square: typing.Any  # gradient . gradient
    old_square: typing.Any  # old_gradient . old_gradient
    moved: typing.Any  # step . step
    changed: typing.Any  # change . change
    curvature: typing.Any  # step . change


def unscaled(square):
    """Length of the first step along a gradient where nothing is known of the curvature."""
    return number.where(square > 1.0, 1.0 / number.sqrt(square), 1.0)


def _narrowed(n, value, slope, too_high, finite):
    where = number.where
    over = (slope >= 0) | too_high
    ends = {"low": n["length"], "low_slope": slope, "low_value": value}
    return {
        **{name: where(over, n[name], new) for name, new in ends.items()},
        "high": where(over, n["length"], n["high"]),
        "high_slope": where(over, where(finite, slope, math.nan), n["high_slope"]),
        "high_value": where(over, where(finite, value, math.nan), n["high_value"]),
    }


def _next_length(n, bracket, slope, finite):
    where, clip = number.where, number.clip
    low, down, up = bracket["low"], bracket["low_slope"], bracket["high_slope"]
    width, rise = bracket["high"] - low, bracket["high_value"] - bracket["low_value"]
    secant = down / (down - up)
    parabola = -0.5 * down * width / (rise - down * width)
    bend = down + up - 3 * rise / width
    root = number.sqrt(bend * bend - down * up)
    cubic = 1 - (up + root - bend) / (up - down + 2 * root)
    careful = where((rise > 0) & (cubic > parabola), (cubic + parabola) / 2, cubic)
    trusted = number.isfinite(cubic) & (abs(rise) > NOISE * abs(bracket["low_value"]))
    share = where(trusted, careful, where(up > 0, secant, parabola))
    share = where(finite, clip(share, 0.001, 0.999), 0.1)
    halve = ~number.isfinite(share) | (n["trials"] % 4 == 0)
    inside = low + width * where(halve, 0.5, share)

    reach = n["length"] - n["low"]
    further = slope / (n["low_slope"] - slope)
    further = where(slope > n["low_slope"], clip(further, 1.0, 9.0), 9.0)
    return where(number.isinf(bracket["high"]), n["length"] + reach * further, inside)
