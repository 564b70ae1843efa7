"""Nonlinear conjugate gradients in an unmodified `fit`: each batch is one evaluation.

How to use
    >>> import keras
    >>> from kerasrecipes.callbacks import SwapAcceptedWeights
    >>> from kerasrecipes.optimizers import NonlinearCG
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(NonlinearCG(), loss="mse")
    >>> x = keras.ops.ones((32, 2))
    >>> swap = SwapAcceptedWeights()  # stops `fit` where the search has ended
    >>> history = model.fit(x, x[:, :1], batch_size=32, epochs=20, callbacks=[swap], verbose=0)

Suggested hyperparameters
    `method`: "polak_ribiere_plus"; the others are there to compare. `curvature`: 0.1, since
    conjugacy needs lines to be searched well. `tolerance`: largest entry of the gradient at which
    the search ends, 1e-5; in float32 1e-4 may be as low as rounding lets it.

When not to use
    Where twenty more copies of the weights fit into memory: `LBFGS` needs fewer evaluations. With
    batches that differ, or dropout, as with `LBFGS`. For a deep network with time for only some
    hundred passes: on an autoencoder of MNIST SGD on batches came far lower in the same time
    (recipes/autoencoder_cg.py, seeds 0 to 2, JAX; docs/evidence.md), unlike in Le et al., 2011.

Technical details
    The direction is d = -g + beta d, with beta by one of five formulas, which are the same on
    quadratics with an exact search and end there in as many steps as there are distinct
    eigenvalues. Where two successive gradients are far from orthogonal, by Powell's test, the
    direction is restarted from -g; Polak and Ribiere's formula with its lower bound 0 does so by
    itself. Searches begin with a trial that is expected to lower the loss as much as the last
    one did. Line search, trial points, saving and `status` are those of `LBFGS`; three copies of
    the weights are kept.

Attribution
    Fletcher and Reeves, 1964; Polak and Ribiere, 1969; Hestenes and Stiefel, 1952; Dai and Yuan,
    1999; Hager and Zhang, A New Conjugate Gradient Method with Guaranteed Descent, 2005,
    https://doi.org/10.1137/030601880; Powell, Restart Procedures for the Conjugate Gradient
    Method, 1977, https://doi.org/10.1007/BF01593790.
"""

import dataclasses

import keras

from kerasrecipes._backend import dot, number
from kerasrecipes._checks import one_of
from kerasrecipes.optimizers._full_batch import FullBatchOptimizer
from kerasrecipes.optimizers._line_search import unscaled


def polak_ribiere_plus(seen):
    beta = dot(seen.gradient, seen.change) / seen.old_square
    return number.where(beta > 0, beta, 0.0)


def fletcher_reeves(seen):
    return seen.square / seen.old_square


def hestenes_stiefel(seen):
    return dot(seen.gradient, seen.change) / (seen.slope - seen.old_slope)


def dai_yuan(seen):
    return seen.square / (seen.slope - seen.old_slope)


def hager_zhang(seen):
    bend = seen.slope - seen.old_slope
    beta = (dot(seen.gradient, seen.change) - 2 * seen.changed * seen.slope / bend) / bend
    size = number.sqrt(seen.old_square)
    size = number.where(size < 0.01, size, 0.01)
    floor = -1.0 / (number.sqrt(dot(seen.direction, seen.direction)) * size)
    return number.where(beta > floor, beta, floor)


METHODS = {
    formula.__name__: formula
    for formula in (polak_ribiere_plus, fletcher_reeves, hestenes_stiefel, dai_yuan, hager_zhang)
}


@dataclasses.dataclass(frozen=True)
class NonlinearCGRule:
    """Conjugate directions, for `_line_search.advance`."""

    method: str = "polak_ribiere_plus"
    restart: float = 0.2  # share of |g|^2; Polak and Ribiere's formula with 0 needs none

    numbers = ()

    def shapes(self, size):
        return {}

    def remember(self, state, n, seen, accepted):
        return state

    def turn(self, state, n, seen, accepted):
        beta = METHODS[self.method](seen)
        go_on = accepted & number.isfinite(beta)
        if self.method != "polak_ribiere_plus":
            go_on &= abs(dot(seen.gradient, seen.old_gradient)) < self.restart * seen.square
        direction = number.where(go_on, beta, 0.0) * seen.direction - seen.gradient
        expected = seen.length * seen.old_slope / dot(seen.gradient, direction)
        known = accepted & (expected > 0) & number.isfinite(expected)
        return direction, number.where(known, expected, unscaled(seen.square)), state, n

    def forget(self, state, n, when):
        return {}, n


@keras.saving.register_keras_serializable("kerasrecipes")
class NonlinearCG(FullBatchOptimizer):
    """Nonlinear conjugate gradients with a line search: one `apply` is one gradient evaluation.

    Args:
        learning_rate: factor on the first trial of each search.
        method: the formula for beta, "polak_ribiere_plus", "fletcher_reeves",
            "hestenes_stiefel", "dai_yuan" or "hager_zhang".
        curvature: a step is accepted where the slope is at most this share of the first one,
            between 0 and 1.
        sufficient_decrease: share of the first slope by which the loss must fall, where known.
        tolerance: the search has converged where no entry of the gradient is larger.
        max_trials: evaluations after which one search along a line is given up, 3 or more.
        **kwargs: `gradient_accumulation_steps`; what else Keras's optimizers take is refused.

    Raises:
        TypeError: if a number is none, or if `learning_rate` is a schedule.
        ValueError: if an argument is out of range; if `weight_decay`, clipping, `use_ema` or
            `loss_scale_factor` are given; inside a `LossScaleOptimizer`; if weights have
            constraints or are not all float32 or all float64.

    Reference:
        Nocedal and Wright, Numerical Optimization, 2006, chapter 5.
    """

    def __init__(
        self,
        learning_rate=1.0,
        method="polak_ribiere_plus",
        curvature=0.1,
        sufficient_decrease=1e-4,
        tolerance=1e-5,
        max_trials=20,
        name="nonlinear_cg",
        **kwargs,
    ):
        method = one_of("method", method, tuple(METHODS))
        super().__init__(
            learning_rate, curvature, sufficient_decrease, tolerance, max_trials, name, **kwargs
        )
        self.method = method

    @property
    def rule(self):
        return NonlinearCGRule(self.method)

    def get_config(self):
        return {**super().get_config(), "method": self.method}
