"""Batch norm's two behaviours: kept in use, switched in training; and what normalizing undoes."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.callbacks import Freeze, FreezeBatchStatistics, HyperparameterSchedule
from kerasrecipes.inference import reestimate_batch_normalization, with_batch_statistics
from kerasrecipes.layers import BatchRenormalization, MeanOnlyBatchNormalization
from kerasrecipes.objective import Objective
from kerasrecipes.optimizers import Masked
from tests.entries.normalized import BATCHES, RATE, data, fitted, regression, trajectories
from tests.problems import classes, images, network, values

L = keras.layers
BACKEND = keras.config.backend()
JIT = ["auto", False] if BACKEND != "torch" else ["auto"]


def assert_same(pairs, tolerance=1e-4):
    for ours, reference in pairs:
        assert np.linalg.norm(ours - reference) <= tolerance * max(np.linalg.norm(reference), 1e-2)


# FreezeBatchStatistics


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_the_whole_trajectory_follows_a_numpy_loop(epoch, jit):
    assert_same(trajectories(regression(jit), [FreezeBatchStatistics(epoch)], epoch))


def test_statistics_stand_still_and_everything_else_moves():
    model = regression()
    seen = fitted(model, [FreezeBatchStatistics(2)])
    for step in range(6, 12):
        for i in (4, 5):
            np.testing.assert_array_equal(seen[step][i], seen[5][i])
        for i in range(4):
            assert not np.array_equal(seen[step][i], seen[step - 1][i])


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped():
    whole, parts = regression(), regression()
    parts.set_weights(whole.get_weights())
    expected = fitted(whole, [FreezeBatchStatistics(1)])[-1]
    fitted(parts, [FreezeBatchStatistics(1)], epochs=2)
    found = fitted(parts, [FreezeBatchStatistics(1)], epochs=4, initial_epoch=2)[-1]
    assert_same(zip(found, expected, strict=True), 1e-6)


def test_the_next_fit_trains_as_usual():
    model = regression(optimizer=keras.optimizers.SGD(RATE, momentum=0.9))
    fitted(model, [FreezeBatchStatistics(1)], epochs=2)
    assert "train_step" not in vars(model) and "make_train_function" not in vars(model)
    model.optimizer.momentum = 0.9
    for slot in model.optimizer.variables:
        if "momentum" in slot.path:
            slot.assign(np.zeros(slot.shape))
    assert_same(trajectories(model, [], 9, epochs=2))


@pytest.mark.parametrize("recompile", [False, True])
def test_the_fit_after_an_interrupted_one_trains_as_usual(recompile):
    model, broken = regression(), keras.callbacks.LambdaCallback()

    def interrupt(batch, logs=None):
        if broken.armed and batch == 1:
            raise KeyboardInterrupt

    broken.on_epoch_begin = lambda epoch, logs=None: setattr(broken, "armed", epoch == 1)
    broken.on_train_batch_begin = interrupt
    with pytest.raises(KeyboardInterrupt):
        fitted(model, [FreezeBatchStatistics(1), broken], epochs=2)
    fresh = regression()
    fresh.set_weights(model.get_weights())
    if recompile:
        model.compile(keras.optimizers.SGD(RATE, momentum=0.9), "mse")
    else:
        for slot in model.optimizer.variables:
            if "momentum" in slot.path:
                slot.assign(np.zeros(slot.shape))
    assert_same(trajectories(model, [], 9, epochs=2))
    fitted(fresh, [], epochs=2)
    assert_same(zip(model.get_weights(), fresh.get_weights(), strict=True))


def test_after_another_compile_the_frozen_steps_are_the_new_ones():
    model, freeze = regression(), FreezeBatchStatistics(0)
    fitted(model, [freeze], epochs=1)
    model.compile(keras.optimizers.SGD(2 * RATE, momentum=0.0), "mse")
    before = values(model.trainable_variables)
    other = regression(optimizer=keras.optimizers.SGD(2 * RATE, momentum=0.0))
    other.set_weights(model.get_weights())
    fitted(model, [freeze], epochs=1)
    fitted(other, [FreezeBatchStatistics(0)], epochs=1)
    assert not np.array_equal(values(model.trainable_variables)[0], before[0])
    assert_same(zip(model.get_weights(), other.get_weights(), strict=True), 1e-6)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch runs eagerly: there is nothing to trace")
def test_the_switch_costs_one_compilation():
    counts = []

    class Counted(keras.optimizers.SGD):
        def apply(self, *args, **kwargs):
            counts.append(1)
            return super().apply(*args, **kwargs)

    def traces(callbacks):
        model = regression(optimizer=Counted(RATE))
        found = []
        for _ in range(2):
            counts.clear()
            fitted(model, callbacks(), batch_size=7)
            found.append(len(counts))
        return found

    (plain, again), switch = traces(list), FreezeBatchStatistics(2)
    assert again == 0
    assert traces(lambda: [switch]) == [2 * plain, 0]


def test_masks_schedules_and_the_switch_in_one_fit():
    """With everything but the head frozen the loop moves the head alone."""
    model = regression(optimizer=Masked(keras.optimizers.SGD(RATE, momentum=0.9)))
    callbacks = [
        FreezeBatchStatistics(2),
        Freeze({1: [model.layers[0], "norm"]}),
        HyperparameterSchedule("learning_rate", lambda epoch: RATE, per="epoch"),
    ]
    seen = fitted(model, callbacks)
    x, y = data()
    kernel, gamma, beta, head, mean, variance = seen[5]
    velocity = (seen[5][3] - seen[4][3]).astype("float64")
    hat = (x @ kernel - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    for step in range(6, 12):
        rows = BATCHES[step % 3]
        u = hat[rows]
        velocity = 0.9 * velocity - RATE * 2 * u.T @ (u @ head - y[rows]) / len(u)
        head = head + velocity
        np.testing.assert_allclose(seen[step][3], head, rtol=1e-4, atol=1e-5)
        for i in (0, 1, 2, 4, 5):
            np.testing.assert_array_equal(seen[step][i], seen[2][i])


def test_other_kinds_of_batch_norm_are_switched_too():
    x, y = classes()
    norms = [BatchRenormalization(r_max=3.0, d_max=5.0), MeanOnlyBatchNormalization()]
    nested = keras.Sequential([L.Dense(4), norms[0]])
    model = network(nested, norms[1], optimizer=keras.optimizers.SGD(0.0))
    model.fit(x, y, epochs=2, verbose=0)
    before = values([*norms[0].non_trainable_variables, *norms[1].non_trainable_variables])
    history = model.fit(
        x, y, batch_size=48, epochs=1, verbose=0, callbacks=[FreezeBatchStatistics(0)]
    )
    after = values([*norms[0].non_trainable_variables, *norms[1].non_trainable_variables])
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    expected = model.evaluate(x, y, batch_size=48, verbose=0)
    np.testing.assert_allclose(history.history["loss"][0], expected, rtol=1e-5)


def test_what_plain_keras_makes_of_trainable_in_a_callback():
    """README's row: ignored on TensorFlow, an error on JAX, gamma and beta frozen on PyTorch."""
    by_hand, model = keras.callbacks.LambdaCallback(), regression()
    norm = model.get_layer("norm")
    by_hand.on_epoch_begin = lambda epoch, logs=None: setattr(norm, "trainable", epoch < 1)
    at_switch = []
    by_hand.on_epoch_end = lambda epoch, logs=None: at_switch.append(values(norm.weights))
    if BACKEND == "jax":
        with pytest.raises(ValueError, match="variable.assign"):
            fitted(model, [by_hand], epochs=2)
        return
    fitted(model, [by_hand], epochs=2)
    still = [np.array_equal(a, b) for a, b in zip(*at_switch, strict=True)]
    assert still == [BACKEND == "torch"] * 4


