"""Knobs: scalars that compiled code reads, found by name, so that a callback can turn them."""

import keras
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._checks import nearest
from kerasrecipes._model.calls import sublayers


class Knob:
    """A scalar variable that training reads, under the `name` that it has in logs."""

    def __init__(self, model, name, variable):
        self.model = model
        self.name = name
        self.variable = variable

    def read(self):
        """The value now, as a float."""
        _backend.sync(self.model)
        return float(ops.convert_to_numpy(self.variable))

    def write(self, value):
        """Sets the value that the next step reads."""
        # An assignment made while JAX's state lies outside the variables would be lost.
        _backend.sync(self.model)
        self.variable.assign(float(value))


def find_knob(model, target):
    """The knob of a compiled `model` that `target` names.

    Args:
        model: a compiled `keras.Model`.
        target: "layer_name.attribute", where the attribute is a scalar `keras.Variable` of a
            layer, nested ones too; "loss_name.coefficient" or the loss itself for a loss that
            owns a coefficient; or a `keras.Variable` that the model, its optimizer or its
            metrics own.

    Returns:
        A `Knob`.

    Raises:
        TypeError: if `target` is none of these.
        ValueError: if compiled code would not see a change of `target`.
    """
    losses = [loss for loss in _parts(getattr(model, "loss", None)) if hasattr(loss, "attach")]
    if hasattr(target, "attach"):
        if not any(loss is target for loss in losses):
            raise ValueError(
                f"The loss {target.name!r} is not among those that {model.name!r} was compiled "
                "with: training does not read its coefficient. Give it to "
                "`model.compile(loss=...)`."
            )
        return _of_loss(model, target)
    if isinstance(target, keras.Variable):
        return _of_variable(model, target, losses)
    if not isinstance(target, str):
        raise TypeError(
            '`target` must be a string such as "layer_name.knob", a keras.Variable, or a loss '
            f"with a coefficient. Received: {target!r}"
        )
    return _of_name(model, target, losses)


def _parts(loss):
    return keras.tree.flatten(loss) if isinstance(loss, (list, tuple, dict)) else [loss]


def _of_loss(model, loss):
    loss.attach(model)
    return Knob(model, f"{loss.name}.coefficient", loss.coefficient)


def _of_variable(model, variable, losses):
    for loss in losses:
        if loss.coefficient is variable:
            return _of_loss(model, loss)
    for layer in [model, *sublayers(model)]:
        for attribute, value in vars(layer).items():
            if value is variable and not attribute.startswith("_"):
                return _checked(model, f"{layer.name}.{attribute}", variable)
    return _checked(model, variable.path, variable)


def _of_name(model, target, losses):
    owner, _, attribute = target.rpartition(".")
    found = [loss for loss in losses if loss.name == owner] if attribute == "coefficient" else []
    layers = [layer for layer in sublayers(model) if layer.name == owner]
    found += [layer for layer in layers if hasattr(layer, attribute)]
    if len(found) > 1:
        raise ValueError(
            f"{len(found)} parts of {model.name!r} are called {owner!r}: give the variable or "
            "the loss itself, or other names."
        )
    if not found:
        raise ValueError(
            f"Nothing that training reads is called {target!r}.{nearest(target, _names(model))} "
            f"Known: {', '.join(_names(model)) or 'none'}."
        )
    if found[0] in losses:
        return _of_loss(model, found[0])
    value = getattr(found[0], attribute)
    if not isinstance(value, keras.Variable):
        raise ValueError(
            f"{target!r} is {value!r}, no keras.Variable: compiled code has taken it in as a "
            f"constant and would not see a change.{nearest(target, _names(model))} "
            f"Known: {', '.join(_names(model)) or 'none'}."
        )
    return _checked(model, target, value)


def _checked(model, name, variable):
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
    return Knob(model, name, variable)


def _names(model):
    """All names that stand for a knob."""
    losses = [loss for loss in _parts(getattr(model, "loss", None)) if hasattr(loss, "attach")]
    return [f"{loss.name}.coefficient" for loss in losses] + [
        f"{layer.name}.{attribute}"
        for layer in sublayers(model)
        for attribute, value in vars(layer).items()
        if isinstance(value, keras.Variable)
        and tuple(value.shape) == ()
        and not attribute.startswith("_")
    ]
