"""Taking a model's whole state and putting it back."""

import contextlib
import random

import keras
import numpy as np
from keras import ops

from kerasrecipes import _backend


def check_ready(model, *, built=True, compiled=False):
    """Raises unless `model` is a Keras model that is built and, if asked, compiled."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}")
    if built and not (model.built and model.variables):
        raise ValueError(
            f"`model` {model.name!r} has no weights yet. Build it first: "
            "`model.build(input_shape)`, or call it once on a batch."
        )
    if compiled and not (model.compiled and getattr(model, "loss", None) is not None):
        raise ValueError(
            f"`model` {model.name!r} is not compiled with a loss. "
            "Call `model.compile(optimizer, loss)` first."
        )


def state_variables(model):
    """All variables that training can change: weights, seeds, metrics, optimizer."""
    optimizer = getattr(model, "optimizer", None)
    found = [*model.variables, *model.metrics_variables]
    found += [] if optimizer is None else optimizer.variables
    return list({id(v): v for v in found}.values())


_OF_TRAINING = (
    "history",
    "stop_training",
    "optimizer",
    "_steps_per_execution",
    "train_function",
    "test_function",
    "predict_function",
)


@contextlib.contextmanager
def restored(model, *, always=True):
    """Leaves `model` as it was found: after an error, or `always`.

    Weights, seeds, metrics, optimizer, `history`, compiled functions and the random state of
    Python and NumPy come back bit for bit. Variables that only came to be inside (metrics that
    Keras builds late) go back to zero, their value when they are made.
    """
    _backend.sync(model)
    saved = [(v, np.array(ops.convert_to_numpy(v))) for v in state_variables(model)]
    known = {id(v) for v, _ in saved}
    attributes = {name: vars(model)[name] for name in _OF_TRAINING if name in vars(model)}
    python, numpy = random.getstate(), np.random.get_state()

    def put_back():
        for name in _OF_TRAINING:
            if name in attributes:
                setattr(model, name, attributes[name])
            elif name in vars(model):
                delattr(model, name)
        for variable, value in saved:
            variable.assign(value)
        for variable in state_variables(model):
            if id(variable) not in known:
                variable.assign(np.zeros(variable.shape))
        random.setstate(python)
        np.random.set_state(numpy)

    try:
        with _backend.random_state():
            yield
    except BaseException:
        put_back()
        raise
    if always:
        put_back()
