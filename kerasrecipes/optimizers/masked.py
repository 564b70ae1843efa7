"""Some weights stand still while the others train: a 0/1 mask around any optimizer.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.optimizers import Masked
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    >>> optimizer = Masked(keras.optimizers.AdamW(0.01))
    >>> model.compile(optimizer, loss="mse")
    >>> optimizer.build(model.trainable_variables)
    >>> optimizer.freeze(model.layers[0].trainable_variables)
    >>> [int(value) for value in keras.ops.convert_to_numpy(optimizer.mask)]
    [0, 0, 1, 1]

    Within one `fit` the mask is moved by `callbacks.Unfreeze` and `callbacks.Freeze`.

Suggested hyperparameters
    `inner_optimizer`: the one that you would use without a mask, with its own arguments.

When not to use
    To save time or memory: gradients are computed and slots are kept for frozen weights too,
    and each step pays for the mask. Where something stays frozen for a whole `fit`, set
    `layer.trainable = False` and compile: that computes no gradient for it.

Technical details
    The mask is one variable of the optimizer with an entry for each trained variable: it is
    saved with the optimizer, and compiled code reads it, so moving it compiles nothing anew. A
    step hands the inner optimizer a gradient of zero for what is frozen, so that a global norm
    does not count it, and puts back whatever the inner optimizer then did to the variable
    (decay, momentum, constraint) and to its slots. Bit for bit, with two exceptions that take
    effect in the first frozen step: the running average of `use_ema` is the variable itself,
    and a gradient half accumulated is dropped, so that no old one acts after unfreezing.
    With every entry at 1 the trajectory is that of the inner optimizer.

    Momenta are kept over a frozen stretch and act again after it. Adam counts its steps from
    the start of training: a weight that is freed late moves by up to
    (1 - beta_1) / sqrt(1 - beta_2) learning rates at first, 3.2 with Keras's defaults.

    Slots are recognised as Keras's own optimizers keep them: lists with an entry for each
    trained variable, in order. `Masked` goes outside other wrappers, inside LossScaleOptimizer.

Attribution
    optax.masked and optax.set_to_zero; freezing by stages as in Howard and Ruder, 2018,
    https://arxiv.org/abs/1801.06146.
"""

import keras
import numpy as np
from keras import ops

from kerasrecipes.optimizers._trial import trial_optimizers
from kerasrecipes.optimizers._wrapper import Wrapper


def _inside(optimizer):
    inner = getattr(optimizer, "inner_optimizer", None)
    return [*getattr(optimizer, "optimizers", []), *([] if inner is None else [inner])]


def find_slots(optimizer):
    """Yields (trained variable, slot, name of the list of slots), wrapped optimizers included.

    Raises:
        ValueError: if a slot lies outside such lists.
    """
    trained = optimizer._trainable_variables
    own = {id(v): v for v in optimizer.variables}
    for one in _inside(optimizer):
        for variable in one.variables:
            own.pop(id(variable), None)
        yield from find_slots(one)
    found = set()
    for name, value in list(vars(optimizer).items()):
        if name in ("_variables", "_trainable_variables") or not isinstance(value, list):
            continue
        if len(value) == len(trained) and all(v is None or id(v) in own for v in value):
            for variable, slot in zip(trained, value, strict=True):
                if slot is not None and id(slot) not in found:
                    found.add(id(slot))
                    yield variable, slot, name
    for key, variable in own.items():
        prefixes = tuple(v.path.replace("/", "_") + "_" for v in trained)
        if key not in found and variable.name.startswith(prefixes):
            raise ValueError(
                f"Masked cannot tell which weight {variable.name!r} of "
                f"{type(optimizer).__name__} belongs to: keep such variables in a list with an "
                "entry for each trained variable, as `add_optimizer_variables` returns it."
            )


