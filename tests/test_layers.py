"""Weight normalization (PyTorch's numbers, exact identities), mean-only batch norm, Maxout."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.layers import Maxout, MeanOnlyBatchNormalization, WeightNormalization
from kerasrecipes.objective import Objective
from tests.problems import classes, network, values

L = keras.layers
RNG = np.random.default_rng(0)

# Keras layer, input, the same layer in torch, dimension of torch's kernel that counts units,
# and how Keras's kernel and image become torch's.
CASES = {
    "dense": (lambda: L.Dense(4), (3, 5), lambda t: t.nn.Linear(5, 4), 0, (1, 0)),
    "conv1d": (lambda: L.Conv1D(4, 3), (2, 7, 3), lambda t: t.nn.Conv1d(3, 4, 3), 0, (2, 1, 0)),
    "conv2d": (
        lambda: L.Conv2D(4, 3, groups=2),
        (2, 6, 7, 2),
        lambda t: t.nn.Conv2d(2, 4, 3, groups=2),
        0,
        (3, 2, 0, 1),
    ),
    "conv3d": (
        lambda: L.Conv3D(4, 2),
        (2, 4, 5, 6, 3),
        lambda t: t.nn.Conv3d(3, 4, 2),
        0,
        (4, 3, 0, 1, 2),
    ),
    "einsum": (
        lambda: L.EinsumDense("ab,bc->ac", (4,), bias_axes="c"),
        (3, 5),
        lambda t: t.nn.Linear(5, 4),
        0,
        (1, 0),
    ),
    "depthwise1d": (
        lambda: L.DepthwiseConv1D(3, depth_multiplier=2),
        (2, 7, 3),
        lambda t: t.nn.Conv1d(3, 6, 3, groups=3),
        0,
        (1, 2, 0),
    ),
    "depthwise2d": (
        lambda: L.DepthwiseConv2D(3, depth_multiplier=2),
        (2, 6, 7, 3),
        lambda t: t.nn.Conv2d(3, 6, 3, groups=3),
        0,
        (2, 3, 0, 1),
    ),
    "transposed1d": (
        lambda: L.Conv1DTranspose(4, 3),
        (2, 7, 3),
        lambda t: t.nn.ConvTranspose1d(3, 4, 3),
        1,
        (2, 1, 0),
    ),
    "transposed3d": (
        lambda: L.Conv3DTranspose(4, 2),
        (2, 3, 4, 5, 3),
        lambda t: t.nn.ConvTranspose3d(3, 4, 2),
        1,
        (4, 3, 0, 1, 2),
    ),
    "transposed2d": (
        lambda: L.Conv2DTranspose(4, 3),
        (2, 5, 6, 3),
        lambda t: t.nn.ConvTranspose2d(3, 4, 3),
        1,
        (3, 2, 0, 1),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_is_pytorchs_weight_norm(case):
    torch = pytest.importorskip("torch")
    make, shape, twin, dimension, to_torch = CASES[case]
    layer = WeightNormalization(make())
    layer.build(shape)
    for weight in layer.weights:
        weight.assign(RNG.normal(size=weight.shape))
    g, v, bias = values([layer.g, layer.v, layer.layer.bias])
    theirs = torch.nn.utils.parametrizations.weight_norm(twin(torch), dim=dimension)
    parts = theirs.parametrizations.weight
    with torch.no_grad():
        target = parts.original0
        target.copy_(torch.tensor(g).reshape(target.shape))
        turned = torch.tensor(np.transpose(v, to_torch).copy())
        parts.original1.copy_(turned.reshape(parts.original1.shape))
        theirs.bias.copy_(torch.tensor(bias))
    x = RNG.normal(size=shape).astype("float32")
    last = x.ndim - 1
    with torch.no_grad():
        expected = theirs(torch.tensor(np.moveaxis(x, last, 1).copy())).numpy()
    expected = np.moveaxis(expected, 1, last)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, rtol=1e-4, atol=1e-5)


ALL = {
    "dense": (lambda: L.Dense(4), (3, 5)),
    "conv1d": (lambda: L.Conv1D(4, 3), (2, 7, 3)),
    "conv2d": (lambda: L.Conv2D(4, 3), (2, 6, 6, 3)),
    "conv3d": (lambda: L.Conv3D(4, 2), (2, 4, 4, 4, 2)),
    "conv1d_transpose": (lambda: L.Conv1DTranspose(4, 3), (2, 7, 3)),
    "conv2d_transpose": (lambda: L.Conv2DTranspose(4, 3), (2, 6, 6, 3)),
    "conv3d_transpose": (lambda: L.Conv3DTranspose(4, 2), (2, 4, 4, 4, 2)),
    "depthwise1d": (lambda: L.DepthwiseConv1D(3, depth_multiplier=2), (2, 7, 3)),
    "depthwise2d": (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), (2, 6, 6, 3)),
    "einsum": (lambda: L.EinsumDense("abc,ced->abde", (None, 2, 3), bias_axes="de"), (2, 4, 5)),
}


@pytest.mark.parametrize("kind", ALL)
def test_wrapping_a_built_layer_keeps_its_function_and_lengths_scale_units(kind):
    make, shape = ALL[kind]
    x = RNG.normal(size=shape).astype("float32")
    plain = make()
    before = ops.convert_to_numpy(plain(x))
    layer = WeightNormalization(plain)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), before, rtol=1e-4, atol=1e-5)
    assert layer.v is plain.kernel
    if kind != "einsum":  # whose output shape is as its owner wrote it, with None
        assert tuple(layer.compute_output_shape(shape)) == before.shape
    # The length of v does not matter, and twice g is twice every output (biases are zero).
    layer.v.assign(3 * ops.convert_to_numpy(layer.v))
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), before, rtol=1e-4, atol=1e-5)
    layer.g.assign(2 * ops.convert_to_numpy(layer.g))
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), 2 * before, rtol=1e-4, atol=1e-5)


def test_one_unit_hears_only_its_own_length():
    """One more length for one unit changes that unit's outputs alone, for every kind."""
    for kind, (make, shape) in ALL.items():
        layer, x = WeightNormalization(make()), RNG.normal(size=shape).astype("float32")
        before = ops.convert_to_numpy(layer(x))
        g = ops.convert_to_numpy(layer.g).copy()
        g.flat[1] *= 5
        layer.g.assign(g)
        changed = np.abs(ops.convert_to_numpy(layer(x)) - before) > 1e-6
        units = changed.reshape(-1, g.size).any(axis=0)
        assert units.sum() == 1, kind


