"""Continuation: a row of ever harder objectives, each trained from where the last one ended.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import Continuation
    >>> from kerasrecipes.losses import Scheduled
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", Scheduled("mse", name="cost"))
    >>> harder = Continuation("cost.coefficient", [0.1, 0.3, 1.0], advance=[1, 2, 2])
    >>> x = np.zeros((8, 1))
    >>> history = model.fit(x, x, epochs=5, callbacks=[harder], verbose=0)
    >>> [round(value, 6) for value in history.history["cost.coefficient"]]
    [0.1, 0.3, 0.3, 1.0, 1.0]

Suggested hyperparameters
    `values`: from one that makes the objective easy to the one that is meant; small steps, the
    next often a half to three quarters of the one before where the knob is a width of blur.
    `advance`: "plateau" with `patience` 3 to 10, `min_delta` a thousandth of the loss. For
    comparisons, epochs: they do the same work in each run.

When not to use
    Where the objective can be trained as it is: each stage costs epochs. Where easing does not
    make it easier: blurring need not lead to a good valley. For a value at each batch, or a
    curve, `HyperparameterSchedule`.

Technical details
    Stage i trains with values[i]; the value changes only between epochs, in the variable that
    compiled code reads. With "plateau" a stage ends when `monitor` has not fallen by
    `min_delta` below the stage's best for `patience` epochs; the best begins anew with each
    stage, since the losses of two objectives do not compare. An epoch whose monitor is not
    finite ends no stage. The last stage lasts until `fit` ends, and the callback warns if the
    last value was not reached, not for the epochs asked, no longer holds in the end, or if
    `EarlyStopping` restores weights of an earlier stage. Each value is checked before training.

    The logs hold the value under the knob's name and the stage under `NAME_stage`; `moves` lists
    (epoch, value) of each move. A run that begins at `initial_epoch` > 0 finds its stage from
    the epochs asked, or with "plateau" from the knob's present value (weight files hold it, also
    those of `BackupAndRestore`; not that of an injected hyperparameter such as "momentum", which
    begins at stage 0), and its patience begins anew. `EarlyStopping` compares the losses of
    different objectives: let it begin with the last stage, by `start_from_epoch`.

Attribution
    Continuation methods J0 ... Jn of lecture 004; Mobahi and Fisher, A Theoretical Analysis of
    Optimization by Gaussian Continuation, 2015.
"""

import inspect
import math
import warnings

import keras
import numpy as np

from kerasrecipes._checks import integer, nearest, number
from kerasrecipes.callbacks._knobs import copied, locate_knob


def _rising_or_falling(values):
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise TypeError(f"`values` must be a sequence of numbers. Received: values={values!r}")
    values = [number("values", float(v) if hasattr(v, "dtype") else v) for v in values]
    steps = np.diff(values)
    if not values or not (np.all(steps > 0) or np.all(steps < 0)):
        raise ValueError(
            "`values` must have at least one value and only rise or only fall, the last being the "
            f"objective that is meant. Received: values={values}"
        )
    return values


def _epochs(advance, count):
    """The epochs of each stage, or None for "plateau"."""
    if isinstance(advance, str):
        if advance != "plateau":
            raise ValueError(
                '`advance` must be "plateau", a number of epochs, or a sequence of them. '
                f"Received: advance={advance!r}.{nearest(advance, ['plateau'])}"
            )
        return None
    if not hasattr(advance, "__len__"):
        return [integer("advance", advance, 1)] * count
    if len(advance) != count:
        raise ValueError(
            f"`advance` must have one number of epochs for each of the {count} values. "
            f"Received: advance={advance!r}"
        )
    return [integer("advance", epochs, 1) for epochs in advance]


def _restored(callback):
    """The epoch whose weights `callback` puts back, now or after this, or inf."""
    restores = getattr(callback, "restore_best_weights", False)
    restores = restores and getattr(callback, "best_weights", None) is not None
    return getattr(callback, "best_epoch", math.inf) if restores else math.inf


