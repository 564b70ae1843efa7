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
`state["counts"]` and `state["numbers"]` hold what COUNTS and NUMBERS name.

The line search looks for a step t along d with the strong Wolfe conditions, for f(t) = f(w + t d):

    |f'(t)| <= curvature |f'(0)|   and   f(t) <= f(0) + decrease t f'(0) + NOISE |f(0)|,

the second only where values are known. The last term lets a step through whose gain is lost in
the rounding of f, as Hager and Zhang's approximate Wolfe conditions do. A bracket whose lower end
goes down and whose upper end goes up, is too high or not finite is shrunk by the secant of the
slopes, by the parabola where the upper end is too high, and each third time by halves; without
an upper end the secant of the last two slopes leads further out.

Hager and Zhang, A New Conjugate Gradient Method with Guaranteed Descent and an Efficient Line
Search, 2005, https://doi.org/10.1137/030601880; Nocedal and Wright, Numerical Optimization, 2006,
chapter 3.
"""

import dataclasses
import typing

from keras import ops

RUNNING, CONVERGED, STALLED, UNEQUAL, NOT_FINITE = range(5)
COUNTS = ("status", "trials", "accepted", "failures")
NUMBERS = (
    "value",  # f(0) of this search, NaN where values are unknown
    "slope",  # f'(0)
    "length",  # of the trial under way
    "low",
    "low_slope",
    "low_value",
    "high",  # inf while there is no upper end
    "high_slope",  # NaN where it tells nothing
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
        "numbers": ((len(NUMBERS),), None),
        "counts": ((len(COUNTS),), "int32"),
        "stage": ((), "int32"),
        **rule.shapes(size),
    }


def dot(a, b):
    return ops.sum(a * b)


def advance(state, trial, value, gradient, rate, rule, limits):
    """Takes one evaluation and says where the next one is due.

    Args:
        state: what `start` or the call before returned; its arrays must not be used again.
        trial: vector of shape `(n,)`, where the evaluation was made.
        value: the function there, a scalar, or None where it is unknown.
        gradient: the gradient there, of shape `(n,)`.
        rate: factor on the first trial of each search, a scalar of the dtype of the vectors.
        rule: which direction comes next.
        limits: `Limits`.

    Returns:
        The next state, and the next trial point of shape `(n,)`: the accepted point itself
        where the search has converged or stalled.
    """
    n = dict(zip(NUMBERS, ops.unstack(state["numbers"]), strict=True))
    k = dict(zip(COUNTS, ops.unstack(state["counts"]), strict=True))
    slope, square = dot(gradient, state["direction"]), dot(gradient, gradient)
    finite = ops.isfinite(square)
    if value is None:
        value = n["value"] * float("nan")
    else:
        value = ops.cast(value, gradient.dtype)
        finite &= ops.isfinite(value)
    fresh = state["stage"] == 0
    bound = n["value"] + limits.decrease * n["length"] * n["slope"] + NOISE * abs(n["value"])
    too_high = (value > bound) | ~finite
    flat = abs(slope) <= limits.curvature * abs(n["slope"])
    given_up = k["trials"] > limits.max_trials
    accept = ~fresh & (given_up | (flat & ~too_high))
    seen = Evaluation(
        *(trial - state["point"], gradient - state["gradient"], gradient, state["gradient"]),
        *(state["direction"], n["length"], n["slope"], slope, square, n["square"]),
    )
    # Outside of the branches: a matrix that one of them returns, XLA copies.
    state = rule.remember(state, seen, accept)
    moved, trial = ops.cond(
        finite & (fresh | accept),
        lambda: _arrived(state, n, k, trial, value, seen, accept, rate, rule, limits),
        lambda: _missed(state, n, k, trial, value, seen, finite, given_up, too_high, rule, limits),
    )
    return {**state, **moved}, trial


def _arrived(state, n, k, trial, value, seen, accept, rate, rule, limits):
    """The trial is the accepted point; the next search begins there."""
    gradient = seen.gradient
    largest = ops.max(abs(gradient))

    # Weights that were set from outside begin anew; only where they stay can batches differ.
    elsewhere = accept | (ops.max(abs(seen.step)) > 0)
    other_batch = dot(seen.change, seen.change) > 1e-6 * n["square"]
    unequal = ~elsewhere & (k["failures"] > 0) & other_batch
    halted = ~elsewhere & (k["status"] == STALLED) & ~other_batch
    done = largest <= limits.tolerance
    ended = done | halted
    status = ops.where(elsewhere | (~halted & (k["status"] != UNEQUAL)), RUNNING, k["status"])
    status = ops.where(done, CONVERGED, ops.where(unequal, UNEQUAL, status))

    direction, first = rule.turn(state, seen, accept)
    down = dot(gradient, direction)
    astray = ~(down < 0)
    direction = ops.where(astray, -gradient, direction)
    down = ops.where(astray, -seen.square, down)
    length = rate * ops.where(astray, unscaled(seen.square), first)
    none = ops.zeros_like(down)
    numbers = {
        "value": value,
        "slope": down,
        "length": length,
        "low": none,
        "low_slope": down,
        "low_value": value,
        "high": none + float("inf"),
        "high_slope": none + float("nan"),
        "largest": largest,
        "square": seen.square,
    }
    counts = {
        "status": status,
        "trials": ops.ones_like(status),
        "accepted": k["accepted"] + ops.cast(accept, "int32"),
        "failures": ops.where(elsewhere, 0, k["failures"]),
    }
    moved = {"point": trial, "gradient": gradient, "direction": direction}
    trial = ops.where(ended, trial, trial + length * direction)
    memory = rule.forget(state, astray & ~ended)
    return {**moved, **memory, **_packed(ended, numbers, counts)}, trial


def _missed(state, n, k, trial, value, seen, finite, given_up, too_high, rule, limits):
    """The accepted point stays; the next trial is elsewhere on the line, or the search ends."""
    slope, fresh = seen.slope, state["stage"] == 0
    bracket = _narrowed(n, value, slope, slope >= 0, too_high)
    failed = ~fresh & (k["trials"] >= limits.max_trials)
    # A search that finds nothing ends at its lower end, where the slope still goes down.
    length = ops.where(
        failed, bracket["low"], _next_length(n, bracket, value, slope, too_high, finite, k)
    )
    stuck = (failed & (bracket["low"] <= 0)) | (~finite & (fresh | given_up))
    failures = k["failures"] + ops.cast(stuck, "int32")
    stalled = stuck & (failures > 1) & (k["status"] != UNEQUAL)
    status = ops.where(stalled, STALLED, k["status"])
    status = ops.where(stuck & ~finite, NOT_FINITE, status)
    counts = {**k, "status": status, "trials": k["trials"] + 1, "failures": failures}
    kept = {name: state[name] for name in ("gradient", "direction")}
    kept["point"] = ops.where(fresh, trial, state["point"])
    trial = ops.where(stuck, kept["point"], kept["point"] + length * state["direction"])
    packed = _packed(stuck, {**n, **bracket, "length": length}, counts)
    return {**kept, **rule.forget(state, stuck), **packed}, trial


def _packed(ended, numbers, counts):
    return {
        "stage": ops.cast(~ended, "int32"),
        "numbers": ops.stack([numbers[name] for name in NUMBERS]),
        "counts": ops.stack([ops.cast(counts[name], "int32") for name in COUNTS]),
    }


class Evaluation(typing.NamedTuple):
    """What a rule may look at; vectors are of shape `(n,)`."""

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


def unscaled(square):
    """Length of the first step along a gradient where nothing is known of the curvature."""
    return ops.where(square > 1.0, ops.rsqrt(square), 1.0)


def _narrowed(n, value, slope, uphill, too_high):
    over = uphill | too_high
    ends = {"low": n["length"], "low_slope": slope, "low_value": value}
    return {
        **{name: ops.where(over, n[name], new) for name, new in ends.items()},
        "high": ops.where(over, n["length"], n["high"]),
        "high_slope": ops.where(over, ops.where(too_high, float("nan"), slope), n["high_slope"]),
    }


def _next_length(n, bracket, value, slope, too_high, finite, k):
    low, down = bracket["low"], bracket["low_slope"]
    width = bracket["high"] - low
    secant = down / (down - bracket["high_slope"])
    parabola = -0.5 * down * width / (value - bracket["low_value"] - down * width)
    share = ops.where(too_high, ops.where(finite, ops.clip(parabola, 0.1, 0.5), 0.1), secant)
    halve = ~ops.isfinite(share) | (k["trials"] % 3 == 0)
    inside = low + width * ops.where(halve, 0.5, ops.clip(share, 0.01, 0.99))

    reach = n["length"] - n["low"]
    further = slope / (n["low_slope"] - slope)
    further = ops.where(slope > n["low_slope"], ops.clip(further, 1.0, 9.0), 9.0)
    return ops.where(ops.isinf(bracket["high"]), n["length"] + reach * further, inside)
