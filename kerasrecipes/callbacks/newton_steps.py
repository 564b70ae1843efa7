"""Newton steps between the epochs of any fit, so that they take over where SGD stalls.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import NewtonSteps
    >>> from kerasrecipes.optimizers import SaddleFreeNewton
    >>> x = np.linspace(-1, 1, 32)[:, None]
    >>> layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    >>> model = keras.Sequential([keras.Input((1,)), *layers])
    >>> model.compile("sgd", "mse")
    >>> newton = NewtonSteps(SaddleFreeNewton(), x, np.sin(3 * x), when=2)
    >>> history = model.fit(x, np.sin(3 * x), epochs=4, callbacks=[newton], verbose=0)
    >>> history.history["newton_steps"]
    [0, 1, 0, 1]

Suggested hyperparameters
    `when`: "plateau" with a `patience` of 3 to 10 epochs. `steps`: 1, with "plateau" 5 to 20.
    `x`, `y`: all training data, or a large fixed part of it.

When not to use
    Instead of `fit`: `optimizers.minimize` does full-batch work without it. With SAM and others
    that take their gradients away from the weights they stand on.

Technical details
    At the end of an epoch, after validation, the step object is called with the Objective of the
    model and the data: regularization included, dropout off. What it returns is written into the
    weights; the next epoch goes on from there. The optimizer's slots (momentum) are not
    touched, so its first updates still carry the velocity from before. The logs of the epoch hold
    "newton_steps", the number of steps taken after it, and "newton_loss", the objective then,
    NaN where there was none; all other logs are from before the steps. A plateau: `monitor` has
    not fallen below its best by `min_delta` of it for `patience` epochs; then counting starts anew.

Attribution
    Dauphin et al., 2014, https://arxiv.org/abs/1406.2572: saddle-free Newton from where SGD
    stalls.
"""

import numbers

import keras
import numpy as np

from kerasrecipes._checks import integer, number, unconstrained
from kerasrecipes.objective import Objective
from kerasrecipes.optimizers._trial import trial_optimizers
from kerasrecipes.optimizers.inject_hyperparams import parts
from kerasrecipes.optimizers.masked import Masked


class NewtonSteps(keras.callbacks.Callback):
    """Takes steps of a full-batch method at the end of epochs.

    Args:
        step: `Newton`, `SaddleFreeNewton`, `GaussNewton` or a function of an `Objective` and a
            vector that returns the next vector and a report with "loss" and "accepted".
        x: array, or a list or dict of arrays, of shape `(examples, ...)`: what it steps on.
        y: targets, likewise, or None if the model's loss needs none.
        when: "epoch", "plateau", or N for every N-th epoch.
        steps: number of steps each time, at most: it ends where no step is better.
        monitor: with "plateau", the name in the logs that should fall.
        patience: with "plateau", epochs without an improvement before steps are taken.
        min_delta: with "plateau", the share of its best by which `monitor` must fall.
        sample_weight: weights of the examples, as for `fit`.
        batch_size: examples per evaluation of the model; None takes all at once.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range; before training if the data does not fit, or if
            the optimizer takes its gradients away from its weights; in training if `monitor` is
            not in the logs.

    Reference:
        Dauphin et al., 2014, https://arxiv.org/abs/1406.2572
    """

    def __init__(
        self,
        step,
        x,
        y=None,
        when="epoch",
        steps=1,
        monitor="loss",
        patience=5,
        min_delta=1e-3,
        sample_weight=None,
        batch_size=None,
    ):
        super().__init__()
        if not callable(step) or isinstance(step, type):
            raise TypeError(
                "`step` must be a step such as SaddleFreeNewton(), with the brackets. "
                f"Received: {step!r}"
            )
        if when not in ("epoch", "plateau"):
            if isinstance(when, bool) or not isinstance(when, numbers.Integral):
                raise ValueError(
                    '`when` must be "epoch", "plateau" or a number of epochs. Received: '
                    f"when={when!r}"
                )
            when = integer("when", when, 1)
        self.step, self.when = step, when
        self.x, self.y, self.sample_weight = x, y, sample_weight
        self.steps = integer("steps", steps, 1)
        self.monitor = monitor
        self.patience = integer("patience", patience, 1)
        self.min_delta = number("min_delta", min_delta, 0, 1, open_high=True)
        self.batch_size = batch_size
        self._best, self._waited = np.inf, 0

    def on_train_begin(self, logs=None):
        if trial_optimizers(self.model.optimizer):
            raise ValueError(
                f"NewtonSteps does not go with {type(self.model.optimizer).__name__}: between its "
                "gradients the model does not hold the weights it stands on."
            )
        if any(isinstance(part, Masked) for part in parts(self.model.optimizer)):
            raise ValueError(
                "NewtonSteps moves all weights, also those that Masked holds: freeze layers with "
                "`trainable = False` before `compile` instead."
            )
        unconstrained("NewtonSteps", self.model.trainable_variables)
        self._objective = Objective(self.model, self.x, self.y, self.sample_weight, self.batch_size)
        self._best, self._waited = np.inf, 0

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        taken, loss = self._take() if self._due(epoch, logs) else (0, float("nan"))
        logs["newton_steps"], logs["newton_loss"] = taken, loss

    def _due(self, epoch, logs):
        if self.when != "plateau":
            return (epoch + 1) % (1 if self.when == "epoch" else self.when) == 0
        if self.monitor not in logs:
            raise ValueError(
                f"`monitor`={self.monitor!r} is not in the logs, which hold {', '.join(logs)}."
            )
        current = float(logs[self.monitor])
        if current < self._best - self.min_delta * abs(self._best) or np.isinf(self._best):
            self._best, self._waited = current, 0
        else:
            self._waited += 1
        if self._waited < self.patience:
            return False
        self._waited = 0
        return True

    def _take(self):
        w, taken, loss = self._objective.get_vector(), 0, float("nan")
        for _ in range(self.steps):
            w, report = self.step(self._objective, w)
            loss = float(report["loss"])
            if not report["accepted"]:
                break
            taken += 1
        if taken:
            self._objective.set_vector(w)
        return taken, loss