@keras.saving.register_keras_serializable("kerasrecipes")
class Masked(Wrapper):
    """Trains what its mask lets through; the rest, slots included, stays bit for bit.

    Args:
        inner_optimizer: a `keras.optimizers.Optimizer`, or its name. Not a LossScaleOptimizer.
        **kwargs: `name`. All else is given to the optimizer inside.

    Raises:
        ValueError: if `inner_optimizer` is none, or is a LossScaleOptimizer or masked already,
            or if an argument is for the optimizer inside.

    Reference:
        optax.masked, https://optax.readthedocs.io
    """

    def __init__(self, inner_optimizer, name=None, **kwargs):
        super().__init__(inner_optimizer, name=name, **kwargs)
        if isinstance(self.inner_optimizer, Masked):
            raise ValueError("The optimizer is masked already: one Masked(...) is enough.")
        for one in trial_optimizers(self.inner_optimizer):
            if hasattr(one, "status"):
                raise ValueError(
                    f"Masked cannot hold {type(one).__name__}, whose searches move all weights "
                    "along one line: set `layer.trainable = False` before `compile`."
                )

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.mask = self.add_variable((len(variables),), "ones", "float32", name="mask")
        slots = [[] for _ in variables]
        for variable, slot, name in find_slots(self.inner_optimizer):
            slots[self._get_variable_index(variable)].append((slot, name))
        # Past Keras's tracking, which would list them as variables of this optimizer too.
        object.__setattr__(self, "slots", slots)

    def freeze(self, variables):
        """Keeps these trained variables where they are. Before training call `build`.

        Args:
            variables: trained variables, such as `layer.trainable_variables`.

        Raises:
            ValueError: if one of them is not trained by this optimizer.
        """
        chosen = self.indices(variables)
        mask = self._values()
        for i in chosen:
            if mask[i]:
                self._settle(self._trainable_variables[i])
        mask[chosen] = 0
        self.mask.assign(mask)

    def unfreeze(self, variables=None):
        """Lets these trained variables train again.

        Args:
            variables: trained variables. With None all.

        Raises:
            ValueError: if one of them is not trained by this optimizer.
        """
        mask = self._values()
        mask[slice(None) if variables is None else self.indices(variables)] = 1
        self.mask.assign(mask)

    def indices(self, variables):
        """The entries of the mask that stand for `variables`."""
        if not self.built:
            raise ValueError(
                "The optimizer does not know the weights yet: call "
                "`optimizer.build(model.trainable_variables)` first."
            )
        position = {id(v): i for i, v in enumerate(self._trainable_variables)}
        unknown = [v.path for v in variables if id(v) not in position]
        if unknown:
            raise ValueError(
                f"Not trained by this optimizer: {', '.join(unknown)}. A layer must have "
                "`trainable=True` when the model is compiled."
            )
        return [position[id(v)] for v in variables]

    def _settle(self, variable):
        """Takes a weight from the point where SAM or ParameterBlur look to where it stands."""
        for one in trial_optimizers(self.inner_optimizer):
            known = {id(v): i for i, v in enumerate(one._trainable_variables)}
            if id(variable) in known and int(ops.convert_to_numpy(one.stage)):
                pair = [one.other_point[known[id(variable)]], variable]
                # `swapped` says that the model holds the accepted point, the other the trial.
                accepted, other = pair[::-1] if ops.convert_to_numpy(one.swapped) else pair
                other.assign(_tensor(accepted))

    def _values(self):
        return np.array(ops.convert_to_numpy(self.mask))

    def apply(self, grads, trainable_variables=None):
        grads = list(grads)
        if not self.built:
            if trainable_variables is None:
                raise ValueError("Call `optimizer.build(trainable_variables)` first.")
            self.build(list(trainable_variables))
        everything = self._trainable_variables
        variables = list(everything if trainable_variables is None else trainable_variables)
        mask = ops.convert_to_tensor(self.mask)

        held = []
        for i, variable in enumerate(everything):
            trains, value = mask[i] > 0, _tensor(variable)
            held.append((trains, variable, value))
            for slot, name in self.slots[i]:
                if name in ("_model_variables_moving_average", "other_point"):
                    rest = value
                elif name in ("_accumulated_gradients", "first_gradient"):
                    rest = ops.zeros_like(value)
                else:
                    rest = _tensor(slot)
                held.append((trains, slot, rest))
        index = [self._get_variable_index(v) for v in variables]
        masked = [
            g if g is None else _let_through(mask[i] > 0, g)
            for i, g in zip(index, grads, strict=True)
        ]
        self.inner_optimizer.apply(masked, variables)
        for trains, variable, rest in held:
            variable.assign(ops.where(trains, ops.convert_to_tensor(variable), rest))

    def finalize_variable_values(self, var_list):
        known = {id(v): i for i, v in enumerate(self._trainable_variables)}
        try:
            mask = self._values() if self.built else []
            frozen = [v for v in var_list if id(v) in known and not mask[known[id(v)]]]
            held = [_tensor(v) for v in frozen]
        except (TypeError, RuntimeError):
            # JAX has lost the values in a failed step, whose error must come through.
            return
        super().finalize_variable_values(var_list)
        for variable, value in zip(frozen, held, strict=True):
            variable.assign(value)


def _tensor(variable):
    """The value now: PyTorch assigns in place."""
    return ops.copy(ops.convert_to_tensor(variable))


def _let_through(trains, gradient):
    """The gradient or zero; a product would make NaN of an infinite one."""
    if hasattr(gradient, "dense_shape"):  # TensorFlow's sparse ones stay sparse
        kept = _let_through(trains, gradient.values)
        return type(gradient)(kept, gradient.indices, gradient.dense_shape)
    gradient = ops.convert_to_tensor(gradient)
    return ops.where(trains, gradient, ops.zeros_like(gradient))
