"""Layers with one kernel: which axes of the kernel, and of the output, count the units."""

import keras

_SPATIAL = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)

SUPPORTED = (keras.layers.Dense, *_SPATIAL, *_TRANSPOSED, *_DEPTHWISE, keras.layers.EinsumDense)


def unit_axes(layer):
    """The axes of `layer.kernel` along which its units lie, in the order of the kernel."""
    rank = len(layer.kernel.shape)
    if isinstance(layer, _TRANSPOSED):
        return (rank - 2,)
    if isinstance(layer, _DEPTHWISE):
        return (rank - 2, rank - 1)
    if isinstance(layer, keras.layers.EinsumDense):
        _, kernel, outputs = einsum_parts(layer)
        return tuple(i for i, letter in enumerate(kernel) if letter in outputs)
    return (rank - 1,)


def fan_in_axes(layer):
    """The axes of `layer.kernel` that one unit sums over."""
    units = unit_axes(layer)
    return tuple(i for i in range(len(layer.kernel.shape)) if i not in units)


def unit_groups(layer):
    """How many groups of units, neighbours in the kernel, have inputs of their own."""
    return layer.kernel.shape[-2] if isinstance(layer, _DEPTHWISE) else getattr(layer, "groups", 1)


def inner_kernel_layer(layer):
    """The layer that holds the kernel: that inside of a WeightNormalization, else `layer`."""
    normalized = isinstance(layer, keras.layers.Wrapper) and hasattr(layer, "g")
    return layer.layer if normalized else layer


def einsum_parts(layer):
    """(inputs, kernel, outputs) of an EinsumDense's equation, without the ellipsis."""
    left, outputs = layer.equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    return inputs.replace("...", ""), kernel, outputs.replace("...", "")


def output_unit_axes(layer, rank):
    """The axes of the layer's output (of `rank` axes) where its units lie, in kernel order."""
    if isinstance(layer, keras.layers.EinsumDense):
        _, kernel, outputs = einsum_parts(layer)
        return tuple(outputs.index(kernel[i]) - len(outputs) + rank for i in unit_axes(layer))
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    return (1,) if channels_first else (rank - 1,)