def test_gradient_is_orthogonal_to_v_and_its_length_never_falls():
    x, y = classes()
    layer = WeightNormalization(L.Dense(5, "tanh"))
    model = network(layer, optimizer=keras.optimizers.SGD(0.5))
    objective = Objective(model, x, y)
    _, gradient = objective.value_and_gradient(objective.get_vector())
    index = [id(one) for one in model.trainable_variables].index(id(layer.v))
    begin = sum(int(np.prod(one.shape)) for one in model.trainable_variables[:index])
    v = values([layer.v])[0]
    slope = gradient[begin : begin + v.size].reshape(v.shape)
    scale = np.linalg.norm(v, axis=0) * np.linalg.norm(slope, axis=0)
    assert (np.abs((v * slope).sum(axis=0)) < 1e-5 * scale).all()
    lengths = [np.linalg.norm(v, axis=0)]
    for _ in range(5):
        model.fit(x, y, batch_size=48, verbose=0)
        lengths.append(np.linalg.norm(values([layer.v])[0], axis=0))
    assert (np.diff(lengths, axis=0) > -1e-6).all()
    assert (lengths[-1] > lengths[0] + 1e-4).any()


def test_gradients_are_the_plain_kernels_split_into_length_and_direction():
    """Salimans & Kingma 2016, equation 3, from the gradient of the same network without it."""
    x, y = classes()

    def slopes(layer, weights):
        model = network(layer)
        for one, value in weights(layer):
            one.assign(value)
        objective = Objective(model, x, y)
        slope, found = objective.value_and_gradient(objective.get_vector())[1], {}
        for one in model.trainable_variables:
            size = int(np.prod(one.shape))
            found[id(one)], slope = slope[:size].reshape(one.shape), slope[size:]
        return [found[id(one)] for one, _ in weights(layer)]

    rng = np.random.default_rng(1)
    v, g = rng.normal(size=(6, 5)), rng.normal(size=5)
    norm = np.linalg.norm(v, axis=0)
    (slope_w,) = slopes(L.Dense(5, "tanh"), lambda plain: [(plain.kernel, g * v / norm)])
    wrapped = WeightNormalization(L.Dense(5, "tanh"))
    slope_g, slope_v = slopes(wrapped, lambda layer: [(layer.g, g), (layer.v, v)])
    expected = (slope_w * v / norm).sum(axis=0)
    np.testing.assert_allclose(slope_g, expected, rtol=1e-4, atol=1e-6)
    expected = g / norm * slope_w - g * expected / norm**2 * v
    np.testing.assert_allclose(slope_v, expected, rtol=1e-4, atol=1e-6)


