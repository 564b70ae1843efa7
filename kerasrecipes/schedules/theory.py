"""Momentum on a quadratic: the best rate and momentum from the ends of the spectrum.

How to use
    >>> from kerasrecipes.schedules.theory import momentum_phase, optimal_momentum
    >>> best = optimal_momentum(smallest=1.0, largest=100.0)
    >>> round(best.learning_rate, 4), round(best.momentum, 4), round(best.convergence_rate, 4)
    (0.0331, 0.6694, 0.8182)
    >>> momentum_phase(learning_rate=0.0331, momentum=0.9, eigenvalue=1.0)
    'ripples'

Suggested hyperparameters
    `smallest`, `largest`: the ends of the Hessian's spectrum where the loss is measured. For a
    network use the result as an order of magnitude only.

When not to use
    Far from a minimum, with strong gradient noise, or where the Hessian has negative
    eigenvalues: there is no rate of convergence to compute.

Technical details
    Heavy ball z <- momentum * z + gradient, w <- w - learning_rate * z, which is Keras's SGD. On
    an eigendirection one step is a 2 x 2 matrix whose eigenvalues are half of
    (1 - a*l + b) +- sqrt((1 + b - a*l)^2 - 4 b); it converges if and only if 0 < a*l < 2 + 2b.
    In the phase of ripples their modulus is sqrt(b): deck 002 prints 2 sqrt(b), as does the
    article's page. At the optimum the extreme matrices are defective, so a finite run shows
    k * rate^k.

Attribution
    Goh, Why Momentum Really Works, Distill, 2017, https://distill.pub/2017/momentum
"""

import cmath
import math
from typing import NamedTuple

from kerasrecipes._checks import number

__all__ = ["momentum_phase", "momentum_rate", "optimal_gradient_descent", "optimal_momentum"]


class Optimum(NamedTuple):
    """Rate and momentum, and the factor by which the slowest error shrinks in one step."""

    learning_rate: float
    momentum: float
    convergence_rate: float


def _spectrum(smallest, largest):
    low = number("smallest", smallest, 0, open_low=True)
    return low, number("largest", largest, low)


def optimal_momentum(smallest, largest):
    """The pair of rate and momentum with the fastest worst-case convergence.

    Args:
        smallest, largest: smallest and largest eigenvalue of the Hessian, both positive.

    Returns:
        `Optimum(learning_rate, momentum, convergence_rate)`, where the last is
        (sqrt(k) - 1) / (sqrt(k) + 1) for the condition number k.

    Raises:
        ValueError: unless 0 < smallest <= largest.

    Reference:
        Goh, 2017, section "Optimal parameters".
    """
    low, high = map(math.sqrt, _spectrum(smallest, largest))
    ratio = (high - low) / (high + low)
    return Optimum((2 / (low + high)) ** 2, ratio**2, ratio)


def optimal_gradient_descent(smallest, largest):
    """The same without momentum: rate 2 / (smallest + largest), factor (k - 1) / (k + 1).

    Args:
        smallest, largest: smallest and largest eigenvalue of the Hessian, both positive.

    Returns:
        `Optimum(learning_rate, 0.0, convergence_rate)`.

    Raises:
        ValueError: unless 0 < smallest <= largest.
    """
    low, high = _spectrum(smallest, largest)
    return Optimum(2 / (low + high), 0.0, (high - low) / (high + low))


def momentum_rate(learning_rate, momentum, eigenvalue):
    """The factor by which the error along one eigendirection shrinks in one step.

    Args:
        learning_rate: rate of the heavy ball, positive.
        momentum: in [0, 1).
        eigenvalue: eigenvalue of the Hessian along that direction.

    Returns:
        The spectral radius of the step, a float; above 1 the direction diverges.
    """
    step = number("learning_rate", learning_rate, 0, open_low=True)
    step *= number("eigenvalue", eigenvalue)
    beta = number("momentum", momentum, 0, 1, open_high=True)
    root = cmath.sqrt((1 + beta - step) ** 2 - 4 * beta)
    return max(abs(1 - step + beta + root), abs(1 - step + beta - root)) / 2


def momentum_phase(learning_rate, momentum, eigenvalue):
    """How the error moves along one eigendirection.

    Args:
        learning_rate, momentum, eigenvalue: see `momentum_rate`.

    Returns:
        "monotone" (the error keeps its sign in the long run), "ripples" (damped oscillation of
        modulus sqrt(momentum)), "oscillations" (the sign changes at every step) or "divergence".
    """
    if momentum_rate(learning_rate, momentum, eigenvalue) >= 1:
        return "divergence"
    step, root = learning_rate * eigenvalue, math.sqrt(momentum)
    if step <= (1 - root) ** 2:
        return "monotone"
    return "ripples" if step < (1 + root) ** 2 else "oscillations"