# with_batch_statistics


def test_is_what_training_computes():
    x = images(count=10) * 3 + 1
    model = keras.Sequential([keras.Input((6, 6, 2))])
    for _ in range(2):
        for layer in (L.Conv2D(4, 3, use_bias=False), L.BatchNormalization(), L.ReLU()):
            model.add(layer)
    before = model.get_weights()
    ours = with_batch_statistics(model)
    expected = ops.convert_to_numpy(model(x, training=True))
    model.set_weights(before)
    for found in (ours(x, training=False), ours.predict(x, verbose=0)):
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4, atol=1e-5)
    for one, other in zip(ours.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_the_normalization_is_in_training():
    x = classes()[0]
    model = keras.Sequential([keras.Input((6,)), L.BatchNormalization(), L.Dropout(0.9)])
    found = with_batch_statistics(model).predict(x, verbose=0, batch_size=len(x))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-2)


def test_trains_as_the_layer_it_was():
    model = regression()
    ours = with_batch_statistics(model)
    ours.compile(keras.optimizers.SGD(RATE, momentum=0.9), "mse")
    assert_same(trajectories(ours, [], 9))


def test_frozen_nested_and_shared_layers():
    rng = np.random.default_rng(0)
    norm = L.BatchNormalization(trainable=False)
    inner = keras.Sequential([L.Dense(3), norm])
    a, b = keras.Input((2,)), keras.Input((2,))
    model = keras.Model([a, b], [inner(a), inner(b)])
    x = [rng.normal(size=(8, 2)), rng.normal(3, 2, size=(8, 2))]
    for found in with_batch_statistics(model).predict(x, verbose=0):
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
        assert np.all(found.std(axis=0) > 0.9)


