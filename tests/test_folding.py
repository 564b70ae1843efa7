"""Folded batch normalization: the same function with fewer layers, and reasons for what stays."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.inference import fold_batch_normalization
from kerasrecipes.layers import (
    BatchRenormalization,
    MeanOnlyBatchNormalization,
    WeightNormalization,
)
from tests.entries.normalized import Forgets, own_call
from tests.problems import assert_unchanged, everything

L = keras.layers
BN = L.BatchNormalization


def randomized(model, seed=0):
    """`model` with statistics, scales, shifts and biases that no start has."""
    rng = np.random.default_rng(seed)
    draw = {
        "gamma": lambda shape: rng.uniform(0.5, 1.5, shape),
        "beta": lambda shape: rng.normal(size=shape),
        "moving_mean": lambda shape: rng.normal(size=shape),
        "moving_variance": lambda shape: rng.uniform(0.5, 2, shape),
        "bias": lambda shape: rng.normal(size=shape),
        "g": lambda shape: rng.uniform(0.5, 2, shape),
    }
    for weight in model.weights:
        if weight.path.split("/")[-1] in draw:
            weight.assign(draw[weight.path.split("/")[-1]](tuple(weight.shape)))
    return model


def outputs_of(model, x):
    found = keras.tree.flatten(model(x, training=False))
    return [ops.convert_to_numpy(ops.cast(one, "float32")) for one in found]


def inputs_of(model, size=3, seed=1):
    rng = np.random.default_rng(seed)
    given = [rng.normal(size=(size, *t.shape[1:])).astype("float32") for t in model.inputs]
    return given if len(given) > 1 else given[0]


def count(model):
    """How many normalizations are in a model, nested ones too, each once."""
    found, queue = {}, [model]
    while queue:
        for layer in getattr(queue.pop(), "layers", []):
            queue.append(layer)
            if isinstance(layer, (BN, MeanOnlyBatchNormalization)):
                found[id(layer)] = layer
    return len(found)


def check(model, folded, kept=(), tolerance=1e-5, x=None):
    """The same function, so many normalizations less, the reasons in order; the folded model."""
    randomized(model)
    x = inputs_of(model) if x is None else x
    before, total = everything(model), count(model)
    expected = outputs_of(model, x)
    new, report = fold_batch_normalization(model, return_report=True)
    assert_unchanged(model, before)
    for one, other in zip(outputs_of(new, x), expected, strict=True):
        assert one.shape == other.shape
        assert np.isfinite(other).all()
        apart = np.abs(one - other).max() / np.abs(other).max()
        print(f"{model.name}: {len(report.folded)} of {total} folded, {apart:.1e} apart")
        assert apart <= tolerance
    assert len(report.folded) == folded
    assert count(new) == total - folded
    assert len(report.kept) == len(kept)
    for reason, expected_reason in zip(report.kept.values(), kept, strict=True):
        assert expected_reason in reason
    assert f"{folded} of {folded + len(kept)} batch" in str(report)
    shared = {id(v) for v in model.variables} & {id(v) for v in new.variables}
    assert not shared
    assert not new.compiled
    return new


def chain(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


AFTER = {
    "dense": ((5,), lambda: [L.Dense(4), BN()]),
    "dense of rank 3, no bias": ((3, 5), lambda: [L.Dense(4, use_bias=False), BN()]),
    "no scale": ((5,), lambda: [L.Dense(4), BN(scale=False)]),
    "no center": ((5,), lambda: [L.Dense(4, use_bias=False), BN(center=False)]),
    "neither": ((5,), lambda: [L.Dense(4), BN(scale=False, center=False)]),
    "frozen": ((5,), lambda: [L.Dense(4), BN(trainable=False, epsilon=0.1)]),
    "conv1d": ((7, 3), lambda: [L.Conv1D(4, 3, padding="causal"), BN()]),
    "conv2d": ((6, 7, 3), lambda: [L.Conv2D(4, 3, padding="same", use_bias=False), BN()]),
    "grouped": ((6, 7, 4), lambda: [L.Conv2D(6, 3, groups=2), BN()]),
    "conv3d": ((4, 5, 6, 2), lambda: [L.Conv3D(3, 2), BN()]),
    "depthwise1d": ((7, 3), lambda: [L.DepthwiseConv1D(3, depth_multiplier=2), BN()]),
    "depthwise2d": ((6, 6, 3), lambda: [L.DepthwiseConv2D(3, depth_multiplier=2), BN()]),
    "separable1d": ((7, 3), lambda: [L.SeparableConv1D(4, 3, use_bias=False), BN()]),
    "separable2d": ((6, 6, 3), lambda: [L.SeparableConv2D(4, 3, padding="same"), BN()]),
    "transposed1d": ((7, 3), lambda: [L.Conv1DTranspose(4, 3), BN()]),
    "transposed2d": ((5, 5, 3), lambda: [L.Conv2DTranspose(4, 3, strides=2), BN()]),
    "transposed3d": ((3, 4, 4, 2), lambda: [L.Conv3DTranspose(3, 2, use_bias=False), BN()]),
    "einsum": ((4, 5), lambda: [L.EinsumDense("abc,cd->abd", (4, 6)), BN()]),
    "einsum, first unit": (
        (4, 5),
        lambda: [L.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="e"), BN(axis=2)],
    ),
    "einsum, other bias": (
        (4, 5),
        lambda: [L.EinsumDense("abc,cd->abd", (4, 6), bias_axes="b"), BN()],
    ),
    "einsum, ellipsis": (
        (4, 5),
        lambda: [L.EinsumDense("...c,cd->...d", 6, bias_axes="d"), BN()],
    ),
    "weight norm": ((5,), lambda: [WeightNormalization(L.Dense(4, use_bias=False)), BN()]),
    "weight norm, transposed": (
        (5, 5, 3),
        lambda: [WeightNormalization(L.Conv2DTranspose(4, 3)), BN()],
    ),
    "batch renorm": ((5,), lambda: [L.Dense(4), BatchRenormalization(r_max=3.0)]),
    "Keras's renorm": ((5,), lambda: [L.Dense(4), BN(renorm=True)]),
    "mean only": ((5,), lambda: [WeightNormalization(L.Dense(4)), MeanOnlyBatchNormalization()]),
    "dropout between": ((5,), lambda: [L.Dense(4), L.Dropout(0.5), BN()]),
    "average pooling between": ((6, 6, 3), lambda: [L.Conv2D(4, 3), L.AveragePooling2D(2), BN()]),
    "maximum pooling between": ((6, 6, 3), lambda: [L.Conv2D(4, 3), L.MaxPooling2D(), BN()]),
}
BEFORE = {
    "dense": ((5,), lambda: [BN(), L.Dense(4, "relu", use_bias=False)]),
    "dense of rank 3": ((3, 5), lambda: [BN(), L.Dense(4)]),
    "conv1d": ((7, 3), lambda: [BN(), L.Conv1D(4, 3, strides=2, use_bias=False)]),
    "conv2d": ((6, 7, 3), lambda: [BN(), L.Conv2D(4, 3, dilation_rate=2)]),
    "pointwise, padded": ((6, 7, 3), lambda: [BN(), L.Conv2D(4, 1, strides=2, padding="same")]),
    "grouped": ((6, 7, 4), lambda: [BN(), L.Conv2D(6, 3, groups=2)]),
    "conv3d": ((4, 5, 6, 2), lambda: [BN(), L.Conv3D(3, 2)]),
    "depthwise1d": ((7, 3), lambda: [BN(), L.DepthwiseConv1D(3, depth_multiplier=2)]),
    "depthwise2d": ((6, 6, 3), lambda: [BN(), L.DepthwiseConv2D(3, use_bias=False)]),
    "separable1d": ((7, 3), lambda: [BN(), L.SeparableConv1D(4, 3, depth_multiplier=2)]),
    "separable2d": ((6, 6, 3), lambda: [BN(), L.SeparableConv2D(4, 3, use_bias=False)]),
    "einsum": ((4, 5), lambda: [BN(), L.EinsumDense("abc,cd->abd", (4, 6))]),
    "einsum, two units": (
        (4, 5),
        lambda: [BN(), L.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="d")],
    ),
    "einsum, an axis that stays": (
        (4, 5),
        lambda: [BN(axis=1), L.EinsumDense("abc,bcd->abd", (4, 3), bias_axes="d")],
    ),
    "weight norm": ((5,), lambda: [BN(), WeightNormalization(L.Dense(4))]),
    "flatten": ((4, 3, 2), lambda: [L.ReLU(), BN(), L.Flatten(), L.Dropout(0.1), L.Dense(4)]),
    "flatten, first axis": ((4, 3, 2), lambda: [L.ReLU(), BN(axis=1), L.Flatten(), L.Dense(4)]),
    "global pooling": ((4, 4, 2), lambda: [BN(), L.GlobalAveragePooling2D(), L.Dense(4)]),
    "global pooling, axes kept": (
        (4, 4, 2),
        lambda: [BN(), L.GlobalAveragePooling2D(keepdims=True), L.Conv2D(4, 1)],
    ),
    "maximum pooling": ((6, 6, 2), lambda: [BN(), L.MaxPooling2D(), L.Conv2D(4, 2)]),
    "two on one side": ((5,), lambda: [L.ReLU(), BN(), BN(), L.Dense(4)]),
}


@pytest.mark.parametrize("case", AFTER)
def test_after_a_linear_layer(case):
    shape, layers = AFTER[case]
    model = chain(shape, *layers())
    new = check(model, 1)
    assert isinstance(new, keras.Sequential)
    assert [one.name for one in new.layers] == [one.name for one in model.layers][:-1]


@pytest.mark.parametrize("case", BEFORE)
def test_before_a_linear_layer(case):
    shape, layers = BEFORE[case]
    model = chain(shape, *layers())
    check(model, count(model))


def test_between_two_linear_layers_and_two_in_a_row():
    model = chain((5,), BN(), L.Dense(4), BN(), BN(), L.ReLU(), BN(), L.Dense(3), BN())
    new = check(model, 5)
    assert [type(one) for one in new.layers] == [L.Dense, L.ReLU, L.Dense]


def training(layer):
    """A Functional model in which `layer` follows a Dense and is called in training mode."""
    inputs = keras.Input((5,))
    return keras.Model(inputs, layer(L.Dense(4)(inputs), training=True))


class Doubled(L.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Own(BN):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def quantized():
    model = chain((5,), L.Dense(4), BN(), L.ReLU())
    model.layers[0].quantize("int8")
    return model


def with_lora():
    dense = L.Dense(4)
    model = chain((5,), dense, BN(), L.ReLU())
    dense.enable_lora(2)
    return model


def negative_scale():
    model = chain((6, 6, 2), L.ReLU(name="relu"), BN(), L.MaxPooling2D(), L.Conv2D(4, 2))
    norm = model.layers[1]
    norm.gamma_initializer = "ones"
    return model


KEPT = {
    "an activation of the layer": (
        lambda: chain((5,), L.Dense(4, "relu", name="d"), BN()),
        "before it, 'd' has an activation; after it, the model returns its output",
    ),
    "an activation between": (
        lambda: chain((5,), L.Dense(4), L.ReLU(name="r"), BN(), L.ReLU(name="s"), L.Dense(1)),
        "'r' (ReLU) is not linear or not known; after it, 's' (ReLU)",
    ),
    "zero padding": (
        lambda: chain((6, 6, 2), BN(), L.Conv2D(3, 3, padding="same", name="c")),
        "before it, the model receives its input; after it, the zeros with which 'c' pads",
    ),
    "separable with zero padding": (
        lambda: chain((6, 6, 2), BN(), L.SeparableConv2D(3, 3, padding="same", name="c")),
        "the zeros with which 'c' pads",
    ),
    "causal padding": (
        lambda: chain((6, 2), BN(), L.Conv1D(3, 3, padding="causal", name="c")),
        "the zeros with which 'c' pads",
    ),
    "padding in its own layer": (
        lambda: chain((6, 6, 2), BN(), L.ZeroPadding2D(name="z"), L.Conv2D(3, 3)),
        "'z' (ZeroPadding2D)",
    ),
    "before a transposed convolution": (
        lambda: chain((6, 6, 2), BN(), L.Conv2DTranspose(3, 3, name="t")),
        "the edges of 't' see fewer taps",
    ),
    "another axis": (
        lambda: chain((3, 5), L.Dense(4, name="d"), BN(axis=1)),
        "it normalizes axis 1, along which 'd' has no weights",
    ),
    "another axis, before": (
        lambda: chain((3, 5), BN(axis=1), L.Dense(4, name="d")),
        "it normalizes axis 1",
    ),
    "another axis, pooled": (
        lambda: chain((4, 4, 3), BN(axis=1), L.GlobalAveragePooling2D(name="g"), L.Dense(2)),
        "'g' (GlobalAveragePooling2D)",
    ),
    "another axis, maxima": (
        lambda: chain((4, 4, 3), BN(axis=1), L.MaxPooling2D(name="m"), L.Conv2D(2, 1)),
        "'m' (MaxPooling2D)",
    ),
    "an average that counts padding": (
        lambda: chain(
            (5, 5, 3), BN(), L.AveragePooling2D(2, padding="same", name="a"), L.Conv2D(2, 1)
        ),
        "'a' (AveragePooling2D)",
    ),
    "no weights along the axis": (
        lambda: chain((4, 5), L.EinsumDense("abc,cd->abd", (4, 6), name="e"), BN(axis=1)),
        "'e' has no weights along axis 1",
    ),
    "ellipsis": (
        lambda: chain((4, 5), BN(axis=1), L.EinsumDense("...c,cd->...d", 6, name="e")),
        "'e' has no weights along axis 1",
    ),
    "a sum without weights": (
        lambda: chain((4, 5), BN(), L.EinsumDense("abc,cd->ad", (6,), name="e")),
        "'e' sums an axis without weights",
    ),
    "no units": (
        lambda: chain((4, 5), BN(), L.EinsumDense("abc,c->ab", (4,), name="e")),
        "'e' has no units",
    ),
    "training=True": (
        lambda: training(BN()),
        "called with training=True and uses the statistics of the batch",
    ),
    "training=True around it": (lambda: training(chain((4,), L.Dense(2), BN())), "training=True"),
    "a subclass of Dense": (lambda: chain((5,), Doubled(4, name="d"), BN()), "'d' (Doubled)"),
    "a subclass of the norm": (
        lambda: chain((5,), L.Dense(4), Own()),
        "Own has a `call` of its own",
    ),
    "quantized": (quantized, "has LoRA or quantized weights"),
    "LoRA": (with_lora, "has LoRA or quantized weights"),
    "another precision": (
        lambda: chain((5,), L.Dense(4, dtype="mixed_bfloat16", name="d"), BN()),
        "'d' computes in bfloat16, it in float32",
    ),
    "time distributed": (
        lambda: chain((3, 5), L.TimeDistributed(L.Dense(4)), BN(), L.ReLU()),
        "(TimeDistributed)",
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_cannot_be_folded_stays_with_the_reason(case):
    make, reason = KEPT[case]
    check(make(), 0, [reason])


def test_maxima_let_no_negative_scale_pass():
    model = chain((6, 6, 2), L.Conv2D(3, 2), L.MaxPooling2D(name="m"), BN())
    norm = model.layers[2]
    randomized(model)
    norm.gamma.assign([1.0, -1.0, 1.0])
    x = inputs_of(model)
    new, report = fold_batch_normalization(model, return_report=True)
    assert not report.folded and "'m' (MaxPooling2D)" in report.kept[norm.name]
    np.testing.assert_array_equal(outputs_of(new, x)[0], outputs_of(model, x)[0])


def test_statistics_that_are_not_finite_stay():
    model = chain((5,), L.Dense(4), BN())
    model.layers[1].moving_mean.assign([1.0, np.nan, 1.0, 1.0])
    _, report = fold_batch_normalization(model, return_report=True)
    assert "not finite" in report.kept[model.layers[1].name]


def test_channels_first():
    with_axis = [
        L.Conv2D(4, 3, data_format="channels_first", use_bias=False),
        BN(axis=1),
        L.ReLU(),
        BN(axis=1),
        L.Conv2D(3, 2, data_format="channels_first"),
    ]
    model = chain((3, 6, 6), *with_axis)
    if keras.backend.backend() == "tensorflow":  # whose CPU kernels are channels last only
        _, report = fold_batch_normalization(randomized(model), return_report=True)
        assert len(report.folded) == 2
    else:
        check(model, 2)


# Graphs


def residual(shortcut, merge=L.Add):
    inputs = keras.Input((6, 6, 3))
    x = L.Conv2D(4, 3, padding="same", use_bias=False, name="first")(inputs)
    x = L.ReLU()(BN()(x))
    branch = BN()(L.Conv2D(4, 3, padding="same")(x))
    x = merge()([BN()(L.Conv2D(4, 1)(x)) if shortcut else x, branch])
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(L.ReLU()(x))))


def test_residual_branches():
    check(residual(False), 2)
    check(residual(True), 3)


@pytest.mark.parametrize("merge", [L.Add, L.Average])
def test_through_a_sum_into_its_branches(merge):
    inputs, shared = keras.Input((5,)), L.Dense(4)
    terms = [shared(inputs), L.Dropout(0.5)(L.Dense(4)(inputs)), shared(L.ReLU()(inputs))]
    new = check(keras.Model(inputs, BN()(merge()(terms))), 1)
    assert len(new.layers) == 6


def test_through_a_concatenation():
    inputs = keras.Input((4, 5))
    for axis in (-1, 1):
        parts = [L.Dense(3)(inputs), L.Dense(3, use_bias=False)(inputs)]
        check(keras.Model(inputs, BN()(L.Concatenate(axis=axis)(parts))), 1)
    for axis in (-1, 1):
        parts = [L.Dense(3)(inputs), L.EinsumDense("abc,bcd->abd", (4, 3), bias_axes="bd")(inputs)]
        model = keras.Model(inputs, BN(axis=1)(L.Concatenate(axis=axis)(parts)))
        check(model, 0, ["it normalizes axis 1"])


def test_a_sum_with_what_is_not_linear_stays_and_changes_nothing():
    inputs = keras.Input((5,))
    terms = [L.Dense(5, name="d")(inputs), inputs]
    check(keras.Model(inputs, BN()(L.Add()(terms))), 0, ["the model receives its input"])
    wide = [L.Dense(4)(inputs), L.Dense(1)(inputs)]
    check(keras.Model(inputs, BN()(L.Add(name="a")(wide))), 0, ["'a' (Add)"])


def test_several_readers():
    inputs = keras.Input((5,))
    x = L.Dense(4, name="d")(inputs)
    model = keras.Model(inputs, [BN()(x), L.ReLU(name="r")(x)])
    check(model, 0, ["before it, 'r' also reads the output of 'd'"])
    model = keras.Model(inputs, [L.ReLU()(BN()(x)), x])
    check(model, 0, ["before it, the model also returns the output of 'd'"])
    # Both readers of the normalization are linear, so both take it.
    normed = BN()(L.ReLU()(inputs))
    check(keras.Model(inputs, [L.Dense(2)(normed), L.Dense(3)(normed)]), 1)
    # One of them is not, so neither does.
    model = keras.Model(inputs, [L.Dense(2)(normed), L.ReLU(name="r")(normed)])
    check(model, 0, ["after it, 'r' (ReLU)"])


def test_a_folded_norm_that_the_model_returns_is_not_folded_over():
    inputs = keras.Input((5,))
    first = BN()(L.Dense(4, name="d")(inputs))
    model = keras.Model(inputs, [first, BN()(first)])
    check(model, 1, ["the model also returns the output of 'd'"])


def test_shared_layers():
    inputs, other = keras.Input((5,)), keras.Input((5,))
    dense, norm = L.Dense(4, name="d"), BN(name="n")
    both = [norm(dense(inputs)), norm(dense(other))]
    check(keras.Model([inputs, other], both), 1)
    dense, norm = L.Dense(4, name="d"), BN(name="n")
    model = keras.Model([inputs, other], [norm(dense(inputs)), dense(other)])
    check(model, 0, ["before it, 'd' is called elsewhere too"])
    dense = L.Dense(4, name="d")
    model = keras.Model([inputs, other], [BN()(dense(inputs)), BN()(dense(other))])
    check(model, 0, ["'d' is called elsewhere too"] * 2)
    norm = BN(name="n")
    model = keras.Model([inputs, other], [norm(L.Dense(4)(inputs)), norm(L.Dense(4)(other))])
    check(model, 1)
    dense, norm = L.Dense(4, name="d"), BN(name="n")
    model = keras.Model([inputs, other], [dense(norm(inputs)), dense(other)])
    check(model, 0, ["after it, 'd' is called elsewhere too"])


def test_nested_models_are_folded_inside_themselves():
    block = keras.Sequential([L.Dense(5, use_bias=False), BN(), L.ReLU()], name="block")
    inputs = keras.Input((5,))
    inner_inputs = keras.Input((5,))
    inner = keras.Model(inner_inputs, block(BN(name="b")(L.Dense(5)(inner_inputs))), name="inner")
    model = keras.Model(inputs, {"a": inner(block(inputs)), "b": block(inner(inputs))})
    new = check(model, 2)
    assert count(new) == 0
    assert new.output.keys() == {"a", "b"}
    assert [one.name for one in new.layers] == [one.name for one in model.layers]
    assert isinstance(new.get_layer("block"), keras.Sequential)
    assert new.get_layer("inner").get_layer("block") is new.get_layer("block")
    _, report = fold_batch_normalization(model, return_report=True)
    assert "inner/b" in report.folded


def test_named_inputs_keep_their_names():
    given = {name: keras.Input((5,), name=name) for name in ("left", "right")}
    model = keras.Model(given, BN()(L.Dense(4)(L.Add()(list(given.values())))))
    new = fold_batch_normalization(randomized(model))
    x = {name: np.random.default_rng(i).normal(size=(3, 5)) for i, name in enumerate(given)}
    assert new.input.keys() == given.keys()
    np.testing.assert_allclose(new.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4)


def test_a_layer_of_two_models_stays():
    dense, norm = L.Dense(4, name="d"), BN()
    inner = chain((5,), dense, norm)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, [inner(inputs), dense(inputs)])
    check(model, 0, ["'d' is part of several models"])
    model = keras.Model(inputs, [chain((5,), L.Dense(4), norm)(inputs), norm(L.Dense(4)(inputs))])
    report = fold_batch_normalization(model, return_report=True)[1]
    assert not report.folded and "part of several models" in next(iter(report.kept.values()))


def test_a_nested_model_that_is_once_in_training_mode_stays():
    inner, inputs = chain((5,), L.Dense(5), BN()), keras.Input((5,))
    for order in ((True, False), (False, True)):
        x = inputs
        for mode in order:
            x = inner(x, training=mode)
        check(keras.Model(inputs, x), 0, ["training=True"])


def test_what_is_inside_a_layer_without_graph_stays_and_is_named():
    class Block(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense, self.norm = L.Dense(4), BN(name="inside")

        def build(self, input_shape):
            self.dense.build(input_shape)
            self.norm.build((None, 4))

        def call(self, inputs, training=None):
            return self.norm(self.dense(inputs), training=training)

    model = chain((5,), L.Dense(5), BN(), Block(name="block"))
    new, report = fold_batch_normalization(randomized(model), return_report=True)
    x = inputs_of(model)
    np.testing.assert_allclose(outputs_of(new, x)[0], outputs_of(model, x)[0], rtol=1e-4, atol=1e-5)
    assert len(report.folded) == 1
    assert report.kept == {"block/inside": "'block' (Block) is no graph of layers"}


def test_hidden_norms_of_one_name_are_told_apart():
    class Unit(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.norm = BN(name="bn")

        def build(self, input_shape):
            self.norm.build(input_shape)

        def call(self, inputs, training=None):
            return self.norm(inputs, training=training)

    class Block(Unit):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.units = [Unit(), Unit()]

        def build(self, input_shape):
            for one in (self.norm, *self.units):
                one.build(input_shape)

        def call(self, inputs, training=None):
            for one in (self.norm, *self.units):
                inputs = one(inputs, training=training)
            return inputs

    model = chain((5,), L.Dense(5), BN(), Block(name="block"))
    _, report = fold_batch_normalization(randomized(model), return_report=True)
    assert len(report.folded) + len(report.kept) == 4
    assert list(report.kept) == ["block/bn", "block/bn (2)", "block/bn (3)"]


def test_operations_constants_and_lambdas_are_carried_over():
    inputs, factor = keras.Input((5,)), np.arange(4, dtype="float32")
    x = ops.relu(BN()(L.Dense(4)(inputs))) * factor
    shifted = L.Lambda(lambda t: t + factor[2], output_shape=lambda shape: shape)(x)
    x = ops.concatenate([x, shifted, L.Normalization(mean=1.0, variance=4.0)(x)], axis=-1)
    check(keras.Model(inputs, x), 1)


def test_adapted_preprocessing_is_carried_over():
    scale = L.Normalization()
    scale.adapt(np.random.default_rng(0).normal(3, 2, size=(50, 5)))
    check(chain((5,), scale, L.Dense(4), BN(), L.ReLU()), 1)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="look-ups need TensorFlow")
def test_an_adapted_table_is_carried_over():
    lookup = L.IntegerLookup(output_mode="one_hot")
    lookup.adapt(np.array([3, 5, 8]))
    model = randomized(keras.Sequential([lookup, L.Dense(4), BN()]))
    x = np.array([3, 8, 1])
    expected = outputs_of(model, x)[0]
    np.testing.assert_allclose(
        outputs_of(fold_batch_normalization(model), x)[0], expected, rtol=1e-5, atol=1e-6
    )


def test_a_class_on_the_functional_constructor_is_a_graph():
    class Own(keras.Model):
        def __init__(self):
            inputs = keras.Input((5,))
            super().__init__(inputs, BN()(L.Dense(4)(inputs)))

    check(Own(), 1)


def test_a_compiled_model_whose_loss_cannot_be_saved():
    model = chain((5,), L.Dense(4), BN())
    model.compile("adam", lambda y, p: ops.mean(y - p), metrics=["accuracy"])
    check(model, 1)


@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 3e-3), ("mixed_bfloat16", 3e-2)])
def test_half_precision_folds_to_its_rounding(policy, tolerance):
    keras.config.set_dtype_policy(policy)
    model = chain((5,), L.Dense(4, use_bias=False), BN(), L.ReLU(), BN(), L.Dense(3))
    new = check(model, 2, tolerance=tolerance)
    assert {layer.compute_dtype for layer in new.layers} == {policy.removeprefix("mixed_")}
    assert {v.dtype for v in new.weights} == {"float32"}


def test_the_new_model_is_saved_without_us(tmp_path):
    new = check(residual(True), 3)
    new.save(tmp_path / "folded.keras")
    text = str(new.to_json())
    assert "kerasrecipes" not in text
    loaded, x = keras.saving.load_model(tmp_path / "folded.keras"), inputs_of(new)
    np.testing.assert_array_equal(outputs_of(loaded, x)[0], outputs_of(new, x)[0])


def test_the_report_prints():
    model = chain((5,), L.Dense(4, name="d"), BN(name="a"), L.ReLU(name="r"), BN(name="b"))
    report = fold_batch_normalization(model, return_report=True)[1]
    assert str(report).splitlines() == [
        "1 of 2 batch normalizations folded.",
        "a: into d",
        "b: kept; before it, 'r' (ReLU) is not linear or not known; "
        "after it, the model returns its output",
    ]


def unbuilt():
    return keras.Sequential([L.Dense(4), BN()])


@pytest.mark.parametrize(
    "make, message",
    [
        (unbuilt, "Build it first"),
        (own_call, "has a `call` of its own"),
        (lambda: chain((5,), L.Dense(4, name="d"), L.ReLU()), "no BatchNormalization"),
        (lambda: chain((5,), BN(), Forgets(4)), "cannot be copied"),
    ],
    ids=["unbuilt", "own call", "nothing to fold", "no copy"],
)
def test_a_refused_model_stays_as_it_was(make, message):
    model = make()
    model.trainable = False
    model.compile("sgd", "mse")
    before, built = everything(model), model.built
    with pytest.raises(ValueError, match=message):
        fold_batch_normalization(model)
    assert_unchanged(model, before)
    assert model.built == built


# Models that people use

# name: smallest input, how many normalizations are folded, how many stay.
APPLICATIONS = {
    "DenseNet121": (32, 59, 62),
    "EfficientNetB0": (32, 49, 0),
    "EfficientNetV2B0": (32, 59, 0),
    "InceptionResNetV2": (75, 204, 0),
    "InceptionV3": (75, 94, 0),
    "MobileNet": (32, 27, 0),
    "MobileNetV2": (32, 52, 0),
    "MobileNetV3Large": (32, 46, 0),
    "MobileNetV3Small": (32, 34, 0),
    "NASNetMobile": (32, 192, 0),
    "ResNet50": (32, 53, 0),
    "ResNet50V2": (32, 32, 17),
    "Xception": (71, 40, 0),
}


def check_application(name):
    size, folded, kept = APPLICATIONS[name]
    settings = {"weights": None, "classifier_activation": None, "classes": 10}
    settings |= {"alpha": 0.35} if name == "MobileNetV2" else {}
    model = getattr(keras.applications, name)(input_shape=(size, size, 3), **settings)
    x = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    check(model, folded, [""] * kept, x=x)


@pytest.mark.parametrize("name", ["DenseNet121", "EfficientNetB0", "MobileNetV2"])
def test_keras_applications(name):
    check_application(name)


@pytest.mark.evidence
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_family_of_keras_applications(name):
    if name == "NASNetMobile" and keras.backend.backend() == "torch":
        pytest.skip("Keras does not offer NASNet on PyTorch")
    check_application(name)
