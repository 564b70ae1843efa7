"""Gradual unfreezing, and freezing, of layers within one `fit`, without compiling anew.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import Unfreeze
    >>> from kerasrecipes.optimizers import Masked
    >>> layers = [keras.layers.Dense(4, name=name) for name in ("low", "middle", "head")]
    >>> model = keras.Sequential([keras.Input((3,)), *layers])
    >>> model.compile(Masked(keras.optimizers.Adam(1e-3)), loss="mse")
    >>> x = np.zeros((8, 3))
    >>> gradual = Unfreeze({2: ["middle"], 4: ["low"]})
    >>> history = model.fit(x, np.ones((8, 4)), epochs=6, callbacks=[gradual], verbose=0)

    Here the head trains alone in epochs 0 and 1, with the middle layer in 2 and 3, and then
    all three.

Suggested hyperparameters
    `stages`: the head is not listed, so it trains from the start; from the top down one block
    every few epochs, once the loss has settled. A lower rate for what is freed late.
    `freeze_statistics`: leave it True where few examples are to be fitted.

When not to use
    A mask saves neither time nor memory: gradients of frozen layers are computed and thrown
    away. Where stages are long, set `layer.trainable`, compile and call `fit` for each stage:
    that is cheaper, and starts the optimizer anew. Where a layer is never to train,
    `layer.trainable = False` before `compile` is all that is needed. Gradual unfreezing is no
    gain in itself: in `recipes/gradual_unfreezing.py` it was no better than fine-tuning all at
    once (0.861 and 0.867 test accuracy, means of seeds 0 to 4,
    JAX).

Technical details
    What is frozen is a function of the epoch, so a run that is resumed (`initial_epoch`,
    BackupAndRestore, a loaded model) goes on as if it had not stopped. A layer stands for all
    layers inside it. What is listed twice, or shared by layers of two stages, counts at the
    first. `Unfreeze` and `Freeze` can be used together: frozen is what either freezes. Frozen
    weights and slots stay bit for bit, see `optimizers.Masked`, at the end of fit too.

    With `freeze_statistics` so do the moving statistics of batch norm (and what
    SpectralNormalization keeps) in frozen layers, between any two batches: the model's train
    step is wrapped and stays so. Frozen batch norm still normalizes by the statistics of the
    batch, unlike with `layer.trainable = False`, which also switches to test behaviour; in
    validation it uses the statistics that stand still, which must fit the data. Dropout in
    frozen layers goes on.

    The mask is left as the last epoch set it, is saved with the optimizer, and holds in a later
    fit without the callback; `model.optimizer.unfreeze()` frees everything.

Attribution
    Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, 2018,
    https://arxiv.org/abs/1801.06146, Section 3.3; freezing: Brock et al., FreezeOut, 2017,
    https://arxiv.org/abs/1706.04983.
"""

import weakref

import keras

from kerasrecipes._checks import integer, nearest
from kerasrecipes._model.calls import sublayers
from kerasrecipes._model.state import check_ready
from kerasrecipes._model.statistics import hold_statistics, statistics
from kerasrecipes.optimizers.masked import Masked

# For each optimizer what each callback of the fit freezes: frozen is what any of them does.
_FROZEN = weakref.WeakKeyDictionary()


def _flat(layers):
    if isinstance(layers, (list, tuple)):
        return [one for item in layers for one in _flat(item)]
    return [layers]


def _find(model, given):
    """The layer of `model` that `given`, a layer or a name, stands for."""
    every = sublayers(model)
    if isinstance(given, str):
        named = [layer for layer in every if layer.name == given]
        if len(named) > 1:
            raise ValueError(
                f"{len(named)} layers of {model.name!r} are named {given!r}: "
                "give the layer itself, not its name."
            )
        if not named:
            names = [layer.name for layer in every]
            raise ValueError(
                f"{model.name!r} has no layer {given!r}.{nearest(given, names)} "
                f"Its own are {', '.join(repr(layer.name) for layer in model.layers)}."
            )
        return named[0]
    if given is not model and not any(layer is given for layer in every):
        raise ValueError(
            f"The layer {given.name!r} is not part of {model.name!r}: give a layer of the model "
            "that is trained, or its name."
        )
    return given


