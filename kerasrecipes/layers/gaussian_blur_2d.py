"""Gaussian blur of images or feature maps whose width moves within one `fit`.

How to use
    >>> import keras
    >>> from kerasrecipes.layers import GaussianBlur2D
    >>> layer = GaussianBlur2D(2.0)
    >>> layer.kernel_size
    17
    >>> flat = keras.ops.full((1, 5, 5, 1), 3.0)
    >>> float(keras.ops.max(keras.ops.abs(layer(flat) - flat))) < 1e-5
    True
    >>> layer.sigma = 0.0

    In a `fit`: `callbacks.HyperparameterSchedule("layer_name.sigma", schedule)` or
    `callbacks.Continuation`.

Suggested hyperparameters
    `sigma`: as the first layer, begin at a tenth of the picture's width and reach 0 by half of
    the run. `kernel_size`: leave it, unless sigma is to grow: it must hold the largest sigma,
    8 * sigma + 1.

When not to use
    As augmentation: `keras.layers.RandomGaussianBlur` draws another width for each image. Where
    the class lies in fine texture, the early epochs learn nothing of it.

Technical details
    Rows, then columns are summed with weights exp(-k² / (2 sigma²)), k from -radius to radius,
    divided by their sum, in float32; beyond the edge the picture goes on with its edge pixel
    (SciPy's `gaussian_filter` with mode "nearest" and this radius), so a constant image stays
    constant. The sums are two products with a matrix of the picture's height and width, which
    costs height + width multiplications a pixel. The blur is applied in training and inference
    alike as long as sigma > 0, for it is a part of the cost that is trained; sigma = 0 is the
    identity bit for bit. The radius is fixed when the layer is made, int(4 sigma + 0.5) as in
    SciPy unless `kernel_size` is given; a sigma that grows beyond is cut off there. `sigma` is a
    weight of the layer: a saved model holds the value reached, the config the one it began with.

Attribution
    Continuation from blurred inputs: Mobahi and Fisher, On the Link Between Gaussian Homotopy
    Continuation and Convex Envelopes, 2015; Sinha, Garg, Larochelle, Curriculum by Smoothing,
    2020, https://arxiv.org/abs/2003.01367
"""

import keras
from keras import ops

from kerasrecipes._checks import integer, one_of
from kerasrecipes.layers._knob import Knob, precise, starts


def gaussian_kernel(sigma, radius):
    """Weights exp(-k² / (2 `sigma`²)) for k from -`radius` to `radius`, of sum 1.

    Args:
        sigma: scalar tensor, in pixels, not negative. At 0 the middle has all the weight.
        radius: int, in pixels.

    Returns:
        A tensor of 2 * `radius` + 1 weights.
    """
    k = ops.arange(-radius, radius + 1, dtype=sigma.dtype)
    # Below 0.01 the neighbours' weights are 0 in float32, and the quotient stays finite.
    weights = ops.exp(-0.5 * ops.square(k / ops.maximum(sigma, 0.01)))
    return weights / ops.sum(weights)


def blur_matrix(weights, size):
    """The `size` x `size` matrix that sums a line of pixels with `weights` around each.

    What falls over an end is added to the weight of that end's pixel.
    """
    radius = (weights.shape[0] - 1) // 2
    i = ops.expand_dims(ops.arange(size), 1)
    pixel = ops.clip(i + ops.arange(-radius, radius + 1), 0, size - 1)
    return ops.einsum("k,ikj->ij", weights, ops.one_hot(pixel, size, dtype=weights.dtype))


@keras.saving.register_keras_serializable("kerasrecipes")
class GaussianBlur2D(keras.layers.Layer):
    """Gaussian blur over height and width whose `sigma` is a knob.

    Args:
        sigma: standard deviation of the blur, in pixels, to begin with.
        kernel_size: optional odd int, the number of pixels summed along each axis. By default
            enough for `sigma`: 2 * int(4 * sigma + 0.5) + 1.
        data_format: "channels_last" or "channels_first". Defaults to Keras's own setting.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: images, a tensor with four axes.

    Raises:
        TypeError: if `sigma` or `kernel_size` is no number.
        ValueError: if `sigma` is negative, if `kernel_size` is even, or if it is missing while
            `sigma` is 0; if `data_format` is unknown.

    Reference:
        Sinha, Garg, Larochelle, 2020, https://arxiv.org/abs/2003.01367
    """

    sigma = Knob(0)

    def __init__(self, sigma, kernel_size=None, data_format=None, **kwargs):
        super().__init__(**kwargs)
        self.sigma = sigma
        if kernel_size is None:
            if sigma == 0:
                raise ValueError(
                    "`kernel_size` must be given where sigma begins at 0: it must hold the "
                    "largest sigma to come, 8 * sigma + 1 pixels. Received: kernel_size=None"
                )
            kernel_size = 2 * int(4 * sigma + 0.5) + 1
        self.kernel_size = integer("kernel_size", kernel_size, 1)
        if self.kernel_size % 2 == 0:
            raise ValueError(
                "`kernel_size` must be odd, so that a pixel is in the middle. "
                f"Received: kernel_size={kernel_size}"
            )
        self.data_format = one_of(
            "data_format",
            data_format or keras.config.image_data_format(),
            ("channels_last", "channels_first"),
        )
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        sigma = ops.convert_to_tensor(self.sigma)
        x = precise(inputs)
        weights = ops.cast(gaussian_kernel(sigma, self.kernel_size // 2), x.dtype)
        blurred, axes = x, "bhwc" if self.data_format == "channels_last" else "bchw"
        for axis in "hw":
            matrix = blur_matrix(weights, ops.shape(x)[axes.index(axis)])
            blurred = ops.einsum(f"i{axis},{axes}->{axes.replace(axis, 'i')}", matrix, blurred)
        # A product in reduced precision (TF32) would not keep the pixels.
        return ops.where(sigma > 0, ops.cast(blurred, inputs.dtype), inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"kernel_size": self.kernel_size, "data_format": self.data_format}
        return {**super().get_config(), **starts(self), **own}
