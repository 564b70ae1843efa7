"""Difficulty of examples: the loss that a trained model has on each.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.data import difficulty_from
    >>> teacher = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> teacher.compile("sgd", "mse")
    >>> difficulty_from(teacher, np.zeros((4, 3)), np.array([0.0, 1.0, 2.0, 3.0])).tolist()
    [0.0, 1.0, 4.0, 9.0]

Suggested hyperparameters
    `batch_size`: as large as memory allows. The teacher: smaller than the model to come, trained
    on other data or, by cross-validation, on the folds that do not hold the example.

When not to use
    With a teacher trained on the same examples: it leaks. What it has memorized, noisy labels
    too, then looks easy. Where a natural order exists (length, noise, size), that is free and
    says more. Examples with wrong labels are the hardest of all: look at the top of the list.

Technical details
    The compiled loss of each example in inference mode, without regularizers and loss weights,
    averaged over all axes but the first. Masks are not applied. Where the loss averages over the
    examples, the mean of the result is the loss that `evaluate` gives, less regularization.
    The model is left as it was.

Attribution
    Weinshall, Cohen, Amir, Curriculum Learning by Transfer Learning, 2018,
    https://arxiv.org/abs/1802.03796; Hacohen, Weinshall, 2019, https://arxiv.org/abs/1904.03626.
"""

import keras
import numpy as np
from keras import ops

from kerasrecipes._checks import integer
from kerasrecipes._model.batches import as_arrays, check_lengths, same_rank, slices
from kerasrecipes._model.state import check_ready


def difficulty_from(model, x, y, sample_weight=None, batch_size=256):
    """The loss of a trained model on each example.

    Args:
        model: built `keras.Model` with one output, compiled with one loss.
        x: array, or a list or dict of arrays, of shape `(examples, ...)`.
        y: targets of shape `(examples, ...)`.
        sample_weight: optional weights of shape `(examples,)` that multiply the losses.
        batch_size: examples per evaluation of the model.

    Returns:
        NumPy array of shape `(examples,)`, float32.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if the model is unbuilt, uncompiled or has several outputs, if the data is
            empty, of unequal lengths, or has NaN, or if a loss is not finite.

    Reference:
        Weinshall et al., 2018, https://arxiv.org/abs/1802.03796
    """
    check_ready(model, compiled=True)
    x, y = as_arrays("x", x), as_arrays("y", y)
    count = check_lengths(x=x, y=y, sample_weight=sample_weight)
    batch_size = integer("batch_size", batch_size, 1)
    if isinstance(model.loss, (list, tuple, dict)) or not hasattr(y, "shape"):
        raise ValueError(
            "One output with one loss is needed. Received several: compute a difficulty of your "
            "own from `model.predict`."
        )
    # Inference changes no state, and the compiled function stays for the next time.
    predicted = model.predict(x, batch_size=batch_size, verbose=0)
    if not hasattr(predicted, "shape"):
        raise ValueError("One output is needed. Received several from `model.predict`.")
    predicted = predicted.astype(keras.config.floatx(), copy=False)
    losses = np.concatenate(
        [_losses(model.loss, y[part], predicted[part]) for part in slices(count, batch_size)]
    )
    if not np.isfinite(losses).all():
        bad = int(np.sum(~np.isfinite(losses)))
        raise ValueError(f"The loss of the model is not finite on {bad} of {count} examples.")
    return losses if sample_weight is None else losses * np.asarray(sample_weight, losses.dtype)


def _losses(loss, y, predicted):
    """The unreduced loss, averaged over all axes but the first."""
    loss = keras.losses.get(loss)
    # `call` is what Keras's losses reduce.
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss
    dtype = getattr(loss, "dtype", None) or keras.config.floatx()
    pair = (ops.convert_to_tensor(v, dtype=dtype) for v in (y, predicted))
    values = function(*same_rank(*pair))
    values = ops.convert_to_numpy(values).astype("float32")
    return values.reshape(len(y), -1).mean(axis=1)
