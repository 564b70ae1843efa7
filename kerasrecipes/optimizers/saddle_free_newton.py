"""Saddle-free Newton: Newton's step with the absolute values of the curvatures.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.objective import Objective
    >>> from kerasrecipes.optimizers import SaddleFreeNewton
    >>> model = keras.Sequential(
    ...     [keras.Input((2,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x, y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])
    >>> objective, step = Objective(model, x, y), SaddleFreeNewton()
    >>> w, report = step(objective, objective.get_vector())
    >>> report["accepted"]
    True

Suggested hyperparameters
    `damping`: the default grid, of which each step takes the value with the lowest loss, as in
    the paper; or one number, from which Marquardt's rule goes on (one or two values of the loss a
    step instead of six). `krylov`: None up to some hundred weights, then 20 to 500.

When not to use
    Where the gradient is noisy: it needs the loss of all the data, or of a large fixed part. At a
    stationary point the gradient is 0 and no step leaves it: perturb the weights first. Where the
    Hessian has no negative eigenvalue it is Newton's method, at the same price. Piecewise linear
    networks show only a part of their curvature.

Technical details
    The step is -(|H| + damping I)^-1 g, |H| having the eigenvectors of H and the absolute values
    of its eigenvalues: it minimizes the linear model where the quadratic one is within a bound of
    it. With `krylov` the same is done in the Krylov space of the gradient. The authors' code lets
    Lanczos's vectors lose orthogonality, here each is made orthogonal to all before; the
    paper's further inner steps in one space are left out. A step that does not lower the loss is
    not taken.

Attribution
    Dauphin, Pascanu, Gulcehre, Cho, Ganguli, Bengio, Identifying and attacking the saddle point
    problem in high-dimensional non-convex optimization, 2014, https://arxiv.org/abs/1406.2572.
"""

import numpy as np

from kerasrecipes.optimizers._curvature import GRID, Damping


def saddle_free_step(curvature, damping):
    """-(|H| + damping I)^-1 g.

    Args:
        curvature: eigenvalues `(k,)`, basis `(n, k)` and the gradient in it, `(k,)`.
        damping: number.

    Returns:
        The step, shape `(n,)`; not finite where an eigenvalue and the damping are 0.
    """
    return -curvature.basis @ (curvature.slope / (np.abs(curvature.eigenvalues) + damping))


class SaddleFreeNewton:
    """A damped step on the Hessian with all its eigenvalues made positive.

    Call it with an `Objective` (or any object with `value(w)`, `value_and_gradient(w)`,
    `hessian(w)` and `hessian_vector_product(w, v)`) and a vector of shape `(n,)`. It returns the
    next vector and a report: "loss" there, "largest_gradient" and "smallest_eigenvalue" where it
    started, "damping", and "accepted", which is False where no step was better.

    Args:
        damping: tuple of values, at least 0, of which each step takes the one with the lowest
            loss; or a first value above 0, which Marquardt's rule moves.
        krylov: dimension of the Krylov space in which the step lies; None for the whole Hessian.

    Raises:
        TypeError: if an argument is no number.
        ValueError: if an argument is out of range; in a call, if the loss is not finite.

    Reference:
        Dauphin et al., 2014, https://arxiv.org/abs/1406.2572, Algorithm 1
    """

    def __init__(self, damping=GRID, krylov=None):
        self._damping = Damping(damping, krylov)

    def __call__(self, objective, w):
        return self._damping(
            objective, w, saddle_free_step, objective.hessian, objective.hessian_vector_product
        )
