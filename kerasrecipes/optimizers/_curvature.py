"""What Newton's relatives share: curvature in a basis, and how much damping a step gets."""

from typing import NamedTuple

import numpy as np

from kerasrecipes._checks import integer, number, one_of

GRID = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4)
_TRIES = 15


class Curvature(NamedTuple):
    """A symmetric matrix and the gradient in a basis that makes the matrix diagonal.

    `eigenvalues` has shape `(k,)`, ascending, `basis` `(n, k)` with orthonormal columns, and
    `slope`, the gradient in this basis, `(k,)`. With k < n it is all a Krylov space sees of them.
    """

    eigenvalues: np.ndarray
    basis: np.ndarray
    slope: np.ndarray


def lanczos(product, start, steps):
    """Lanczos's method, each new vector made orthogonal to all earlier ones, twice.

    Args:
        product: function of a vector `(n,)`: a symmetric matrix times it.
        start: first vector, shape `(n,)`, of any length but 0.
        steps: how many vectors at most; fewer if the space is closed under the matrix.

    Returns:
        Two arrays: orthonormal columns V of shape `(n, k)`, and V' matrix V, tridiagonal, `(k, k)`.
    """
    vectors, images = [start / np.linalg.norm(start)], []
    while True:
        images.append(np.asarray(product(vectors[-1]), "float64"))
        residual, known = images[-1], np.array(vectors)
        for _ in range(2):
            residual = residual - known.T @ (known @ residual)
        length = np.linalg.norm(residual)
        # Below the rounding of float32 products a residual has no direction of its own.
        if len(vectors) == min(steps, start.size) or length <= 1e-6 * np.linalg.norm(images[-1]):
            break
        vectors.append(residual / length)
    basis = np.array(vectors).T
    projected = basis.T @ np.array(images).T
    return basis, (projected + projected.T) / 2


def curvature(gradient, matrix=None, product=None, krylov=None):
    """The curvature along all directions (from `matrix()`), or in a Krylov space of the gradient.

    Args:
        gradient: shape `(n,)`.
        matrix: function without arguments that returns the matrix, shape `(n, n)`.
        product: function of a vector that returns the matrix times it.
        krylov: dimension of the Krylov space, or None for the whole matrix.
    """
    gradient = np.asarray(gradient, "float64")
    if krylov is None:
        eigenvalues, basis = np.linalg.eigh(np.asarray(matrix(), "float64"))
    else:
        space, projected = lanczos(product, gradient, krylov)
        eigenvalues, inner = np.linalg.eigh(projected)
        basis = space @ inner
    return Curvature(eigenvalues, basis, basis.T @ gradient)


class Damping:
    """How much damping: the best of a grid at each step, or one value under Marquardt's rule."""

    def __init__(self, damping, krylov, merit="loss"):
        self.krylov = None if krylov is None else integer("krylov", krylov, 1)
        self.merit = one_of("merit", merit, ("loss", "gradient"))
        self.grid = self.value = None
        if isinstance(damping, (tuple, list)):
            if not damping:
                raise ValueError("`damping` is an empty grid: give at least one value.")
            self.grid = [number("damping", value, 0) for value in damping]
        else:
            self.value = number("damping", damping, 0, open_low=True)

    def __call__(self, objective, w, direction, matrix, product):
        """One damped step.

        Args:
            objective: has `value(w)` and `value_and_gradient(w)`.
            w: vector of shape `(n,)`.
            direction: function of a `Curvature` and a damping that returns a step `(n,)`.
            matrix, product: functions of `w`, and of `w` and a vector.

        Returns:
            The new vector (the old one if no step was better) and a report, see the classes.
        """
        w = np.asarray(w)
        w = w if w.dtype.kind == "f" else w.astype("float64")
        loss, gradient = objective.value_and_gradient(w)
        largest = float(np.abs(gradient).max())
        report = {"loss": loss, "largest_gradient": largest, "accepted": False}
        if not np.isfinite(loss) or not np.isfinite(largest):
            raise ValueError(
                f"At the point given the loss is {loss} and the gradient's largest entry "
                f"{largest}: start from weights where both are finite."
            )
        if largest == 0:
            return w, report
        found = curvature(gradient, lambda: matrix(w), lambda v: product(w, v), self.krylov)
        report["smallest_eigenvalue"] = float(found.eigenvalues[0])

        def trial(damping):
            with np.errstate(all="ignore"):
                step = direction(found, damping)
            point = (w + step).astype(w.dtype)
            merit = self._merit(objective, point) if np.isfinite(point).all() else np.inf
            return merit, step, point

        def better(merit, point):
            """Also where the gain is lost in the loss's rounding, but the gradient shows it."""
            near = merit <= old + 10 * np.finfo(w.dtype).eps * abs(old)
            return merit < old or (near and _norm(objective, point) < _norm(objective, w))

        old = loss if self.merit == "loss" else _norm(objective, w)
        search = self._search if self.grid is None else self._best
        merit, point, damping, accepted = search(trial, better, old, found)
        report |= {"damping": damping, "accepted": accepted}
        if not accepted:
            return w, report
        report["loss"] = merit if self.merit == "loss" else objective.value(point)
        return point, report

    def _merit(self, objective, point):
        merit = objective.value(point) if self.merit == "loss" else _norm(objective, point)
        return merit if np.isfinite(merit) else np.inf

    def _best(self, trial, better, old, found):
        trials = [(*trial(damping), damping) for damping in self.grid]
        merit, _, point, damping = min(trials, key=lambda t: t[0])
        return merit, point, damping, better(merit, point)

    def _search(self, trial, better, old, found):
        for damping in (self.value * 4.0**k for k in range(_TRIES)):
            merit, step, point = trial(damping)
            if better(merit, point):
                self.value = damping * self._change(merit - old, step, found)
                return merit, point, damping, True
        return merit, point, damping, False

    def _change(self, gained, step, found):
        """Marquardt's factor from the gain and from what the quadratic model promised."""
        along = found.basis.T @ step
        promised = found.slope @ along + found.eigenvalues @ along**2 / 2
        ratio = gained / promised if self.merit == "loss" and promised < 0 else 1.0
        return 1.5 if ratio < 0.25 else 2 / 3 if ratio > 0.75 else 1.0


def _norm(objective, w):
    norm = float(np.linalg.norm(objective.value_and_gradient(w)[1]))
    return norm if np.isfinite(norm) else np.inf
