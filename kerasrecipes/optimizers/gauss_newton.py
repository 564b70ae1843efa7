"""Gauss-Newton: Newton's step without the curvature of the network itself.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.objective import Objective
    >>> from kerasrecipes.optimizers import GaussNewton
    >>> model = keras.Sequential(
    ...     [keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x = np.linspace(-1, 1, 16)[:, None]
    >>> objective, step = Objective(model, x, np.sin(3 * x)), GaussNewton()
    >>> w, report = step(objective, objective.get_vector())
    >>> report["accepted"]
    True

Suggested hyperparameters
    `damping`: 1.0, from which Marquardt's rule goes on (with squared errors this is the method of
    Levenberg and Marquardt); or a tuple of values, of which each step takes the best. `krylov`:
    50 to 300 products a step, as in Hessian-free optimization; None up to some hundred weights.

When not to use
    On softmax or sigmoid outputs: give the loss logits (`from_logits=True`), see the card of
    Objective. On mini-batches. Where `compute_loss` is overridden.

Technical details
    The step is -(G + damping I)^-1 g with G = J'LJ plus the Hessian of regularizers, see
    Objective. Where the loss is convex in the outputs, G has no negative eigenvalue, so the
    step always leads downhill, past saddle points too, though it does not see negative curvature.
    What rounding or an added loss makes negative counts as 0. G is never formed with
    `krylov`; the default None forms it from as many products as there are weights.

Attribution
    Levenberg, 1944; Marquardt, 1963. Schraudolph, 2002. Martens, Deep learning via Hessian-free
    optimization, 2010.
"""

import numpy as np

from kerasrecipes.objective.objective import LARGEST_HESSIAN
from kerasrecipes.optimizers._curvature import Damping


def gauss_newton_step(curvature, damping):
    """-(G + damping I)^-1 g, with eigenvalues of G below 0 taken as 0.

    Args:
        curvature: eigenvalues `(k,)`, basis `(n, k)` and the gradient in it, `(k,)`.
        damping: number.

    Returns:
        The step, shape `(n,)`; not finite where an eigenvalue and the damping are 0.
    """
    return -curvature.basis @ (curvature.slope / (np.maximum(curvature.eigenvalues, 0) + damping))


class GaussNewton:
    """A damped step on the Gauss-Newton matrix: the method of Levenberg and Marquardt.

    Call it with an `Objective` (or any object with `value(w)`, `value_and_gradient(w)` and
    `gauss_newton_vector_product(w, v)`) and a vector of shape `(n,)`. It returns the next vector
    and a report: "loss" there, "largest_gradient" and "smallest_eigenvalue" where it started,
    "damping", and "accepted", which is False where no step was better.

    Args:
        damping: a first value above 0, which Marquardt's rule moves; or a tuple of values, at
            least 0, of which each step takes the one with the lowest loss.
        krylov: dimension of the Krylov space in which the step lies; None for the whole matrix.

    Raises:
        TypeError: if an argument is no number.
        ValueError: if an argument is out of range; in a call, if the loss is not finite or no
            function of the model's outputs, or if the matrix is too large.

    Reference:
        Martens, 2010, Deep learning via Hessian-free optimization
    """

    def __init__(self, damping=1.0, krylov=None):
        self._damping = Damping(damping, krylov)

    def __call__(self, objective, w):
        product = objective.gauss_newton_vector_product

        def matrix(w):
            if len(w) > LARGEST_HESSIAN:
                raise ValueError(
                    f"The Gauss-Newton matrix of {len(w)} weights is too large; up to "
                    f"{LARGEST_HESSIAN} weights are allowed. Give `krylov`, for example 100."
                )
            rows = np.array([product(w, row) for row in np.eye(len(w), dtype=w.dtype)])
            return (rows + rows.T) / 2

        return self._damping(objective, w, gauss_newton_step, matrix, product)
