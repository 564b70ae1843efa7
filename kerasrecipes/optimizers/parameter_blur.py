"""Blurring the cost: gradients of the expected loss under Gaussian noise on the weights.

How to use
    >>> import keras
    >>> from kerasrecipes.callbacks import SwapAcceptedWeights
    >>> from kerasrecipes.optimizers import ParameterBlur
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> optimizer = ParameterBlur(keras.optimizers.Adam(0.01), sigma=0.1, seed=0)
    >>> model.compile(optimizer, loss="mse")
    >>> x = keras.ops.ones((32, 2))
    >>> history = model.fit(x, x[:, :1], callbacks=[SwapAcceptedWeights()], verbose=0)
    >>> _ = optimizer.sigma.assign(0.01)  # a knob: callbacks move it within one fit

Suggested hyperparameters
    `sigma`: for continuation begin where the blurred cost has one valley, a third of the distance
    between neighbouring minima or more, and lower it to 0 in about ten steps by a third each.
    `inner_optimizer`: the smaller the blur, the larger the rate may be; gradient accumulation
    there averages several pairs.

When not to use
    Where the blurred cost keeps its obstacles: Gaussian blur averages over all directions, and
    the noise has length sigma * sqrt(number of weights), so in large networks useful values are
    small and what remains is a regularizer.

Technical details
    The cost is J_sigma(w) = E[J(w + sigma * e)], e standard normal. Its gradient is estimated by
    the mean of the gradients at w + sigma * e and w - sigma * e (antithetic pairs), which the
    inner optimizer gets for its step from w. On a quadratic cost the pair's mean is the gradient
    of J itself for each e, on cos(a w) it is the gradient times exp(-(a sigma)^2 / 2) on average.

    Two batches make one update, one for each sign: the inner optimizer counts updates, half the
    batches. The very first batch only starts the first pair: its gradient, taken where nothing
    is blurred, is not used. So it is after `fit` for a next `fit` without `SwapAcceptedWeights`.
    Between batches the model holds the blurred point: the callback hides it from validation and
    checkpoints. `fit` ends on the accepted weights with or without it. The loss in the logs is
    that of the blurred points.

    A moved `sigma` counts from the next pair on. Draws depend on the seed, a variable that is
    saved with the optimizer. Two copies of the weights are kept.

    Batch normalization's averages come from blurred points: re-estimate them after training.

Attribution
    Continuation by Gaussian blur: Mobahi, Fisher, On the Link Between Gaussian Homotopy
    Continuation and Convex Envelopes, 2015; graduated optimization with samples: Hazan, Levy,
    Shalev-Shwartz, 2016, https://arxiv.org/abs/1503.03712.
"""

import keras
from keras import ops

from kerasrecipes._checks import integer, number
from kerasrecipes.optimizers._trial import TrialWrapper
from kerasrecipes.optimizers.perturbed_sgd import Draws


@keras.saving.register_keras_serializable("kerasrecipes")
class ParameterBlur(TrialWrapper):
    """Descends the cost blurred by Gaussian noise on the weights, by antithetic pairs of batches.

    Args:
        inner_optimizer: the `keras.optimizers.Optimizer` that makes the updates, or its name.
        sigma: standard deviation of the noise, in units of the weights, 0 or more. A knob: the
            attribute is a scalar variable.
        seed: optional int. With None each optimizer draws another sequence.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if `sigma` or `seed` is out of range, if the inner optimizer is a
            `LossScaleOptimizer` or one that takes its gradients elsewhere itself, or if
            arguments of the inner optimizer are given here.

    Reference:
        Hazan et al., 2016, https://arxiv.org/abs/1503.03712
    """

    def __init__(self, inner_optimizer, sigma=0.01, seed=None, name="parameter_blur", **kwargs):
        sigma = number("sigma", sigma, 0)
        seed = None if seed is None else integer("seed", seed, 0, 2**31 - 1)
        super().__init__(inner_optimizer, name=name, **kwargs)
        self._sigma = self.add_variable(
            (), keras.initializers.Constant(sigma), "float32", name="sigma"
        )
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        # Under JAX only what the optimizer itself lists as a variable moves on from step to step.
        self.random_state = self.seed_generator.state

    @property
    def sigma(self):
        return self._sigma

    @sigma.setter
    def sigma(self, value):
        self._sigma.assign(number("sigma", value, 0))

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.first_gradient = [
            self.add_variable_from_reference(v, name="first_gradient") for v in variables
        ]

    def combine(self, stage, gradients, index):
        combined = []
        for i, gradient in zip(index, gradients, strict=True):
            if gradient is not None:
                first = self.first_gradient[i]
                kept = ops.convert_to_tensor(first)
                gradient = ops.cast(gradient, first.dtype)
                combined.append((kept + gradient) / 2)
                first.assign(ops.where(stage == 1, gradient, kept))
            else:
                combined.append(None)
        return stage == 2, combined

    def look(self, stage, done, accepted, held, gradients):
        opens = stage != 1
        noise = self._noise(opens, [tuple(a.shape) for a in accepted])
        sigma = ops.convert_to_tensor(self.sigma)
        trial = [
            ops.where(opens, a + ops.cast(sigma * e, a.dtype), a - (h - a))
            for a, h, e in zip(accepted, held, noise, strict=True)
        ]
        return ops.where(opens, 1, 2), trial

    def _noise(self, due, shapes):
        """Standard normal where `due`; otherwise zeros, and the seed stays."""
        state = ops.convert_to_tensor(self.random_state)

        def drawn():
            draws = Draws(state)
            return [keras.random.normal(shape, dtype="float32", seed=draws) for shape in shapes]

        noise = ops.cond(due, drawn, lambda: [ops.zeros(shape, "float32") for shape in shapes])
        used = ops.convert_to_tensor([0, len(shapes)], dtype=state.dtype)
        self.random_state.assign(state + ops.cast(due, state.dtype) * used)
        return noise

    def get_config(self):
        return {
            **super().get_config(),
            "sigma": float(ops.convert_to_numpy(self.sigma)),
            "seed": self.seed,
        }
