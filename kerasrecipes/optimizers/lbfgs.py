"""L-BFGS in an unmodified `fit`: each batch is one evaluation of its line search.

How to use
    >>> import keras
    >>> from kerasrecipes.callbacks import SwapAcceptedWeights
    >>> from kerasrecipes.optimizers import LBFGS
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(LBFGS(), loss="mse")
    >>> x = keras.ops.ones((32, 2))
    >>> swap = SwapAcceptedWeights()  # stops `fit` where the search has ended
    >>> history = model.fit(x, x[:, :1], batch_size=32, epochs=20, callbacks=[swap], verbose=0)
    >>> model.optimizer.status.state
    'converged'

Suggested hyperparameters
    `memory_size`: 10; up to 50 where evaluations are dear and the problem is badly scaled.
    `tolerance`: largest entry of the gradient at which the search ends, 1e-5; in float32 1e-4 may
    be as low as rounding lets it. `learning_rate`: 1.0, the length of each search's first trial.
    `curvature`: 0.9; smaller values search each line more exactly.

When not to use
    With batches that differ, or dropout: the memory would hold noise, so it is for data that one
    gradient can see whole (`batch_size=len(x)`, `data.FullBatch` or gradient accumulation) and
    for deterministic losses, such as those of physics-informed networks. For large networks on
    large data use Adam; L-BFGS may finish what Adam began.

Technical details
    The batch's gradient is taken at the trial point that the model holds. The optimizer accepts
    it or narrows the search, and puts the next trial point in: strong Wolfe conditions, by the
    slopes alone, and by the loss too where Keras hands it over (in `fit`; with a `train_step` that
    calls `scale_loss`), so that no step goes uphill. A trial that is not finite is shortened and
    never remembered. A pair of step and change of gradient is kept only where their product is
    clearly positive. Where a search finds nothing the memory is dropped and the gradient taken
    once more at the accepted point: if it differs, batches are unequal, which `status` names.

    Between batches the model holds a trial point: `SwapAcceptedWeights` shows the accepted
    weights to validation and checkpoints, and `fit` ends on them with or without it. A model
    saved in the middle of a search goes on bit for bit. The loss in the logs is that of trials.

    The memory takes 2 * memory_size + 3 copies of the weights, plus the weights themselves. The
    product of inverse Hessian and gradient reads it twice, in place of loops, and an accepted step
    writes one row of it: see `LBFGSRule`. Weights are float32 or float64, all alike, and without
    constraints.

    In `fit`, an evaluation of a small model takes the time of 1.1 to 1.4 steps of SGD; with 1 M
    weights and `memory_size=10` of 1.0 to 1.2 with 10,000 examples, 1.1 to 1.7 with 2,000, but 1.8
    to 3 with 256. By `minimize`, on softmax regression and a small network on digits (5 starts
    each) and a network on 10,000 of MNIST (2), it needed at most 1.05 times the evaluations of the
    best of SciPy, optax, jaxopt, optimistix, torch and TensorFlow Probability. Of 18 problems of
    Moré, Garbow and Hillstrom, Powell's badly scaled function alone took more than 1.5 times
    SciPy's (2.2). (benchmarks/second_order.py, medians of 9 to 15 rounds; tests/mgh.py; CPU, Keras
    3.15.1 on TensorFlow 2.21.0, JAX 0.10.2 and torch 2.13.0; docs/evidence.md.)

    On a CPU JAX gets the working memory of each step anew from the system, which with 10,000 of
    MNIST took a tenth of the step of any optimizer (same benchmark). Under Linux
    `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 python train.py` keeps it.

    A `fit` that makes a single evaluation cannot move anything, and warns: it ends on the accepted
    weights, and the trial point that it asked for is dropped. From `fit` to `fit` the search goes
    on with `SwapAcceptedWeights`.

Attribution
    Nocedal, Updating Quasi-Newton Matrices with Limited Storage, 1980; Liu and Nocedal, On the
    Limited Memory BFGS Method for Large Scale Optimization, 1989,
    https://doi.org/10.1007/BF01589116; Byrd, Nocedal, Schnabel, Representations of Quasi-Newton
    Matrices and Their Use in Limited Memory Methods, 1994, https://doi.org/10.1007/BF01582063.
"""

import dataclasses

import keras
from keras import ops

from kerasrecipes._backend import cond, matvec, number, unit, vecmat, with_row
from kerasrecipes._checks import integer
from kerasrecipes.optimizers._full_batch import FullBatchOptimizer
from kerasrecipes.optimizers._line_search import unscaled


