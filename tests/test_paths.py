"""Path-SGD and gauge freedom: what scaling the units of a ReLU network changes, and what not."""

import itertools

import keras
import numpy as np
import pytest

from kerasrecipes.diagnostics import rescale_units
from kerasrecipes.optimizers import PathSGD, path_scaling
from tests.problems import assert_unchanged, everything, values

L = keras.layers


def relu_network(*sizes, activation="relu", head=None):
    hidden = [L.Dense(n, activation, bias_initializer="he_normal") for n in sizes[1:-1]]
    return keras.Sequential([keras.Input(sizes[:1]), *hidden, L.Dense(sizes[-1], head)])


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(4, 3, padding="same", use_bias=False),
            L.ReLU(),
            L.AveragePooling2D(2),
            L.Conv2D(6, 3, 2, "same", activation="leaky_relu", use_bias=False, name="second"),
            L.Dropout(0.5),
            L.Flatten(),
            L.Dense(5, use_bias=False),
            L.Softmax(),
        ]
    )


def test_scaling_is_the_sum_over_all_paths():
    model = relu_network(3, 4, 2, 2, head="softmax")
    weights = [w.astype("float64") for w in model.get_weights()]
    kernels = weights[::2]
    expected = [np.zeros_like(w) for w in weights]
    # A path begins at an input, or at the bias of a unit, and ends at an output.
    for begin in range(3):
        for units in itertools.product(*(range(k.shape[1]) for k in kernels[begin:])):
            for first in [None, *range(kernels[begin].shape[0])]:
                if first is not None and begin > 0:
                    continue
                edges = [(2 * begin + 1, (units[0],))] if first is None else []
                edges += [(2 * begin, (first, units[0]))] if first is not None else []
                edges += [(2 * (begin + i), (units[i - 1], units[i])) for i in range(1, len(units))]
                squares = [weights[n][at] ** 2 for n, at in edges]
                for i, (n, at) in enumerate(edges):
                    expected[n][at] += np.prod([*squares[:i], *squares[i + 1 :]])
    for ours, reference in zip(path_scaling(model), expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5)


def test_each_path_passes_each_layer_once_also_through_convolutions_and_pooling():
    model = convolutional()
    weights = model.get_weights()
    totals = [
        np.sum(k.astype("float64") * w**2)
        for k, w in zip(path_scaling(model), weights, strict=True)
    ]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)
    assert [k.shape for k in path_scaling(model)] == [w.shape for w in weights]


def test_pooling_averages_the_squares_of_its_units():
    pooling = [L.Reshape((2, 1)), L.AveragePooling1D(2), L.Flatten()]
    first, last = L.Dense(2, "relu", use_bias=False), L.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), first, *pooling, last])
    a, b = model.get_weights()
    before, after = path_scaling(model)
    np.testing.assert_allclose(before, np.full((3, 2), b[0, 0] ** 2 / 2), rtol=1e-5)
    np.testing.assert_allclose(after, [[np.sum(a**2) / 2]], rtol=1e-5)


