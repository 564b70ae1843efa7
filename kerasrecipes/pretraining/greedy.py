"""Greedy supervised pretraining: hidden blocks are trained one after another, then together.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.pretraining import greedy_supervised
    >>> hidden = [keras.layers.Dense(8, "sigmoid") for _ in range(3)]
    >>> model = keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(2, "softmax")])
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> x, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
    >>> histories = greedy_supervised(model, x, y, epochs=2, verbose=0)
    >>> len(histories)
    3
    >>> history = model.fit(x, y, epochs=1, verbose=0)  # fine-tuning of all layers

Suggested hyperparameters
    `epochs`: as many per block as you would give the whole network divided by its depth.
    `x`, `y`: all the training data. Fine-tune with the rate of the stages or a smaller one.

When not to use
    Where the right initialization or a normalization already makes the network train: in
    recipes/deep_sigmoid_greedy.py four times Glorot's start did as well (1307 errors of 10,000
    against 1355, Glorot's own start 1691: means of seeds 0 to 2, TensorFlow). It is "too greedy"
    (Bengio et al.): a block keeps what serves the labels now and may discard what a higher one
    needs.

Technical details
    A block begins at each layer with a kernel (a trainable weight of two or more axes) and takes
    along what follows it: activation, normalization, dropout, pooling, flattening. The last
    block is the head. Each stage trains one block of the model itself, under a fresh head, as a
    model of its own on the cached outputs of the blocks below, computed once in inference mode:
    frozen blocks cost no backward and no repeated forward pass, and frozen batch normalization
    keeps its statistics. A Flatten goes before a fresh head where the rank of the block's output
    is not the one that the model's own head takes. Optimizers are made anew from the compiled
    one's config; that one, and the model's compiled functions, are not touched. On an error or
    Ctrl-C all weights come back as they were.

Attribution
    Bengio, Lamblin, Popovici, Larochelle, Greedy Layer-Wise Training of Deep Networks, 2007,
    appendix "supervised greedy"; deck 004.
"""

import itertools
import warnings

import keras
import numpy as np
from keras import ops

from kerasrecipes._checks import integer
from kerasrecipes._model.batches import as_arrays, check_lengths
from kerasrecipes._model.graph import copy_layer
from kerasrecipes._model.state import check_ready, restored

# Layers whose weights may have several axes and yet are no kernel.
_WITHOUT_KERNEL = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
)


def greedy_supervised(model, x=None, y=None, *, epochs=1, **fit_kwargs):
    """Trains each hidden block of a chain of layers with a fresh head, from the bottom up.

    Args:
        model: built and compiled `keras.Model`, a chain of layers whose last block is the head;
            its weights are changed.
        x, y: whatever `fit` takes: arrays, a `PyDataset`, a `tf.data.Dataset`, a generator with
            `steps_per_epoch`.
        epochs: epochs of each stage.
        **fit_kwargs: further arguments of `fit`. `validation_data` must be arrays.

    Returns:
        A list of Keras `History`, one per hidden block.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is unbuilt or uncompiled, no chain, has no hidden block, or passes
            masks from block to block, if the data is empty or has NaN, or if the loss of a stage
            is not finite. Nothing has changed then.

    Reference:
        Bengio et al., 2007.
    """
    check_ready(model, compiled=True)
    integer("epochs", epochs, 1)
    x, y = _checked_data(x, y, fit_kwargs)
    blocks = split_into_blocks(model)
    stages = [_stage(model, block, blocks[-1]) for block in blocks[:-1]]
    callbacks = keras.tree.flatten(fit_kwargs.pop("callbacks", None) or [])
    found = [dict(vars(one)) for one in callbacks]
    histories = []
    try:
        with restored(model, always=False):
            data = {"x": x, "y": y, **fit_kwargs}
            for depth, (stage, _) in enumerate(stages):
                histories.append(stage.fit(**data, epochs=epochs, callbacks=list(callbacks)))
                _check_loss(histories[-1], depth)
                if depth < len(stages) - 1:
                    data = _through(keras.Sequential(stage.layers[: len(blocks[depth])]), data)
            for own, trained in zip(blocks[-1], stages[-1][1], strict=True):
                own.set_weights(trained.get_weights())
    finally:
        for one, attributes in zip(callbacks, found, strict=True):
            vars(one).clear()
            vars(one).update(attributes)
    return histories


def _checked_data(x, y, fit_kwargs):
    """`x` and `y` as the stages take them: arrays checked, a nest of one unpacked."""
    if x is None:
        raise ValueError("`x` is missing: pass what you would pass to `fit`.")
    if isinstance(x, (list, tuple, dict)):
        if len(x) != 1:
            raise ValueError(f"`x` must be one input, since the model is a chain. Got {len(x)}.")
        (x,) = x.values() if isinstance(x, dict) else x
    if hasattr(x, "__next__") and not fit_kwargs.get("steps_per_epoch"):
        raise ValueError("A generator as `x` needs `steps_per_epoch`, and must not run out.")
    validation = fit_kwargs.get("validation_data")
    if validation is not None and not isinstance(validation, (list, tuple)):
        raise ValueError(
            "`validation_data` must be a tuple of arrays (x, y), since each stage sees it through "
            f"the blocks below. Received a {type(validation).__name__}."
        )
    if not hasattr(x, "shape"):
        return x, y
    x, y = as_arrays("x", x), None if y is None else as_arrays("y", y)
    check_lengths(x=x, y=y)
    return x, y


