"""Layers with knobs: exact at both ends, moved mid-fit against NumPy, resumed bit for bit."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.callbacks._knobs import find_knob
from kerasrecipes.layers import (
    AnnealedDropout,
    AnnealedGaussianNoise,
    BatchRenormalization,
    GaussianBlur2D,
    MollifiedActivation,
)
from kerasrecipes.objective import Objective
from tests import references
from tests.entries.knob_layers import blurred, corrected
from tests.problems import classes, images, network, values

BACKEND = keras.config.backend()
X, Y = classes(count=48, features=12)
RATE, BATCH = 0.3, 8


def array(tensor):
    return ops.convert_to_numpy(tensor)


class Moves(keras.callbacks.Callback):
    """Before batch i sets the knobs to `rows[i]`; notes the weights of the head after each."""

    def __init__(self, targets, rows):
        super().__init__()
        self.targets, self.rows, self.path, self.calls = targets, rows, [], []

    def on_train_begin(self, logs=None):
        self.knobs = [find_knob(self.model, target) for target in self.targets]

    def on_train_batch_begin(self, batch, logs=None):
        for knob, value in zip(self.knobs, self.rows[batch], strict=True):
            knob.write(value)

    def on_train_batch_end(self, batch, logs=None):
        head = self.model.get_layer("head")
        self.path.append(np.concatenate([w.ravel() for w in values(head.trainable_variables)]))
        self.calls.append(COUNT["calls"])


COUNT = {"calls": 0}


class Counts(keras.layers.Layer):
    """Counts how often Python runs through it."""

    def call(self, inputs):
        COUNT["calls"] += 1
        return inputs


def _dropped(rows):
    """Inputs to the head, batch by batch."""
    draws = keras.random.SeedGenerator(4)
    for part, (rate,) in rows:
        uniform = array(keras.random.uniform(part.shape, seed=draws))
        yield np.where(uniform >= rate, part / max(1 - rate, 1e-7), 0)


def _noisy(rows):
    draws = keras.random.SeedGenerator(4)
    for part, (stddev,) in rows:
        yield part + stddev * array(keras.random.normal(part.shape, seed=draws))


def _renormalized(rows):
    mean, sigma = np.zeros(12), np.sqrt(np.ones(12) + 1e-3)
    for part, limits in rows:
        outputs, mean, sigma = corrected(part, mean, sigma, 0.5, 1e-3, *limits)
        yield outputs


PICTURE = keras.layers.Reshape((3, 4, 1)), keras.layers.Flatten()
# The layers, the knobs, their values at six batches, and the head's inputs in NumPy.
MOVED = {
    "dropout": (
        lambda: [AnnealedDropout(0.9, seed=4, name="a")],
        ["a.rate"],
        [(0.5,), (0.0,), (1.0,), (0.2,), (0.9,), (0.0,)],
        _dropped,
    ),
    "noise": (
        lambda: [AnnealedGaussianNoise(9.0, seed=4, name="a")],
        ["a.stddev"],
        [(0.5,), (0.0,), (2.0,), (0.1,), (0.0,), (1.0,)],
        _noisy,
    ),
    "mollified": (
        lambda: [MollifiedActivation("tanh", name="a")],
        ["a.p"],
        [(1.0,), (0.8,), (0.5,), (0.1,), (0.0,), (1.0,)],
        lambda rows: ((1 - p) * np.tanh(part) + p * part for part, (p,) in rows),
    ),
    "blur": (
        lambda: [PICTURE[0], GaussianBlur2D(2.0, name="a"), PICTURE[1]],
        ["a.sigma"],
        [(2.0,), (1.0,), (0.3,), (0.0,), (1.5,), (0.0,)],
        lambda rows: (
            blurred(part.reshape(-1, 3, 4, 1), sigma, 8).reshape(part.shape)
            for part, (sigma,) in rows
        ),
    ),
    "renorm": (
        lambda: [BatchRenormalization(momentum=0.5, center=False, scale=False, name="a")],
        ["a.r_max", "a.d_max"],
        [(1.0, 0.0), (1.1, 0.0), (1.5, 0.2), (3.0, 5.0), (1.0, 0.1), (1.0, 0.0)],
        _renormalized,
    ),
}


@pytest.mark.parametrize("case", MOVED)
def test_every_move_within_a_fit_is_heard_by_the_next_batch(case):
    """The head's whole path equals the NumPy loop's, and nothing is traced again."""
    make, targets, rows, inputs = MOVED[case]
    model = network(*make(), Counts(), features=12, optimizer=keras.optimizers.SGD(RATE))
    if BACKEND == "tensorflow" and case in ("dropout", "noise"):
        model.jit_compile = False  # under XLA, TensorFlow draws other numbers than eagerly
    head = model.get_layer("head")
    w = np.concatenate([v.ravel() for v in values(head.trainable_variables)])
    moves = Moves(targets, rows)
    model.fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[moves])
    parts = [X[i : i + BATCH] for i in range(0, 48, BATCH)]
    labels = [Y[i : i + BATCH] for i in range(0, 48, BATCH)]
    for z, y, ours in zip(inputs(zip(parts, rows, strict=True)), labels, moves.path, strict=True):
        w = w - RATE * references.softmax_regression(w, z, y, 3)[1]
        np.testing.assert_allclose(ours, w, rtol=1e-4, atol=1e-5)
    if BACKEND != "torch":  # which traces nothing
        assert len(set(moves.calls)) == 1


@pytest.mark.parametrize("make", [AnnealedDropout, AnnealedGaussianNoise])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_resumed_run_draws_what_the_uninterrupted_one_would_have(make, seed, tmp_path):
    def model():
        keras.utils.set_random_seed(1)
        return network(make(0.4, seed=seed), features=12)

    settings = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    whole, first = model(), model()
    losses = whole.fit(X, Y, epochs=4, **settings).history["loss"]
    first.fit(X, Y, epochs=2, **settings)
    first.save_weights(tmp_path / "m.weights.h5")
    keras.utils.set_random_seed(99)  # which no draw may depend on
    other = model()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "m.weights.h5")
    keras.utils.set_random_seed(98)
    resumed = other.fit(X, Y, epochs=2, **settings).history["loss"]
    assert resumed == losses[2:]


def test_dropout_is_the_identity_at_0_and_zero_at_1_with_its_gradient():
    x = np.array([[-0.0, 1e-30, 3.0, -5.0]] * 3, "float32")
    for policy in ("float32", "mixed_float16"):
        layer = AnnealedDropout(0.0, dtype=policy)
        y = array(layer(x, training=True))
        np.testing.assert_array_equal(np.signbit(y), np.signbit(x.astype(y.dtype)))
        np.testing.assert_array_equal(y, x.astype(y.dtype))
        layer.rate = 1.0
        np.testing.assert_array_equal(array(layer(x, training=True)), 0)
    model = network(keras.layers.Dense(4), AnnealedDropout(1.0), features=12)
    objective = Objective(model, X, Y, training=True)
    _, gradient = objective.value_and_gradient(objective.get_vector())
    assert np.isfinite(gradient).all() and not gradient[: 13 * 4].any()
    assert gradient[-3:].any()


def test_a_rate_that_half_precision_cannot_hold():
    """0.9999 is 1 in float16: everything would be dropped."""
    layer = AnnealedDropout(0.9999, seed=0, dtype="mixed_float16")
    y = array(layer(np.full((2000, 500), 1e-3, "float32"), training=True)).astype("float32")
    assert 50 < (y > 0).sum() < 160
    np.testing.assert_allclose(y[y > 0], 10, rtol=1e-2)


def test_a_lower_rate_drops_a_part_of_what_a_higher_one_drops():
    x, kept = np.ones((40, 50), "float32"), []
    for rate in (0.2, 0.5, 0.8):
        y = array(AnnealedDropout(rate, seed=1)(x, training=True))
        kept.append(y > 0)
        np.testing.assert_allclose(y[y > 0], 1 / (1 - rate), rtol=1e-5)
        # Five standard errors of the share kept.
        assert abs(kept[-1].mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / x.size)
    assert (kept[1] <= kept[0]).all() and (kept[2] <= kept[1]).all()


def test_noise_of_deviation_0_is_the_identity_bit_for_bit():
    x = np.array([[-0.0, 0.0, 1e-30, np.inf, -3.1]] * 20, "float32")
    y = array(AnnealedGaussianNoise(0.0)(x, training=True))
    np.testing.assert_array_equal(y.view("int32"), x.view("int32"))


def test_a_mollified_network_is_affine_at_1_and_itself_at_0():
    activations = [MollifiedActivation(name) for name in ("tanh", "relu", "sigmoid")]
    model = keras.Sequential([keras.Input((12,))])
    for one in activations:
        model.add(keras.layers.Dense(5, bias_initializer="normal"))
        model.add(one)
    map_, shift = np.eye(12), np.zeros(12)
    for kernel, bias in zip(*[iter(values(model.trainable_variables))] * 2, strict=True):
        map_, shift = map_ @ kernel, shift @ kernel + bias
    np.testing.assert_allclose(array(model(X)), X @ map_ + shift, rtol=1e-4, atol=1e-5)
    for one in activations:
        one.p = 0.0
        bare = getattr(keras.activations, one.activation.__name__)
        for dtype in ("float32", "float16"):
            x = ops.cast(X, dtype)
            ours = array(MollifiedActivation(bare, 0.0, dtype=dtype)(x))
            np.testing.assert_array_equal(ours, array(bare(x)))
            line = array(MollifiedActivation(bare, 1.0, dtype=dtype)(x))
            np.testing.assert_array_equal(line, array(x))
    plain = keras.Sequential(
        [keras.layers.Activation(m.activation) if m in activations else m for m in model.layers]
    )
    np.testing.assert_array_equal(array(model(X)), array(plain(X)))


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_affine_at_1_also_where_the_activation_overflows(dtype):
    x = np.array([[-1.0, 0.0, 100.0, 6e4]], "float32")
    layer = MollifiedActivation("exponential", 1.0, dtype=dtype)
    np.testing.assert_array_equal(array(layer(x)), x.astype(layer.compute_dtype))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, use_bias=False), layer])
    model.layers[0].kernel.assign(np.eye(4))
    model.compile(keras.optimizers.SGD(2.0**-20), lambda y, out: ops.sum(out, axis=-1))
    model.fit(x, x, verbose=0)
    expected = np.eye(4) - np.repeat(x.T, 4, axis=1) / 2**20
    np.testing.assert_allclose(array(model.layers[0].kernel), expected, rtol=1e-6, atol=1e-7)
    layer.p = 0.0
    np.testing.assert_array_equal(array(layer(x)), array(ops.exp(ops.cast(x, layer.compute_dtype))))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_blur_is_scipys_and_keeps_what_is_constant(data_format):
    scipy = pytest.importorskip("scipy.ndimage")
    pictures = images(count=2, size=7, channels=3)[:, :, :4]
    first = data_format == "channels_first"
    x = np.moveaxis(pictures, 3, 1) if first else pictures
    layer = GaussianBlur2D(1.5, data_format=data_format)
    assert layer.kernel_size == 13
    for sigma in (1.5, 0.7, 0.3):
        layer.sigma = sigma
        axes = (0, 0, sigma, sigma) if first else (0, sigma, sigma, 0)
        radius = tuple(6 if s else 0 for s in axes)
        expected = scipy.gaussian_filter(x, axes, mode="nearest", radius=radius)
        for training in (True, False):
            ours = array(layer(x, training=training))
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(array(layer(np.full_like(x, 7.0))), 7, rtol=1e-6)
    layer.sigma = 0.0
    np.testing.assert_array_equal(array(layer(x)).view("int32"), x.view("int32"))


def test_gradient_through_a_blur_of_width_0_is_that_without_it():
    gradients, blur = [], GaussianBlur2D(1.0)
    for layers in ([], [PICTURE[0], blur, PICTURE[1]]):
        keras.utils.set_random_seed(1)
        model = network(keras.layers.Dense(12), *layers, features=12)
        blur.sigma = 0.0
        objective = Objective(model, X, Y)
        gradients.append(objective.value_and_gradient(objective.get_vector())[1])
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-7)


def test_blur_of_pictures_whose_size_is_known_only_in_the_call():
    model = keras.Sequential([keras.Input((None, None, 1)), GaussianBlur2D(1.0)])
    for size in (5, 8):
        x = images(count=2, size=size, channels=1)
        np.testing.assert_allclose(
            model.predict(x, verbose=0), blurred(x, 1.0, 4), rtol=1e-4, atol=1e-5
        )


def _with_norm(norm, **settings):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((12,))
    x = norm(**settings)(keras.layers.Dense(5)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
    sgd = keras.optimizers.SGD(RATE, momentum=0.9)
    model.compile(sgd, "sparse_categorical_crossentropy")
    if BACKEND == "tensorflow":
        # Without XLA its graph optimizer multiplies the rate into the gradient in another order.
        model.jit_compile = True
    return model


@pytest.mark.parametrize("affine", [True, False])
def test_closed_renorm_is_batch_norm_bit_for_bit(affine):
    """Whole training: losses, weights, moving mean and moving variance."""
    results = []
    for norm in (keras.layers.BatchNormalization, BatchRenormalization):
        model = _with_norm(norm, center=affine, scale=affine)
        losses = model.fit(X, Y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0).history
        layer = model.layers[2]
        held = values([*model.trainable_variables, layer.moving_mean, layer.moving_variance])
        results.append([losses["loss"], *held, model.predict(X, verbose=0)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape, axis", [((6, 4, 3), -1), ((6, 3, 4, 4), 1)])
def test_closed_renorm_is_batch_norm_with_masks_axes_and_half_precision(shape, axis):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype("float32")
    masks = [None] if axis == 1 else [None, rng.uniform(size=shape[:-1]) > 0.4]
    for policy in ("float32", "mixed_float16", "mixed_bfloat16"):
        for mask in masks:
            kinds = keras.layers.BatchNormalization, BatchRenormalization
            ours, theirs = (kind(axis, 0.7, dtype=policy) for kind in kinds)
            for training in (True, False):
                results = [
                    array(ops.cast(layer(x, training=training, mask=mask), "float32"))
                    for layer in (ours, theirs)
                ]
                np.testing.assert_array_equal(*results)
            for name in ("moving_mean", "moving_variance"):
                np.testing.assert_array_equal(*(array(getattr(m, name)) for m in (ours, theirs)))


def test_open_renorm_of_the_whole_population_is_inference():
    x = (3 * np.random.default_rng(0).normal(size=(64, 5)) + 2).astype("float32")
    layer = BatchRenormalization(momentum=0.0, r_max=100.0, d_max=100.0)
    layer.build((None, 5))
    for weight in (layer.gamma, layer.beta):
        weight.assign(np.random.default_rng(1).normal(size=5))
    layer(x, training=True)  # with momentum 0 the averages are now the population's
    population = array(layer(x, training=True))
    np.testing.assert_allclose(population, array(layer(x)), rtol=1e-4, atol=1e-5)
    # And within the limits any part of it is normalized as in inference.
    np.testing.assert_allclose(
        array(layer(x[:7], training=True)), population[:7], rtol=1e-4, atol=1e-5
    )


def test_renorm_is_not_differentiated_through_its_correction():
    """The gradient is r times that of batch norm, with the same upstream gradient."""
    gradients = []
    for kind in (keras.layers.BatchNormalization, BatchRenormalization):
        layer = kind(center=False, scale=False)
        dense = keras.layers.Dense(5, use_bias=False)
        model = keras.Sequential([keras.Input((12,)), dense, layer])
        model.compile(loss=lambda y_true, y_pred: ops.sum(y_true * y_pred, axis=-1))
        dense.kernel.assign(0.3 * np.random.default_rng(0).normal(size=(12, 5)))
        if kind is BatchRenormalization:
            layer.r_max, layer.d_max = 100.0, 100.0
            z = X @ values([dense.kernel])[0]
            r = np.sqrt(z.var(axis=0) + 1e-3) / np.sqrt(1 + 1e-3)
        targets = np.random.default_rng(1).normal(size=(48, 5)).astype("float32")
        objective = Objective(model, X, targets, training=True)
        gradients.append(objective.value_and_gradient(objective.get_vector())[1].reshape(12, 5))
    assert np.abs(r - 1).max() > 0.1
    np.testing.assert_allclose(gradients[1], r * gradients[0], rtol=1e-3, atol=1e-4)


def test_frozen_renorm_stands_still():
    layer = BatchRenormalization(r_max=2.0, d_max=1.0)
    layer.build((None, 12))
    layer.moving_mean.assign(np.ones(12))
    layer.trainable = False
    before = values(layer.variables)
    expected = (X - 1) / np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(array(layer(X, training=True)), expected, rtol=1e-4, atol=1e-5)
    for one, other in zip(before, values(layer.variables), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_go_between_batch_norm_and_batch_renorm():
    plain, ours = keras.layers.BatchNormalization(), BatchRenormalization(r_max=2.0)
    for layer in (plain, ours):
        layer.build((None, 12))
    plain(X, training=True)
    limits = [np.float32(2), np.float32(0)]
    named = {w.name: w for w in ours.weights}
    for weight in plain.weights:
        named[weight.name].assign(array(weight))
    np.testing.assert_array_equal(array(plain(X)), array(ours(X)))
    assert values([ours.r_max, ours.d_max]) == limits


LAYERS = {
    "rate": (lambda: AnnealedDropout(0.4), 0.1),
    "stddev": (lambda: AnnealedGaussianNoise(0.4), 0.1),
    "p": (lambda: MollifiedActivation("relu", 0.4), 0.1),
    "sigma": (lambda: GaussianBlur2D(0.5), 0.1),
    "r_max": (lambda: BatchRenormalization(r_max=3.0), 2.0),
}


@pytest.mark.parametrize("knob", LAYERS)
def test_the_config_holds_the_start_and_the_file_the_value_reached(knob, tmp_path):
    make, reached = LAYERS[knob]
    layer = make()
    start = float(array(getattr(layer, knob)))
    variable = getattr(layer, knob)
    setattr(layer, knob, reached)
    assert getattr(layer, knob) is variable, "assigning a number moves the variable"
    assert float(array(variable)) == np.float32(reached)
    config = json.loads(json.dumps(layer.get_config()))
    assert np.float32(config[knob]) == np.float32(start)
    model = keras.Sequential([keras.Input((3, 4, 1)), layer])
    half = type(layer).from_config({**config, "dtype": "bfloat16"})
    assert getattr(half, knob).dtype == "float32" and not getattr(half, knob).trainable
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras").layers[0]
    assert float(array(getattr(loaded, knob))) == np.float32(reached)
    assert loaded.get_config()[knob] == config[knob]
    assert find_knob_of(loaded, knob) is getattr(loaded, knob)


def find_knob_of(layer, knob):
    model = keras.Sequential([keras.Input((3, 4, 1)), layer])
    model.compile(loss="mse")
    return find_knob(model, f"{layer.name}.{knob}").variable


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 unless it is switched on")
def test_double_precision_stays_double():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 1)) + 1e-9
    for make, _ in LAYERS.values():
        layer = type(make()).from_config({**make().get_config(), "dtype": "float64"})
        y = layer(x, training=True)
        assert keras.backend.standardize_dtype(y.dtype) == "float64"
    layer = MollifiedActivation("relu", 1.0, dtype="float64")
    np.testing.assert_array_equal(array(layer(x)), x)