@pytest.mark.parametrize("build, layer", [(convolutional, "second"), (convolutional, 0)])
def test_rescaled_units_compute_the_same_and_scale_their_paths(build, layer):
    model = build()
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 2)).astype("float32")
    units = model.get_layer(layer) if isinstance(layer, str) else model.layers[layer]
    n = units.kernel.shape[-1]
    c = 10 ** np.random.default_rng(1).uniform(-2, 2, size=n)
    before, outputs, scaling = everything(model), model(x, training=False), path_scaling(model)
    rescaled = rescale_units(model, layer if isinstance(layer, str) else units, c)
    assert_unchanged(model, before)
    model.set_weights(rescaled)
    np.testing.assert_allclose(*values([model(x, training=False), outputs]), rtol=1e-4, atol=1e-6)
    place = [id(v) for v in model.trainable_variables].index(id(units.kernel))
    after = path_scaling(model)
    np.testing.assert_allclose(after[place], scaling[place] / c**2, rtol=1e-4)
    later = np.tile(c, after[place + 1].shape[-2] // n)[:, None]
    np.testing.assert_allclose(after[place + 1], scaling[place + 1] * later**2, rtol=1e-4)
    for i, one in enumerate(scaling):
        if i not in (place, place + 1):
            np.testing.assert_allclose(after[i], one, rtol=1e-4)


def functions_apart(optimizer, momentum):
    """How far two copies of one function, units scaled by 10^±2, are apart after five steps."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 5)).astype("float32"), rng.normal(size=(32, 3)).astype("float32")
    keras.utils.set_random_seed(4)
    models = [relu_network(5, 8, 3) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    c = 10 ** rng.uniform(-2, 2, size=8)
    models[1].set_weights(rescale_units(models[1], models[1].layers[0], c))
    start = models[0].predict(x, verbose=0)
    apart = [np.abs(models[1].predict(x, verbose=0) - start).max()]
    for model in models:
        model.compile(optimizer(model, momentum), "mse")
        model.fit(x, y, batch_size=32, epochs=5, verbose=0)
    one, other = (model.predict(x, verbose=0) for model in models)
    assert np.abs(one - start).max() > 0.02, "nothing was learnt"
    return apart[0], np.abs(one - other).max()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_path_sgd_does_not_see_how_units_are_scaled_and_sgd_does(momentum):
    before, after = functions_apart(lambda m, v: PathSGD(m, 0.5, momentum=v), momentum)
    assert before < 1e-5
    assert after < 1e-4
    _, sgd = functions_apart(lambda m, v: keras.optimizers.SGD(0.02, momentum=v), momentum)
    assert not sgd < 0.1


def test_scaling_is_recomputed_as_often_as_asked():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=(4, 1)).astype("float32")
    model = relu_network(3, 4, 1)
    optimizer = PathSGD(model, 0.05, every=3)
    model.compile(optimizer, "mse")
    held, current = [], []
    for _ in range(7):
        current.append(path_scaling(model))
        model.train_on_batch(x, y)
        held.append(values(optimizer.scalings))
    for step in range(7):
        for ours, reference in zip(held[step], current[step - step % 3], strict=True):
            np.testing.assert_allclose(ours, reference, rtol=1e-5)
    assert not np.allclose(current[0][0], current[3][0], rtol=1e-3)


def test_a_weight_without_a_path_rests():
    model = relu_network(3, 4, 1)
    weights = model.get_weights()
    weights[2][1] = 0.0  # unit 1 reaches no output
    model.set_weights(weights)
    x = np.ones((4, 3), "float32")
    model.compile(PathSGD(model, 0.1), "mse")
    model.train_on_batch(x, 5 * x[:, :1])
    after = model.get_weights()
    assert np.isfinite(np.concatenate([w.ravel() for w in after])).all()
    np.testing.assert_array_equal(after[0][:, 1], weights[0][:, 1])
    assert (after[0] != weights[0]).any()


REFUSED = {
    "normal": [L.Dense(3), L.BatchNormalization(name="normal"), L.Dense(1)],
    "curved": [L.Dense(3, "tanh", name="curved"), L.Dense(1)],
    "sigmoid": [L.Dense(3), L.Activation("sigmoid", name="sigmoid"), L.Dense(1)],
    "capped": [L.Dense(3), L.ReLU(max_value=6, name="capped"), L.Dense(1)],
    "largest": [L.Reshape((3, 1)), L.MaxPooling1D(name="largest"), L.Flatten(), L.Dense(1)],
    "causal": [L.Reshape((3, 1)), L.Conv1D(2, 2, padding="causal", name="causal"), L.Flatten()],
    "frozen": [L.Dense(3, name="frozen", trainable=False), L.Dense(1)],
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_layers_are_refused_by_name(name):
    model = keras.Sequential([keras.Input((3,)), *REFUSED[name]])
    for call in (path_scaling, PathSGD, lambda m: rescale_units(m, name, 2.0)):
        with pytest.raises(ValueError, match=f"Layer '{name}'"):
            call(model)


def test_models_that_are_no_chain_and_wrong_units_are_refused():
    a = keras.Input((3,))
    b = L.Dense(3, "relu", name="once")(a)
    branched = keras.Model(a, L.Dense(1)(L.Add(name="sum")([a, b])))
    with pytest.raises(ValueError, match="'sum'"):
        path_scaling(branched)
    twice = L.Dense(3, "relu", name="twice")
    with pytest.raises(ValueError, match="'twice'"):
        path_scaling(keras.Model(a, L.Dense(1)(twice(twice(b)))))
    line = keras.Model(a, L.Dense(1, name="head")(b))
    assert len(path_scaling(line)) == 4
    with pytest.raises(ValueError, match="one of the hidden layers 'once'"):
        rescale_units(line, "head", 2.0)
    with pytest.raises(ValueError, match="`c` must be above 0"):
        rescale_units(line, "once", [1.0, -1.0, 2.0])
    with pytest.raises(ValueError, match="made for a model with variables of shapes"):
        other = keras.Sequential([keras.Input((4,)), L.Dense(1)])
        PathSGD(line).build(other.trainable_variables)
