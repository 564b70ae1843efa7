"""Batch normalization of the mean alone: the companion of weight normalization.

How to use
    >>> import keras
    >>> from kerasrecipes.layers import MeanOnlyBatchNormalization, WeightNormalization
    >>> dense = keras.layers.Dense(4, use_bias=False)
    >>> model = keras.Sequential(
    ...     [WeightNormalization(dense), MeanOnlyBatchNormalization(), keras.layers.ReLU()]
    ... )
    >>> model(keras.ops.ones((8, 3)), training=True).shape == (8, 4)
    True

Suggested hyperparameters
    `momentum`: 0.9, as in the paper, for runs of hundreds of steps; 0.99 for thousands. Place it
    between a `WeightNormalization` without bias and its activation. `center`: True, since it
    takes the place of that bias.

When not to use
    After a layer whose scale is not held: only the mean is normalized here, so without weight
    normalization the deviation of the units goes wherever the weights go. With batches of one or
    two examples, whose mean is mostly noise.

Technical details
    In training y = x - mean(x) + beta, the mean over all axes but `axis`, and moving_mean <-
    momentum * moving_mean + (1 - momentum) * mean; in inference y = x - moving_mean + beta. The
    gradient that goes back is that of the output less its own batch mean. A frozen layer
    (`trainable = False`) runs as in inference, as Keras's batch norm does, and masked steps do
    not count. Means are taken in float32 also under mixed precision. It is no
    `BatchNormalization`: what folds or measures that one's statistics anew leaves it alone. On
    4,000 images of CIFAR-10 it brought weight norm from 0.485 to 0.542 and batch norm had 0.526
    (recipes/weight_norm_cifar.py, TensorFlow, mean of seeds 0 to 2).

Attribution
    Salimans and Kingma, 2016, section 4, https://arxiv.org/abs/1602.07868
"""

import keras
from keras import ops

from kerasrecipes._checks import integer, number
from kerasrecipes.layers._knob import precise


def batch_mean(x, axis, mask=None):
    """The mean of `x` over all axes but `axis`.

    Args:
        x: tensor.
        axis: the axis that is kept.
        mask: optional tensor of the shape of `x` without its last axis, True where it counts.

    Returns:
        A tensor of one axis.
    """
    axes = [i for i in range(len(x.shape)) if i != axis % len(x.shape)]
    if mask is None:
        return ops.mean(x, axis=axes)
    counts = ops.broadcast_to(ops.expand_dims(ops.cast(mask, "bool"), -1), ops.shape(x))
    total = ops.sum(ops.cast(counts, x.dtype), axis=axes)
    return ops.sum(ops.where(counts, x, 0.0), axis=axes) / ops.maximum(total, 1.0)


@keras.saving.register_keras_serializable("kerasrecipes")
class MeanOnlyBatchNormalization(keras.layers.Layer):
    """Subtracts each channel's batch mean, and in inference its moving mean; adds a bias.

    Args:
        axis: int, the axis of the channels.
        momentum: share of the old value in the moving mean, per step.
        center: whether a trained bias `beta` is added.
        beta_initializer, beta_regularizer, beta_constraint: of `beta`, as in Keras.
        moving_mean_initializer: where the moving mean begins.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: tensor of any shape with at least two axes.
        training: whether to subtract the batch's mean and to move the average.
        mask: optional, True where an example or step counts, of the shape of `inputs` without
            the last axis.

    Raises:
        TypeError: if `axis` is no integer or `momentum` no number.
        ValueError: if one of them is out of range, or if the mask does not fit.

    Reference:
        Salimans and Kingma, 2016, section 4, https://arxiv.org/abs/1602.07868
    """

    def __init__(
        self,
        axis=-1,
        momentum=0.99,
        center=True,
        beta_initializer="zeros",
        moving_mean_initializer="zeros",
        beta_regularizer=None,
        beta_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.axis = integer("axis", axis)
        self.momentum = number("momentum", momentum, 0, 1)
        self.center = center
        self.beta_initializer = keras.initializers.get(beta_initializer)
        self.moving_mean_initializer = keras.initializers.get(moving_mean_initializer)
        self.beta_regularizer = keras.regularizers.get(beta_regularizer)
        self.beta_constraint = keras.constraints.get(beta_constraint)
        self.supports_masking = True

    def build(self, input_shape):
        rank = len(input_shape)
        if not -rank <= self.axis < rank or self.axis % rank == 0:
            raise ValueError(
                f"`axis` must be an axis of channels of the input, whose shape is {input_shape}; "
                f"the first one is that of the examples. Received: axis={self.axis}"
            )
        shape = (input_shape[self.axis],)
        self.beta = None
        if self.center:
            self.beta = self.add_weight(
                name="beta",
                shape=shape,
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                autocast=False,
            )
        self.moving_mean = self.add_weight(
            name="moving_mean",
            shape=shape,
            initializer=self.moving_mean_initializer,
            trainable=False,
            autocast=False,
        )
        self.input_spec = keras.layers.InputSpec(ndim=rank, axes={self.axis: shape[0]})

    def call(self, inputs, training=None, mask=None):
        if mask is not None and len(mask.shape) != len(inputs.shape) - 1:
            raise ValueError(
                "`mask` must have one axis less than `inputs`. "
                f"Received: mask.shape={mask.shape}, inputs.shape={inputs.shape}"
            )
        x = precise(inputs)
        moving = ops.cast(self.moving_mean, x.dtype)
        shift = moving
        if training and self.trainable:
            shift = batch_mean(x, self.axis, mask)
            self.moving_mean.assign(moving * self.momentum + shift * (1.0 - self.momentum))
        if self.beta is not None:
            shift = shift - ops.cast(self.beta, x.dtype)
        shape = [1] * len(x.shape)
        shape[self.axis] = -1
        return ops.cast(x - ops.reshape(shift, shape), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "center": self.center,
            "beta_initializer": keras.initializers.serialize(self.beta_initializer),
            "moving_mean_initializer": keras.initializers.serialize(self.moving_mean_initializer),
            "beta_regularizer": keras.regularizers.serialize(self.beta_regularizer),
            "beta_constraint": keras.constraints.serialize(self.beta_constraint),
        }
