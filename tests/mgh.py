"""The unconstrained problems of Moré, Garbow and Hillstrom, as sums of squared residuals.

Testing Unconstrained Optimization Software, 1981, https://doi.org/10.1145/355934.355936, in
NumPy, float64, with standard starts. Gradients are complex-step derivatives, exact to rounding.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass
class Problem:
    """`residuals(x)` of complex or real `x`; `number` is the paper's; `minimum` the paper's f."""

    number: int
    residuals: Callable
    start: np.ndarray
    minimum: float | None

    def value(self, x):
        return float((self.residuals(np.asarray(x, "float64")) ** 2).sum())

    def value_and_gradient(self, x):
        x = np.asarray(x, "float64")
        r = self.residuals(x)
        columns = [self.residuals(x + 1e-30j * e).imag / 1e-30 for e in np.eye(x.size)]
        with np.errstate(all="ignore"):
            return float((r**2).sum()), 2 * np.array(columns) @ r


def _helical(x):
    # The angle of (x0, x1) in turns; np.arctan2 knows no complex numbers.
    angle = np.arctan(x[1] / x[0]) / (2 * np.pi) + (0.5 if x[0].real < 0 else 0.0)
    return np.array([10 * (x[2] - 10 * angle), 10 * (np.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


def _biggs(x):
    t = 0.1 * np.arange(1, 14)
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return x[2] * np.exp(-t * x[0]) - x[3] * np.exp(-t * x[1]) + x[5] * np.exp(-t * x[4]) - y


_GAUSS = np.array([9, 44, 175, 540, 1295, 2420, 3521, 3989]) / 1e4


def _gaussian(x):
    t = (8 - np.arange(1, 16)) / 2
    return x[0] * np.exp(-x[1] * (t - x[2]) ** 2 / 2) - np.concatenate([_GAUSS, _GAUSS[-2::-1]])


def _powell_badly_scaled(x):
    return np.array([1e4 * x[0] * x[1] - 1, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001])


def _box(x):
    t = 0.1 * np.arange(1, 11)
    return np.exp(-t * x[0]) - np.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


def _variably_dimensioned(x):
    s = (np.arange(1, x.size + 1) * (x - 1)).sum()
    return np.concatenate([x - 1, [s, s**2]])


def _watson(x):
    t, j = np.arange(1, 30)[:, None] / 29, np.arange(x.size)
    slope = (j[1:] * x[1:] * t ** (j[1:] - 1)).sum(axis=1)
    rest = slope - (x * t**j).sum(axis=1) ** 2 - 1
    return np.concatenate([rest, [x[0], x[1] - x[0] ** 2 - 1]])


def _penalty_1(x):
    return np.concatenate([np.sqrt(1e-5) * (x - 1), [(x**2).sum() - 0.25]])


def _penalty_2(x):
    n, root = x.size, np.sqrt(1e-5)
    i = np.arange(2, n + 1)
    y = np.exp(i / 10) + np.exp((i - 1) / 10)
    weights = n - np.arange(n)
    return np.concatenate(
        [
            [x[0] - 0.2],
            root * (np.exp(x[1:] / 10) + np.exp(x[:-1] / 10) - y),
            root * (np.exp(x[1:] / 10) - np.exp(-1 / 10)),
            [(weights * x**2).sum() - 1],
        ]
    )


def _brown_badly_scaled(x):
    return np.array([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def _brown_dennis(x):
    t = np.arange(1, 21) / 5
    a = x[0] + t * x[1] - np.exp(t)
    return a**2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


def _gulf(x):
    t = np.arange(1, 100) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    # The paper's formula has y m i x1 for y - x1 by a misprint.
    apart = y - x[1]
    return np.exp(-((apart * np.where(apart.real < 0, -1, 1)) ** x[2]) / x[0]) - t


def _trigonometric(x):
    i = np.arange(1, x.size + 1)
    return x.size - np.cos(x).sum() + i * (1 - np.cos(x)) - np.sin(x)


def _rosenbrock(x):
    return np.concatenate([10 * (x[1::2] - x[0::2] ** 2), 1 - x[0::2]])


def _powell_singular(x):
    a, b, c, d = x[0::4], x[1::4], x[2::4], x[3::4]
    parts = a + 10 * b, np.sqrt(5) * (c - d), (b - 2 * c) ** 2, np.sqrt(10) * (a - d) ** 2
    return np.concatenate(parts)


def _beale(x):
    powers = np.arange(1, 4)
    return np.array([1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** powers)


def _wood(x):
    return np.array(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            np.sqrt(90) * (x[3] - x[2] ** 2),
            1 - x[2],
            np.sqrt(10) * (x[1] + x[3] - 2),
            (x[1] - x[3]) / np.sqrt(10),
        ]
    )


def _chebyquad(x):
    n, before, now, found = x.size, np.ones_like(x), 2 * x - 1, []
    for i in range(1, n + 1):
        integral = -1 / (i**2 - 1) if i % 2 == 0 else 0.0
        found.append(now.mean() - integral)
        before, now = now, 2 * (2 * x - 1) * now - before
    return np.array(found)


def _tiled(pattern, size):
    return np.tile(np.array(pattern, "float64"), size // len(pattern))


def _counted(size):
    return np.arange(1, size + 1, dtype="float64")


PROBLEMS = {
    "helical_valley": Problem(7, _helical, np.array([-1.0, 0, 0]), 0.0),
    "biggs_exp6": Problem(18, _biggs, np.array([1.0, 2, 1, 1, 1, 1]), None),
    "gaussian": Problem(9, _gaussian, np.array([0.4, 1, 0]), 1.12793e-8),
    "powell_badly_scaled": Problem(3, _powell_badly_scaled, np.array([0.0, 1]), 0.0),
    "box": Problem(12, _box, np.array([0.0, 10, 20]), 0.0),
    "variably_dimensioned": Problem(25, _variably_dimensioned, 1 - _counted(10) / 10, 0.0),
    "watson": Problem(20, _watson, np.zeros(6), 2.28767e-3),
    "penalty_1": Problem(23, _penalty_1, _counted(10), 7.08765e-5),
    "penalty_2": Problem(24, _penalty_2, np.full(10, 0.5), 2.93660e-4),
    "brown_badly_scaled": Problem(4, _brown_badly_scaled, np.array([1.0, 1]), 0.0),
    "brown_dennis": Problem(16, _brown_dennis, np.array([25.0, 5, -5, -1]), 85822.2),
    "gulf": Problem(11, _gulf, np.array([5.0, 2.5, 0.15]), 0.0),
    "trigonometric": Problem(26, _trigonometric, np.full(10, 0.1), None),
    "rosenbrock": Problem(21, _rosenbrock, _tiled([-1.2, 1], 10), 0.0),
    "powell_singular": Problem(22, _powell_singular, _tiled([3, -1, 0, 1], 12), 0.0),
    "beale": Problem(5, _beale, np.array([1.0, 1]), 0.0),
    "wood": Problem(14, _wood, np.array([-3.0, -1, -3, -1]), 0.0),
    "chebyquad": Problem(35, _chebyquad, _counted(8) / 9, 3.51687e-3),
}
