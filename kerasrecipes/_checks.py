"""What every room says of bad input: what was given, what is allowed, the likely fix."""

import difflib
import numbers

import numpy as np


def nearest(name, names):
    """A hint such as `" Did you mean 'learning_rate'?"`, or `""` where nothing is near."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def one_of(argument, value, allowed):
    """Returns `value` if it is among `allowed`, else raises a ValueError with the nearest."""
    if value not in allowed:
        raise ValueError(
            f"`{argument}` must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {argument}={value!r}.{nearest(value, allowed)}"
        )
    return value


def number(argument, value, low=None, high=None, *, open_low=False, open_high=False):
    """Returns `value` as a float within the bounds, else raises a TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{argument}` must be a number. Received: {argument}={value!r}")
    too_low = low is not None and (value <= low if open_low else value < low)
    too_high = high is not None and (value >= high if open_high else value > high)
    if not np.isfinite(value) or too_low or too_high:
        left = "" if low is None else f"{low} {'<' if open_low else '<='} "
        right = "" if high is None else f" {'<' if open_high else '<='} {high}"
        raise ValueError(
            f"`{argument}` must be finite with {left}{argument}{right}. "
            f"Received: {argument}={value!r}"
        )
    return float(value)


def unconstrained(who, variables):
    """Raises a ValueError where a variable has a constraint, which moves along lines ignore."""
    bound = [v.path for v in variables if getattr(v, "constraint", None) is not None]
    if bound:
        raise ValueError(
            f"{who} moves along straight lines, which constraints bend. Take them from "
            f"{', '.join(bound)}, or write the layer so that free weights parametrize it."
        )


def integer(argument, value, low=None, high=None):
    """Returns `value` as an int within the bounds, else raises a TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{argument}` must be an integer. Received: {argument}={value!r}")
    if low is not None and value < low:
        raise ValueError(f"`{argument}` must be at least {low}. Received: {argument}={value!r}")
    if high is not None and value > high:
        raise ValueError(f"`{argument}` must be at most {high}. Received: {argument}={value!r}")
    return int(value)


def pair(argument, value):
    """Returns `value` as a tuple of two, else raises a TypeError."""
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 2:
        raise TypeError(f"`{argument}` must be a pair of two. Received: {argument}={value!r}")
    return tuple(value)
