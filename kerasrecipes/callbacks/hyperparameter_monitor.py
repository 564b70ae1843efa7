"""Rate, momentum, decay and every knob in the logs, whatever moves them.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import HyperparameterMonitor
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> rate = keras.optimizers.schedules.PolynomialDecay(0.4, 4, end_learning_rate=0.0)
    >>> model.compile(keras.optimizers.SGD(rate, momentum=0.5), loss="mse")
    >>> x = np.zeros((8, 1))
    >>> monitor = HyperparameterMonitor()
    >>> logs = model.fit(x, x, batch_size=4, epochs=2, callbacks=[monitor], verbose=0).history
    >>> [round(value, 3) for value in logs["learning_rate"]], logs["momentum"]
    ([0.3, 0.1], [0.5, 0.5])

Suggested hyperparameters
    `names`: None for all; a list where the logs would become crowded. Place it before
    `CSVLogger` and `TensorBoard` in `callbacks=[...]`, which write what the logs hold when they
    are called.

When not to use
    For what `HyperparameterSchedule` moves: it logs its targets itself. For a value at each batch:
    reading from the host costs time there, so this callback does it at the end of epochs alone.

Technical details
    At the end of each epoch the logs gain the value that the last step used: of a
    `LearningRateSchedule` that at the count before it, while Keras's own callbacks log the rate
    of the next step. Logged are the optimizer's `learning_rate`, its `momentum`, `weight_decay`
    and clipping where it has them, what was injected, scalar variables of its own, scalars of
    layers that no gradient trains ("layer_name.attribute") and coefficients of losses
    ("loss_name.coefficient"). With several optimizers the name of each comes before. Of layers
    or losses of one name each is logged under the path of its variable. Without a schedule it
    shows the rate as a callback has set it.

Attribution
    Asked for in Keras's issue 20069; the code is our own.
"""

import keras
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._checks import nearest
from kerasrecipes.callbacks._knobs import known_parts, own_knobs
from kerasrecipes.optimizers.inject_hyperparams import inner, names_of

_ALWAYS = ("learning_rate", "momentum", "weight_decay", "clipnorm", "global_clipnorm", "clipvalue")


class HyperparameterMonitor(keras.callbacks.Callback):
    """Logs the values that rate, momentum, decay and all knobs had in an epoch's last step.

    Args:
        names: optional list of the names to log, such as "learning_rate" or "layer_name.knob".

    Raises:
        TypeError: if `names` is no list of strings.
        ValueError: before training, if the model and its optimizer have no such name.
    """

    def __init__(self, names=None):
        super().__init__()
        wrong = isinstance(names, str) or not all(isinstance(n, str) for n in names or ())
        if wrong:
            raise TypeError(f"`names` must be a list of strings. Received: names={names!r}")
        self.names = names

    def on_train_begin(self, logs=None):
        model = self.model
        optimizers = known_parts(model)
        several = len([part for part in optimizers if not inner(part)]) > 1
        found = [(part, name) for part in optimizers for name in names_of(part)]
        names = [name for _, name in found]
        self._hyperparameters = {
            f"{part.name}.{name}" if several or names.count(name) > 1 else name: (part, name)
            for part, name in found
        }
        self._knobs = own_knobs(model)
        known = self._values()
        for name in self.names or ():
            if name not in known:
                raise ValueError(
                    f"There is no {name!r} to log.{nearest(name, known)} Known: {', '.join(known)}."
                )

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            found = self._values()
            logs.update({name: found[name] for name in self.names or found})

    def _values(self):
        _backend.sync(self.model)
        found = {knob.name: knob.read() for knob in self._knobs}
        for label, (part, name) in self._hyperparameters.items():
            value = _last_rate(part) if name == "learning_rate" else getattr(part, name, None)
            if value is not None and (name in _ALWAYS or isinstance(value, keras.Variable)):
                found[label] = float(ops.convert_to_numpy(value))
        return found


def _last_rate(optimizer):
    if isinstance(optimizer.learning_rate, keras.Variable):
        return optimizer.learning_rate
    # A schedule is asked with the count, which has moved on since the last step.
    (count,) = (v for v in optimizer.variables if v.name == "iteration")
    now = int(ops.convert_to_numpy(count))
    try:
        count.assign(max(now - 1, 0))
        return float(ops.convert_to_numpy(optimizer.learning_rate))
    finally:
        count.assign(now)
