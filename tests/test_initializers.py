"""Sparse, orthogonal, identity, residual and data-dependent starts."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.initializers import (
    DeltaOrthogonal,
    Dirac,
    Sparse,
    fixup,
    initialize_from_data,
)
from kerasrecipes.layers import WeightNormalization
from tests.problems import assert_unchanged, classes, everything, images, network, values

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
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-4)
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


def test_a_layer_of_ones_own_with_g_and_v_is_none_of_ours():
    class Scaled(L.Layer):
        def build(self, input_shape):
            self.v = self.add_weight(shape=(input_shape[-1], 4), initializer="normal")
            self.g = self.add_weight(shape=(4,), initializer="ones")

        def call(self, inputs):
            return self.g * ops.matmul(inputs, self.v)

    x, _ = classes()
    model = keras.Sequential([keras.Input((6,)), Scaled(), L.Dense(5), L.Dense(2)])
    assert [row["layer"] for row in initialize_from_data(model, x)] == [model.layers[1].name]


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


def test_heads_inside_nested_models_are_left_alone():
    x, _ = classes()
    entry = keras.Input((6,))
    inner = keras.Input((4,))
    two = keras.Model(inner, [L.Dense(3, name="b")(inner), L.Dense(2, name="c")(inner)])
    h = L.Dense(4, name="hidden")(entry)
    head = keras.Sequential([L.Dense(5, name="below"), L.Dense(3, name="a"), L.ReLU()])
    outputs = [L.Softmax()(head(h)), *two(h), L.Dense(2, name="d")(h)]
    rows = initialize_from_data(keras.Model(entry, outputs), x)
    assert sorted(row["layer"] for row in rows) == ["below", "hidden"]


def test_inputs_far_from_zero_are_standardized_too():
    x = np.random.default_rng(0).normal(1e4, 1.0, size=(400, 6))
    model = keras.Sequential([keras.Input((6,)), L.Dense(5), L.Dense(2)])
    initialize_from_data(model, x)
    (z,) = pre_activations(model, x)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-3)


def folded(core):
    """The kernel as a matrix: inputs of a unit by units."""
    kernel = values([core.kernel])[0]
    if isinstance(core, L.Conv2DTranspose):
        kernel = np.swapaxes(kernel, -1, -2)
    if isinstance(core, L.EinsumDense):
        return kernel.reshape(kernel.shape[0], -1)
    units = kernel.shape[-2:] if isinstance(core, L.DepthwiseConv2D) else kernel.shape[-1:]
    return kernel.reshape(-1, np.prod(units))


@pytest.mark.parametrize("residual", [False, True], ids=["sequential", "residual"])
@pytest.mark.parametrize("kind", ["wn", "plain"])
def test_lsuv_is_orthonormal_with_variance_1_in_ten_layers(kind, residual):
    x, _ = classes(count=500)
    model = deep(kind, residual)
    head = model.layers[-1].get_weights()
    report = initialize_from_data(model, x, method="lsuv")
    assert len(report) == 10
    for z in pre_activations(model, x):
        np.testing.assert_allclose(z.var(), 1, atol=1e-3)
    hidden = [one for one in model.layers if hasattr(one, "kernel") or hasattr(one, "g")][:-1]
    for layer, row in zip(hidden, report, strict=True):
        kernel = layer.compute_kernel() if kind == "wn" else layer.kernel
        q = values([kernel])[0] / row["scale"]
        product = q @ q.T if q.shape[0] < q.shape[1] else q.T @ q
        np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-5)
        assert row["scale"] == pytest.approx(1 / row["found_std"])
        np.testing.assert_array_equal(row["bias"], 0)
    for one, other in zip(head, model.layers[-1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "layer, groups",
    [
        (lambda: L.Conv2D(4, 3, activation="relu", bias_initializer="ones"), 1),
        (lambda: L.Conv2D(24, 3, groups=2), 2),
        (lambda: L.Conv2DTranspose(4, 3), 1),
        (lambda: L.DepthwiseConv2D(3, depth_multiplier=4), 2),
        (lambda: L.EinsumDense("abcd,dfe->abcef", (None, None, 2, 3), bias_axes="ef"), 1),
    ],
    ids=["conv", "groups", "transposed", "depthwise", "einsum"],
)
def test_lsuv_for_every_kind_of_layer(layer, groups):
    """In each group of units with inputs of their own the kernel is orthonormal."""
    x = images()
    model = keras.Sequential([keras.Input(x.shape[1:]), layer()])
    (row,) = initialize_from_data(model, x, "lsuv", include_last=True)
    core = model.layers[0]
    activation, core.activation = core.activation, keras.activations.linear
    assert ops.convert_to_numpy(model(x)).var() == pytest.approx(1, abs=1e-3)
    core.activation = activation
    np.testing.assert_array_equal(values([core.bias])[0], 0)
    for block in np.split(folded(core) / row["scale"], groups, axis=1):
        product = block @ block.T if block.shape[0] < block.shape[1] else block.T @ block
        np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-5)


def test_lsuv_of_a_shared_layer_comes_within_the_papers_tolerance():
    x, _ = classes(count=300)
    entry, shared = keras.Input((6,)), L.Dense(6, "relu")
    model = keras.Model(entry, L.Dense(2)(shared(shared(shared(entry)))))
    initialize_from_data(model, 5 * x, "lsuv")
    z, seen = 5 * x, []
    for _ in range(3):
        z = z @ values([shared.kernel])[0]
        seen.append(z)
        z = np.maximum(z, 0)
    assert np.concatenate(seen).var() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("activation", ["relu", "linear", "tanh"])
def test_a_shared_layer_is_standardized_over_all_its_calls(activation):
    x, _ = classes(count=300)
    entry, shared = keras.Input((6,)), L.Dense(6, activation)
    model = keras.Model(entry, L.Dense(2)(shared(shared(shared(entry)))))
    before = values([shared.kernel])[0]
    (row,) = initialize_from_data(model, 5 * x + 1)
    kernel, bias = shared.get_weights()
    np.testing.assert_allclose(kernel, before * row["scale"], rtol=1e-5)
    z, seen = 5 * x + 1, []
    for _ in range(3):
        seen.append(z @ kernel + bias)
        z = ops.convert_to_numpy(shared(z))
    seen = np.concatenate(seen)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=0.01)


def test_lsuv_draws_from_keras_seed():
    x, _ = classes()
    kernels = []
    for seed in (1, 1, 2):
        model = deep("plain", residual=False)
        keras.utils.set_random_seed(seed)
        initialize_from_data(model, x, "lsuv")
        kernels.append(model.get_weights()[0])
    np.testing.assert_array_equal(*kernels[:2])
    assert not np.array_equal(*kernels[1:])


@pytest.mark.parametrize("method", ["standardize", "lsuv"])
def test_a_layer_that_hears_nothing_leaves_the_model_unchanged(method):
    """The second layer is constant, when the first is already set."""
    x, _ = classes()
    silent = L.Rescaling(0.0)
    layers = [L.Dense(5, "relu"), silent, L.Dense(4), L.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    before = everything(model)
    with pytest.raises(ValueError, match="4 of 4 units are constant"):
        initialize_from_data(model, x, method)
    assert_unchanged(model, before)


def test_lsuv_minds_constant_layers_but_not_constant_units():
    x = images()
    x[..., 0] = 3.0
    layer = L.DepthwiseConv2D(3)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, L.Flatten(), L.Dense(2)])
    initialize_from_data(model, x, "lsuv")
    z = ops.convert_to_numpy(layer(x))
    assert z[..., 0].std() < 1e-5 and z.var() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="2 of 2 units are constant"):
        initialize_from_data(model, np.full_like(x, 2.0), "lsuv")


CONVOLUTIONS = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_thirty_delta_orthogonal_layers_keep_every_length(rank, size):
    x = np.random.default_rng(0).normal(size=(3, *[5] * rank, 4)).astype("float32")
    z = x
    for depth in range(30):
        start = DeltaOrthogonal(gain=1.1, seed=depth)
        z = CONVOLUTIONS[rank](4, size, padding="same", kernel_initializer=start)(z)
    squares = [np.square(ops.convert_to_numpy(a)).reshape(3, -1).sum(axis=1) for a in (x, z)]
    np.testing.assert_allclose(squares[1] / squares[0], 1.1**60, rtol=1e-4)


def test_delta_orthogonal_is_one_orthogonal_matrix_in_the_middle():
    kernel = ops.convert_to_numpy(DeltaOrthogonal(gain=2.0, seed=1)((3, 5, 4, 7)))
    np.testing.assert_allclose(kernel[1, 2] @ kernel[1, 2].T, 4 * np.eye(4), atol=1e-5)
    kernel[1, 2] = 0
    assert not kernel.any()
    seeded = DeltaOrthogonal(seed=keras.random.SeedGenerator(3))
    draws = [ops.convert_to_numpy(seeded((3, 2, 2))) for _ in range(2)]
    assert not np.array_equal(*draws)


@pytest.mark.parametrize(
    "shape, groups",
    [((3, 4, 4), 1), ((3, 3, 2, 5), 1), ((5, 3, 4, 3), 1), ((3, 3, 2, 6), 3), ((1, 3, 3, 2, 2), 1)],
)
def test_dirac_is_torchs(shape, groups):
    torch = pytest.importorskip("torch")
    theirs = torch.empty(shape[-1], shape[-2], *shape[:-2])
    torch.nn.init.dirac_(theirs, groups)
    expected = np.moveaxis(theirs.numpy(), (0, 1), (-1, -2))
    np.testing.assert_array_equal(ops.convert_to_numpy(Dirac(groups)(shape)), expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_dirac_passes_pictures_on_bit_for_bit(size):
    x = images(channels=4)
    layer = L.Conv2D(4, size, padding="same", kernel_initializer=Dirac())
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), x)
    grouped = L.Conv2D(4, size, padding="same", groups=2, kernel_initializer=Dirac(2, gain=0.5))
    np.testing.assert_array_equal(ops.convert_to_numpy(grouped(x)), 0.5 * x)


def residual(blocks, per_branch=2, width=8, projected=False, plus=False, kind="he_normal"):
    """Returns a residual network of dense blocks with a head, and the layers of its branches."""
    inputs = keras.Input((6,))
    x = L.Dense(width, name="stem", kernel_initializer=kind)(inputs)
    branches = []
    for _ in range(blocks):
        z, layers = x, [L.Dense(width, kernel_initializer=kind) for _ in range(per_branch)]
        for layer in layers:
            z = layer(L.ReLU()(z))
        shortcut = L.Dense(width)(x) if projected else x
        x = shortcut + z if plus else L.Add()([shortcut, z])
        branches.append(layers)
    outputs = L.Softmax()(L.Dense(3, name="head", bias_initializer="ones")(L.ReLU()(x)))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model, branches


@pytest.mark.parametrize("settings", [{}, {"projected": True, "per_branch": 3}, {"plus": True}])
def test_fixup_scales_each_branch_as_the_paper_says(settings):
    """Zhang et al. 2019, section 3: L^(-1/(2m-2)), the last layer and the head 0, the rest kept."""
    model, branches = residual(5, **settings)
    depth = settings.get("per_branch", 2)
    before = {id(one): one.get_weights() for one in model.layers}
    report = fixup(model)
    scales = {one: 5 ** (-1 / (2 * depth - 2)) for layers in branches for one in layers[:-1]}
    scales |= {layers[-1]: 0.0 for layers in branches} | {model.get_layer("head"): 0.0}
    assert {row["layer"]: row["scale"] for row in report} == {
        one.name: pytest.approx(scale) for one, scale in scales.items()
    }
    assert [row["branch"] for row in report][-1] is None and len(report) == 5 * depth + 1
    for layer in model.layers:
        scale = scales.get(layer, 1.0)
        for kind, (old, new) in enumerate(zip(before[id(layer)], layer.get_weights(), strict=True)):
            np.testing.assert_allclose(new, old * (scale if kind == 0 or scale == 0 else 1.0))
    assert not model.get_layer("head").bias.numpy().any()


def test_fixup_makes_one_step_independent_of_depth():
    """The change of the outputs in a step stays the same from 4 to 64 blocks; He's explodes."""
    x, y = classes()
    moved = {}
    for start in (True, False):
        for blocks in (4, 64):
            keras.utils.set_random_seed(blocks)
            model, _ = residual(blocks)
            if start:
                fixup(model, zero_head=False)
            look = keras.Model(model.inputs[0], model.layers[-2].output)
            before = ops.convert_to_numpy(look(x))
            model.optimizer.learning_rate = 1e-4
            model.train_on_batch(x, y)
            moved[start, blocks] = np.abs(ops.convert_to_numpy(look(x)) - before).mean()
    assert 0.2 < moved[True, 64] / moved[True, 4] < 5
    assert moved[False, 64] / moved[False, 4] > 1e3