def test_losses_of_the_wrapped_layer_are_neither_lost_nor_doubled():
    x, _ = classes()
    for settings in ({"activity_regularizer": "l2"}, {"kernel_regularizer": "l2"}):
        plain, other = L.Dense(5, **settings), L.ReLU(activity_regularizer="l2")
        model = keras.Sequential([keras.Input((6,)), plain, other])
        model.compile(loss="mse")
        y = np.zeros((48, 5))
        bare = model.evaluate(x, y, batch_size=48, verbose=0)
        wrapped = keras.Sequential([keras.Input((6,)), WeightNormalization(plain), other])
        wrapped.compile(loss="mse")
        assert wrapped.evaluate(x, y, batch_size=48, verbose=0) == pytest.approx(bare, rel=1e-5)
        assert bare > np.square(np.maximum(values([plain(x)])[0], 0)).mean() * 1.01


def test_kernel_regularizer_acts_on_v():
    layer = WeightNormalization(L.Dense(3, kernel_regularizer=keras.regularizers.L2(1.0)))
    layer.build((None, 4))
    layer.g.assign(np.zeros(3))
    (loss,) = layer.losses
    assert float(ops.convert_to_numpy(loss)) == pytest.approx(
        np.square(values([layer.v])[0]).sum(), rel=1e-5
    )


def test_lora_is_refused_with_a_way_out():
    dense = L.Dense(3)
    dense.build((None, 4))
    dense.enable_lora(2)
    with pytest.raises(ValueError, match="LoRA"):
        WeightNormalization(dense).build((None, 4))


def test_a_refused_layer_stays_as_it_was():
    """Without one kernel, and normalized already."""
    x = np.ones((2, 3, 4), "float32")
    for layer in (L.LSTM(2), L.SeparableConv1D(2, 2), WeightNormalization(L.Dense(2))):
        expected, weights = ops.convert_to_numpy(layer(x)), layer.get_weights()
        held, config = [id(v) for v in layer.variables], layer.get_config()
        with pytest.raises(ValueError, match="must have one kernel|wrap it once"):
            WeightNormalization(layer)
        assert [id(v) for v in layer.variables] == held and layer.get_config() == config
        for one, other in zip(layer.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), expected)


def test_the_norm_is_taken_in_full_precision():
    """600 inputs of 20: their squares overflow half precision, and of 1e-4 they vanish in it."""
    x = np.ones((2, 600), "float32")
    for size in (20.0, 1e-4):
        layer = WeightNormalization(L.Dense(3), dtype="mixed_float16")
        layer.build((None, 600))
        layer.v.assign(np.full((600, 3), size))
        layer.g.assign(np.ones(3))
        outputs = ops.convert_to_numpy(ops.cast(layer(x), "float32"))
        np.testing.assert_allclose(outputs, 600**0.5, rtol=2e-2)


def test_quantizing_afterwards_is_refused_and_a_zero_unit_is_zero():
    layer = WeightNormalization(L.Dense(3, kernel_initializer="zeros"))
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), 0)
    layer = WeightNormalization(L.Dense(3))
    layer(x)
    layer.layer.quantize("int8")
    with pytest.raises(ValueError, match="quantized"):
        layer(x)


def sloped(layer, shape, upstream):
    """The gradient of sum(upstream * layer(x)) with respect to one weight added to all of x."""
    model = keras.Sequential([keras.Input(shape[1:]), Shift(shape[1:]), layer])
    model.compile(loss=lambda up, y: ops.sum(up * y))
    x = RNG.normal(1.0, 2.0, size=shape).astype("float32")
    objective = Objective(model, x, upstream, training=True)
    return objective.value_and_gradient(objective.get_vector())[1]


class Shift(L.Layer):
    """Adds a weight of the input's shape to each example, multiplied by the example's number."""

    def __init__(self, shape):
        super().__init__()
        self.size = shape

    def build(self, input_shape):
        self.w = self.add_weight(name="w", shape=self.size, initializer="zeros")

    def call(self, inputs):
        count = ops.cast(ops.arange(ops.shape(inputs)[0]), "float32")
        return inputs + ops.reshape(count, (-1, 1)) * ops.convert_to_tensor(self.w)


def test_mean_only_gradient_has_no_mean():
    """What goes back is the upstream gradient less its batch mean (section 4 of the paper)."""
    upstream = RNG.normal(size=(6, 3)).astype("float32")
    layer = MeanOnlyBatchNormalization(center=False)
    centered = upstream - upstream.mean(axis=0)
    expected = (np.arange(6)[:, None] * centered).sum(axis=0)
    np.testing.assert_allclose(sloped(layer, (6, 3), upstream), expected, rtol=1e-4, atol=1e-4)


def test_mean_only_frozen():
    """Like Keras's batch norm: frozen means inference behaviour, and a moving mean at rest."""
    x = RNG.normal(3.0, 1.0, size=(8, 4)).astype("float32")
    layer = MeanOnlyBatchNormalization(momentum=0.5)
    layer.build(x.shape)
    layer.moving_mean.assign(np.arange(4.0))
    layer.trainable = False
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x, training=True)), x - np.arange(4.0), rtol=1e-6
    )
    np.testing.assert_array_equal(values([layer.moving_mean])[0], np.arange(4.0))
    with pytest.raises(ValueError, match="incompatible"):
        layer(np.ones((8, 5)))


