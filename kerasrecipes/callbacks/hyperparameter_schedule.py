"""Schedule of a hyperparameter or knob within one `fit`, heard by the very next batch.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import HyperparameterSchedule
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(momentum=0.9), loss="mse")
    >>> halve = HyperparameterSchedule("learning_rate", lambda epoch: 0.5**epoch, per="epoch")
    >>> rising = keras.optimizers.schedules.PolynomialDecay(0.5, 5, end_learning_rate=0.75)
    >>> x = np.zeros((8, 1))
    >>> callbacks = [halve, HyperparameterSchedule("momentum", rising)]
    >>> history = model.fit(x, x, batch_size=4, epochs=3, callbacks=callbacks, verbose=0)
    >>> history.history["learning_rate"]
    [1.0, 0.5, 0.25]
    >>> [round(value, 2) for value in history.history["momentum"]]
    [0.55, 0.65, 0.75]

Suggested hyperparameters
    `target`: "momentum", "weight_decay", "beta_1", "clipnorm", ... of a stock optimizer;
    "layer_name.knob", "loss_name.coefficient", a scalar variable. `schedule`: a Keras schedule
    where there is one, since it runs inside the compiled step; for one-cycle the pair
    `schedules.one_cycle(...)` with the targets ("learning_rate", "momentum"). `per`: "batch" for
    warm-up and one-cycle, "epoch" for decay in steps.

When not to use
    For the rate alone from a Keras schedule: hand it to the optimizer. A function of your own
    per batch runs on the host, and under JAX brings the state there at each batch: a small
    convnet's fit took 1.15 times as long on JAX and 1.09 on TensorFlow, with a Keras schedule or
    per="epoch" 1.00 to 1.03 (benchmarks/fit_overhead.py, 11 rounds, Keras 3.15.1, JAX 0.10.2,
    TensorFlow 2.21.0). Prefer those where speed counts.

Technical details
    per="batch": the schedule is called with `optimizer.iterations`, a count that goes on over a
    second `fit` and a resumed run, and counts updates, not batches, under gradient accumulation.
    per="epoch": it is called with the epoch's index, which begins at `initial_epoch`.

    A Keras schedule of a hyperparameter of the optimizer per batch is evaluated by the optimizer
    itself, also with `steps_per_execution` > 1. Everything else is evaluated on the host and
    written into the variable that compiled code reads, after JAX's state has been brought into
    the model; per batch this needs `steps_per_execution` = 1. Hyperparameters are injected
    before the first batch (see `optimizers.inject_hyperparams`, also for what is saved); after
    an earlier `fit` this costs one compilation, and nothing is compiled again after that.

    The last value stays after `fit`. It stands in the logs under the target's name: at the end
    of an epoch, and of each batch if a function of your own set it there. Two schedules of one
    target in one `fit` are refused. With per="epoch" the schedule is called for all epochs of
    the `fit` before the first batch, to check its values, and again at each epoch: let it depend
    on the index alone. With per="batch" the first value is checked before training and the
    others as they come; inside the step a bad one is not taken, the last good one stays, and the
    error comes at the epoch's end. If `fit` ends by an error or Ctrl-C, a schedule inside the
    step goes on in a later `fit` until the value is set by hand or another callback moves it.

Attribution
    Parameter scheduling inside one run: fastai's ParamScheduler and optax's
    inject_hyperparams.
"""

import weakref

import keras
from keras import ops

from kerasrecipes._checks import one_of
from kerasrecipes.callbacks._knobs import OptimizerKnob, copied, locate_knob

_Schedule = keras.optimizers.schedules.LearningRateSchedule