class Continuation(keras.callbacks.Callback):
    """Moves a knob through `values`, each time the objective so far has been trained enough.

    Args:
        knob: what moves: "layer_name.attribute", "loss_name.coefficient", a loss with a
            coefficient, or a scalar `keras.Variable` of the model.
        values: the values in order, only rising or only falling; the last is the true
            objective's.
        advance: "plateau", or the epochs of each stage as one integer or a sequence.
        monitor: for "plateau", the entry of the logs that shall fall. Defaults to "loss".
        min_delta: for "plateau", how far `monitor` must fall to count, in its units.
        patience: for "plateau", the number of epochs without such a fall that ends a stage.
        verbose: 1 prints each move.

    Raises:
        TypeError: if an argument has another type.
        ValueError: if `values` is empty, not finite or turns back, or `advance` does not fit;
            before training if there is no such knob, or if it may not take one of `values`;
            after the first epoch if the logs lack `monitor`.

    Warns:
        UserWarning: when `fit` ends before the true objective was trained as asked.

    Reference:
        Lecture 004, continuation methods.
    """

    def __init__(
        self,
        knob,
        values,
        advance="plateau",
        monitor="loss",
        min_delta=1e-4,
        patience=5,
        verbose=0,
    ):
        super().__init__()
        self.knob = knob
        self.values = _rising_or_falling(values)
        self.advance = advance
        self.epochs = _epochs(advance, len(self.values))
        self.monitor = monitor
        self.min_delta = number("min_delta", min_delta, 0)
        self.patience = integer("patience", patience, 1)
        self.verbose = verbose

    def __deepcopy__(self, memo):
        return copied(self, [self.knob], memo)

    def on_train_begin(self, logs=None):
        self._found = locate_knob(self.model, self.knob)
        for value in self.values:
            self._found.check(value)
        self._found.prepare()
        self.stage, self.moves, self._trained = None, [], 0

    def on_epoch_begin(self, epoch, logs=None):
        if self.epochs is not None:
            stage = int(np.searchsorted(np.cumsum(self.epochs[:-1]), epoch, side="right"))
            self._trained = epoch - sum(self.epochs[:stage])
        elif self.stage is None:
            stage = self._stage_now() if epoch else 0
        else:
            stage = self.stage + (self._waited >= self.patience)
        stage = min(stage, len(self.values) - 1)
        if stage != self.stage:
            self._move(stage, epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._trained += 1
        if self.epochs is None:
            self._watch(logs or {})
        if logs is not None:
            logs[self._found.name] = self.values[self.stage]
            logs[f"{self._found.name}_stage"] = self.stage

    def on_train_end(self, logs=None):
        asked = 1 if self.epochs is None else self.epochs[-1]
        value, last = self._found.read(), self.values[-1]
        # Keras tells a callback nothing of the others: the list is that of the caller.
        caller = inspect.currentframe().f_back.f_locals.get("self")
        others = caller.callbacks if isinstance(caller, keras.callbacks.CallbackList) else []
        begun = self.moves[-1][0] if self.moves else 0
        early = [one for one in others if _restored(one) < begun]
        if self.stage != len(self.values) - 1:
            reason = f"fit ended at {value}, stage {self.stage} of 0..{len(self.values) - 1}"
        elif self._trained < asked:
            reason = f"its stage was trained for {self._trained} of {asked} epochs"
        elif not math.isclose(value, last, rel_tol=1e-6, abs_tol=1e-12):
            reason = f"it was set to {value} afterwards"
        elif early:
            reason = (
                f"{type(early[0]).__name__} restores the weights of epoch "
                f"{_restored(early[0]) + 1}, of an easier objective; let it begin with the last "
                f"stage (start_from_epoch={begun})"
            )
        else:
            return
        warnings.warn(
            f"Continuation did not train the true objective, {self._found.name} = {last}, as "
            f"asked: {reason}. Train for more epochs, or with fewer values.",
            stacklevel=2,
        )

    def _stage_now(self):
        """Where a resumed run stands: the weights it was given hold the knob's value."""
        apart = np.abs(np.array(self.values) - self._found.read())
        stage = int(np.argmin(apart))
        return stage if apart[stage] <= 1e-6 * max(1.0, abs(self.values[stage])) else 0

    def _move(self, stage, epoch):
        self.stage, self._best, self._waited = stage, math.inf, 0
        if self.epochs is None:
            self._trained = 0
        self._found.write(self.values[stage])
        self.moves.append((epoch, self.values[stage]))
        if self.verbose:
            print(f"Epoch {epoch + 1}: {self._found.name} = {self.values[stage]}")

    def _watch(self, logs):
        if self.monitor not in logs:
            raise ValueError(
                f"`monitor` must be in the logs. Received: monitor={self.monitor!r}, logs: "
                f"{', '.join(logs)}.{nearest(self.monitor, logs)}"
            )
        value = float(logs[self.monitor])
        if value < self._best - self.min_delta:
            self._best, self._waited = value, 0
        elif math.isfinite(value):
            self._waited += 1
