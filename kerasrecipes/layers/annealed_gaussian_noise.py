"""Gaussian noise whose deviation moves within one `fit`.

How to use
    >>> import keras
    >>> from kerasrecipes.layers import AnnealedGaussianNoise
    >>> layer = AnnealedGaussianNoise(0.3, seed=0)
    >>> layer.stddev = 0.0
    >>> x = keras.ops.ones((2, 3))
    >>> bool(keras.ops.all(layer(x, training=True) == x))
    True

    In a `fit`: `callbacks.HyperparameterSchedule("layer_name.stddev", schedule)`.

Suggested hyperparameters
    `stddev`: on standardized inputs begin at 0.3, on activations after a normalization at 0.1,
    and let it fall to 0 by the last third of the run.

When not to use
    With a constant deviation: `keras.layers.GaussianNoise` is the same. To blur the cost in the
    weights, not the inputs: that noise belongs into the optimizer.

Technical details
    x + stddev * z with z drawn from N(0, 1) in float32 at each call, whatever the deviation, in
    training only; stddev 0 is the identity bit for bit. `stddev` is a weight of the layer: a
    saved model holds the value reached, the config the one it began with. The state of the seed
    is saved too (Keras's GaussianNoise leaves it out): a resumed run draws what the
    uninterrupted one would have.

Attribution
    Bishop, Training with Noise is Equivalent to Tikhonov Regularization, 1995; noise that is
    annealed: Gulcehre, Moczulski, Visin, Bengio, Mollifying Networks, 2016,
    https://arxiv.org/abs/1608.04980
"""

import keras
from keras import ops

from kerasrecipes._checks import integer
from kerasrecipes.layers._knob import Knob, SavedSeed, precise, starts


def add_noise(x, stddev, normal):
    """`x` + `stddev` * `normal`, and `x` itself where `stddev` is 0.

    Args:
        x: tensor.
        stddev: scalar tensor, in units of `x`, not negative.
        normal: numbers drawn from N(0, 1), of the shape of `x`.

    Returns:
        A tensor like `x`.
    """
    # x + 0 would turn -0 into 0.
    return ops.where(stddev > 0, ops.cast(ops.add(precise(x), stddev * normal), x.dtype), x)


@keras.saving.register_keras_serializable("kerasrecipes")
class AnnealedGaussianNoise(SavedSeed, keras.layers.Layer):
    """Additive Gaussian noise whose `stddev` is a knob.

    Args:
        stddev: standard deviation of the noise, in units of the inputs, to begin with.
        seed: optional int. With None each layer draws another sequence.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: tensor of any shape.
        training: whether to add noise.

    Raises:
        TypeError: if `stddev` or `seed` is no number.
        ValueError: if one of them is negative.

    Reference:
        Gulcehre et al., 2016, https://arxiv.org/abs/1608.04980
    """

    stddev = Knob(0)

    def __init__(self, stddev, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.stddev = stddev
        self.seed = None if seed is None else integer("seed", seed, 0, 2**31 - 1)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.supports_masking = True

    def call(self, inputs, training=False):
        if not training:
            return inputs
        z = keras.random.normal(ops.shape(inputs), dtype="float32", seed=self.seed_generator)
        return add_noise(inputs, ops.convert_to_tensor(self.stddev), z)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), **starts(self), "seed": self.seed}
