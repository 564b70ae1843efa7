"""Signals by layer, and the identities of initialization that they show."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.diagnostics import signal_report
from kerasrecipes.layers import Maxout, WeightNormalization
from kerasrecipes.objective import Objective
from tests.problems import assert_unchanged, classes, everything, images, network, values

L = keras.layers


def bias_gradients(model, x, y, training):
    """{layer name: gradient of the loss with respect to its bias}, by another way."""
    objective = Objective(model, x, y, training=training)
    _, slope = objective.value_and_gradient(objective.get_vector())
    found, begin = {}, 0
    owners = {
        id(one.bias): one.name for one in model.layers if getattr(one, "bias", None) is not None
    }
    for variable in model.trainable_variables:
        size = int(np.prod(variable.shape))
        if id(variable) in owners:
            found[owners[id(variable)]] = slope[begin : begin + size]
        begin += size
    return found


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_gradients_sum_up_to_those_of_the_biases(training):
    """A linear layer's bias gets the sum of its outputs' gradients over examples and positions."""
    x, y = images(), np.arange(24) % 3
    inputs = keras.Input(x.shape[1:])
    z = L.Conv2D(4, 3, name="conv")(inputs)
    z = L.ReLU()(L.BatchNormalization()(z))
    z = L.Add()([z, L.Conv2D(4, 3, padding="same", name="branch")(z)])
    z = L.Dense(6, name="dense")(L.Flatten()(L.MaxPooling2D()(z)))
    z = L.Dense(3, name="head")(L.Activation("tanh")(z))
    model = keras.Model(inputs, z)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    report = signal_report(model, x, y, training=training)
    rows = {row["layer"]: row for row in report.rows}
    expected = bias_gradients(model, x, y, training)
    assert set(expected) == {"conv", "branch", "dense", "head"}
    for name, slope in expected.items():
        count = 24 * int(np.prod(rows[name]["shape"]))
        scale = np.abs(slope).sum()
        assert abs(rows[name]["gradient_mean"] * count - slope.sum()) < 1e-4 * scale + 1e-6
    assert [row["layer"] for row in report.rows][:2] == ["conv", model.layers[2].name]


def test_activations_are_what_a_model_cut_off_there_returns():
    x, _ = classes()
    inner = keras.Sequential([keras.Input((5,)), L.Dense(4, "relu", name="inner"), Maxout(2)])
    shared = L.Dense(5, "tanh", name="shared")
    inputs = keras.Input((6,))
    first = WeightNormalization(L.Dense(5), name="first")(inputs)
    twice = shared(shared(first))
    model = keras.Model(inputs, [inner(twice), L.Softmax(name="soft")(twice)])
    report = signal_report(model, x)
    names = [row["layer"] for row in report.rows]
    assert names[:3] == ["first", "shared", "shared (2)"]
    assert set(names[3:]) == {"inner", inner.layers[-1].name, "soft"}
    rows = {row["layer"]: row for row in report.rows}
    for name, tensor in (("first", first), ("shared (2)", twice)):
        seen = ops.convert_to_numpy(keras.Model(inputs, tensor)(x)).astype("float64")
        assert rows[name]["mean"] == pytest.approx(seen.mean(), rel=1e-4, abs=1e-6)
        assert rows[name]["variance"] == pytest.approx(seen.var(), rel=1e-4)
        assert rows[name]["shape"] == (5,) and rows[name]["gradient_variance"] is None


def test_recurrent_subclassed_and_embedding_layers_have_rows():
    class Reader(keras.Model):
        def __init__(self):
            super().__init__()
            self.cut = L.Cropping1D((1, 0))  # of whole numbers: no signal
            self.embed = L.Embedding(9, 4, mask_zero=True)
            self.read = L.LSTM(3, return_state=True)
            self.head = L.Dense(2)

        def call(self, inputs):
            numbers = ops.squeeze(self.cut(inputs), -1)
            return self.head(self.read(self.embed(numbers))[0])

    x, y = np.arange(48).reshape(8, 6, 1) % 9, np.zeros((8, 2))
    model = Reader()
    model(x)
    model.compile(loss="mse")
    rows = signal_report(model, x, y).rows
    assert [row["shape"] for row in rows] == [(5, 4), (3,), (3,), (3,), (2,)]
    # The first output of the LSTM feeds the head; its twin and the cell state feed nothing.
    assert [row["gradient_variance"] > 0 for row in rows] == [True, True, False, False, True]


@pytest.mark.parametrize("training", [False, True])
def test_model_stays_bit_for_bit_also_after_an_error(training):
    x, y = classes()
    model = network(
        L.Dense(8, "relu"), L.BatchNormalization(), L.Dropout(0.5), metrics=["accuracy"]
    )
    model.fit(x, y, verbose=0)
    before = everything(model)
    signal_report(model, x, y, training=training)
    assert_unchanged(model, before)
    assert all("call" not in vars(layer) for layer in model.layers)
    with pytest.raises(Exception, match=r"(?i)shape|dimension|incompatible|rank|size"):
        signal_report(model, x, np.zeros((48, 7, 7), "int32"), training=training)
    assert_unchanged(model, before)


@pytest.mark.parametrize("looked", [False, True], ids=["inference", "training"])
def test_a_look_in_between_does_not_change_the_training(looked):
    x, y = classes()
    losses = []
    for modes in ([looked], []):
        keras.utils.set_random_seed(3)
        model = network(L.Dense(8, "relu"), L.BatchNormalization(), L.Dropout(0.5))
        for mode in modes:
            signal_report(model, x, y, training=mode)
        losses.append(model.fit(x, y, epochs=3, verbose=0).history["loss"])
    np.testing.assert_array_equal(*losses)


def test_table_and_plot_show_each_layer():
    matplotlib = pytest.importorskip("matplotlib")
    x, y = classes()
    model = network(L.Dense(8, "relu", name="hidden"))
    report = signal_report(model, x, y, plot=True)
    lines = report.table.splitlines()
    heads = ["layer", "shape", "mean", "variance", "gradient mean", "gradient variance"]
    assert lines[0].split() == " ".join(heads).split()
    assert lines[2].startswith("hidden") and lines[3].startswith("head")
    assert f"{report.rows[0]['variance']:#.4g}" in lines[2]
    assert isinstance(report.figure, matplotlib.figure.Figure)
    axes = report.figure.axes[0]
    assert axes.get_yscale() == "log" and len(axes.lines) == 2
    np.testing.assert_array_equal(
        axes.lines[1].get_ydata(), [row["gradient_variance"] for row in report.rows]
    )
    assert "gradient" not in signal_report(model, x).table


WIDTH, DEPTH, SEEDS = 256, 30, 4


def thirty(kernel, slope=0.0):
    """Networks of LeakyReLU layers, one a seed, and what goes in."""
    for seed in range(SEEDS):
        keras.utils.set_random_seed(seed)
        # One instance shared by two layers would give both the same weights.
        kernels = [keras.initializers.get(kernel) for _ in range(DEPTH)]
        hidden = [L.Dense(WIDTH, L.LeakyReLU(slope), kernel_initializer=one) for one in kernels]
        x = np.random.default_rng(seed).normal(size=(100, WIDTH))
        yield keras.Sequential([keras.Input((WIDTH,)), *hidden]), x


def assert_squares_multiply(factor, reports, slope=0.0):
    """Layers of n units multiply E[h²] by `factor` each; returns the logarithms of all together.

    The factor's logarithm has variance v / n and mean -v / (2 n), where
    v = 6 (1 + a⁴) / (1 + a²)² - 1 is the relative variance of one unit's square: 5 for ReLU.
    """
    ends = [[row["mean"] ** 2 + row["variance"] for row in report.rows] for report in reports]
    logs = [np.log(squares[-1] / squares[0]) for squares in ends]
    layers, v = DEPTH - 1, 6 * (1 + slope**4) / (1 + slope**2) ** 2 - 1
    expected = layers * (np.log(factor) - v / 2 / WIDTH)
    assert abs(np.mean(logs) - expected) < 4 * np.sqrt(v * layers / WIDTH / SEEDS)
    return logs


@pytest.mark.parametrize("kernel, factor", [("he_normal", 1.0), ("glorot_normal", 0.5)])
def test_thirty_relu_layers_keep_their_squares_with_he_and_lose_half_each_with_glorot(
    kernel, factor
):
    logs = assert_squares_multiply(factor, [signal_report(*one) for one in thirty(kernel)])
    if factor == 0.5:
        assert np.max(logs) < np.log(1e-6)


def test_thirty_relu_layers_lose_their_squares_with_small_weights():
    """N(0, s²): each layer of n units multiplies by n s² / 2, here 0.0128."""
    small = {"class_name": "RandomNormal", "config": {"stddev": 0.01}}
    reports = [signal_report(*one) for one in thirty(small)]
    logs = assert_squares_multiply(WIDTH * 0.01**2 / 2, reports)
    assert np.max(logs) < np.log(1e-50)


@pytest.mark.parametrize("slope", [0.5, 0.8])
def test_thirty_leaky_relu_layers_keep_their_squares_with_he_of_their_slope(slope):
    """Variance 2 / ((1 + a²) n) keeps them; He's own 2 / n multiplies by 1 + a² each."""
    scale = 2 / (1 + slope**2)
    scaled = {"class_name": "VarianceScaling", "config": {"scale": scale, "mode": "fan_in"}}
    for factor, kernel in ((1.0, scaled), (1 + slope**2, "he_normal")):
        reports = [signal_report(*one) for one in thirty(kernel, slope)]
        assert_squares_multiply(factor, reports, slope)