class HyperparameterSchedule(keras.callbacks.Callback):
    """Sets a hyperparameter or knob before each batch or epoch.

    Args:
        target: the name of a hyperparameter of the optimizer ("momentum"; "sgd.momentum" where
            several optimizers have one), "layer_name.attribute" of a scalar variable,
            "loss_name.coefficient", such a loss, a scalar `keras.Variable` that the model or
            its optimizer owns, or a tuple of these.
        schedule: a `keras.optimizers.schedules.LearningRateSchedule` or a function of the
            number of updates (per="batch") or of the epoch's index (per="epoch") that returns a
            finite number; for a hyperparameter of the optimizer not negative, and at most 1 for
            momentum and its kin. For a tuple of targets a tuple of as many.
        per: "batch" or "epoch".

    Raises:
        TypeError: if `schedule` cannot be called.
        ValueError: if `per` is unknown or there are not as many schedules as targets; before
            training if a target is unknown or compiled code would not see it, if the optimizer's
            rate is a schedule already, if the first value, or that of any epoch, is bad, if a
            target has two schedules, or if what runs on the host per batch meets
            `steps_per_execution` > 1; during training if a later value per batch is bad.
    """

    _owners = weakref.WeakValueDictionary()  # key of a knob -> its schedule in the latest fit

    def __init__(self, target, schedule, per="batch"):
        super().__init__()
        self.target = target
        self.per = one_of("per", per, ("batch", "epoch"))
        several = isinstance(target, (tuple, list))
        self._targets = list(target) if several else [target]
        self._schedules = list(schedule) if isinstance(schedule, (tuple, list)) else [schedule]
        for one in self._schedules:
            if not callable(one):
                raise TypeError(
                    "`schedule` must be a Keras schedule or a function of one number. "
                    f"Received: {one!r}. For a constant write `lambda step: {one!r}`."
                )
        if len(self._targets) != len(self._schedules) or not self._targets:
            raise ValueError(
                "There must be one schedule for each target. Received: "
                f"target={target!r}, schedule={schedule!r}."
            )
        self.schedule = schedule
        if self.per == "batch" and not all(isinstance(one, _Schedule) for one in self._schedules):
            # Keras waits for each step where a callback has this hook: only where it must be.
            self.on_train_batch_end = self._log_values

    def __deepcopy__(self, memo):
        return copied(self, self._targets, memo)

    def on_train_begin(self, logs=None):
        model = self.model
        knobs = [locate_knob(model, target) for target in self._targets]
        pairs = list(zip(knobs, self._schedules, strict=True))
        self._refuse_second(knobs)
        inside = [self._runs_inside(knob, schedule) for knob, schedule in pairs]
        for (knob, schedule), by_optimizer in zip(pairs, inside, strict=True):
            if self.per == "batch":
                if not by_optimizer and (model.steps_per_execution or 1) > 1:
                    raise ValueError(
                        f"This schedule of {knob.name!r} per batch needs steps_per_execution=1, "
                        "since callbacks do not run between the steps of one execution. "
                        f"Received: steps_per_execution={model.steps_per_execution}. Use "
                        'per="epoch", or a Keras schedule of a hyperparameter of the optimizer.'
                    )
                self._value(knob, schedule, self._step())
        self._owners.update((knob.key, self) for knob in knobs)
        self._inside, self._outside, self._values, self._checked = [], [], {}, False
        for (knob, schedule), by_optimizer in zip(pairs, inside, strict=True):
            if by_optimizer:
                knob.prepare(schedule)
                self._inside.append(knob)
            else:
                knob.prepare()
                self._outside.append((knob, schedule))

    def on_epoch_begin(self, epoch, logs=None):
        if self.per == "epoch":
            if not self._checked:  # which epoch is the first is known only now
                for later in range(epoch, (self.params or {}).get("epochs") or 0):
                    for knob, schedule in self._outside:
                        self._value(knob, schedule, later)
                self._checked = True
            self._set(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self.per == "batch" and self._outside:
            self._set(self._step())

    def _log_values(self, batch, logs=None):
        if logs is not None:
            logs.update(self._values)

    def on_epoch_end(self, epoch, logs=None):
        reached = {knob.name: knob.read() for knob in self._inside}
        if logs is not None:
            logs.update(self._values | reached)

    def on_train_end(self, logs=None):
        for knob in self._inside:
            knob.release()

    def _refuse_second(self, knobs):
        for i, knob in enumerate(knobs):
            owner = self._owners.get(knob.key, self)
            # All callbacks of one fit share one `params`; an interrupted fit had another.
            now = self.params is not None and owner.params is self.params
            if (owner is not self and now) or knob.key in [one.key for one in knobs[:i]]:
                if owner is not self and now:
                    owner.on_train_end()
                raise ValueError(
                    f"{knob.name!r} has two schedules in this fit, and only one of them could "
                    "hold. Give one of them alone, or one function that joins both."
                )

    def _runs_inside(self, knob, schedule):
        in_step = isinstance(knob, OptimizerKnob) and isinstance(schedule, _Schedule)
        return self.per == "batch" and in_step

    def _step(self):
        # Reading `self.model` brings JAX's state into it: a value assigned before is lost there.
        return int(ops.convert_to_numpy(self.model.optimizer.iterations))

    def _value(self, knob, schedule, step):
        given = schedule(step)
        try:
            return knob.check(given)
        except ValueError as error:
            raise ValueError(
                f"The schedule of {knob.name!r} returned {given} at {self.per} {step}: {error}"
            ) from error

    def _set(self, step):
        for knob, schedule in self._outside:
            value = self._value(knob, schedule, step)
            knob.write(value)
            self._values[knob.name] = value