def test_mean_only_masks_as_keras_does():
    """Means are those of Keras's batch norm, whose variance is here left out."""
    x = RNG.normal(2.0, 3.0, size=(4, 5, 3)).astype("float32")
    mask = RNG.uniform(size=(4, 5)) > 0.4
    ours, theirs = MeanOnlyBatchNormalization(momentum=0.0), L.BatchNormalization(momentum=0.0)
    y = ops.convert_to_numpy(ours(x, training=True, mask=mask))
    theirs(x, training=True, mask=mask)
    mean = x[mask].mean(axis=0)
    np.testing.assert_allclose(y, x - mean, rtol=1e-4, atol=1e-5)
    for layer in (ours, theirs):
        np.testing.assert_allclose(values([layer.moving_mean])[0], mean, rtol=1e-4)


def test_mean_only_in_half_precision():
    """2,048 values of 40 sum to more than half precision can hold; their mean is 40."""
    layer = MeanOnlyBatchNormalization(momentum=0.0, dtype="mixed_float16")
    x = ops.cast(np.full((2048, 3), 40.0), "float16")
    y = layer(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_array_equal(ops.convert_to_numpy(y), 0)
    np.testing.assert_array_equal(values([layer.moving_mean])[0], 40)
    x = ops.cast(2048.0 + 2.0 * np.arange(4)[:, None], "float16")  # the mean is 2051: no float16
    np.testing.assert_array_equal(
        ops.convert_to_numpy(MeanOnlyBatchNormalization(dtype="mixed_float16")(x, training=True)),
        [[-3], [-1], [1], [3]],
    )


def test_mean_only_takes_the_place_of_the_bias():
    """A bias before it is subtracted again, and with `center` off the outputs have mean 0."""
    x = RNG.normal(size=(16, 4)).astype("float32")
    layer = MeanOnlyBatchNormalization(center=False)
    y = ops.convert_to_numpy(layer(x + 7, training=True))
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(y, ops.convert_to_numpy(layer(x, training=True)), atol=1e-5)
    assert layer.beta is None and len(layer.weights) == 1
    np.testing.assert_allclose(y.std(axis=0), x.std(axis=0), rtol=1e-4)  # the scale stays


def test_maxout_is_relu_and_absolute_value():
    """Deck 001's units: max(0, z) and |z| = max(z, -z) are maxout units of two pieces."""
    z = RNG.normal(size=(5, 3, 4)).astype("float32")
    pairs = {"relu": np.stack([z, 0 * z], -1), "absolute": np.stack([-z, z], -1)}
    expected = {"relu": np.maximum(z, 0), "absolute": np.abs(z)}
    for name, pieces in pairs.items():
        ours = Maxout(2)(pieces.reshape(5, 3, 8))
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), expected[name])
        along = Maxout(2, axis=1)(np.moveaxis(pieces.reshape(5, 3, 8), 2, 1))
        np.testing.assert_array_equal(
            np.moveaxis(ops.convert_to_numpy(along), 1, 2), expected[name]
        )


def test_maxout_gradient_goes_to_the_largest_piece():
    upstream = RNG.normal(size=(1, 2)).astype("float32")
    layer = Maxout(3)
    model = keras.Sequential([keras.Input((6,)), Shift((6,)), layer])
    model.compile(loss=lambda up, y: ops.sum(up * y))
    x = np.array([[0.0] * 6, [1, 5, 2, 9, 3, 4]], "float32")
    objective = Objective(model, x, np.repeat(upstream, 2, axis=0))
    expected = np.zeros(6)
    expected[[1, 3]] = upstream  # example 0 has weight 0, example 1 weight 1
    np.testing.assert_allclose(
        objective.value_and_gradient(objective.get_vector())[1], expected, rtol=1e-6
    )


def test_maxout_in_a_model():
    inputs = keras.Input((None, 12))
    model = keras.Model(inputs, Maxout(4)(L.Conv1D(8, 3, padding="same")(inputs)))
    assert model.output_shape == (None, None, 2)
    assert model(np.ones((2, 5, 12))).shape == (2, 5, 2)
    assert model.predict(np.ones((2, 7, 12)), verbose=0).shape == (2, 7, 2)


def test_maxout_passes_the_mask_on():
    x, mask = np.ones((2, 4, 6)), np.ones((2, 4), bool)
    assert Maxout(2).compute_mask(x, mask) is mask
    assert Maxout(2, axis=1).compute_mask(x, mask) is None
    assert Maxout(2).compute_mask(x, None) is None
