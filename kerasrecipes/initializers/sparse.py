"""Sparse initialization: every unit hears the same small number of inputs, however wide.

How to use
    >>> import keras
    >>> from kerasrecipes.initializers import Sparse
    >>> layer = keras.layers.Dense(50, "relu", kernel_initializer=Sparse(connections=15, seed=0))
    >>> layer.build((None, 784))
    >>> sum(weight != 0 for weight in keras.ops.convert_to_numpy(layer.kernel)[:, 0]).item()
    15

Suggested hyperparameters
    `connections`: 15. `stddev`: 1 for sigmoid and ReLU units; for tanh units 0.25 with biases at
    0.5, as Martens did, so that the fifteen weights do not saturate them.

When not to use
    With layers of fewer than some fifty inputs, where it is no longer sparse, or where symmetry
    between inputs matters, as in small convolution kernels.

Technical details
    Each unit draws its inputs without replacement, so the number of non-zero weights is exact;
    a unit with fewer inputs than `connections` gets them all. Weights are N(0, stddev^2). The
    inputs of one unit are all axes of the kernel but the last.

Attribution
    Martens, Deep learning via Hessian-free optimization, 2010, section 5.
"""

import random

import keras
from keras import ops

from kerasrecipes._checks import integer, number


@keras.saving.register_keras_serializable("kerasrecipes")
class Sparse(keras.initializers.Initializer):
    """Gives every unit `connections` non-zero normal weights.

    Args:
        connections: number of non-zero inputs of each unit.
        stddev: standard deviation of these weights.
        seed: int or `keras.random.SeedGenerator`, as in Keras's own initializers.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is out of range, or the kernel has less than two axes.

    Reference:
        Martens, 2010, section 5.
    """

    def __init__(self, connections=15, stddev=1.0, seed=None):
        self.connections = integer("connections", connections, 1)
        self.stddev = number("stddev", stddev, 0, open_low=True)
        if isinstance(seed, dict):
            seed = keras.saving.deserialize_keras_object(seed)
        if seed is not None and not isinstance(seed, keras.random.SeedGenerator):
            integer("seed", seed, 0, 2**31 - 1)
        self.seed = seed
        # As in Keras: with None each instance draws once, and then repeats itself.
        self._seed = random.randrange(1, 10**9) if seed is None else seed

    def __call__(self, shape, dtype=None):
        if len(shape) < 2:
            raise ValueError(
                "`Sparse` is for kernels, which have at least two axes. "
                f"Received: shape={tuple(shape)}. Use 'zeros' for a bias."
            )
        values, order = keras.random.normal((2, *shape), dtype="float32", seed=self._seed)
        flat = ops.reshape(order, (-1, shape[-1]))
        rank = ops.argsort(ops.argsort(flat, axis=0), axis=0)
        keep = ops.cast(ops.reshape(rank < self.connections, shape), "float32")
        return ops.cast(self.stddev * keep * values, dtype or keras.config.floatx())

    def get_config(self):
        seed = self.seed
        if isinstance(seed, keras.random.SeedGenerator):
            seed = keras.saving.serialize_keras_object(seed)
        return {"connections": self.connections, "stddev": self.stddev, "seed": seed}
