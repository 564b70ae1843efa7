"""Maxout: each unit is the largest of several affine pieces, so the activation is learned.

How to use
    >>> import keras
    >>> from kerasrecipes.layers import Maxout
    >>> layer = Maxout(pieces=2)
    >>> keras.ops.convert_to_numpy(layer(keras.ops.array([[1.0, 3.0, -2.0, -5.0]]))).tolist()
    [[3.0, -2.0]]
    >>> hidden = [keras.layers.Dense(3 * 64), Maxout(pieces=3)]  # 64 units of 3 pieces

Suggested hyperparameters
    `pieces`: 2 to 5; the layer before needs `pieces` times as many features, without an
    activation. `axis`: -1, or 1 for channels first. Trained with dropout in the paper.

When not to use
    To save weights: a unit costs `pieces` times those of a ReLU. After an activation.

Technical details
    Along `axis` each `pieces` neighbours are one unit, whose output is their maximum: n * pieces
    features become n. It is convex and piecewise linear in its inputs; with two pieces, one of
    them zero, it is the ReLU, and with w and -w the absolute value. The gradient goes to the
    largest piece alone; of several equal ones each gets a share.

Attribution
    Goodfellow, Warde-Farley, Mirza, Courville, Bengio, Maxout Networks, 2013,
    https://arxiv.org/abs/1302.4389
"""

import keras
from keras import ops

from kerasrecipes._checks import integer


@keras.saving.register_keras_serializable("kerasrecipes")
class Maxout(keras.layers.Layer):
    """Maximum over each `pieces` neighbours along `axis`.

    Args:
        pieces: number of features of which one unit takes the largest.
        axis: int, the axis of the features; not that of the examples.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: tensor of any shape with at least two axes.

    Returns:
        A tensor like `inputs` whose `axis` is `pieces` times shorter.

    Raises:
        TypeError: if an argument is no integer.
        ValueError: if `pieces` is less than 1 or does not divide the number of features, or if
            `axis` is not among the input's.

    Reference:
        Goodfellow et al., 2013, section 3, https://arxiv.org/abs/1302.4389
    """

    def __init__(self, pieces, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.pieces = integer("pieces", pieces, 1)
        self.axis = integer("axis", axis)
        self.supports_masking = True

    def call(self, inputs):
        axis = self._checked_axis(inputs.shape)
        before, after = ops.shape(inputs)[:axis], ops.shape(inputs)[axis + 1 :]
        units = inputs.shape[axis] // self.pieces
        return ops.max(ops.reshape(inputs, [*before, units, self.pieces, *after]), axis=axis + 1)

    def compute_mask(self, inputs, previous_mask):
        """The mask goes on, but one over the axis that gets shorter does not fit any more."""
        if previous_mask is None or self.axis % len(inputs.shape) >= len(previous_mask.shape):
            return previous_mask
        return None

    def compute_output_shape(self, input_shape):
        axis, shape = self._checked_axis(input_shape), list(input_shape)
        shape[axis] //= self.pieces
        return tuple(shape)

    def get_config(self):
        return {**super().get_config(), "pieces": self.pieces, "axis": self.axis}

    def _checked_axis(self, shape):
        rank = len(shape)
        if not -rank <= self.axis < rank or self.axis % rank == 0:
            raise ValueError(
                f"`axis` must be an axis of features of the input, whose shape is {tuple(shape)}; "
                f"the first one is that of the examples. Received: axis={self.axis}"
            )
        features = shape[self.axis]
        if features is None or features % self.pieces:
            raise ValueError(
                f"`pieces` must divide the number of features, {features} on axis {self.axis}. "
                f"Received: pieces={self.pieces}. Give the layer before n * {self.pieces} units."
            )
        return self.axis % rank
