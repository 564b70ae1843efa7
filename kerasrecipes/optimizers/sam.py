"""Sharpness-aware minimization: the gradient of the worst point nearby, in an unmodified `fit`.

How to use
    >>> import keras
    >>> from kerasrecipes.callbacks import SwapAcceptedWeights
    >>> from kerasrecipes.optimizers import SAM
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(SAM(keras.optimizers.SGD(0.1, momentum=0.9), rho=0.05), loss="mse")
    >>> x = keras.ops.ones((32, 2))
    >>> swap = SwapAcceptedWeights()  # validation and checkpoints see the accepted weights
    >>> history = model.fit(
    ...     x, x[:, :1], validation_split=0.5, epochs=2, callbacks=[swap], verbose=0
    ... )

Suggested hyperparameters
    `rho`: 0.05 in the paper, from 0.01 to 1 on a logarithmic grid. `inner_optimizer`: the one
    you would use alone; tune its rate together with `rho`. Under wrong labels 0.5 with a
    smaller rate gained 0.03 of test accuracy at equal gradients (recipes/sam.py, seeds 0
    to 4, JAX).

When not to use
    Where each example is seen about once, or where under-fitting is the trouble: an update costs
    two gradients. With one batch an epoch and a new `fit` for each epoch: without the callback
    no pair is ever completed.

Technical details
    Two batches make one update. The gradient g of the first, taken at the accepted weights w,
    moves them to w + rho * g / ||g|| (one norm over all weights). The gradient of the second
    batch, taken there, goes to the inner optimizer, which makes its step from w. The paper takes
    both gradients from one batch; here they come from successive ones, so the ascent is that of
    another sample (a noisier form of what the paper calls m-sharpness). So twice the epochs
    give as many updates as the inner optimizer makes alone. A hand-written loop that feeds
    the same batch twice is the paper's algorithm.

    The inner optimizer counts updates: its schedules, accumulation (of descent gradients) and
    moving average go by half the batches, and so does `iterations`. `rho` is a variable, which
    callbacks may move within one fit ("sam.rho" where the inner optimizer has a rho, too). The
    loss in the logs is the mean of ascent and descent points. Between the two batches the model
    holds the ascent point: `SwapAcceptedWeights` hides it from validation and checkpoints. `fit`
    ends on the accepted weights with or without it; without it the next `fit` starts a new pair.
    One copy of the weights is kept.

    Batch normalization's averages come from both points: re-estimate them after training.

Attribution
    Foret, Kleiner, Mobahi, Neyshabur, Sharpness-Aware Minimization for Efficiently Improving
    Generalization, 2021, https://arxiv.org/abs/2010.01412, Algorithm 1 with p = 2 and without
    the second-order term.
"""

import keras
from keras import ops

from kerasrecipes._checks import number
from kerasrecipes.optimizers._trial import TrialWrapper


def ascent(gradients, rho):
    """The move of length `rho` along the gradient, all variables under one norm.

    Args:
        gradients: list of tensors; None where a variable has no gradient.
        rho: length, in units of the weights.

    Returns:
        A list of tensors, zero where the whole gradient is zero; None stays None.
    """
    squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients if g is not None]
    scale = rho / (ops.sqrt(sum(squares)) + 1e-12)
    return [None if g is None else ops.cast(scale, g.dtype) * g for g in gradients]


@keras.saving.register_keras_serializable("kerasrecipes")
class SAM(TrialWrapper):
    """Sharpness-aware minimization around any optimizer: two batches an update.

    Args:
        inner_optimizer: the `keras.optimizers.Optimizer` that makes the updates, or its name.
        rho: length of the ascent, in units of the weights, 0 or more. A knob: the attribute is
            a scalar variable.

    Raises:
        TypeError: if `rho` is not a number.
        ValueError: if `rho` is negative or not finite, if the inner optimizer is a
            `LossScaleOptimizer` or one that takes its gradients elsewhere itself, or if
            arguments of the inner optimizer are given here.

    Reference:
        Foret et al., 2021, Algorithm 1, https://arxiv.org/abs/2010.01412
    """

    def __init__(self, inner_optimizer, rho=0.05, name="sam", **kwargs):
        rho = number("rho", rho, 0)
        super().__init__(inner_optimizer, name=name, **kwargs)
        self._rho = self.add_variable((), keras.initializers.Constant(rho), "float32", name="rho")

    @property
    def rho(self):
        return self._rho

    @rho.setter
    def rho(self, value):
        self._rho.assign(number("rho", value, 0))

    def combine(self, stage, gradients, index):
        return stage == 1, gradients

    def look(self, stage, done, accepted, held, gradients):
        moves = ascent(gradients, ops.convert_to_tensor(self.rho))
        trial = [
            ops.where(done, a, a if m is None else a + ops.cast(m, a.dtype))
            for a, m in zip(accepted, moves, strict=True)
        ]
        return ops.where(done, 0, 1), trial

    def get_config(self):
        return {**super().get_config(), "rho": float(ops.convert_to_numpy(self.rho))}