def test_masked_steps_do_not_count():
    model = keras.Sequential([keras.Input((3, 2)), L.Masking(), L.BatchNormalization(epsilon=1e-6)])
    x = np.array([[[1.0, 2.0], [3.0, 6.0], [0, 0]], [[5.0, 1.0], [0, 0], [0, 0]]])
    seen = x.reshape(-1, 2)[[0, 1, 3]]
    found = with_batch_statistics(model).predict(x, verbose=0).reshape(-1, 2)[[0, 1, 3]]
    np.testing.assert_allclose(found, (seen - seen.mean(0)) / seen.std(0), rtol=1e-4, atol=1e-5)


def test_axis_and_half_precision():
    x = np.random.default_rng(0).normal(5, 3, size=(6, 4, 3))
    norm = L.BatchNormalization(axis=1, dtype="mixed_float16")
    ours = with_batch_statistics(keras.Sequential([keras.Input((4, 3)), norm]))
    found = ops.convert_to_numpy(ours(x, training=False))
    assert found.dtype == "float16"
    expected = (x - x.mean((0, 2), keepdims=True)) / x.std((0, 2), keepdims=True)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_renormalizing_layers_are_left_as_they_are():
    x = classes()[0]
    kinds = [BatchRenormalization(), L.BatchNormalization(renorm=True), L.BatchNormalization()]
    model = network(*kinds)
    ours = with_batch_statistics(model)
    assert [type(one) for one in ours.layers[:2]] == [type(one) for one in kinds[:2]]
    for one, other in zip(ours.layers[:2], kinds[:2], strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(one(x, training=False)),
            ops.convert_to_numpy(other(x, training=False)),
        )


def test_weights_are_copies_and_the_file_loads(tmp_path):
    x = classes()[0]
    model = network(L.Dense(4), L.BatchNormalization())
    ours = with_batch_statistics(model)
    assert not {id(v) for v in ours.variables} & {id(v) for v in model.variables}
    ours.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), ours.predict(x, verbose=0))
    twice = with_batch_statistics(ours)
    np.testing.assert_array_equal(twice.predict(x, verbose=0), ours.predict(x, verbose=0))


