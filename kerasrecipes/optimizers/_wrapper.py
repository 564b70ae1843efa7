"""An optimizer around another one: what the wrappers of this room share."""

import keras
from keras import ops


def portable(optimizer):
    """The serialized optimizer under its public name: PyTorch's subclass loads nowhere else."""
    config = keras.saving.serialize_keras_object(optimizer)
    if ".backend.torch." in config["module"]:
        config["module"] = "keras.optimizers"
    return config


class Wrapper(keras.optimizers.Optimizer):
    """Rate, count, scaling and slots are those of `inner_optimizer`; a subclass writes `apply`.

    What a subclass adds (`add_variable`, `add_optimizer_variables` in `build`) is saved beside
    the variables of the inner optimizer.
    """

    def __init__(self, inner_optimizer, name=None, **kwargs):
        own = type(self).__name__
        if kwargs:
            raise ValueError(
                f"{own} does not take {', '.join(map(repr, sorted(kwargs)))}: "
                "give it to the optimizer inside."
            )
        inner_optimizer = keras.optimizers.get(inner_optimizer)
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                f"{own} goes inside: LossScaleOptimizer({own}(...)). Keras wraps it so by itself "
                "under a policy of mixed_float16."
            )
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.inner_optimizer.build(variables)

    @property
    def variables(self):
        return [*super().variables, *self.inner_optimizer.variables]

    def set_weights(self, weights):
        weights, own = list(weights), len(super().variables)
        super().set_weights(weights[:own])
        self.inner_optimizer.set_weights(weights[own:])

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def loss_scale_factor(self):
        inner = getattr(self, "inner_optimizer", None)
        return None if inner is None else inner.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor):
        # LossScaleOptimizer takes the factor away from what it wraps.
        if getattr(self, "inner_optimizer", None) is not None:
            self.inner_optimizer.loss_scale_factor = factor

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    @property
    def _model_variables_moving_average(self):
        # keras.callbacks.SwapEMAWeights looks one wrapper deep, and LossScaleOptimizer is one.
        return self.inner_optimizer._model_variables_moving_average

    def finalize_variable_values(self, var_list):
        try:
            for variable in var_list:
                ops.convert_to_tensor(variable)
        except (TypeError, RuntimeError):
            # After an error in a step JAX's variables are empty or deleted. An exception from
            # here would hide that error.
            return
        self.inner_optimizer.finalize_variable_values(var_list)
        # With `use_ema` JAX would hold one buffer as average and as variable: the next fit fails.
        for variable in var_list:
            variable.assign(ops.copy(ops.convert_to_tensor(variable)))

    def get_config(self):
        return {"name": self.name, "inner_optimizer": portable(self.inner_optimizer)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        inner = keras.saving.deserialize_keras_object(
            config.pop("inner_optimizer"), custom_objects=custom_objects
        )
        return cls(inner, **config)
