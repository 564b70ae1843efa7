"""Weight normalization: a kernel's length and direction are trained apart.

How to use
    >>> import keras
    >>> from kerasrecipes.layers import WeightNormalization
    >>> layer = WeightNormalization(keras.layers.Dense(4, activation="relu"))
    >>> layer(keras.ops.ones((2, 3))).shape == (2, 4)
    True
    >>> tuple(layer.v.shape), tuple(layer.g.shape)
    ((3, 4), (4,))

Suggested hyperparameters
    `layer`: every Dense and convolution of the network except the last. Start the network with
    `initializers.initialize_from_data`: without it the scale of the activations is left to
    chance. A rate a little higher than without normalization often works.

When not to use
    Before BatchNormalization, which makes the length meaningless. On a layer with LoRA or
    quantized weights.

Technical details
    kernel = g * v / ||v||, one norm per unit: over all axes but the output's (the channel axis
    of transposed convolutions is the last but one; a depthwise kernel has a unit per channel and
    multiplier; EinsumDense sums over the letters that its output lacks). `v` is the wrapped
    layer's own kernel variable and starts with its initializer, and `g` starts as ||v||, so that
    wrapping a built layer does not change its function. The gradient of v is orthogonal to v.
    `kernel_regularizer` and `kernel_constraint` act on v, whose length does not matter, so they
    do not shrink the kernel. Under mixed precision v is read in half precision, the norm is taken
    in float32. A unit that starts at zero has no direction and stays at zero.
    A training step of a small convnet takes 0.93 (JAX), 1.01 (TensorFlow) and 1.07 (PyTorch) times
    the plain one's, where quartiles of plain against plain reach from 0.94 to 1.11
    (benchmarks/weight_normalization.py, 101 rounds, CPU, Keras 3.15.1 on JAX 0.10.2, TensorFlow
    2.21.0 and torch 2.13.0).

Attribution
    Salimans and Kingma, Weight Normalization, 2016, https://arxiv.org/abs/1602.07868
"""

import keras
from keras import ops

from kerasrecipes._model.kernels import SUPPORTED, fan_in_axes, unit_axes


def normalize_weight(g, v, axes):
    """The kernel g * v / ||v||.

    Args:
        g: lengths, of the shape of `v` without `axes`.
        v: directions.
        axes: tuple of the axes of `v` over which one unit sums.

    Returns:
        A tensor of the shape of `v`.
    """
    squares = ops.sum(ops.square(v), axis=axes, keepdims=True)
    return ops.expand_dims(g, axes) * v / ops.sqrt(ops.maximum(squares, 1e-30))


@keras.saving.register_keras_serializable("kerasrecipes")
class WeightNormalization(keras.layers.Wrapper):
    """Wraps a layer so that the length `g` and direction `v` of its kernel are trained apart.

    Args:
        layer: a Dense, Conv1D/2D/3D, their transposes, DepthwiseConv1D/2D or EinsumDense.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: what `layer` takes.

    Returns:
        What `layer` returns.

    Raises:
        TypeError: if `layer` is no Keras layer.
        ValueError: if `layer` is another kind of layer, already normalized, or has LoRA weights.

    Reference:
        Salimans and Kingma, 2016, equation 2, https://arxiv.org/abs/1602.07868
    """

    def __init__(self, layer, **kwargs):
        _check(layer)
        super().__init__(layer, **{"dtype": layer.dtype_policy, **kwargs})
        self.supports_masking = layer.supports_masking

    def build(self, input_shape=None):
        super().build(input_shape)
        self._check_single_kernel()
        self.g = self.add_weight(
            name="g",
            shape=[self.v.shape[axis] for axis in unit_axes(self.layer)],
            initializer=self._length,
            dtype=self.v.dtype,
        )

    @property
    def v(self):
        """The direction: the wrapped layer's own kernel variable."""
        return self.layer.kernel

    def _length(self, shape, dtype=None):
        squares = ops.square(ops.convert_to_tensor(self.v))
        return ops.sqrt(ops.sum(squares, axis=fan_in_axes(self.layer)))

    def compute_kernel(self):
        """The kernel in use, g * v / ||v||, a tensor of the shape of `v`."""
        exact = "float64" if self.variable_dtype == "float64" else "float32"
        g, v = (ops.cast(ops.convert_to_tensor(w), exact) for w in (self.g, self.v))
        return normalize_weight(g, v, fan_in_axes(self.layer))

    def _check_single_kernel(self):
        lora = getattr(self.layer, "lora_enabled", False)
        if lora or getattr(self.layer, "quantization_mode", None):
            raise ValueError(
                f"Layer {self.layer.name!r} has LoRA or quantized weights, so it has no single "
                "kernel to normalize. Quantize or adapt a model without WeightNormalization."
            )

    def call(self, inputs):
        self._check_single_kernel()
        # The wrapped layer reads its kernel's variable: inside this scope that is our tensor.
        # An inner scope hides an outer one, so the other variables are passed through it too.
        others = [w for w in self.layer.variables if w is not self.v]
        state = [(self.v, self.compute_kernel()), *((w, w.value) for w in others)]
        # Keras counts a loss once for each layer that knows it: only this one may.
        object.__setattr__(self.layer, "add_loss", self.add_loss)
        try:
            with keras.StatelessScope(state_mapping=state, collect_losses=True) as scope:
                outputs = self.layer(inputs)
        finally:
            object.__delattr__(self.layer, "add_loss")
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)


def _check(layer):
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            "`layer` must be a keras.layers.Layer, such as keras.layers.Dense(10). "
            f"Received: {layer!r}"
        )
    if isinstance(layer, WeightNormalization):
        raise ValueError(f"Layer {layer.layer.name!r} is already weight-normalized: wrap it once.")
    if not isinstance(layer, SUPPORTED):
        names = ", ".join(kind.__name__ for kind in SUPPORTED)
        raise ValueError(
            f"`layer` must have one kernel: one of {names}. Received a "
            f"{type(layer).__name__} named {layer.name!r}."
        )