def test_the_mismatch_and_its_remedies():
    """Averages that lag: test loss is far from training loss, with either remedy it is not."""
    x, y = classes(count=96)
    model = network(L.Dense(16), L.BatchNormalization(momentum=0.999), L.ReLU())
    model.fit(x * 10 + 5, y, batch_size=96, epochs=30, verbose=0)
    in_training = model.train_on_batch(x * 10 + 5, y)
    in_use = model.evaluate(x * 10 + 5, y, verbose=0, batch_size=96)
    kept = with_batch_statistics(model)
    kept.compile(loss="sparse_categorical_crossentropy")
    assert in_use > 2 * in_training
    assert kept.evaluate(x * 10 + 5, y, verbose=0, batch_size=96) < 1.05 * in_training
    reestimate_batch_normalization(model, x * 10 + 5)
    assert model.evaluate(x * 10 + 5, y, verbose=0, batch_size=96) < 1.05 * in_training


# What normalizing undoes: the lectures' toys


class Product(L.Layer):
    """z = w4 w3 N(w2 w1 x), where N normalizes the middle or does nothing."""

    def __init__(self, normalize):
        super().__init__()
        self.normalize = normalize

    def build(self, input_shape):
        self.w = self.add_weight(shape=(4,), initializer="ones")
        if isinstance(self.normalize, L.Layer):
            self.normalize.build(input_shape)

    def call(self, inputs):
        middle = self.w[1] * self.w[0] * inputs
        return self.w[3] * self.w[2] * self.normalize(middle)


def derivatives(normalize, w, x, example):
    """dz/dw of one example."""
    model = keras.Sequential([keras.Input((1,)), Product(normalize)])
    model.compile(loss=lambda y_true, y_pred: y_true * y_pred)
    picked = len(x) * np.eye(len(x), dtype="float32")[:, [example]]
    x = np.array(x, "float32")[:, None]
    objective = Objective(model, x, picked, training=True)
    return objective.value_and_gradient(np.array(w))[1]


EVEN, UNEVEN = (1, 1, 1, 1), (1, 0.01, 100, 1)


def test_gauge_freedom_of_the_toy():
    """Two settings of one function: derivatives of 1, and of 100 and 0.01."""
    even, uneven = (derivatives(lambda z: z, w, [1.0], 0) for w in (EVEN, UNEVEN))
    np.testing.assert_allclose(even, [1, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(uneven, [1, 100, 0.01, 1], rtol=1e-5)


def test_the_toy_normalization_makes_later_derivatives_independent_of_earlier_weights():
    x = [1.0, 2.0, 6.0]
    for example in range(3):
        share = x[example] / 3
        for w in (EVEN, UNEVEN, (7, 0.3, 1, 1)):
            found = derivatives(lambda z: z / ops.mean(z), w, x, example)
            np.testing.assert_allclose(found[2], w[3] * share, rtol=1e-5)
            np.testing.assert_allclose(found[:2] * w[:2], 0, atol=1e-4 * abs(w[2]))


def test_batch_norm_does_the_same():
    x = [1.0, 2.0, 6.0]
    for example in range(3):
        expected = (x[example] - 3) / np.std(x)
        for w in (EVEN, UNEVEN, (7, 0.3, 1, 1)):
            norm = L.BatchNormalization(epsilon=1e-12, scale=False, center=False)
            found = derivatives(norm, w, x, example)
            np.testing.assert_allclose(found[2], expected, rtol=1e-3)


def test_relu_networks_rescaled_are_one_function():
    """1/a ReLU(a x) = ReLU(x): other weights, the same function, other gradients."""
    x, y = classes()
    model = network(L.Dense(5, "relu"))
    w = model.get_weights()
    objective = Objective(model, x, y)
    value, gradient = objective.value_and_gradient(objective.get_vector())
    model.set_weights([100 * w[0], 100 * w[1], w[2] / 100, w[3]])
    other, steeper = objective.value_and_gradient(objective.get_vector())
    np.testing.assert_allclose(other, value, rtol=1e-5)
    np.testing.assert_allclose(steeper[:30], gradient[:30] / 100, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(steeper[35:50], gradient[35:50] * 100, rtol=1e-3, atol=1e-4)
