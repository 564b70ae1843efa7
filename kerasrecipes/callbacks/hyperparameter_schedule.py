"""Schedule of a hyperparameter within one `fit`, heard by the very next batch.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import HyperparameterSchedule
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(), loss="mse")
    >>> halve = HyperparameterSchedule("learning_rate", lambda epoch: 0.5**epoch, per="epoch")
    >>> x = np.zeros((8, 1))
    >>> history = model.fit(x, x, epochs=3, callbacks=[halve], verbose=0)
    >>> history.history["learning_rate"]
    [1.0, 0.5, 0.25]

Suggested hyperparameters
    `per`: "batch" for warm-up and one-cycle, "epoch" for decay in steps.
    `schedule`: any Keras schedule or function; `schedules.OneCycle` for short runs.

When not to use
    For the rate alone from a Keras schedule: hand it to the optimizer, where it runs inside the
    compiled step. A callback per batch brings the state to the host at each batch.

Technical details
    per="batch": the schedule is called with `optimizer.iterations` before each batch, a count
    that goes on over a second `fit` and a resumed run, and counts updates, not batches, under
    gradient accumulation. per="epoch": it is called with the epoch's index, which begins at
    `initial_epoch`. The value is written into the optimizer's variable, which compiled code
    reads, after JAX's state has been brought into the model; nothing is compiled again. The
    last value stays after `fit`, and it stands in the logs under the target's name.

Attribution
    Parameter scheduling inside one run: fastai's ParamScheduler and optax's
    inject_hyperparams.
"""

import math

import keras
from keras import ops

from kerasrecipes._checks import one_of


class HyperparameterSchedule(keras.callbacks.Callback):
    """Sets a hyperparameter of the optimizer before each batch or epoch.

    Args:
        target: "learning_rate".
        schedule: a `keras.optimizers.schedules.LearningRateSchedule` or a function of the
            number of updates (per="batch") or of the epoch's index (per="epoch") that returns a
            finite number, not negative.
        per: "batch" or "epoch".

    Raises:
        TypeError: if `schedule` cannot be called.
        ValueError: if `target` or `per` is unknown; before training if the optimizer's rate is a
            schedule already, if the first value is no finite number >= 0, or if a schedule per
            batch meets `steps_per_execution` > 1; during training if a later value is bad.
    """

    def __init__(self, target, schedule, per="batch"):
        super().__init__()
        self.target = one_of("target", target, ("learning_rate",))
        self.per = one_of("per", per, ("batch", "epoch"))
        if not callable(schedule):
            raise TypeError(
                "`schedule` must be a Keras schedule or a function of one number. "
                f"Received: {schedule!r}. For a constant write `lambda step: {schedule!r}`."
            )
        self.schedule = schedule

    def on_train_begin(self, logs=None):
        model = self.model
        if self.per == "batch" and (model.steps_per_execution or 1) > 1:
            raise ValueError(
                f"A schedule of {self.target!r} per batch needs steps_per_execution=1, since "
                "callbacks do not run between the steps of one execution. Received: "
                f"steps_per_execution={model.steps_per_execution}. Hand a Keras schedule to the "
                'optimizer, or use per="epoch".'
            )
        try:
            before = float(ops.convert_to_numpy(model.optimizer.learning_rate))
            model.optimizer.learning_rate = before
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"The optimizer's {self.target} is a schedule already, or there are several, "
                "which no callback can set. Compile one optimizer with a float: it is only the "
                "start."
            ) from error
        if self.per == "batch":
            self._value(self._step())

    def on_epoch_begin(self, epoch, logs=None):
        if self.per == "epoch":
            self._set(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self.per == "batch":
            self._set(self._step())

    def on_train_batch_end(self, batch, logs=None):
        self._log(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._log(logs)

    def _step(self):
        # Reading `self.model` brings JAX's state into it: a value assigned before is lost there.
        return int(ops.convert_to_numpy(self.model.optimizer.iterations))

    def _value(self, step):
        given = self.schedule(step)
        try:
            value = float(ops.convert_to_numpy(given))
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise ValueError(
                f"The schedule of {self.target!r} returned {given} at {self.per} {step}: it must "
                "return a finite number, not negative."
            )
        return value

    def _set(self, step):
        self.value = self._value(step)
        self.model.optimizer.learning_rate = self.value

    def _log(self, logs):
        if logs is not None:
            logs[self.target] = self.value
