"""A knob: a scalar of a layer that compiled code reads; what layers with knobs share."""

import keras
from keras import ops

from kerasrecipes._checks import number

_SEED = "seed_generator_state"


class Knob:
    """A scalar weight of a layer that no gradient trains, in float32.

    `layer.rate = 0.5` makes the variable in `__init__` and moves it later; `layer.rate` is the
    variable, so that `layer.rate.assign(0.5)` moves it too.

    Args:
        low, high: bounds of the values, None for none.
    """

    def __init__(self, low=None, high=None):
        self.low, self.high = low, high

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, layer, owner=None):
        if layer is None:
            return self
        if self.name not in vars(layer):
            raise AttributeError(self.name)
        return vars(layer)[self.name]

    def __set__(self, layer, value):
        value = number(self.name, value, self.low, self.high)
        if self.name in vars(layer):
            vars(layer)[self.name].assign(value)
            return
        vars(layer).setdefault("_starts", {})[self.name] = value
        vars(layer)[self.name] = layer.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            # Half precision has no rate of 0.9999, neither as a variable nor autocast.
            dtype="float32",
            autocast=False,
            trainable=False,
            name=self.name,
        )


def starts(layer):
    """The values that the knobs of `layer` began with, for its config."""
    return dict(vars(layer)["_starts"])


def precise(x):
    """`x` in float32, or in float64 if it is that."""
    wide = keras.backend.standardize_dtype(x.dtype) == "float64"
    return x if wide else ops.cast(x, "float32")


class SavedSeed:
    """Mixin of a layer with a `seed_generator`: its state is saved, so a resumed run goes on.

    Keras keeps the state among the layer's variables, but leaves it out of the file.
    """

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store[_SEED] = self.seed_generator.state

    def load_own_variables(self, store):
        own = {key: store[key] for key in store.keys()}  # noqa: SIM118  a store is no dict
        state = own.pop(_SEED, None)
        super().load_own_variables(own)
        if state is not None:
            self.seed_generator.state.assign(state)
