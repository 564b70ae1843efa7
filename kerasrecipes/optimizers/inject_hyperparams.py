"""Hyperparameters of a stock optimizer as variables that compiled code reads.

How to use
    >>> import keras
    >>> from kerasrecipes.optimizers import inject_hyperparams
    >>> optimizer = inject_hyperparams(keras.optimizers.SGD(0.1, momentum=0.9), "momentum")
    >>> isinstance(optimizer, keras.optimizers.SGD)
    True
    >>> optimizer.momentum = 0.5  # compiled steps see it, at any time
    >>> optimizer.get_config()["momentum"]
    0.5

Suggested hyperparameters
    `names`: what your loop moves, such as ["momentum", "weight_decay"]. In `model.fit` leave
    this function out: `callbacks.HyperparameterSchedule("momentum", ...)` injects by itself.

When not to use
    For the rate alone: it is a variable already. For what stays the same during a run. For what
    Keras takes in when it builds or as a structure (`nesterov`, `amsgrad`, `warmup_steps`, ...):
    that is refused. In a loop that was compiled before the injection: compile it again (in Keras
    `model.make_train_function(force=True)`), or it goes on with the old constant.

Technical details
    The optimizer stays the same object and an instance of its class. Each hyperparameter becomes
    a scalar float32 variable of it; Keras asks it Python questions (`momentum != 0`,
    `clipnorm > 0`), which it answers with yes. Assigning a number to the attribute sets the
    variable and ends a schedule that moved it. A dict of names and Keras schedules is evaluated
    inside `apply`, at `optimizer.iterations`, the number of updates. A scheduled value that is
    no finite number within the bounds is not taken: the last good one stays.

    What is saved is a plain Keras optimizer at the values reached, which loads without this
    package, slots included; schedules are not saved. Momentum that stands at 0 is saved as
    2.2e-308, since a plain optimizer with 0 would build no slots and drop those of the file; it
    trains as 0 does. Momentum that was 0 when the optimizer was built is refused for want of
    slots. A `weight_decay` of None becomes 0, which is the same; clipping that is None has no
    such value and is refused.

    In `MultiOptimizer`, `LossScaleOptimizer` and the wrappers of this package the injection goes
    into the optimizers inside; "sgd.momentum" names one of several. Under JAX `clipvalue` and
    Ftrl's `l1_regularization_strength` are refused: Keras hands them to a function of JAX that
    takes no variable.

Attribution
    optax.inject_hyperparams, https://optax.readthedocs.io; the code is our own.
"""

import functools
import math
import sys

import keras
from keras import ops

from kerasrecipes._checks import nearest

_AT_MOST_ONE = (
    "momentum",
    "ema_momentum",
    "rho",
    "beta_1",
    "beta_2",
    "adam_beta_1",
    "adam_beta_2",
)
_SMALLEST, _LARGEST = 2.0**-126, 2.0**127  # of float32, less the last power
_CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")
_FLOATS = (*_CLIPS, *_AT_MOST_ONE, "weight_decay")


class Unsaved(keras.Variable):
    """A variable that a plain optimizer does not have, so that files must not have it."""


class Hyperparameter(Unsaved):
    """A scalar that answers Keras's Python questions as a positive number does."""

    def __bool__(self):
        return True

    def __ne__(self, other):
        return True if isinstance(other, (int, float)) else super().__ne__(other)

    def __gt__(self, other):
        return True if isinstance(other, (int, float)) else super().__gt__(other)

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


class _Injected:
    """What an optimizer's class gains with its first injection."""

    _schedules = {}
    _limits = {}
    _slots_unless_zero = ()
    _plain = False

    def apply(self, grads, trainable_variables=None):
        for name, (schedule, scheduled, (low, high)) in self._schedules.items():
            variable = getattr(self, name)
            # Under JAX operations do not take a variable everywhere, so they get tensors.
            now, on = ops.convert_to_tensor(variable), ops.convert_to_tensor(scheduled)
            given = ops.cast(schedule(ops.convert_to_tensor(self.iterations)), now.dtype)
            good = ops.logical_and(given >= low, given <= high)
            variable.assign(ops.where(ops.logical_and(on > 0, good), given, now))
            scheduled.assign(ops.where(ops.logical_or(on <= 0, good), on, -1.0))
        return super().apply(grads, trainable_variables)

    def __setattr__(self, name, value):
        if name in self._schedules:
            release(self, name)
        held = vars(self).get(name)
        if isinstance(held, Hyperparameter) and not isinstance(value, keras.Variable):
            held.assign(checked(name, value, self._limits[name]))
        else:
            super().__setattr__(name, value)

    @property
    def variables(self):
        found = super().variables
        return [v for v in found if not (self._plain and isinstance(v, Unsaved))]

    def save_own_variables(self, store):
        self._as_plain(super().save_own_variables, store)

    def load_own_variables(self, store):
        self._as_plain(super().load_own_variables, store)

    def _as_plain(self, function, store):
        # With one variable more than the plain class has, its loader would drop every slot.
        vars(self)["_plain"] = True
        try:
            function(store)
        finally:
            vars(self)["_plain"] = False

    def get_config(self):
        config = super().get_config()
        for name, value in config.items():
            if isinstance(value, Hyperparameter):
                config[name] = float(ops.convert_to_numpy(value))
                if config[name] == 0.0 and name in self._slots_unless_zero:
                    config[name] = sys.float_info.min
        return config


