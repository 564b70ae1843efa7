"""Statistics that a forward pass moves, such as those of batch norm, kept where they are."""

import keras
from keras import ops

from kerasrecipes._model.calls import sublayers


def statistics(layer):
    """{id: (variable, its layer)} of all that calls of `layer` in training move by themselves.

    Random seeds and the states of stateful RNNs are left out: they must go on.
    """
    found = {}
    for one in [layer, *sublayers(layer)]:
        states = {id(v) for v in keras.tree.flatten(getattr(one, "states", None))}
        own = list(one.non_trainable_weights)
        if isinstance(one, keras.layers.SpectralNormalization):
            own += [one.kernel]  # it writes the normalized kernel back
        found |= {id(v): (v, one) for v in own if id(v) not in states}
    return found


class HeldStatistics:
    """The train step of a model, after which chosen variables are as they were before it.

    `flags` is {id: (variable, mask, index)}: a variable may move where `mask[index]`, read in
    the compiled step, is not 0. `mask` is a variable of the model's optimizer.
    """

    def __init__(self, model, step, flags):
        self.model = model
        self.step = step
        self.flags = flags

    def __call__(self, *arguments):
        known = {id(v): i for i, v in enumerate(self.model.optimizer.variables)}
        flags = [flag for flag in self.flags.values() if id(flag[1]) in known]
        if len(arguments) == 2:
            return self._stateless(*arguments, flags, known)
        held = [
            (variable, ops.copy(ops.convert_to_tensor(variable)), ops.convert_to_tensor(mask)[i])
            for variable, mask, i in flags
        ]
        logs = self.step(*arguments)
        for variable, value, free in held:
            variable.assign(ops.where(free > 0, ops.convert_to_tensor(variable), value))
        return logs

    def _stateless(self, state, data, flags, known):
        """JAX's form: all state comes in and goes out as tuples of lists."""
        logs, after = self.step(state, data)
        place = {id(v): i for i, v in enumerate(self.model.non_trainable_variables)}
        moved = list(after[1])
        for variable, mask, i in flags:
            if id(variable) in place:
                at, free = place[id(variable)], state[2][known[id(mask)]][i] > 0
                moved[at] = ops.where(free, moved[at], state[1][at])
        return logs, (after[0], moved, *after[2:])


def hold_statistics(model, wanted, dropped=()):
    """Makes `model` train with these flags. Its train function is made anew if they changed.

    Args:
        model: a compiled `keras.Model`.
        wanted: {id: (variable, mask, index)}.
        dropped: ids of variables that move freely from now on.
    """
    step, flags = model.train_step, {}
    if isinstance(step, HeldStatistics):
        step, flags = step.step, step.flags
    changed = {key: flag for key, flag in flags.items() if key not in dropped} | wanted
    if _keys(changed) != _keys(flags):
        _install(model, step, changed)


def _install(model, step, flags):
    """Past the model's own setattr, which would look for state to track."""

    def make_train_function(force=False):
        if force or model.train_function is None:
            # A new object each time: JAX does not trace one again that it knows, not even for
            # another loss.
            object.__setattr__(model, "train_step", HeldStatistics(model, step, flags))
        return type(model).make_train_function(model, force=force)

    object.__setattr__(model, "make_train_function", make_train_function)
    model.make_train_function(force=True)


def _keys(flags):
    return {key: (id(mask), i) for key, (_, mask, i) in flags.items()}
