"""Sparse and data-dependent starts."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.initializers import Sparse, initialize_from_data
from kerasrecipes.layers import WeightNormalization
from tests.problems import classes, images, values

L = keras.layers


@pytest.mark.parametrize("shape", [(784, 30), (5, 5, 8, 12), (10, 4)])
def test_every_unit_has_exactly_that_many_inputs(shape):
    kernel = ops.convert_to_numpy(Sparse(connections=15, seed=1)(shape))
    count = np.count_nonzero(kernel.reshape(-1, shape[-1]), axis=0)
    assert (count == min(15, np.prod(shape[:-1]))).all()


def test_inputs_and_weights_are_drawn_without_pattern():
    kernel = ops.convert_to_numpy(Sparse(connections=15, stddev=2.0, seed=1)((400, 300)))
    weights = kernel[kernel != 0]
    # 4,500 normal weights: deviations of mean and standard deviation beyond 4 sigma are faults.
    assert abs(weights.mean()) < 4 * 2.0 / np.sqrt(weights.size)
    assert abs(weights.std() - 2.0) < 4 * 2.0 / np.sqrt(2 * weights.size)
    per_input = np.count_nonzero(kernel, axis=1)
    assert abs(per_input.var() / (300 * 15 / 400) - 1) < 4 * np.sqrt(2 / 400)


def test_seeds_are_those_of_keras():
    repeats, fresh = Sparse(seed=3), Sparse(seed=keras.random.SeedGenerator(3))
    same = [ops.convert_to_numpy(repeats((20, 5))) for _ in range(2)]
    other = [ops.convert_to_numpy(fresh((20, 5))) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(*other)
    revived = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(fresh))
    assert isinstance(revived.seed, keras.random.SeedGenerator)
    unseeded = [ops.convert_to_numpy(Sparse()((20, 5))) for _ in range(2)]
    assert not np.array_equal(*unseeded)


def pre_activations(model, x, last=False):
    """Mean and deviation of every unit's pre-activation, by hand for each kernel layer."""
    layers = [one for one in model.layers if hasattr(one, "kernel") or hasattr(one, "g")]
    for layer in layers if last else layers[:-1]:
        core = getattr(layer, "layer", layer)
        activation, core.activation = core.activation, keras.activations.linear
        look = keras.Model(model.inputs[0], layer.output)
        z = look(x, training=False)
        core.activation = activation
        z = ops.convert_to_numpy(z)
        yield z.reshape(-1, z.shape[-1]).astype("float64")


def deep(kind, residual):
    hidden = h = keras.Input((6,))
    for depth in range(10):
        dense = L.Dense(12, ("relu", "tanh")[depth % 2])
        z = (WeightNormalization(dense) if kind == "wn" else dense)(h)
        h = L.Add()([h, z]) if residual and depth else z
    if residual:
        return keras.Model(hidden, L.Dense(3)(h))
    layers = [L.Dense(12, "relu") for _ in range(10)]
    layers = [WeightNormalization(one) for one in layers] if kind == "wn" else layers
    return keras.Sequential([keras.Input((6,)), *layers, L.Dense(3)])


@pytest.mark.parametrize("residual", [False, True], ids=["sequential", "residual"])
@pytest.mark.parametrize("kind", ["wn", "plain"])
def test_ten_layers_are_standardized(kind, residual):
    x, _ = classes(count=500)
    x = 3 * x + 2
    model = deep(kind, residual)
    head = model.layers[-1].get_weights()
    report = initialize_from_data(model, x)
    assert len(report) == 10
    for z in pre_activations(model, x):
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-3)
    for one, other in zip(head, model.layers[-1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Conv2D(4, 3, activation="relu"),
        lambda: WeightNormalization(L.Conv2D(4, 3)),
        lambda: L.Conv2DTranspose(4, 3),
        lambda: L.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: WeightNormalization(L.DepthwiseConv2D(3, depth_multiplier=2)),
        lambda: L.EinsumDense("abcd,dfe->abcef", (None, None, 2, 3), bias_axes="ef"),
    ],
    ids=["conv", "wn-conv", "transposed", "depthwise", "wn-depthwise", "einsum"],
)
def test_every_kind_of_layer(layer):
    x = images() + 1
    model = keras.Sequential([keras.Input(x.shape[1:]), layer()])
    (row,) = initialize_from_data(model, x, include_last=True)
    (z,) = pre_activations(model, x, last=True)
    z = z.reshape(-1, row["found_mean"].size)
    core = getattr(model.layers[0], "layer", model.layers[0])
    if isinstance(core, L.EinsumDense):
        z = ops.convert_to_numpy(model(x)).reshape(-1, 6)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-3)


def test_the_report_says_what_was_found_and_set():
    x, _ = classes(count=200)
    dense = L.Dense(5, use_bias=False)
    model = keras.Sequential([keras.Input((6,)), dense, L.Dense(2)])
    before = values([dense.kernel])[0]
    (row,) = initialize_from_data(model, x)
    assert row["layer"] == dense.name and row["bias"] is None
    np.testing.assert_allclose(row["found_mean"], (x @ before).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(row["found_std"], (x @ before).std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(values([dense.kernel])[0], before * row["scale"], rtol=1e-5)


def test_layers_in_nested_and_subclassed_models_are_found():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = L.Dense(5)
            self.inner = keras.Sequential([keras.Input((5,)), L.Dense(4), L.ReLU()])
            self.last = L.Dense(2)

        def call(self, inputs):
            return self.last(self.inner(self.first(inputs)))

    x, _ = classes()
    model = Two()
    model(x)
    assert [row["found_std"].size for row in initialize_from_data(model, x)] == [5, 4]


def test_heads_and_frozen_layers_are_left_alone():
    x, _ = classes()
    entry = keras.Input((6,))
    frozen = L.Dense(5, name="frozen", trainable=False)
    h = L.Dense(4, name="hidden")(frozen(entry))
    heads = [L.Softmax()(L.Dense(3, name="a")(h)), L.Dense(2, name="b")(h)]
    model = keras.Model(entry, heads)
    assert [row["layer"] for row in initialize_from_data(model, x)] == ["hidden"]
    rows = initialize_from_data(model, x, include_last=True)
    assert [row["layer"] for row in rows] == ["hidden", "a", "b"]


def test_inputs_far_from_zero_are_standardized_too():
    x = np.random.default_rng(0).normal(1e4, 1.0, size=(400, 6))
    model = keras.Sequential([keras.Input((6,)), L.Dense(5), L.Dense(2)])
    initialize_from_data(model, x)
    (z,) = pre_activations(model, x)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-3)