def test_fixup_begins_every_block_as_its_shortcut_and_trains():
    x, y = classes()
    model, _ = residual(200)
    fixup(model)
    stem = keras.Model(model.inputs[0], model.get_layer("stem").output)
    last = next(one for one in reversed(model.layers) if isinstance(one, L.Add))
    top = keras.Model(model.inputs[0], last.output)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(one(x)) for one in (stem, top)))
    losses = model.fit(x, y, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0] < 1.2


def test_fixup_finds_nested_branches_and_wrapped_layers():
    inputs = x = keras.Input((6,))
    for _ in range(4):
        wrapped = WeightNormalization(L.Dense(6, "relu"))
        branch = keras.Sequential([wrapped, L.Dense(6)])
        x = L.Add()([branch(x), x])
    body = keras.Model(inputs, x)
    model = keras.Sequential([keras.Input((6,)), body, L.Dense(3)])
    g = [values([layer.layers[0].g])[0] for layer in body.layers if hasattr(layer, "layers")]
    assert len(fixup(model)) == 9
    branches = [layer for layer in body.layers if hasattr(layer, "layers")]
    for one, old in zip(branches, g, strict=True):
        np.testing.assert_allclose(values([one.layers[0].g])[0], old / 2, rtol=1e-6)
        assert not one.layers[1].get_weights()[0].any()
    assert not model.layers[-1].get_weights()[0].any()