@functools.cache
def _injected_class(cls):
    """A subclass under the same public name, so that files know the original alone."""
    # PyTorch's own classes of optimizers lie in modules that other backends cannot import.
    module = "keras.optimizers" if cls.__module__.startswith("keras.") else cls.__module__
    places = {"__module__": module, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    new = type(cls.__name__, (_Injected, cls), places)
    registered = keras.saving.get_registered_name(cls)
    if ">" in registered:
        package, name = registered.split(">", 1)
        keras.saving.register_keras_serializable(package, name)(new)
        keras.saving.get_custom_objects()[registered] = cls
    return new


def inner(optimizer):
    """The optimizers directly inside `optimizer`."""
    one = getattr(optimizer, "inner_optimizer", None)
    return [*getattr(optimizer, "optimizers", ()), *([] if one is None else [one])]


def parts(optimizer):
    """`optimizer` and all optimizers inside it."""
    return [optimizer, *(part for one in inner(optimizer) for part in parts(one))]


def names_of(optimizer):
    """What can be asked for in this optimizer alone: numbers, None, and variables of its own."""
    own = [
        name.removeprefix("_")
        for name, value in vars(optimizer).items()
        if isinstance(value, keras.Variable)
        and (not name.startswith("_") or _shown(optimizer, name[1:], value))
        and tuple(value.shape) == ()
        and keras.backend.is_float_dtype(value.dtype)
    ]
    if inner(optimizer) or isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return own
    config = optimizer.get_config()
    return list(dict.fromkeys([*(name for name in config if name != "name"), *own]))


def _shown(optimizer, name, value):
    """Whether a property of the class is this variable, which the optimizer itself keeps."""
    known = isinstance(getattr(type(optimizer), name, None), property)
    # MultiOptimizer has properties that only raise.
    return known and getattr(optimizer, name, None) is value


def locate(optimizer, name):
    """`(part, hyperparameter)` that `name` means, with or without the name of the part.

    Raises:
        ValueError: if nothing or more than one thing has this name.
    """
    known = [(part, own) for part in parts(optimizer) for own in names_of(part)]
    found = [(part, own) for part, own in known if name in (own, f"{part.name}.{own}")]
    if not found:
        names = dict.fromkeys(own for _, own in known)
        raise ValueError(
            f"{optimizer.name!r} has no hyperparameter {name!r}.{nearest(name, names)} "
            f"Known: {', '.join(names)}."
        )
    if len(found) > 1:
        raise ValueError(
            f"Several optimizers have a {name!r}: name one of "
            f"{', '.join(f'{part.name}.{own}' for part, own in found)}."
        )
    return found[0]


def check_movable(optimizer, name, built):
    """Raises a ValueError that names the reason if compiled steps would not see a change."""
    value, own = getattr(optimizer, name, None), type(optimizer).__name__
    reason = None
    if isinstance(value, keras.Variable):
        return
    if name == "learning_rate":
        reason = "it is a schedule already. Give the optimizer a float: it is only the start"
    elif name in getattr(optimizer, "fixed_hyperparameters", ()):
        reason = "it is fixed while the search runs"
    elif name == "loss_scale_factor":
        reason = "it scales the loss outside of the step. Use LossScaleOptimizer"
    elif name == "initial_accumulator_value":
        reason = "it is read only once, when the optimizer is built"
    elif name == "ema_momentum" and not optimizer.use_ema:
        reason = "nothing reads it without `use_ema=True`"
    elif keras.config.backend() == "jax" and name in ("clipvalue", "l1_regularization_strength"):
        reason = "under JAX Keras hands it to a function that takes no variable"
    elif value is None and name != "weight_decay":
        reason = f"it is None. Start with {own}({name}=...), which is only the first value"
    elif isinstance(value, (bool, int)) and name not in _FLOATS:
        reason = f"it is {value!r}: what is no float is taken in when the optimizer is built"
    elif value is not None and not isinstance(value, (int, float)):
        reason = f"it is {value!r}, no number"
    elif built and value == 0 and _zero_has_fewer_slots(optimizer, name):
        reason = (
            f"it is 0, with which {own} is built without slots for it. Start with "
            f"{own}({name}=...) > 0, or compile with inject_hyperparams({own}(...), {name!r})"
        )
    if reason:
        raise ValueError(f"{name!r} of {own} cannot be moved: {reason}.")


def _zero_has_fewer_slots(optimizer, name):
    counts = []
    for value in (0.0, 0.5):
        config = {**optimizer.get_config(), "learning_rate": 0.1, name: value}
        try:
            twin = type(optimizer).from_config(config)
        except ValueError:  # 0 is out of its range
            return False
        twin.build([keras.Variable([[0.0]])])
        counts.append(len(twin.variables))
    return counts[0] < counts[1]


def bounds(optimizer, name):
    """The lowest and the highest value that hyperparameter `name` may take."""
    known = getattr(optimizer, "_limits", {}).get(name)
    if known:
        return known
    value = getattr(optimizer, name)
    # Some exponents and coefficients are negative by design.
    negative = value is not None and float(ops.convert_to_numpy(value)) < 0
    low = -_LARGEST if negative else _SMALLEST if name in _CLIPS else 0.0
    own = isinstance(value, keras.Variable)
    return low, 1.0 if name in _AT_MOST_ONE and not own else _LARGEST


def checked(name, value, limits):
    """`value` as a float, if it is a finite number within `limits`."""
    try:
        found = float(ops.convert_to_numpy(value))
    except (TypeError, ValueError):
        found = math.nan
    low, high = limits
    if not low <= found <= high:
        bound = "not negative" if low == 0 else "positive" if low > 0 else "of any sign"
        raise ValueError(
            f"{name!r} must be a finite number, {bound}"
            f"{', at most 1' if high == 1 else ''}. Received: {value}"
        )
    return found


def inject(optimizer, part, name):
    """Turns hyperparameter `name` of `part` into a variable; whether something changed."""
    for holder in parts(optimizer):
        if part in parts(holder) and not isinstance(holder, _Injected):
            object.__setattr__(holder, "__class__", _injected_class(type(holder)))
    vars(part)["_limits"] = {**part._limits, name: bounds(part, name)}
    value = getattr(part, name)
    if isinstance(value, keras.Variable):
        return False
    if _zero_has_fewer_slots(part, name):
        vars(part)["_slots_unless_zero"] = (*part._slots_unless_zero, name)
    setattr(part, name, _scalar(Hyperparameter, part, name, value or 0.0))
    return True


def _scalar(kind, optimizer, name, value):
    with keras.name_scope(optimizer.name, caller=optimizer):
        return kind(float(value), trainable=False, autocast=False, dtype="float32", name=name)


def follow(optimizer, name, schedule):
    """Lets `schedule` move an injected hyperparameter in `apply`; whether code must be rebuilt."""
    known, scheduled, _ = optimizer._schedules.get(name, (None, None, None))
    if known is not None and _same(known, schedule):
        scheduled.assign(1.0)
        return False
    if scheduled is None:
        scheduled = _scalar(Unsaved, optimizer, f"{name}_scheduled", 1.0)
        setattr(optimizer, f"_{name}_scheduled", scheduled)
    scheduled.assign(1.0)
    entry = {name: (schedule, scheduled, optimizer._limits[name])}
    vars(optimizer)["_schedules"] = {**optimizer._schedules, **entry}
    return True


def _same(one, other):
    if one is other or type(one) is not type(other):
        return one is other
    try:
        # What tells nothing about itself may be anything.
        return bool(one.get_config()) and bool(one.get_config() == other.get_config())
    except Exception:  # not written, or its parts do not compare: it is taken as another
        return False


def release(optimizer, name):
    """Ends the schedule of a hyperparameter: it stays where it is."""
    optimizer._schedules[name][1].assign(0.0)


def refused(optimizer, name):
    """Whether a scheduled value was out of bounds, so that the last good one was kept."""
    return float(ops.convert_to_numpy(optimizer._schedules[name][1])) < 0


def inject_hyperparams(optimizer, names):
    """Turns hyperparameters of `optimizer` into variables that compiled code reads.

    Args:
        optimizer: a `keras.optimizers.Optimizer`, built or not, plain or around others.
        names: a name such as "momentum" or "sgd.momentum", a list of names, or a dict of names
            and `LearningRateSchedule`s, which then move the values inside of `apply`.

    Returns:
        The same optimizer, changed in place.

    Raises:
        TypeError: if `optimizer` is no optimizer, or if a dict holds something else than
            schedules.
        ValueError: if a name is unknown, means several things, or if a change of it would not be
            seen; then nothing is changed.

    Reference:
        optax.inject_hyperparams, https://optax.readthedocs.io
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(f"`optimizer` must be a Keras optimizer. Received: {optimizer!r}")
    given = {names: None} if isinstance(names, str) else names
    schedules = given if isinstance(given, dict) else dict.fromkeys(given)
    found = [(*locate(optimizer, name), schedule) for name, schedule in schedules.items()]
    for part, name, schedule in found:
        check_movable(part, name, part.built)
        if schedule is not None:
            if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
                raise TypeError(
                    f"The schedule of {name!r} must be a LearningRateSchedule. "
                    f"Received: {schedule!r}"
                )
            checked(name, schedule(0), bounds(part, name))
    for part, name, schedule in found:
        inject(optimizer, part, name)
        if schedule is not None:
            follow(part, name, schedule)
    return optimizer