def _check_loss(history, depth):
    losses = history.history.get("loss", [])
    if not np.isfinite(losses).all():
        raise ValueError(
            f"Stage {depth + 1} ended with a loss that is not finite: {losses[-1]}. Lower the "
            "learning rate or check the data; the weights are as before."
        )


def split_into_blocks(model):
    """The layers of a chain, in blocks that each begin with a layer that has a kernel.

    Args:
        model: built `keras.Model`.

    Returns:
        A list of lists of layers; the last one is the head.

    Raises:
        ValueError: if the model is no chain, passes masks, or has less than two blocks.
    """
    layers = _chain(model)
    blocks, leading = [], []
    for layer in layers:
        matrices = any(len(w.shape) > 1 for w in layer.trainable_weights)
        if matrices and not isinstance(layer, _WITHOUT_KERNEL):
            blocks.append([*leading, layer])
            leading = []
        elif blocks:
            blocks[-1].append(layer)
        else:
            leading.append(layer)
    if len(blocks) < 2:
        raise ValueError(
            f"`model` {model.name!r} has {len(blocks)} block(s) with trainable kernels: greedy "
            "pretraining needs at least one hidden block and a head."
        )
    return blocks


def _chain(model):
    layers = [one for one in model.layers if not isinstance(one, keras.layers.InputLayer)]
    masking = [
        one.name
        for one in layers
        if isinstance(one, keras.layers.Masking) or getattr(one, "mask_zero", False)
    ]
    if masking:
        raise ValueError(
            f"Layer {masking[0]!r} makes a mask, which cached outputs cannot carry to the next "
            "block. Use it without a mask."
        )
    if isinstance(model, keras.Sequential):
        return layers
    try:
        below = [model.inputs[0], *(one.output for one in layers)]
        broken = [
            one for one, source in zip(layers, below, strict=False) if one.input is not source
        ]
    except (AttributeError, TypeError, ValueError):
        broken = [model]
    if broken or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"`model` {model.name!r} must be a chain: Sequential, or Functional with one input, "
            "one output and no branch or shared layer. "
            f"The chain breaks at {broken[0].name if broken else 'its inputs or outputs'!r}."
        )
    return layers


def _stage(model, block, head):
    """A compiled model of one block, shared with `model`, under a fresh head."""
    fresh = [copy_layer(layer) for layer in head]
    entry = keras.Input(batch_shape=block[0].input.shape, dtype=block[0].input.dtype)
    inner = keras.Sequential([entry, *block])
    flatten = len(inner.output_shape) != len(head[0].input.shape)
    if flatten and None in inner.output_shape[1:]:
        raise ValueError(
            f"Block {block[0].name!r} has outputs of no fixed size {inner.output_shape}, so no "
            "head can be put on it. Give `keras.Input` a full shape."
        )
    stage = keras.Sequential(
        [entry, *block, *([keras.layers.Flatten()] if flatten else []), *fresh]
    )
    config = model.get_compile_config()
    stage.compile(
        optimizer=type(model.optimizer).from_config(model.optimizer.get_config()),
        loss=model.loss,
        loss_weights=config["loss_weights"],
        metrics=_fresh(config["metrics"]),
        weighted_metrics=_fresh(config["weighted_metrics"]),
        run_eagerly=model.run_eagerly,
        steps_per_execution=model.steps_per_execution,
        jit_compile=model.jit_compile,
    )
    return stage, fresh


def _fresh(metrics):
    try:
        return keras.saving.deserialize_keras_object(metrics)
    except (TypeError, ValueError) as error:
        warnings.warn(f"The stages run without metrics: {error}", stacklevel=4)
        return None


def _through(block, data):
    """The same data with `x` replaced by what `block` makes of it in inference mode."""
    data, settings = dict(data), {"verbose": 0, "batch_size": data.get("batch_size")}
    if data.get("validation_data") is not None:
        x, *rest = data["validation_data"]
        data["validation_data"] = (block.predict(x, **settings), *rest)
    if hasattr(data["x"], "shape"):
        data["x"] = block.predict(data["x"], **settings)
        return data
    return {**data, **_collected(block, data.pop("x"), data.pop("steps_per_epoch", None))}


def _collected(block, dataset, steps):
    """A data set, batch by batch, as arrays that `fit` takes."""
    if isinstance(dataset, keras.utils.PyDataset):
        dataset = map(dataset.__getitem__, range(len(dataset)))
    rows = []
    for batch in itertools.islice(dataset, steps):
        x, *rest = keras.utils.unpack_x_y_sample_weight(batch)
        rest = (None if r is None else ops.convert_to_numpy(ops.convert_to_tensor(r)) for r in rest)
        x = ops.convert_to_numpy(ops.convert_to_tensor(x))
        rows.append((block.predict_on_batch(x), *rest))
    if not rows:
        raise ValueError("`x` ran out after the first stage: pass a data set that can be repeated.")
    columns = zip(*rows, strict=True)
    x, y, weight = (None if c[0] is None else np.concatenate(c) for c in columns)
    return {"x": x, "y": y, "sample_weight": weight, "batch_size": len(rows[0][0])}
