"""Convolution kernels that are zero but for their middle."""

from keras import ops


def centered(matrix, shape):
    """A kernel of `shape` with `matrix` (the last two axes) in the middle of the others.

    In an axis of even length the middle is that for which padding "same" adds one more zero
    behind than before, as Keras does, so that the convolution shifts nothing.
    """
    before = [(size - 1) // 2 for size in shape[:-2]]
    around = [(n, size - 1 - n) for n, size in zip(before, shape[:-2], strict=True)]
    return ops.pad(
        ops.reshape(matrix, [1] * len(around) + list(shape[-2:])), [*around, (0, 0), (0, 0)]
    )


def check_convolution(name, shape, instead):
    """Raises unless `shape` is that of the kernel of a Conv1D, Conv2D or Conv3D."""
    if not 3 <= len(shape) <= 5:
        raise ValueError(
            f"`{name}` is for kernels of Conv1D, Conv2D and Conv3D, which have 3 to 5 axes. "
            f"Received: shape={tuple(shape)}. Use {instead} for a Dense layer."
        )