class _Stages(keras.callbacks.Callback):
    """What Unfreeze and Freeze share; a subclass says which stages are frozen in an epoch."""

    def __init__(self, stages, freeze_statistics=True):
        super().__init__()
        own = type(self).__name__
        if not isinstance(stages, dict):
            raise TypeError(
                "`stages` must be a dict of epochs and layers, such as "
                f'{own}({{2: ["middle"]}}). Received: {stages!r}'
            )
        if not stages:
            raise ValueError("`stages` must name at least one epoch and its layers. Received: {}")
        epochs = [integer("epoch", epoch, 0) for epoch in stages]
        if epochs != sorted(epochs):
            raise ValueError(f"The epochs of `stages` must rise. Received: {epochs}")
        for epoch, layers in stages.items():
            if not _flat(layers):
                raise ValueError(f"Epoch {epoch} of `stages` lists no layer.")
            for layer in _flat(layers):
                if not isinstance(layer, (str, keras.layers.Layer)):
                    raise TypeError(
                        "`stages` must list layers or their names. "
                        f"Received at epoch {epoch}: {layer!r}"
                    )
        if not isinstance(freeze_statistics, bool):
            raise TypeError(
                "`freeze_statistics` must be True or False. "
                f"Received: freeze_statistics={freeze_statistics!r}"
            )
        self.stages = stages
        self.freeze_statistics = freeze_statistics

    def on_train_begin(self, logs=None):
        model = self.model
        check_ready(model)
        masked = self._masked(model)
        last = self.params.get("epochs")
        late = [epoch for epoch in self.stages if last is not None and epoch >= last]
        if late:
            raise ValueError(
                f"Epoch {late[0]} of `stages` is never reached: the epochs of this fit end with "
                f"{last - 1}. Train longer, or move the stage."
            )
        trained = masked._trainable_variables if masked.built else model.trainable_variables
        epoch_of, held = self._resolve(model, {id(v): i for i, v in enumerate(trained)})
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._epoch_of = epoch_of
        _FROZEN[masked] = {}
        if self.freeze_statistics:
            flags = {key: (variable, masked.mask, i) for key, (variable, i) in held.items()}
            hold_statistics(model, flags)
        else:
            hold_statistics(model, {}, dropped=set(held))

    def on_epoch_begin(self, epoch, logs=None):
        masked = self._masked(self.model)
        by_all = _FROZEN[masked]
        by_all[id(self)] = {i for i, at in self._epoch_of.items() if self._is_frozen(epoch, at)}
        frozen = set().union(*by_all.values())
        weights = masked._trainable_variables
        masked.freeze([weights[i] for i in self._epoch_of if i in frozen])
        masked.unfreeze([weights[i] for i in self._epoch_of if i not in frozen])

    def _masked(self, model):
        optimizer = model.optimizer
        inside = getattr(optimizer, "inner_optimizer", None)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer, inside = inside, getattr(inside, "inner_optimizer", None)
        if isinstance(optimizer, Masked):
            return optimizer
        while inside is not None:
            if isinstance(inside, Masked):
                raise ValueError(
                    f"Masked must be outside: Masked({type(optimizer).__name__}(...)), not "
                    "the other way around."
                )
            inside = getattr(inside, "inner_optimizer", None)
        raise ValueError(
            f"{type(self).__name__} needs an optimizer with a mask. Compile with "
            f"`optimizer=kerasrecipes.optimizers.Masked({type(optimizer).__name__}(...))`."
        )

    def _resolve(self, model, trained):
        """{entry of the mask: epoch} and {id of a statistic: (it, entry of its flag)}."""
        epoch_of, held = {}, {}
        for epoch, layers in self.stages.items():
            layers = [_find(model, layer) for layer in _flat(layers)]
            for layer in layers:
                kept = [one for one in [layer, *sublayers(layer)] if not one.trainable]
                if kept and not any(id(v) in trained for v in layer.weights):
                    raise ValueError(
                        f"The layer {layer.name!r} has nothing that trains. Set "
                        "`layer.trainable = True` before `compile`: the callback freezes it."
                    )
            entries = [trained[id(v)] for one in layers for v in one.weights if id(v) in trained]
            new = [i for i in entries if i not in epoch_of]
            if not new:
                reason = "is listed at an earlier epoch" if entries else "has nothing that trains"
                raise ValueError(f"What epoch {epoch} of `stages` lists {reason}.")
            epoch_of |= dict.fromkeys(new, epoch)
            for layer in layers:
                for key, (variable, owner) in statistics(layer).items():
                    # The flag is that of a weight that is frozen at the same time.
                    near = [trained[id(v)] for v in owner.weights if id(v) in trained]
                    flag = next(i for i in [*near, *new] if epoch_of[i] == epoch)
                    held.setdefault(key, (variable, flag))
        return epoch_of, held


class Unfreeze(_Stages):
    """Keeps layers frozen from the start of `fit` until their epoch.

    Args:
        stages: dict of epochs (integers from 0, rising) and what begins to train with them: a
            layer of the model, a sub-model, the name of a layer, or a list of such. What is not
            listed trains from the start.
        freeze_statistics: whether moving statistics of frozen layers stand still too.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: before training, if there is no stage, or one that is empty, out of order or
            beyond the epochs of the fit; if a layer is unknown or has nothing that trains; if
            the model is not built, or not compiled with `optimizers.Masked`.

    Reference:
        Howard and Ruder, 2018, Section 3.3, https://arxiv.org/abs/1801.06146
    """

    def _is_frozen(self, epoch, at):
        return epoch < at


class Freeze(_Stages):
    """Trains layers from the start of `fit` until their epoch, from which on they are frozen.

    Args:
        stages: dict of epochs (integers from 0, rising) and what is frozen with them: a layer
            of the model, a sub-model, the name of a layer, or a list of such.
        freeze_statistics: whether moving statistics of frozen layers stand still too.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: as `Unfreeze`.

    Reference:
        Brock et al., 2017, https://arxiv.org/abs/1706.04983
    """

    def _is_frozen(self, epoch, at):
        return epoch >= at
