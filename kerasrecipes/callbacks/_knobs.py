"""Knobs: scalars that compiled code reads, found by name, so that a callback can turn them."""

import collections
import copy
import math

import keras
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._checks import nearest, number
from kerasrecipes._model.calls import sublayers
from kerasrecipes.optimizers.inject_hyperparams import (
    bounds,
    check_movable,
    checked,
    follow,
    inject,
    inner,
    locate,
    names_of,
    parts,
    refused,
    release,
)


def copied(callback, targets, memo):
    """For `__deepcopy__`: a copy of `callback` that turns the same objects, not copies of them.

    A copy of a variable or a loss would be none that the model reads.
    """
    memo |= {id(target): target for target in targets}
    other = memo[id(callback)] = type(callback).__new__(type(callback))
    vars(other).update(copy.deepcopy(vars(callback), memo))
    return other


class Knob:
    """A scalar variable that training reads, under the `name` that it has in logs."""

    def __init__(self, model, name, variable):
        self.model = model
        self.name = name
        self.variable = variable

    @property
    def key(self):
        """What two knobs have in common that turn the same thing."""
        return id(self.variable)

    def prepare(self):
        """Makes training read the variable; nothing is changed before."""

    def check(self, value):
        """`value` as a float, if the knob may take it."""
        try:
            found = float(ops.convert_to_numpy(value))
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            raise ValueError(f"{self.name!r} must be a finite number. Received: {value}")
        return found

    def read(self):
        """The value now, as a float."""
        _backend.sync(self.model)
        return float(ops.convert_to_numpy(self.variable))

    def write(self, value):
        """Sets the value that the next step reads."""
        value = self.check(value)
        # An assignment made while JAX's state lies outside the variables would be lost.
        _backend.sync(self.model)
        self.variable.assign(value)


class _LayerKnob(Knob):
    """A knob of a layer; layers of this package know how far it may be turned."""

    def __init__(self, model, layer, attribute):
        name = f"{layer.name}.{attribute}"
        super().__init__(model, name, getattr(layer, attribute))
        declared = getattr(type(layer), attribute, None)
        self.low, self.high = getattr(declared, "low", None), getattr(declared, "high", None)

    def check(self, value):
        return number(self.name, super().check(value), self.low, self.high)


class _LossKnob(Knob):
    def __init__(self, model, loss):
        self.model = model
        self.name = f"{loss.name}.coefficient"
        self.loss = loss

    @property
    def key(self):
        return id(self.loss)

    def prepare(self):
        self.loss.attach(self.model)

    @property
    def variable(self):
        # A loss may take over the variable of its forerunner when it is attached.
        return self.loss.coefficient


def known_parts(model):
    """The model's optimizer and all inside it."""
    found = parts(model.optimizer)
    if any(isinstance(o, keras.optimizers.MultiOptimizer) and not inner(o) for o in found):
        # Which optimizers a function of the variable returns is known only now.
        model.optimizer.build(model.trainable_variables)
    return parts(model.optimizer)


class OptimizerKnob(Knob):
    """A hyperparameter of the optimizer or of one inside it; `schedule` may run in its steps."""

    def __init__(self, model, name):
        known_parts(model)  # locate looks at those that are built
        part, self.hyperparameter = locate(model.optimizer, name)
        # Under JAX and PyTorch `fit` has built the optimizer before any callback is asked.
        check_movable(part, self.hyperparameter, built=True)
        super().__init__(model, name, getattr(part, self.hyperparameter))
        self.part = part
        self.limits = bounds(part, self.hyperparameter)
        self.follows = False

    @property
    def key(self):
        return id(self.part), self.hyperparameter

    def check(self, value):
        return checked(self.name, value, self.limits)

    def prepare(self, schedule=None):
        changed = inject(self.model.optimizer, self.part, self.hyperparameter)
        self.variable = getattr(self.part, self.hyperparameter)
        if schedule is not None:
            changed |= follow(self.part, self.hyperparameter, schedule)
            self.follows = True
        elif self.hyperparameter in self.part._schedules:
            # One that an interrupted fit has left would go on over what is written here.
            self.release()
        if changed and self.model.train_function is not None:
            # An earlier fit has compiled the number itself into the step.
            self.model.make_train_function(force=True)

    def read(self):
        value = super().read()
        if self.follows and refused(self.part, self.hyperparameter):
            raise ValueError(
                f"The schedule of {self.name!r} left the bounds of a finite number that may "
                f"stand there during this epoch. The last good value, {value}, was kept."
            )
        return value

    def release(self):
        """Ends the schedule; the last value stays."""
        _backend.sync(self.model)
        release(self.part, self.hyperparameter)


