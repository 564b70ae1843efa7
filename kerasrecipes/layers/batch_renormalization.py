"""Batch renormalization: batch norm that trains on what it will use for predictions.

How to use
    >>> import keras
    >>> from kerasrecipes.layers import BatchRenormalization
    >>> layer = BatchRenormalization()
    >>> layer.r_max = 3.0
    >>> layer.d_max = 5.0
    >>> layer(keras.ops.ones((8, 4)), training=True).shape == (8, 4)
    True

    In a `fit`: `callbacks.HyperparameterSchedule("layer_name.r_max", schedule)`, and the same
    for `d_max`.

Suggested hyperparameters
    `r_max`, `d_max`: 1 and 0, batch norm, for the first twentieth of the steps, then linearly to
    3 by two fifths and to 5 by a quarter of them. `momentum`: the averages are used in
    training, so they must follow the weights: 0.99 for thousands of steps, 0.9 for hundreds.

When not to use
    With large batches drawn at random: batch norm is the same there. With 2 examples a batch:
    `keras.layers.GroupNormalization` does not depend on the batch at all.

Technical details
    In training y = gamma * ((x - mean) / s * r + d) + beta with s the root of the batch's
    variance + epsilon, r = s / sigma clipped to [1 / r_max, r_max] and
    d = (mean - mu) / sigma clipped to [-d_max, d_max], both without gradient; mu and sigma are
    the moving averages of mean and s, and unclipped y is what inference gives. At r_max = 1,
    d_max = 0 outputs, gradients and moving averages are batch norm's bit for bit (a TensorFlow
    graph without XLA may round the optimizer's step otherwise): there the variance is averaged,
    beyond it s, as in the paper (which averages s from the start). The state is that
    of `keras.layers.BatchNormalization`, sigma being the root of moving_variance + epsilon, so
    weights go from one to the other, and what measures batch norm's statistics anew serves here.
    (Keras's `renorm=True` has fixed limits and a second set of averages.) `r_max` and `d_max`
    are weights of the layer: a saved model holds the values reached, the config those it began
    with. A frozen layer (`trainable = False`) runs as in inference, as Keras's does.

Attribution
    Ioffe, Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized
    Models, 2017, https://arxiv.org/abs/1702.03275
"""

import keras
from keras import ops

from kerasrecipes.layers._knob import Knob, precise, starts


def renorm_correction(mean, deviation, moving_mean, moving_deviation, r_max, d_max):
    """The factors (r, d) that turn a batch-normalized value x into x * r + d.

    Args:
        mean, deviation: of the batch, one value a channel.
        moving_mean, moving_deviation: their moving averages.
        r_max: r is clipped to [1 / `r_max`, `r_max`]; at least 1.
        d_max: d is clipped to [-`d_max`, `d_max`]; at least 0.

    Returns:
        Tensors r and d without gradient.
    """
    r = ops.clip(deviation / moving_deviation, 1.0 / r_max, r_max)
    d = ops.clip((mean - moving_mean) / moving_deviation, -d_max, d_max)
    return ops.stop_gradient(r), ops.stop_gradient(d)


@keras.saving.register_keras_serializable("kerasrecipes")
class BatchRenormalization(keras.layers.BatchNormalization):
    """Batch normalization corrected towards its moving averages, with knobs `r_max` and `d_max`.

    Args:
        axis: int, the axis of the channels.
        momentum: share of the old value in the moving averages, per step.
        epsilon: added to the variance.
        r_max: limit of the correction of the scale, at least 1, to begin with.
        d_max: limit of the correction of the shift, in deviations, at least 0, to begin with.
        **kwargs: arguments of `keras.layers.BatchNormalization` except those of `renorm`.

    Call arguments:
        inputs: tensor of any shape.
        training: whether to normalize by the batch and to move the averages.
        mask: optional, True where an example or step counts, of the shape of `inputs` without
            the last axis.

    Raises:
        TypeError: if `r_max` or `d_max` is no number.
        ValueError: if one of them is out of range, or if an argument of `renorm` is given.

    Reference:
        Ioffe, 2017, Algorithm 1, https://arxiv.org/abs/1702.03275
    """

    r_max, d_max = Knob(1), Knob(0)

    def __init__(self, axis=-1, momentum=0.99, epsilon=1e-3, r_max=1.0, d_max=0.0, **kwargs):
        if refused := sorted(k for k in kwargs if k.startswith("renorm")):
            raise ValueError(
                f"BatchRenormalization does not take {', '.join(map(repr, refused))}: it always "
                "renormalizes, within r_max and d_max, and has one momentum."
            )
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)
        self.r_max = r_max
        self.d_max = d_max

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        x = precise(inputs)
        mean, variance = self._batch_moments(x, mask)
        moving = [self.moving_mean, self.moving_variance, self.r_max, self.d_max]
        moving_mean, moving_variance, r_max, d_max = (ops.cast(v, x.dtype) for v in moving)
        deviation, sigma = (ops.sqrt(v + self.epsilon) for v in (variance, moving_variance))
        r, d = renorm_correction(mean, deviation, moving_mean, sigma, r_max, d_max)

        gamma, beta = (None if v is None else ops.cast(v, x.dtype) for v in (self.gamma, self.beta))
        scale, offset = (r, d) if gamma is None else (r * gamma, d * gamma)
        outputs = ops.batch_normalization(
            x,
            mean=mean,
            variance=variance,
            axis=self.axis,
            scale=scale,
            offset=offset if beta is None else offset + beta,
            epsilon=self.epsilon,
        )

        def average(old, new):
            return old * self.momentum + new * (1.0 - self.momentum)

        squared = ops.relu(ops.square(average(sigma, deviation)) - self.epsilon)
        batch_norm = ops.logical_and(r_max <= 1, d_max <= 0)
        self.moving_mean.assign(average(moving_mean, mean))
        self.moving_variance.assign(
            ops.where(batch_norm, average(moving_variance, variance), squared)
        )
        return ops.cast(outputs, self.compute_dtype)

    def _batch_moments(self, x, mask):
        axes = [i for i in range(len(x.shape)) if i != self.axis % len(x.shape)]
        if mask is None:
            return ops.moments(x, axes=axes, synchronized=self.synchronized)
        if len(mask.shape) != len(x.shape) - 1:
            raise ValueError(
                "`mask` must have one axis less than `inputs`. "
                f"Received: mask.shape={mask.shape}, inputs.shape={x.shape}"
            )
        counts = ops.broadcast_to(ops.expand_dims(ops.cast(mask, "bool"), -1), ops.shape(x))
        total = ops.sum(ops.cast(counts, x.dtype), axes, keepdims=True) + keras.config.epsilon()
        mean = ops.sum(ops.where(counts, x, 0.0), axes, keepdims=True) / total
        squares = ops.square(ops.where(counts, x - mean, 0.0))
        variance = ops.sum(squares, axes, keepdims=True) / total
        return ops.reshape(mean, (-1,)), ops.reshape(variance, (-1,))

    def get_config(self):
        config = super().get_config()
        base = {k: v for k, v in config.items() if not k.startswith("renorm")}
        return {**base, **starts(self)}
