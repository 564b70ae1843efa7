"""Affine maps of single channels, and merging them into the weights of linear layers."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kerasrecipes._model.kernels import SUPPORTED, einsum_parts
from kerasrecipes.layers import WeightNormalization

L = keras.layers
_SEPARABLE = (L.SeparableConv1D, L.SeparableConv2D)
_DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)
_TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
_LINEAR = (*SUPPORTED, *_SEPARABLE)


class Affine(NamedTuple):
    """y = scale * x + shift, with one value of both for each place along one axis of x."""

    scale: np.ndarray
    shift: np.ndarray
    axis: int

    def same(self, other):
        return self.axis == other.axis and all(map(np.array_equal, self[:2], other[:2]))


class Kept(Exception):
    """Why a map cannot be merged, so that its layer is kept."""


def inference_affine(norm, rank):
    """What the built normalization `norm` does in inference to inputs of `rank` axes.

    Args:
        norm: a `BatchNormalization`, `BatchRenormalization` or `MeanOnlyBatchNormalization`.
        rank: number of axes of its inputs, the examples' included.

    Returns:
        An `Affine` in float64.
    """
    mean = _array(norm.moving_mean)
    scale = np.ones_like(mean)
    if isinstance(norm, L.BatchNormalization):
        scale = (1 if norm.gamma is None else _array(norm.gamma)) * scale
        scale = scale / np.sqrt(_array(norm.moving_variance) + norm.epsilon)
    beta = 0 if norm.beta is None else _array(norm.beta)
    return Affine(scale, beta - mean * scale, norm.axis % rank)


def merge_after(layer, weights, affine, rank):
    """Puts an affine map of the layer's outputs into its weights.

    Args:
        layer: a linear layer.
        weights: dict of float64 arrays as of `weights_of`, changed.
        affine: an `Affine` of the outputs.
        rank: number of axes of the outputs.
    """
    scale, shift, axis = affine
    if layer.activation not in (None, keras.activations.linear):
        raise Kept(f"{layer.name!r} has an activation")
    name = "pointwise_kernel" if isinstance(layer, _SEPARABLE) else "kernel"
    kernel = weights[name]
    if isinstance(layer, L.EinsumDense):
        letter = _letter(layer, 2, axis, rank)
        weights["kernel"] = kernel * along(einsum_parts(layer)[1], letter, scale)
        scale, shift = (along(einsum_parts(layer)[2], letter, v) for v in (scale, shift))
        weights["bias_axes"] |= {letter}
    else:
        _check_channels(layer, axis, rank)
        if isinstance(layer, _DEPTHWISE):
            weights[name] = kernel * scale.reshape(kernel.shape[-2:])
        else:
            weights[name] = kernel * (scale[:, None] if isinstance(layer, _TRANSPOSED) else scale)
    weights["bias"] = weights["bias"] * scale + shift


def merge_before(layer, weights, affine, rank):
    """Puts an affine map of the layer's inputs into its weights; arguments as `merge_after`."""
    scale, shift, axis = affine
    if isinstance(layer, L.EinsumDense):
        letter = _letter(layer, 0, axis, rank)
        inputs, kernel, outputs = einsum_parts(layer)
        if set(inputs) - set(kernel) - set(outputs):
            raise Kept(f"{layer.name!r} sums an axis without weights")
        rest = "".join(one for one in outputs if one in kernel)
        if not rest:
            raise Kept(f"{layer.name!r} has no units, so no place for a bias")
        made = np.einsum(f"{kernel},{letter}->{rest}", weights["kernel"], shift)
        sizes = dict(zip(rest, made.shape, strict=True))
        weights["kernel"] = weights["kernel"] * along(kernel, letter, scale)
        weights["bias"] = weights["bias"] + made.reshape([sizes.get(one, 1) for one in outputs])
        weights["bias_axes"] |= set(rest)
        return
    _check_channels(layer, axis, rank)
    if isinstance(layer, _TRANSPOSED):
        raise Kept(f"the edges of {layer.name!r} see fewer taps")
    padded = getattr(layer, "padding", "valid") != "valid"
    if padded and max(layer.kernel_size) > 1:
        raise Kept(f"the zeros with which {layer.name!r} pads are not normalized")
    if isinstance(layer, (*_DEPTHWISE, *_SEPARABLE)):
        name = "depthwise_kernel" if isinstance(layer, _SEPARABLE) else "kernel"
        made = _sum_of_taps(weights[name] * shift[:, None], keep=2).reshape(-1)
        weights[name] = weights[name] * scale[:, None]
        if isinstance(layer, _SEPARABLE):
            made = _sum_of_taps(made[:, None] * weights["pointwise_kernel"], keep=1)
    else:
        # One column a unit: a unit of a grouped convolution sees its group's channels only.
        groups, units = getattr(layer, "groups", 1), weights["kernel"].shape[-1]
        scale, shift = (
            np.repeat(v.reshape(groups, -1), units // groups, axis=0).T for v in (scale, shift)
        )
        made = _sum_of_taps(weights["kernel"] * shift, keep=1)
        weights["kernel"] = weights["kernel"] * scale
    weights["bias"] = weights["bias"] + made


def _sum_of_taps(products, keep):
    return products.sum(axis=tuple(range(products.ndim - keep)))


def along(letters, letter, values):
    """`values` shaped to multiply an array whose axes are `letters`."""
    return values.reshape([-1 if one == letter else 1 for one in letters])


def _letter(layer, part, axis, rank):
    """The letter of an axis of the inputs (part 0) or outputs (2) of an EinsumDense."""
    letters, kernel = einsum_parts(layer)[part], einsum_parts(layer)[1]
    at = axis - rank + len(letters)
    if "...," in layer.equation.replace(" ", "") or at < 0 or letters[at] not in kernel:
        raise Kept(f"{layer.name!r} has no weights along axis {axis}")
    return letters[at]


def _check_channels(layer, axis, rank):
    if channel_axis(layer, rank) != axis:
        raise Kept(f"it normalizes axis {axis}, along which {layer.name!r} has no weights")


def channel_axis(layer, rank):
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def _array(variable):
    return np.array(ops.convert_to_numpy(variable), "float64")


def core_of(layer):
    """The layer that has the kernel: what WeightNormalization wraps, else itself."""
    return layer.layer if type(layer) is WeightNormalization else layer


def is_linear(layer):
    """Whether maps can be merged into the layer."""
    # Only Keras's own: a subclass may have a `call` that does more.
    return type(core_of(layer)) in _LINEAR


def weights_of(layer):
    """A linear layer's weights in float64, with a bias that broadcasts to its outputs.

    Returns:
        A dict of "kernel" (of a separable convolution "depthwise_kernel" and
        "pointwise_kernel") and "bias"; of an EinsumDense also "bias_axes", a set of letters.
    """
    core = core_of(layer)
    if isinstance(core, _SEPARABLE):
        names = {n: getattr(core, n) for n in ("depthwise_kernel", "pointwise_kernel")}
    else:
        names = {"kernel": core.kernel if core is layer else layer.compute_kernel()}
    bias = np.zeros(()) if core.bias is None else _array(core.bias)
    weights = {**{name: _array(value) for name, value in names.items()}, "bias": bias}
    if isinstance(core, L.EinsumDense):
        ones = (1,) * (len(einsum_parts(core)[2]) - bias.ndim)
        weights |= {"bias": bias.reshape(ones + bias.shape), "bias_axes": set(core.bias_axes or "")}
    return weights


def check_mergeable(layer, norm):
    """Raises `Kept` unless the weights of `layer` can stand for what `norm` does."""
    core = core_of(layer)
    if getattr(core, "lora_enabled", False) or getattr(core, "quantization_mode", None):
        raise Kept(f"{layer.name!r} has LoRA or quantized weights")
    if layer.compute_dtype != norm.compute_dtype:
        raise Kept(f"{layer.name!r} computes in {layer.compute_dtype}, it in {norm.compute_dtype}")
