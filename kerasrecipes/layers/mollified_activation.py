"""An activation that begins as the identity and becomes itself within one `fit`.

How to use
    >>> import keras
    >>> from kerasrecipes.layers import MollifiedActivation
    >>> layer = MollifiedActivation("relu", p=1.0)
    >>> [float(v) for v in keras.ops.convert_to_numpy(layer(keras.ops.array([-2.0, 3.0])))]
    [-2.0, 3.0]
    >>> layer.p = 0.5
    >>> [float(v) for v in keras.ops.convert_to_numpy(layer(keras.ops.array([-2.0, 3.0])))]
    [-1.0, 3.0]

    In a `fit`: `callbacks.HyperparameterSchedule("layer_name.p", schedule)` or
    `callbacks.Continuation`.

Suggested hyperparameters
    `p`: begin at 1 and reach 0 by half of the run, in lower layers sooner than in upper ones.
    `activation`: one for which the network is hard to train from its start, such as "tanh" or
    "sigmoid" in a deep network.

When not to use
    In networks that train well from the start (ReLU, normalization, shortcuts): the epochs with
    p > 0 are spent on another model. Never stop with p > 0 unless it is meant: what is saved and
    used for predictions is the mollified network.

Technical details
    (1 - p) * activation(x) + p * x, in training and inference alike, summed in float32. At p = 1
    a network of such layers is one affine map, whose cost is convex for a convex loss in the
    output, also where the activation would overflow; at p = 0 it is the activation itself. `p` is
    a weight of the layer: a saved model holds the value reached, the config the one it began
    with. Mollifying Networks also draws at random which units are linear; here each unit is the
    mean of the two, which needs no draw.

Attribution
    Gulcehre, Moczulski, Visin, Bengio, Mollifying Networks, 2016,
    https://arxiv.org/abs/1608.04980
"""

import keras
from keras import ops

from kerasrecipes._checks import nearest
from kerasrecipes.layers._knob import Knob, precise, starts


def mollify(x, activated, p):
    """(1 - `p`) * `activated` + `p` * `x`.

    Args:
        x: tensor.
        activated: the activation of `x`.
        p: scalar tensor in [0, 1].

    Returns:
        A tensor like `x`.
    """
    mixture = ops.multiply(1.0 - p, precise(activated)) + ops.multiply(p, precise(x))
    return ops.cast(mixture, x.dtype)


@keras.saving.register_keras_serializable("kerasrecipes")
class MollifiedActivation(keras.layers.Layer):
    """Mixture of an activation and the identity whose share `p` of the identity is a knob.

    Args:
        activation: name of a Keras activation, or a function that keeps the shape.
        p: share of the identity, in [0, 1], to begin with.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: tensor of any shape.

    Raises:
        TypeError: if `p` is no number.
        ValueError: if `p` is out of range or `activation` is unknown.

    Reference:
        Gulcehre et al., 2016, https://arxiv.org/abs/1608.04980
    """

    p = Knob(0, 1)

    def __init__(self, activation, p=1.0, **kwargs):
        super().__init__(**kwargs)
        self.activation = _activation(activation)
        self.p = p
        self.supports_masking = True

    def call(self, inputs):
        p = ops.convert_to_tensor(self.p)
        # 0 * inf is no number, neither here nor in the gradient: a share of 0 is asked at 0.
        asked = ops.where(ops.equal(p, 1), ops.zeros_like(inputs), inputs)
        return mollify(inputs, self.activation(asked), p)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), **starts(self), "activation": activation}


def _activation(activation):
    try:
        return keras.activations.get(activation)
    except ValueError as error:
        hint = nearest(activation, [n for n in dir(keras.activations) if n[0] != "_"])
        raise ValueError(
            "`activation` must be a function or the name of one of keras.activations. "
            f"Received: activation={activation!r}.{hint}"
        ) from error
