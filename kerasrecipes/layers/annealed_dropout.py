"""Dropout whose rate moves within one `fit`.

How to use
    >>> import keras
    >>> from kerasrecipes.layers import AnnealedDropout
    >>> layer = AnnealedDropout(0.5, seed=0)
    >>> layer.rate = 0.0
    >>> x = keras.ops.ones((2, 3))
    >>> bool(keras.ops.all(layer(x, training=True) == x))
    True

    In a `fit`: `callbacks.HyperparameterSchedule("layer_name.rate", schedule)`.

Suggested hyperparameters
    `rate`: begin at 0.5 (0.2 on the inputs) and let it fall linearly to 0 over the whole run;
    the reverse, from 0 to 0.5, is curriculum dropout. `noise_shape`: as in Keras.

When not to use
    With a constant rate: `keras.layers.Dropout` is the same. With large data and a short run,
    where dropout of any rate costs more than it gives.

Technical details
    A unit is dropped where a uniform number, drawn in float32 at each call whatever the rate,
    lies below the rate; the others are multiplied by 1 / (1 - rate), in training only. So a
    lower rate drops a part of the units that a higher one would have dropped, rate 0 is the
    identity bit for bit, and rate 1 gives zeros, also as gradient. `rate` is a weight of the
    layer: a saved model holds the value reached, the config the one it began with. The state of
    the seed is saved too (Keras's Dropout leaves it out), with `seed=None` as well, and no
    backend uses its global generator: a resumed run draws what the uninterrupted one would have.

Attribution
    Srivastava et al., Dropout, 2014; Rennie, Goel, Thomas, Annealed Dropout Training of Deep
    Networks, 2014; Morerio et al., Curriculum Dropout, 2017, https://arxiv.org/abs/1703.06229
"""

import keras
from keras import ops

from kerasrecipes._checks import integer
from kerasrecipes.layers._knob import Knob, SavedSeed, precise, starts


def dropout(x, rate, uniform):
    """`x` / (1 - `rate`) where `uniform` is at least `rate`, else 0.

    Args:
        x: tensor.
        rate: scalar tensor in [0, 1].
        uniform: numbers drawn uniformly from [0, 1), of a shape that broadcasts to that of `x`.

    Returns:
        A tensor like `x`.
    """
    # At rate 1 nothing is kept, and a finite scale keeps NaN out of the gradient.
    scale = 1.0 / ops.maximum(1.0 - rate, 1e-7)
    scaled = ops.multiply(precise(x), scale)
    return ops.cast(ops.where(uniform >= rate, scaled, 0.0), x.dtype)


@keras.saving.register_keras_serializable("kerasrecipes")
class AnnealedDropout(SavedSeed, keras.layers.Layer):
    """Dropout whose `rate` is a knob.

    Args:
        rate: share of the units to drop in training, in [0, 1], to begin with.
        noise_shape: optional tuple of ints and None (the input's own size), the shape of the
            mask, which broadcasts to the input.
        seed: optional int. With None each layer draws another sequence.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: tensor of any shape.
        training: whether to drop.

    Raises:
        TypeError: if `rate`, `seed` or a size in `noise_shape` is no number.
        ValueError: if one of them is out of range, or `noise_shape` and the inputs differ in the
            number of their axes.

    Reference:
        Morerio et al., 2017, https://arxiv.org/abs/1703.06229
    """

    rate = Knob(0, 1)

    def __init__(self, rate, noise_shape=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.noise_shape = _shape(noise_shape)
        self.seed = None if seed is None else integer("seed", seed, 0, 2**31 - 1)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.supports_masking = True

    def call(self, inputs, training=False):
        if not training:
            return inputs
        shape = ops.shape(inputs)
        if self.noise_shape is not None:
            if len(self.noise_shape) != len(shape):
                raise ValueError(
                    f"`noise_shape` must have the {len(shape)} axes of the inputs, the batch's "
                    f"first. Received: noise_shape={self.noise_shape}"
                )
            shape = [own or size for own, size in zip(self.noise_shape, shape, strict=True)]
        uniform = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return dropout(inputs, ops.convert_to_tensor(self.rate), uniform)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"noise_shape": self.noise_shape, "seed": self.seed}
        return {**super().get_config(), **starts(self), **own}


def _shape(noise_shape):
    if noise_shape is None:
        return None
    if isinstance(noise_shape, str) or not hasattr(noise_shape, "__iter__"):
        raise TypeError(
            "`noise_shape` must be a tuple of integers and None, such as (None, 1, 8). "
            f"Received: noise_shape={noise_shape!r}"
        )
    return tuple(None if n is None else integer("noise_shape", n, 1) for n in noise_shape)
