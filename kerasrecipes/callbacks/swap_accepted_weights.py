"""Validation, checkpoints and other callbacks see the accepted weights, not the trial point.

How to use
    >>> import keras
    >>> from kerasrecipes.callbacks import SwapAcceptedWeights
    >>> from kerasrecipes.optimizers import SAM
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(SAM("sgd"), loss="mse")
    >>> x = keras.ops.ones((32, 2))
    >>> callbacks = [SwapAcceptedWeights(), keras.callbacks.EarlyStopping(patience=3)]  # first
    >>> history = model.fit(x, x[:, :1], validation_split=0.5, callbacks=callbacks, verbose=0)

Suggested hyperparameters
    `every_batch`: None, which swaps around each batch only where another callback looks at
    batches. True where a Ctrl-C between two batches must find the accepted weights too.

When not to use
    With an optimizer that takes its gradients at the weights it stands on: it is refused. To
    average weights, use Keras's `use_ema` and `SwapEMAWeights`.

Technical details
    SAM, ParameterBlur, LBFGS and NonlinearCG ask for the next gradient away from the accepted
    weights, so between batches the model holds a trial point. This callback exchanges the two,
    bit for bit: the accepted weights are in from validation, or the end of the epoch, to the next
    epoch's first batch, and after an exception in a step. The trajectory is the same bits with
    and without it. It must come first in the list, since callbacks run in its order.

    A checkpoint taken while the accepted weights are in holds the trial point in the optimizer:
    a fit that goes on from it with this callback (`BackupAndRestore` too) makes the same steps
    as the uninterrupted one. If the weights were set otherwise after a fit, or by a callback at
    the end of an epoch, what comes next starts anew from them.

    With LBFGS or NonlinearCG it also ends `fit` after the epoch in which the search converged or
    stalled, and refuses several steps an epoch unless the data is a `data.FullBatch` or all of
    them are accumulated into one gradient.

    Swapping costs one read of a flag, two copies and two checksums of the weights, once an epoch.
    Where another callback has a hook at the end of batches (`ModelCheckpoint(save_freq=100)`,
    `LambdaCallback`), and on PyTorch always, it is done around each batch: such callbacks see
    the accepted weights, before a batch too, and each batch waits for the step to end. Weights
    that are set between two batches of an epoch are not noticed.

    After an exception on TensorFlow and PyTorch, in a step or in a hook for the begin of a batch
    or an epoch, the weights are swapped as it passes; without `every_batch`, a Ctrl-C that falls
    between two steps leaves the trial point in, and `model.optimizer.hold_accepted()` puts the
    accepted one back. On JAX `fit` itself ends with the accepted weights; where an exception has
    emptied the variables there is nothing to swap.

Attribution
    After Keras's `SwapEMAWeights`, which does this for averaged weights.
"""

import functools
import inspect

import keras

from kerasrecipes.data.full_batch import FullBatch
from kerasrecipes.optimizers._trial import trial_optimizers

_QUIET = (keras.callbacks.History, keras.callbacks.ProgbarLogger)


def _looks_at_batches(callback):
    quiet = isinstance(callback, _QUIET) or getattr(callback, "async_safe", False)
    if quiet or getattr(callback, "save_freq", None) == "epoch":
        return False
    hooks = [(getattr(callback, name), name) for name in ("on_train_batch_end", "on_batch_end")]
    return any(
        getattr(hook, "__func__", hook) is not getattr(keras.callbacks.Callback, name)
        for hook, name in hooks
    )


def _callers():
    frame = inspect.currentframe()
    while frame is not None:
        yield frame.f_locals.get("self"), frame.f_locals
        frame = frame.f_back