def refused_by_fixup():
    inputs = keras.Input((6,))
    dense, shared = L.Dense(6), L.Dense(6)
    towers = L.Add()([L.Dense(6)(inputs), L.Dense(6)(inputs)])
    x = L.Add()([inputs, L.BatchNormalization()(L.Dense(6)(inputs))])
    twice = L.Add()([shared(inputs), L.Dense(6)(L.Dense(6)(shared(inputs)))])
    again = shared(L.Add()([inputs, shared(L.Dense(6)(inputs))]))
    inner = L.Add()([dense(inputs), inputs])
    nested = L.Add()([inputs, L.Dense(6)(inner)])
    body = keras.Model(inputs, L.Add()([inputs, L.Dense(6)(L.Dense(6)(inputs))]))
    branch = keras.Sequential([L.Dense(6), L.Dense(6)])
    outside = L.Dense(6)(branch(L.Add()([inputs, branch(inputs)])))
    sequence = keras.Input((4, 6))
    separable = L.SeparableConv1D(6, 3, padding="same", name="separable")
    recurrent = keras.Sequential([L.GRU(6, return_sequences=True), L.Dense(6)])
    unknown = [
        keras.Model(sequence, L.Add(name="sum")([sequence, branch]))
        for branch in (separable(sequence), L.Dense(6)(L.Dense(6)(recurrent(sequence))))
    ]
    return {
        "no residual branch": (network(L.Dense(4)), keras.Model(inputs, towers)),
        "takes the place of normalization": (keras.Model(inputs, x),),
        "'separable' .* leads to 'sum' has a kernel that fixup does not know": unknown[:1],
        "GRUCell.* has a kernel that fixup does not know": unknown[1:],
        "is used elsewhere too": [
            keras.Model(inputs, one) for one in (twice, again, nested, body(body(inputs)), outside)
        ],
    }


@pytest.mark.parametrize("message", list(refused_by_fixup()))
def test_fixup_refuses_and_changes_nothing(message):
    for model in refused_by_fixup()[message]:
        before = everything(model)
        with pytest.raises(ValueError, match=message):
            fixup(model)
        assert_unchanged(model, before)


def test_fixup_leaves_a_network_without_head_its_projection():
    inputs = keras.Input((6,))
    branch = L.Dense(4)(L.Dense(5, "relu")(inputs))
    model = keras.Model(inputs, L.ReLU()(L.Add()([branch, L.Dense(4, name="projection")(inputs)])))
    before = model.get_layer("projection").get_weights()[0]
    assert len(fixup(model)) == 2
    np.testing.assert_array_equal(model.get_layer("projection").get_weights()[0], before)
