"""Newton's method, damped: the step that jumps to the nearest stationary point.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.objective import Objective
    >>> from kerasrecipes.optimizers import Newton
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x, y = np.array([[0.0, 1], [1, 0], [1, 1], [2, 0]]), np.array([[1.0], [2], [0], [3]])
    >>> objective = Objective(model, x, y)
    >>> w, report = Newton(damping=(0.0,))(objective, np.zeros(3))  # quadratic: one step
    >>> bool(np.abs(objective.value_and_gradient(w)[1]).max() < 1e-5)
    True

Suggested hyperparameters
    `damping`: the default grid, of which each step takes the value with the lowest loss; or one
    number, from which Marquardt's rule goes on. (0.0,) is Newton's undamped step. `krylov`: None
    up to some hundred weights, then 20 to 100. `merit`: "gradient" to seek saddle points, with
    damping down to the square of the least eigenvalue that counts, (1e-1, 1e-3, ..., 1e-11).

When not to use
    On non-convex losses. Newton's step goes to the nearest stationary point,
    be it a saddle or a maximum: along directions of negative curvature it climbs. Damping above
    the size of the most negative eigenvalue prevents that, and where curvature is strongly
    negative it makes the step a tiny one of gradient descent. Storing the Hessian takes k², solving
    with it k³ operations for k weights, each step anew. On mini-batches its noise is inverted too.
    Use SaddleFreeNewton where there are saddles, LBFGS where there are many weights.

Technical details
    The step is -(H + damping I)^-1 g, from the eigenvalues and eigenvectors of H, so that all
    values of a grid cost one decomposition and one value of the loss each. With `krylov` the
    same is done in the space that Lanczos's method spans from the gradient, from as many products
    with H. A step that does not better the merit is not taken. For the merit "gradient" it is
    -(H² + damping I)^-1 H g, which for small damping is Newton's and always leads down in the
    gradient's norm; the first formula does not where an eigenvalue is between -damping and 0.
    Marquardt's rule: damping * 2/3
    where the gain is more than 3/4 of what the quadratic model promised, * 3/2 below 1/4, * 4
    and another try where there is none.

Attribution
    Deck 004's regularised Newton method. Marquardt, 1963; Martens, Deep learning via
    Hessian-free optimization, 2010 (the factors). What it does at saddle points: Dauphin et al.,
    2014, https://arxiv.org/abs/1406.2572.
"""

from kerasrecipes.optimizers._curvature import GRID, Damping


def newton_step(curvature, damping):
    """-(H + damping I)^-1 g.

    Args:
        curvature: eigenvalues `(k,)`, basis `(n, k)` and the gradient in it, `(k,)`.
        damping: number.

    Returns:
        The step, shape `(n,)`; not finite where an eigenvalue is -damping.
    """
    return -curvature.basis @ (curvature.slope / (curvature.eigenvalues + damping))


def stationary_step(curvature, damping):
    """-(H² + damping I)^-1 H g: the damped least-squares step to a gradient of zero.

    Args:
        curvature: eigenvalues `(k,)`, basis `(n, k)` and the gradient in it, `(k,)`.
        damping: number.

    Returns:
        The step, shape `(n,)`; not finite where damping and an eigenvalue are 0.
    """
    values = curvature.eigenvalues
    return -curvature.basis @ (values * curvature.slope / (values**2 + damping))


class Newton:
    """Newton's step on the Hessian plus a damping that is adapted.

    Call it with an `Objective` (or any object with `value(w)`, `value_and_gradient(w)`,
    `hessian(w)` and `hessian_vector_product(w, v)`) and a vector of shape `(n,)`. It returns the
    next vector and a report: "loss" there, "largest_gradient" and "smallest_eigenvalue" where it
    started, "damping", and "accepted", which is False where no step was better.

    Args:
        damping: tuple of values, at least 0, of which each step takes the best; or a first value
            above 0, which Marquardt's rule moves.
        krylov: dimension of the Krylov space in which the step lies; None for the whole Hessian.
        merit: "loss", or "gradient" to go where the gradient's norm falls, saddle points too.

    Raises:
        TypeError: if an argument is no number.
        ValueError: if an argument is out of range; in a call, if the loss is not finite.

    Reference:
        Dauphin et al., 2014, https://arxiv.org/abs/1406.2572, section 4
    """

    def __init__(self, damping=GRID, krylov=None, merit="loss"):
        self._damping = Damping(damping, krylov, merit)
        self._step = newton_step if merit == "loss" else stationary_step

    def __call__(self, objective, w):
        return self._damping(
            objective, w, self._step, objective.hessian, objective.hessian_vector_product
        )
