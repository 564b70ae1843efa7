"""Delta-orthogonal start: a convolution that begins as a rotation of the channels, pixel by pixel.

How to use
    >>> import keras
    >>> from kerasrecipes.initializers import DeltaOrthogonal
    >>> start = DeltaOrthogonal(seed=0)
    >>> layer = keras.layers.Conv2D(16, 3, padding="same", kernel_initializer=start)
    >>> x = keras.random.normal((2, 8, 8, 4), seed=1)
    >>> length, before = (keras.ops.norm(keras.ops.reshape(v, (-1,))) for v in (layer(x), x))
    >>> bool(abs(length / before - 1) < 1e-5)
    True

Suggested hyperparameters
    `gain`: 1 for tanh and linear networks, 2 ** 0.5 for ReLU.

When not to use
    Where a layer has fewer filters than input channels: no such kernel keeps all lengths. With
    strides above 1, which throw pixels away. In shallow or residual networks He's start does.

Technical details
    The kernel is zero but for its middle, which is a matrix of input channels by filters with
    orthonormal rows times `gain`. With stride 1 and padding "same" the layer then multiplies the
    length of every input by `gain` exactly, however many follow each other, and so the length of
    gradients. Keras's `Orthogonal` is no such thing for convolutions: it flattens the kernel, and
    overlapping patches stretch some inputs and shrink others. Half precision rounds the matrix.

Attribution
    Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington, Dynamical Isometry and a Mean Field
    Theory of CNNs, 2018, https://arxiv.org/abs/1806.05393
"""

import keras
from keras import ops

from kerasrecipes._checks import number
from kerasrecipes.initializers._center import centered, check_convolution


@keras.saving.register_keras_serializable("kerasrecipes")
class DeltaOrthogonal(keras.initializers.Orthogonal):
    """Zero but for the middle of the kernel, where there is an orthogonal matrix.

    Args:
        gain: factor by which the layer multiplies lengths, above 0.
        seed: int or `keras.random.SeedGenerator`, as in Keras's own initializers.

    Raises:
        TypeError: if `gain` is no number.
        ValueError: if `gain` is not above 0, if the kernel is not that of a convolution, or if
            it has more input channels than filters.

    Reference:
        Xiao et al., 2018, Algorithm 1, https://arxiv.org/abs/1806.05393
    """

    def __init__(self, gain=1.0, seed=None):
        super().__init__(gain=number("gain", gain, 0, open_low=True), seed=seed)

    def __call__(self, shape, dtype=None):
        check_convolution("DeltaOrthogonal", shape, "keras.initializers.Orthogonal")
        if shape[-2] > shape[-1]:
            raise ValueError(
                "`DeltaOrthogonal` needs at least as many filters as input channels. Received: "
                f"{shape[-1]} filters for {shape[-2]} channels. Take more filters, or "
                "keras.initializers.HeNormal for this layer."
            )
        matrix = super().__call__(shape[-2:], dtype="float32")
        return ops.cast(centered(matrix, shape), dtype or keras.config.floatx())