def find_knob(model, target):
    """The knob of a compiled `model` that `target` names, ready to be turned.

    Args:
        model: a compiled `keras.Model`.
        target: the name of a hyperparameter of the optimizer, which is injected, such as
            "momentum", or "sgd.momentum" where several optimizers have one;
            "layer_name.attribute", where the attribute is a scalar `keras.Variable` of a layer,
            nested ones too; "loss_name.coefficient" or the loss itself for a loss that owns a
            coefficient; or a `keras.Variable` that the model, its optimizer or its metrics own.

    Returns:
        A `Knob`.

    Raises:
        TypeError: if `target` is none of these.
        ValueError: if compiled code would not see a change of `target`.
    """
    knob = locate_knob(model, target)
    knob.prepare()
    return knob


def locate_knob(model, target):
    """As `find_knob`, but nothing is changed before `knob.prepare()`."""
    losses = _losses(model)
    if hasattr(target, "attach"):
        if not any(loss is target for loss in losses):
            raise ValueError(
                f"The loss {target.name!r} is not among those that {model.name!r} was compiled "
                "with: training does not read its coefficient. Give it to "
                "`model.compile(loss=...)`."
            )
        return _LossKnob(model, target)
    if isinstance(target, keras.Variable):
        return _of_variable(model, target)
    if not isinstance(target, str):
        raise TypeError(
            '`target` must be a string such as "momentum" or "layer_name.knob", a '
            f"keras.Variable, or a loss with a coefficient. Received: {target!r}"
        )
    return _of_name(model, target, losses)


def _losses(model):
    """The losses of the compiled model that own a coefficient."""
    loss = getattr(model, "loss", None)
    parts = keras.tree.flatten(loss) if isinstance(loss, (list, tuple, dict)) else [loss]
    return [loss for loss in parts if hasattr(loss, "attach")]


def _of_variable(model, variable):
    for knob in own_knobs(model):
        if knob.variable is variable:
            return knob if isinstance(knob, _LossKnob) else _checked(model, knob)
    for part in known_parts(model):
        for name in names_of(part):
            if getattr(part, name, None) is variable:
                return OptimizerKnob(model, f"{part.name}.{name}")
    return _checked(model, Knob(model, variable.path, variable))


def _of_name(model, target, losses):
    owner, _, attribute = target.rpartition(".")
    if not owner or any(owner == part.name for part in known_parts(model)):
        return OptimizerKnob(model, target)
    found = [loss for loss in losses if loss.name == owner] if attribute == "coefficient" else []
    layers = [layer for layer in sublayers(model) if layer.name == owner]
    found += [layer for layer in layers if hasattr(layer, attribute)]
    known = [knob.name for knob in own_knobs(model)]
    if len(found) > 1:
        raise ValueError(
            f"{len(found)} parts of {model.name!r} are called {owner!r}: give the variable or "
            "the loss itself, or other names."
        )
    if not found:
        raise ValueError(
            f"Nothing that training reads is called {target!r}.{nearest(target, known)} "
            f"Known: {', '.join(known) or 'none'}."
        )
    if any(found[0] is loss for loss in losses):
        return _LossKnob(model, found[0])
    value = getattr(found[0], attribute)
    if not isinstance(value, keras.Variable):
        raise ValueError(
            f"{target!r} is {value!r}, no keras.Variable: compiled code has taken it in as a "
            f"constant and would not see a change.{nearest(target, known)} "
            f"Known: {', '.join(known) or 'none'}."
        )
    return _checked(model, _LayerKnob(model, found[0], attribute))


def _checked(model, knob):
    name, variable = knob.name, knob.variable
    if tuple(variable.shape) != () or not keras.backend.is_float_dtype(variable.dtype):
        raise ValueError(
            f"{name!r} must be a scalar float variable. Received: shape "
            f"{tuple(variable.shape)}, dtype {variable.dtype}."
        )
    held = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    if not any(v is variable for v in held):
        raise ValueError(
            f"The variable {name!r} belongs neither to {model.name!r} nor to its optimizer or "
            "metrics: compiled code would not see a change. Create it with `add_weight` in a "
            "layer of the model."
        )
    return knob


def _of_layers(model):
    """(layer, attribute) of all scalars of layers that no gradient moves."""
    return [
        (layer, attribute)
        for layer in sublayers(model)
        for attribute, value in vars(layer).items()
        if isinstance(value, keras.Variable)
        and tuple(value.shape) == ()
        and keras.backend.is_float_dtype(value.dtype)
        and not value.trainable
        and not attribute.startswith("_")
    ]


def own_knobs(model):
    """The knobs of all losses and layers, called by the variable's path where names repeat."""
    knobs = [_LossKnob(model, loss) for loss in _losses(model)]
    knobs += [_LayerKnob(model, layer, attribute) for layer, attribute in _of_layers(model)]
    knobs = list({(knob.name, knob.key): knob for knob in knobs}.values())
    for label in (lambda knob, i: knob.variable.path, lambda knob, i: f"{knob.name}_{i}"):
        count = collections.Counter(knob.name for knob in knobs)
        for i, knob in enumerate(knobs):
            if count[knob.name] > 1:
                knob.name = label(knob, i)
    return knobs
