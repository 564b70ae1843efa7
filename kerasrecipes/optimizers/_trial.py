"""Optimizers whose gradients are taken away from the point they stand on: one protocol.

The *accepted* point is where the optimizer stands; the *trial* point is where it wants the next
gradient. Between two applies the model's variables hold the trial point. The optimizer keeps

- `other_point`: variables aligned with its trainable variables, with the point that the model
  does not hold,
- `stage`: an int32 scalar, 0 while both points are the same, so that there is nothing to swap,
- `swapped`: a boolean scalar, True while the model holds the accepted point and `other_point`
  the trial point.

`hold_accepted()` and `hold_trial()` exchange the two, bit for bit, and are safe to call twice.
All of it is saved with the optimizer, so a file written while the accepted point is in goes on
exactly once the trial point is back, which is what `callbacks.SwapAcceptedWeights` does. Without
it an apply that finds `swapped` was fed a gradient of the accepted point: it starts from stage 0.
"""

import zlib

from keras import ops

from kerasrecipes import _backend
from kerasrecipes.optimizers._wrapper import Wrapper


def tensor(variable):
    """The value now, which a later assignment does not change (PyTorch assigns in place)."""
    return ops.copy(ops.convert_to_tensor(variable))


def trial_optimizers(optimizer):
    """The optimizers that keep the protocol, inside whatever wraps them."""
    if hasattr(optimizer, "hold_trial"):
        return [optimizer]
    inside = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", [])]
    return [found for one in inside if one is not None for found in trial_optimizers(one)]


class TrialPoints:
    """The protocol, for a subclass of `keras.optimizers.Optimizer` that calls `build_points`."""

    def build_points(self, variables):
        self.other_point = [
            self.add_variable_from_reference(v, name="other_point") for v in variables
        ]
        self.build_flags(self.add_variable((), dtype="int32", name="stage"))

    def build_flags(self, stage):
        self.stage = stage
        self.swapped = self.add_variable((), dtype="bool", name="swapped")
        self.mark = self.add_variable((), dtype="int32", name="mark")

    def hold_accepted(self):
        """Puts the accepted point into the model. Returns whether the trial point was in."""
        if not self.built or _number(self.swapped) or not _number(self.stage):
            return False
        self._exchange()
        self.swapped.assign(True)
        self.mark.assign(0)
        return True

    def hold_trial(self):
        """Puts the trial point into the model. Returns whether the accepted point was in."""
        if not self.built or not _number(self.swapped):
            return False
        mark = _number(self.mark)
        if not mark or mark == self._fingerprint():
            self._exchange()
        else:
            self.stage.assign(0)
        self.swapped.assign(False)
        return True

    def watch(self):
        """Notices whether the accepted weights are set otherwise before `hold_trial`."""
        if self.built and _number(self.swapped):
            self.mark.assign(self._fingerprint())

    def end_fit(self):
        """Puts the accepted point in for good.

        Returns:
            Whether the trial point was in, or None where JAX has lost the values.
        """
        if not self.built:
            return False
        try:
            trial_was_in = self.hold_accepted()
            self.watch()
        except (TypeError, RuntimeError):
            # After an error in a step JAX's variables are empty, or their buffers deleted. An
            # exception from here would hide that error.
            return None
        return trial_was_in

    def _exchange(self):
        for variable, other in zip(self._trainable_variables, self.other_point, strict=True):
            held, kept = tensor(variable), tensor(other)
            variable.assign(kept)
            other.assign(held)

    def _fingerprint(self):
        code = 0
        for variable in self._trainable_variables:
            code = zlib.crc32(ops.convert_to_numpy(variable).tobytes(), code)
        return max(code & 0x7FFFFFFF, 1)


def _number(variable):
    return int(ops.convert_to_numpy(variable))


class TrialWrapper(TrialPoints, Wrapper):
    """Feeds an inner optimizer with gradients of points that a subclass chooses.

    A subclass writes `combine(stage, gradients)`, which returns whether the inner optimizer
    makes its step now and with which gradients, and `look(stage, done, accepted, held,
    gradients)`, which returns the next stage and the next trial point.
    """

    def __init__(self, inner_optimizer, name=None, **kwargs):
        super().__init__(inner_optimizer, name=name, **kwargs)
        if trial_optimizers(self.inner_optimizer):
            raise ValueError(
                f"{type(self).__name__} cannot hold another optimizer that takes its gradients "
                f"elsewhere. Received: {type(self.inner_optimizer).__name__}. Use one of the two."
            )

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.build_points(variables)

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables))
        variables = list(trainable_variables or self._trainable_variables)
        index = [self._get_variable_index(v) for v in variables]
        gradients = [None if g is None else _backend.dense(ops.convert_to_tensor(g)) for g in grads]
        others = [self.other_point[i] for i in index]
        held = [tensor(v) for v in variables]
        stage = ops.where(ops.convert_to_tensor(self.swapped), 0, ops.convert_to_tensor(self.stage))
        accepted = [ops.where(stage == 0, h, tensor(o)) for h, o in zip(held, others, strict=True)]
        done, combined = self.combine(stage, gradients, index)

        # The inner step is taken in each apply and undone where it was not due: unlike a
        # branch, that is the same code on all backends, whatever the inner optimizer holds.
        state = self.inner_optimizer.variables
        before = [tensor(v) for v in state]
        for variable, value in zip(variables, accepted, strict=True):
            variable.assign(value)
        self.inner_optimizer.apply(combined, variables)
        for variable, value in zip(state, before, strict=True):
            variable.assign(ops.where(done, tensor(variable), value))
        accepted = [ops.where(done, tensor(v), a) for v, a in zip(variables, accepted, strict=True)]

        stage, trial = self.look(stage, done, accepted, held, gradients)
        for other, value in zip(others, accepted, strict=True):
            other.assign(value)
        self.stage.assign(ops.cast(stage, "int32"))
        self.swapped.assign(ops.zeros((), "bool"))
        for variable, value in zip(variables, trial, strict=True):
            variable.assign(value)

    def finalize_variable_values(self, var_list):
        if self.end_fit() is not None:
            super().finalize_variable_values(var_list)
