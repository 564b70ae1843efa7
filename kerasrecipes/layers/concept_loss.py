"""A cost on outputs or hidden states whose coefficient can move during `fit`.

How to use
    >>> import keras
    >>> from keras import ops
    >>> from kerasrecipes.layers import ConceptLoss
    >>> @keras.saving.register_keras_serializable("mine")
    ... def smoothness(y):
    ...     return ops.mean(ops.square(y[:, 1:] - y[:, :-1]), axis=-1)
    >>> inputs = keras.Input((8,))
    >>> x = keras.layers.Dense(8)(inputs)
    >>> outputs = ConceptLoss(smoothness, 0.1, name="smooth")(x)
    >>> model = keras.Model(inputs, outputs)
    >>> model.compile("sgd", "mse")

    A callback moves "smooth.weight", as
    `Continuation("smooth.weight", [0.0, 0.1, 1.0], advance=5)`.

Suggested hyperparameters
    `weight`: such that the term is about as large as the main loss where it shall be heard, and
    0 where it shall not. Simple concepts first: raise validity before syntax before meaning.

When not to use
    Where the cost compares outputs with labels: `losses.Scheduled`. Where its weight stays and
    only a kernel is meant: `kernel_regularizer`.

Technical details
    The inputs, a tensor or a nest of them, pass through unchanged; the loss grows by
    weight * mean(fn(inputs)). The mean runs over all that `fn` returns, also over padded steps:
    `fn` must weigh those itself. Sample and class weights of `fit` do not reach the term. Under
    mixed precision `fn` sees the compute dtype and its result is averaged in float32. The term
    counts in `evaluate` too, as all losses of layers do. `weight` is a non-trainable weight of
    the layer, so it is saved, and `EarlyStopping(restore_best_weights=True)` puts it back too.

Attribution
    Curricula by concepts (validity, syntax, smoothness) as weighted cost terms: lecture 004.
    The annealed weight of the KL term: Bowman et al., Generating Sentences from a Continuous
    Space, 2015, https://arxiv.org/abs/1511.06349.
"""

import keras
from keras import ops

from kerasrecipes._checks import number


def _loads(fn):
    """Whether what is saved of `fn` leads back to it."""
    if hasattr(fn, "get_config"):
        return True
    if getattr(fn, "__name__", "<lambda>") == "<lambda>":
        return False
    try:
        saved = keras.saving.serialize_keras_object(fn)
        return keras.saving.deserialize_keras_object(saved) is fn
    except (TypeError, ValueError):
        return False


@keras.saving.register_keras_serializable("kerasrecipes")
class ConceptLoss(keras.layers.Layer):
    """Passes its inputs on and adds `weight * mean(fn(inputs))` to the loss.

    Args:
        fn: function of the inputs, in `keras.ops`, that returns a scalar or one value an
            example (or a step); the mean is taken. To save the model, register it with
            `keras.saving.register_keras_serializable`; a Keras object with `get_config` will
            do as well.
        weight: what the term is multiplied with, until it is moved. Defaults to 1.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        TypeError: if `fn` cannot be called or `weight` is no number.
        ValueError: if `weight` is not finite, or on saving if `fn` is not registered.

    Reference:
        Lecture 004, weighted cost terms; Bowman et al., 2015, https://arxiv.org/abs/1511.06349
    """

    def __init__(self, fn, weight=1.0, **kwargs):
        if not callable(fn):
            raise TypeError(f"`fn` must be a function of the inputs. Received: fn={fn!r}")
        weight = number("weight", weight)
        super().__init__(**kwargs)
        self.supports_masking = True
        self.fn = fn
        self.weight = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(weight),
            dtype="float32",
            trainable=False,
            autocast=False,
            name="weight",
        )

    def call(self, inputs):
        cost = ops.mean(ops.cast(self.fn(inputs), "float32"))
        self.add_loss(ops.convert_to_tensor(self.weight) * cost)
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        if not _loads(self.fn):
            raise ValueError(
                f"{self.name!r} cannot be saved: its function {self.fn!r} is not registered. Write "
                '@keras.saving.register_keras_serializable("my_package") above its definition.'
            )
        return {
            **super().get_config(),
            "fn": keras.saving.serialize_keras_object(self.fn),
            "weight": float(ops.convert_to_numpy(self.weight)),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "fn": keras.saving.deserialize_keras_object(config["fn"])})
