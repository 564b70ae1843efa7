"""Perturbed gradient descent: where the gradient vanishes, a kick leaves the saddle point.

How to use
    >>> import keras
    >>> from kerasrecipes.optimizers import PerturbedSGD
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(PerturbedSGD(0.1, momentum=0.9, seed=0), loss="mse")

Suggested hyperparameters
    `threshold`: the gradient norm that counts as "vanished", a hundredth of the norm at the
    start. `interval`: the steps that the escape may take, 50 or more. `radius`: small against
    the distance over which the loss changes, 0.01. The constants of the theorem are far too
    cautious to be of use, so these three are given directly.

When not to use
    With small batches: their gradient noise already leaves strict saddle points, and the norm
    of a noisy gradient never falls below the threshold. It does not leave local minima.

Technical details
    When the norm of the whole gradient is at most `threshold` and more than `interval` steps
    have passed since the last kick, the weights first move by a vector drawn uniformly from the
    ball of `radius` in the space of all trained weights; then the step of momentum SGD is taken
    with the gradient that was fed in. (The algorithm of the paper takes that gradient after the
    kick. One gradient a step is what `fit` feeds; the two differ by O(learning_rate * radius).)
    The norm is the one after clipping and accumulation. Draws depend on the seed, a variable of
    the optimizer that is saved with it, so a resumed run goes on with the same sequence.

Attribution
    Jin, Ge, Netrapalli, Kakade, Jordan, How to Escape Saddle Points Efficiently, 2017,
    https://arxiv.org/abs/1703.00887, Algorithm 2; Ge, Huang, Jin, Yuan, 2015,
    https://arxiv.org/abs/1503.02101.
"""

import math

import keras
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._checks import integer, number


class Draws(keras.random.SeedGenerator):
    """Successive seeds from a given state, without a variable: safe in a branch of `cond`."""

    def __init__(self, state):
        self.state = ops.convert_to_tensor(state)

    def next(self, ordered=True):
        current = self.state
        self.state = current + ops.convert_to_tensor([0, 1], dtype=current.dtype)
        return current


def uniform_in_ball(shapes, radius, draws):
    """One point drawn uniformly from the ball of `radius` in the space of all `shapes` together.

    Args:
        shapes: list of shapes.
        radius: radius of the ball.
        draws: a `keras.random.SeedGenerator`.

    Returns:
        A list of float32 tensors of these shapes.
    """
    normals = [keras.random.normal(shape, dtype="float32", seed=draws) for shape in shapes]
    norm = ops.sqrt(sum(ops.sum(ops.square(z)) for z in normals))
    size = sum(math.prod(shape) for shape in shapes)
    depth = keras.random.uniform((), dtype="float32", seed=draws) ** (1.0 / size)
    return [radius * depth / norm * z for z in normals]


@keras.saving.register_keras_serializable("kerasrecipes")
class PerturbedSGD(keras.optimizers.Optimizer):
    """Momentum SGD that adds noise from a ball where the gradient has vanished.

    Args:
        learning_rate: float, `LearningRateSchedule` or callable. Defaults to 0.01.
        momentum: float in [0, 1). Defaults to 0.
        threshold: norm of the whole gradient at or below which a perturbation is due.
        interval: number of steps that lie between two perturbations, at least.
        radius: radius of the ball of perturbations, in units of the weights.
        seed: optional int. With None each optimizer draws another sequence.
        **kwargs: arguments of `keras.optimizers.Optimizer`.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is out of range.

    Reference:
        Jin et al., 2017, Algorithm 2, https://arxiv.org/abs/1703.00887
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.0,
        threshold=1e-3,
        interval=50,
        radius=0.01,
        seed=None,
        name="perturbed_sgd",
        **kwargs,
    ):
        if isinstance(learning_rate, (int, float)):
            learning_rate = number("learning_rate", learning_rate, 0)
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = number("momentum", momentum, 0, 1, open_high=True)
        self.threshold = number("threshold", threshold, 0)
        self.interval = integer("interval", interval, 0)
        self.radius = number("radius", radius, 0, open_low=True)
        self.seed = None if seed is None else integer("seed", seed, 0, 2**31 - 1)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        # Under JAX only what the optimizer itself lists as a variable moves on from step to step.
        self.random_state = self.seed_generator.state

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")
        self.waited = self.add_variable(
            (), keras.initializers.Constant(self.interval), "int32", name="waited"
        )

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # The one place that sees all gradients together, after accumulation and clipping.
        self._perturb(grads, trainable_variables)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _perturb(self, gradients, variables):
        dense = [ops.cast(_backend.dense(g), "float32") for g in gradients]
        squares = [ops.sum(ops.square(g)) for g in dense]
        waited = ops.convert_to_tensor(self.waited)
        due = ops.logical_and(ops.sqrt(sum(squares)) <= self.threshold, waited >= self.interval)
        state = ops.convert_to_tensor(self.random_state)
        shapes = [tuple(v.shape) for v in variables]
        kicks = ops.cond(
            due,
            lambda: uniform_in_ball(shapes, self.radius, Draws(state)),
            lambda: [ops.zeros(shape, "float32") for shape in shapes],
        )
        for variable, kick in zip(variables, kicks, strict=True):
            self.assign_add(variable, ops.cast(kick, variable.dtype))
        used = ops.cast(due, state.dtype) * ops.convert_to_tensor(
            [0, len(shapes) + 1], dtype=state.dtype
        )
        self.random_state.assign(state + used)
        self.waited.assign(ops.where(due, 0, waited + 1))

    def update_step(self, gradient, variable, learning_rate):
        velocity = self.velocities[self._get_variable_index(variable)]
        rate = ops.cast(learning_rate, variable.dtype)
        step = self.momentum * velocity - rate * ops.cast(gradient, variable.dtype)
        self.assign(velocity, step)
        self.assign_add(variable, step)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "threshold": self.threshold,
            "interval": self.interval,
            "radius": self.radius,
            "seed": self.seed,
        }
