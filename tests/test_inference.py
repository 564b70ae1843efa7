"""Re-estimated batch normalization."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.inference import reestimate_batch_normalization
from kerasrecipes.inference.batch_statistics import merge_moments
from tests.problems import classes, images, network, values

L = keras.layers


def statistics(model):
    norms = [one for one in model.layers if isinstance(one, L.BatchNormalization)]
    return values([v for norm in norms for v in (norm.moving_mean, norm.moving_variance)])


def deep():
    model = keras.Sequential([keras.Input((6, 6, 2))])
    for _ in range(3):
        for layer in (L.Conv2D(4, 3, padding="same"), L.BatchNormalization(), L.ReLU()):
            model.add(layer)
    return model


def test_the_result_does_not_depend_on_the_batches():
    x, model = images(count=23), deep()
    found = []
    for batch_size in (23, 10, 1):
        reestimate_batch_normalization(model, x, batch_size)
        found.append(statistics(model))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_with_one_batch_training_and_inference_agree():
    """With the population's statistics the network does in use what it does in training."""
    x, model = images(count=23) * 3 + 1, deep()
    reestimate_batch_normalization(model, x, 10)
    in_use, in_training = (ops.convert_to_numpy(model(x, training=mode)) for mode in (False, True))
    np.testing.assert_allclose(in_use, in_training, rtol=1e-3, atol=1e-4)


def test_merging_moments_is_pooling():
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 3, size=(7, 4)), rng.normal(-1, 1, size=(20, 4))
    n, mean, variance = merge_moments(*((len(g), g.mean(0), g.var(0)) for g in (a, b)))
    pooled = np.concatenate([a, b])
    assert n == 27
    np.testing.assert_allclose(mean, pooled.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(variance, pooled.var(axis=0), rtol=1e-12)


def test_positions_under_a_mask_are_left_out():
    norm = L.BatchNormalization()
    model = keras.Sequential([keras.Input((3, 2)), L.Masking(0.0), norm])
    x = np.array([[[1.0, 2.0], [3.0, 6.0], [0, 0]], [[5.0, 1.0], [0, 0], [0, 0]]])
    reestimate_batch_normalization(model, x, batch_size=1)
    seen = x.reshape(-1, 2)[[0, 1, 3]]
    np.testing.assert_allclose(values([norm.moving_mean])[0], seen.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(values([norm.moving_variance])[0], seen.var(axis=0), rtol=1e-6)


def test_a_shared_layer_pools_its_calls_and_a_nested_one_is_found():
    norm = L.BatchNormalization()
    inner = keras.Sequential([keras.Input((2,)), norm])
    a, b = keras.Input((2,)), keras.Input((2,))
    model = keras.Model([a, b], L.Add()([inner(a), inner(b)]))
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(8, 2)), rng.normal(3, 2, size=(8, 2))]
    reestimate_batch_normalization(model, x, batch_size=5)
    np.testing.assert_allclose(
        values([norm.moving_mean])[0], np.concatenate(x).mean(axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        values([norm.moving_variance])[0], np.concatenate(x).var(axis=0), rtol=1e-5
    )


def test_an_error_half_way_brings_the_statistics_back():
    class Explodes(L.Layer):
        def call(self, inputs):
            return inputs / ops.zeros_like(inputs)

    first = L.BatchNormalization()
    model = keras.Sequential([keras.Input((6,)), first, Explodes(), L.BatchNormalization()])
    before = statistics(model)
    with pytest.raises(ValueError, match="no statistics"), np.errstate(all="ignore"):
        reestimate_batch_normalization(model, classes()[0])
    for one, other in zip(before, statistics(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_image_or_equal_ones_have_no_statistics_but_a_dead_network_has():
    model = keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(3, 3), L.BatchNormalization()])
    before = statistics(model)
    for x in (images()[:1], np.full((4, 6, 6, 2), 3.0)):
        with pytest.raises(ValueError, match=f"differ.*{len(x)} example"):
            reestimate_batch_normalization(model, x)
    for one, other in zip(before, statistics(model), strict=True):
        np.testing.assert_array_equal(one, other)
    model.layers[0].kernel.assign(np.zeros((3, 3, 2, 3)))
    reestimate_batch_normalization(model, images())
    for one in statistics(model):
        np.testing.assert_array_equal(one, 0)


@pytest.mark.parametrize("axis", [1, -1])
def test_masked_steps_do_not_count(axis):
    """Keras's own weighted moments, per channel, also where the axis is that of time."""
    x = images(30, size=5)[..., 0].astype("float32") + np.arange(5)
    x[::3, 3] = 0
    x[::2, 1] = 0
    norm = L.BatchNormalization(axis=axis)
    model = keras.Sequential([keras.Input((5, 5)), L.Masking(), norm])
    reestimate_batch_normalization(model, x, batch_size=7)
    weights = np.broadcast_to((x != 0).any(axis=2)[..., None], x.shape).astype(float)
    over = (0, 2) if axis == 1 else (0, 1)
    mean = (weights * x).sum(over) / weights.sum(over)
    spread = x - (mean[:, None] if axis == 1 else mean)
    np.testing.assert_allclose(values([norm.moving_mean])[0], mean, rtol=1e-5)
    variance = (weights * spread**2).sum(over) / weights.sum(over)
    np.testing.assert_allclose(values([norm.moving_variance])[0], variance, rtol=1e-5)


def test_only_the_statistics_change():
    x, y = classes()
    model = network(L.Dense(4), L.BatchNormalization(), L.Dropout(0.5, seed=1))
    model.fit(x, y, verbose=0)
    before = {v.path: v.numpy() for v in model.variables}
    reestimate_batch_normalization(model, x)
    changed = [v.path for v in model.variables if not np.array_equal(before[v.path], v.numpy())]
    assert sorted(path.split("/")[-1] for path in changed) == ["moving_mean", "moving_variance"]