class SwapAcceptedWeights(keras.callbacks.Callback):
    """Puts the accepted weights in wherever training is looked at, and the trial point back.

    Args:
        every_batch: True swaps around each batch, False around epochs only, None where another
            callback of the list has hooks for batches.

    Raises:
        TypeError: if `every_batch` is neither None nor a boolean.
        ValueError: before training, if the model's optimizer has no trial point, if this
            callback is not the first of the list, or if LBFGS or NonlinearCG would see several
            different batches an epoch.
    """

    def __init__(self, every_batch=None):
        super().__init__()
        if every_batch not in (None, True, False):
            raise TypeError(
                f"`every_batch` must be None, True or False. Received: every_batch={every_batch!r}"
            )
        self.every_batch = every_batch
        self._fitting = False
        self._swapped = []
        # PyTorch's `fit` fetches data outside the step, where an error could not be caught.
        self._always = keras.config.backend() == "torch" if every_batch is None else every_batch
        self._hook(self._always)

    def on_train_begin(self, logs=None):
        for optimizer in self._optimizers():
            if hasattr(optimizer, "status"):
                self._check_whole(optimizer)
        found = self._list()
        if found is not None and found.callbacks[0] is not self:
            raise ValueError(
                "SwapAcceptedWeights must come first in `callbacks`, since those before it "
                "would see the trial point. Received it after "
                f"{type(found.callbacks[0]).__name__}."
            )
        batches = self._always
        if self.every_batch is None:
            batches = batches or found is None or any(map(_looks_at_batches, found.callbacks[1:]))
        self._hook(batches)
        then = self._trial_in
        if found is None:
            self.on_train_batch_begin = then
        else:
            # After all others, so that their hooks see the accepted weights, in their errors too,
            # and may make a step of their own.
            self._wrap(found, "on_epoch_begin", self._guard, *([] if batches else [then]))
            self._wrap(found, "on_train_batch_begin", *([then] if batches else []))

    def _list(self):
        """The list that calls, of which Keras tells a callback nothing."""
        for caller, _ in _callers():
            lists = isinstance(caller, keras.callbacks.CallbackList)
            if lists and any(callback is self for callback in caller.callbacks):
                return caller
        return None

    def _check_whole(self, optimizer):
        steps = (self.params or {}).get("steps")
        data = [seen["x"] for caller, seen in _callers() if caller is self._model and "x" in seen]
        whole = optimizer.gradient_accumulation_steps or 1
        if not data or steps == whole or isinstance(data[0], FullBatch):
            return
        raise ValueError(
            f"{type(optimizer).__name__} needs the same data at each step. Received {steps} steps "
            f"an epoch{f' and {whole} accumulated ones' if whole > 1 else ''}. Give "
            "`batch_size=len(x)`, `kerasrecipes.data.FullBatch(x, y, steps)` for many steps an "
            "epoch, or the optimizer `gradient_accumulation_steps` of as many as an epoch has."
        )

    def _wrap(self, callbacks, name, *then):
        vars(callbacks).pop(name, None)
        hook = getattr(callbacks, name)

        def wrapped(*args, **kwargs):
            try:
                hook(*args, **kwargs)
            except BaseException:
                if keras.config.backend() != "jax":
                    self._accepted_in()
                    self._release()
                raise
            for one in then:
                one()

        setattr(callbacks, name, wrapped)

    def _hook(self, batches):
        # A hook for batches only where it is needed: where a callback of the list has one,
        # Keras waits for each step. (It looks at the list before training begins.)
        vars(self).pop("on_train_batch_begin", None)
        if batches:
            self.on_train_batch_end = self._accepted_in
        else:
            vars(self).pop("on_train_batch_end", None)

    def on_epoch_begin(self, epoch, logs=None):
        self._fitting = True
        self._guard()

    def on_epoch_end(self, epoch, logs=None):
        self._accepted_in()
        for optimizer in self._optimizers():
            optimizer.watch()
        ends = [o.status.state != "running" for o in self._optimizers() if hasattr(o, "status")]
        if any(ends):
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self._release()

    def on_test_begin(self, logs=None):
        self._look()

    def on_test_end(self, logs=None):
        self._looked()

    def on_predict_begin(self, logs=None):
        self._look()

    def on_predict_end(self, logs=None):
        self._looked()

    def _look(self):
        self._swapped = self._accepted_in()

    def _looked(self):
        # Within `fit` the accepted weights stay in until the next epoch.
        if not self._fitting:
            for optimizer in self._swapped:
                optimizer.hold_trial()
        self._swapped = []

    def _optimizers(self):
        # Reading `self.model` brings JAX's state into it.
        found = trial_optimizers(self.model.optimizer)
        if not found:
            raise ValueError(
                "SwapAcceptedWeights needs an optimizer that takes its gradients away from the "
                "accepted weights, such as SAM, ParameterBlur, LBFGS or NonlinearCG. "
                f"Received: {type(self.model.optimizer).__name__}."
            )
        return found

    def _accepted_in(self, *args, **kwargs):
        return [optimizer for optimizer in self._optimizers() if optimizer.hold_accepted()]

    def _trial_in(self, *args, **kwargs):
        for optimizer in self._optimizers():
            optimizer.hold_trial()

    def _guard(self):
        """An exception in a step calls no callback: the step itself must put the weights back."""
        step = self.model.train_function
        if hasattr(step, "unguarded") or keras.config.backend() == "jax":
            return

        @functools.wraps(step)
        def guarded(*args):
            try:
                return step(*args)
            except BaseException:
                self._accepted_in()
                self._release()
                raise

        guarded.unguarded = step
        self.model.train_function = guarded

    def _release(self):
        self._fitting = False
        step = self.model.train_function
        if hasattr(step, "unguarded"):
            self.model.train_function = step.unguarded
