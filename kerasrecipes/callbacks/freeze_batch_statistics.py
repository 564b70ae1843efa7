"""Batch norm switched to its test behaviour at an epoch inside one `fit`, for fine-tuning.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import FreezeBatchStatistics
    >>> layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    >>> model = keras.Sequential([keras.Input((3,)), *layers])
    >>> model.compile("adam", "mse")
    >>> x = np.zeros((8, 3))
    >>> freeze = FreezeBatchStatistics(epoch=4)
    >>> history = model.fit(x, np.ones((8, 1)), epochs=5, callbacks=[freeze], verbose=0)

Suggested hyperparameters
    `epoch`: for the last tenth to fifth of the epochs, at a rate that has come down. The moving
    averages must be good by then: momentum 0.9 where there are only hundreds of steps before.

When not to use
    Early in a run: without the statistics of the batch the gradient no longer keeps the scale
    of the activations. With large mixed batches, where training and test agree anyway. To keep
    weights still, gamma and beta too: `callbacks.Freeze`, which leaves the normalization on the
    statistics of the batch.

Technical details
    From `epoch` on, in training steps too, each BatchNormalization of the model (nested,
    renormalizing and mean-only ones too) normalizes by its moving averages, which stand still;
    gamma, beta and all other weights train on, and the optimizer's slots go on. So training loss
    and test loss are of the same function, and a batch of one example is as good as any.

    Keras reads the mode of a layer when it compiles the train step, so the switch costs one more
    compilation of it: two in all, in however many fits with this callback (none on PyTorch,
    which runs eagerly). A knob that the step reads would have to compute both normalizations
    each step. What is frozen is a function of the epoch, so a run that is resumed
    (`initial_epoch`, BackupAndRestore) goes on as if it had not stopped. After `fit`, and in the
    next `fit` after one that was interrupted, batch norm trains as usual.

Attribution
    The layer: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167. The second of two
    remedies for batch norm's mismatch of training and test that the lectures name.
"""

import contextlib

import keras

from kerasrecipes._checks import integer
from kerasrecipes._model.calls import sublayers
from kerasrecipes._model.state import check_ready
from kerasrecipes.layers import MeanOnlyBatchNormalization

_NORMS = (keras.layers.BatchNormalization, MeanOnlyBatchNormalization)


class FreezeBatchStatistics(keras.callbacks.Callback):
    """From an epoch on, trains with batch norm in inference mode.

    Args:
        epoch: the first epoch, from 0, in which moving averages are used and stand still.

    Raises:
        TypeError: if `epoch` is no integer.
        ValueError: if it is negative; before training if the fit ends before it, or if the model
            is not built or has no batch normalization.

    Reference:
        Ioffe and Szegedy, 2015, Algorithm 2, https://arxiv.org/abs/1502.03167
    """

    def __init__(self, epoch):
        super().__init__()
        self.epoch = integer("epoch", epoch, 0)
        self._thaw = lambda: None
        self._made = None

    def on_train_begin(self, logs=None):
        check_ready(self.model)
        last = self.params.get("epochs")
        if last is not None and self.epoch >= last:
            raise ValueError(
                f"`epoch` {self.epoch} is never reached: the epochs of this fit end with "
                f"{last - 1}. Train longer, or freeze earlier."
            )
        self._norms = [one for one in sublayers(self.model) if isinstance(one, _NORMS)]
        if not self._norms:
            raise ValueError(f"`model` {self.model.name!r} has no BatchNormalization to freeze.")

    def on_epoch_begin(self, epoch, logs=None):
        if epoch >= self.epoch and not isinstance(self.model.train_step, _InferenceStep):
            self._freeze()

    def on_train_end(self, logs=None):
        self._thaw()

    def _freeze(self):
        model = self.model
        own = {name: vars(model).get(name) for name in ("train_step", "make_train_function")}
        # SwapAcceptedWeights guards a step from outside, until its epoch's end.
        usual = getattr(model.train_function, "unguarded", model.train_function)
        if self._made is None or self._made[0] is not usual:
            # A new object each time: JAX does not trace one again that it knows.
            step = _InferenceStep(model.train_step, self._norms)
            object.__setattr__(model, "train_step", step)
            type(model).make_train_function(model, force=True)
            self._made = usual, step, model.train_function
        _, step, frozen = self._made

        def thaw():
            for name, value in own.items():
                _set(model, name, value)
            if model.train_function is frozen:
                model.train_function = usual
            self._thaw = lambda: None

        def make_train_function(force=False):
            # Asked for at the begin of a fit: the one before was interrupted.
            thaw()
            return model.make_train_function(force=force)

        object.__setattr__(model, "train_step", step)
        object.__setattr__(model, "make_train_function", make_train_function)
        model.train_function, self._thaw = frozen, thaw


class _InferenceStep:
    """A model's train step in which `layers` run in inference mode."""

    def __init__(self, step, layers):
        self.step = step
        self.layers = layers

    def __call__(self, *arguments):
        with _in_inference(self.layers):
            return self.step(*arguments)


@contextlib.contextmanager
def _in_inference(layers):
    def inference(call):
        def call_in_inference(inputs, *args, **kwargs):
            if args:  # `training` comes first
                return call(inputs, False, *args[1:], **kwargs)
            return call(inputs, **{**kwargs, "training": False})

        return call_in_inference

    # `call` looked up on the instance wins over the class.
    own = [vars(layer).get("call") for layer in layers]
    for layer in layers:
        object.__setattr__(layer, "call", inference(layer.call))
    try:
        yield
    finally:
        for layer, call in zip(layers, own, strict=True):
            _set(layer, "call", call)


def _set(owner, name, value):
    """Past the owner's setattr, which would track the value; None takes the attribute away."""
    if value is not None:
        object.__setattr__(owner, name, value)
    elif name in vars(owner):
        object.__delattr__(owner, name)
