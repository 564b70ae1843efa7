"""Dirac start: a convolution that begins as the identity, whatever its width.

How to use
    >>> import keras
    >>> from kerasrecipes.initializers import Dirac
    >>> layer = keras.layers.Conv2D(4, 3, padding="same", kernel_initializer=Dirac())
    >>> x = keras.random.normal((2, 8, 8, 4), seed=0)
    >>> bool(keras.ops.all(layer(x) == x))
    True

Suggested hyperparameters
    `groups`: that of the layer. `gain`: 1; less than 1 where the layer is added to a shortcut.

When not to use
    For all layers of a network: filters that begin alike, such as those beyond the number of
    input channels, which are zero, rely on the layers around them to break the symmetry. For
    depthwise layers, whose kernel has other axes.

Technical details
    In each group filter i passes channel i of that group on, times `gain`; filters without a
    channel of their own are zero, and channels without a filter are lost. With padding "same" and
    stride 1 the output is the input, also for kernels of even length. It is torch's
    `nn.init.dirac_`, which places the middle of even kernels one further. For Dense layers
    Keras has `Identity`.

Attribution
    Zagoruyko and Komodakis, DiracNets, 2017, https://arxiv.org/abs/1706.00388
"""

import keras
import numpy as np
from keras import ops

from kerasrecipes._checks import integer, number
from kerasrecipes.initializers._center import centered, check_convolution


@keras.saving.register_keras_serializable("kerasrecipes")
class Dirac(keras.initializers.Initializer):
    """The kernel of an identity convolution.

    Args:
        groups: the layer's own number of groups.
        gain: factor by which the input is passed on.

    Raises:
        TypeError: if `groups` is no integer or `gain` no number.
        ValueError: if `groups` is less than 1 or does not divide the filters, or if the kernel is
            not that of a convolution.

    Reference:
        Zagoruyko and Komodakis, 2017, section 3, https://arxiv.org/abs/1706.00388
    """

    def __init__(self, groups=1, gain=1.0):
        self.groups = integer("groups", groups, 1)
        self.gain = number("gain", gain)

    def __call__(self, shape, dtype=None):
        check_convolution("Dirac", shape, "keras.initializers.Identity")
        channels, filters = shape[-2:]
        if filters % self.groups:
            raise ValueError(
                f"`groups` must divide the number of filters, {filters}. "
                f"Received: groups={self.groups}"
            )
        matrix = np.tile(np.eye(channels, filters // self.groups), self.groups)
        kernel = centered(ops.convert_to_tensor(self.gain * matrix, "float32"), shape)
        return ops.cast(kernel, dtype or keras.config.floatx())

    def get_config(self):
        return {"groups": self.groups, "gain": self.gain}
