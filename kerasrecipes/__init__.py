"""Methods that make networks train, as parts of an unmodified Keras 3 `model.fit`.

Importing this package registers every serializable class of it with Keras, so that a saved model
that uses them loads. Rooms that need more than Keras and NumPy load on first use.
"""

import importlib

from kerasrecipes import (
    callbacks,
    data,
    inference,
    initializers,
    layers,
    losses,
    objective,
    optimizers,
    schedules,
)

__version__ = "0.1.0.dev0"

_ON_FIRST_USE = ("diagnostics", "methodology", "pretraining")

__all__ = [
    "baseline",
    "callbacks",
    "data",
    "diagnostics",
    "inference",
    "initializers",
    "layers",
    "losses",
    "methodology",
    "objective",
    "optimizers",
    "pretraining",
    "schedules",
]


def __getattr__(name):
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"kerasrecipes.{name}")
    if name == "baseline":
        return importlib.import_module("kerasrecipes.methodology").baseline
    raise AttributeError(f"module 'kerasrecipes' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