@dataclasses.dataclass(frozen=True)
class LBFGSRule:
    """Directions by the limited-memory BFGS formula, for `_line_search.advance`.

    The memory is two matrices of shape `(memory_size, n)`. Instead of the two loops over their
    rows, the triangular matrix of their products is kept inverted: with S the steps, Y the
    changes of the gradient, R the part of S Y' in which no row is newer than its column, and
    D its diagonal, the product of the two loops is

        u = R^-1 S g,   v = g - Y' u,   H g = scale v + S' R^-T (D u - scale Y v).

    Rows are overwritten in turn. As only the oldest leaves, what remains of R^-1 is the inverse
    of what remains of R.
    """

    memory_size: int = 10

    numbers = ("scale", "pairs")  # scale is 0 while the memory is empty

    def shapes(self, size):
        m = self.memory_size
        return {
            "steps": ((m, size), None),
            "changes": ((m, size), None),
            "inverse": ((m, m), None),
            "curvatures": ((m,), None),
            "products": ((m,), None),
        }

    def remember(self, state, n, seen, accepted):
        """The state with an accepted pair in the rows of the oldest, where it is of use."""
        slot, use = self._place(n, seen, accepted)
        rows = {"steps": seen.step, "changes": seen.change}
        return state | {k: with_row(state[k], slot, row, use) for k, row in rows.items()}

    def turn(self, state, n, seen, accepted):
        """The next direction, the length of the first step along it, state and numbers."""
        slot, use = self._place(n, seen, accepted)
        products = matvec(state["steps"], seen.gradient)
        small = {name: state[name] for name in ("inverse", "curvatures")}
        # Instead of the product with the change of the gradient, which reads all steps again.
        beside = products - state["products"]
        small = cond(use, lambda: _grown(small, beside, slot, seen.curvature), lambda: small)
        n = {
            **n,
            "scale": number.where(use, seen.curvature / seen.changed, n["scale"]),
            "pairs": number.where(use, n["pairs"] + 1, n["pairs"]),
        }
        state = {**state, **small, "products": products}
        empty = n["scale"] == 0
        direction = two_loops(state, seen.gradient, number.where(empty, 1.0, n["scale"]))
        return direction, number.where(empty, unscaled(seen.square), 1.0), state, n

    def forget(self, state, n, when):
        """All but the rows, and the numbers, once the memory is dropped where `when`."""
        small = {name: state[name] for name in ("inverse", "curvatures", "products")}
        inverse = small["inverse"]
        small["inverse"] = cond(when, lambda: ops.zeros_like(inverse), lambda: inverse)
        return small, {**n, "scale": number.where(when, 0.0, n["scale"])}

    def _place(self, n, seen, accepted):
        """The slot of the next pair, and whether the pair at hand goes there."""
        useful = seen.curvature > 1e-10 * number.sqrt(seen.moved * seen.changed)
        return number.integer(n["pairs"] % self.memory_size), accepted & useful


def _grown(small, products, slot, curvature):
    """The small parts of the memory once the pair in `slot` is in it.

    Of `products`, of the steps and the pair's change of the gradient, those of the others count.
    """
    new = unit(slot, small["curvatures"])
    others = 1 - new
    # The oldest pair's column has nothing but its diagonal entry.
    kept = small["inverse"] * others[:, None]
    column = (new - matvec(kept, products)) / curvature
    return {
        "inverse": kept + column[:, None] * new,
        "curvatures": small["curvatures"] * others + curvature * new,
    }


def two_loops(memory, gradient, scale):
    """-H g, with the approximate inverse Hessian H of the remembered pairs.

    Args:
        memory: parts of the state by `LBFGSRule.shapes`, its products those with the gradient.
        gradient: vector of shape `(n,)`.
        scale: the inverse Hessian before the first pair is this times the identity.

    Returns:
        A vector of shape `(n,)`.
    """
    inverse, steps, changes = memory["inverse"], memory["steps"], memory["changes"]
    first = matvec(inverse, memory["products"])
    rest = gradient - vecmat(first, changes)
    curved = scale * matvec(changes, rest) - memory["curvatures"] * first
    return vecmat(vecmat(curved, inverse), steps) - scale * rest


@keras.saving.register_keras_serializable("kerasrecipes")
class LBFGS(FullBatchOptimizer):
    """Limited-memory BFGS with a line search: one `apply` is one gradient evaluation.

    Args:
        learning_rate: length of the first trial of each search, in units of the direction.
        memory_size: pairs of steps and changes of the gradient that are remembered.
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
        Liu and Nocedal, 1989, https://doi.org/10.1007/BF01589116
    """

    def __init__(
        self,
        learning_rate=1.0,
        memory_size=10,
        curvature=0.9,
        sufficient_decrease=1e-4,
        tolerance=1e-5,
        max_trials=20,
        name="lbfgs",
        **kwargs,
    ):
        memory_size = integer("memory_size", memory_size, 1)
        super().__init__(
            learning_rate, curvature, sufficient_decrease, tolerance, max_trials, name, **kwargs
        )
        self.memory_size = memory_size

    @property
    def rule(self):
        return LBFGSRule(self.memory_size)

    def get_config(self):
        return {**super().get_config(), "memory_size": self.memory_size}