def test_a_constant_start_never_breaks_the_symmetry():
    """All units of a layer stay one unit, bit for bit, through training; drawn weights do not."""
    x, y = classes()
    for kernel, alike in ((keras.initializers.Constant(0.1), True), ("he_normal", False)):
        hidden = [L.Dense(8, "tanh", kernel_initializer=kernel) for _ in range(2)]
        head = L.Dense(3, "softmax", kernel_initializer=kernel)
        model = keras.Sequential([keras.Input((6,)), *hidden, head])
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        start = values([hidden[0].kernel])[0]
        model.fit(x, y, batch_size=8, epochs=5, verbose=0)
        kernels = values([layer.kernel for layer in hidden])
        assert np.abs(kernels[0] - start).max() > 0.01, "it has moved"
        apart = [np.abs(k - k[:, :1]).max() for k in kernels]
        assert (max(apart) == 0) if alike else (min(apart) > 0.1)


@pytest.mark.parametrize("gain", [1.0, 1.02])
def test_a_hundred_orthogonal_layers_multiply_all_directions_alike(gain):
    """Saxe: every singular value of the linear network is gain to the depth."""
    kernels = [keras.initializers.Orthogonal(gain, seed=s) for s in range(100)]
    layers = [L.Dense(16, use_bias=False, kernel_initializer=one) for one in kernels]
    model = keras.Sequential([keras.Input((16,)), *layers])
    product = ops.convert_to_numpy(model(np.eye(16, dtype="float32")))
    np.testing.assert_allclose(np.linalg.svd(product)[1], gain**100, rtol=1e-4)
