"""Objective: `evaluate`'s loss and its gradient, and nothing of the model changes."""

import keras
import numpy as np
import pytest

from kerasrecipes.objective import Objective
from tests.problems import assert_unchanged, classes, everything

L = keras.layers


def rich(**compile_settings):
    """Regularizers, batch normalization, seeded dropout and noise."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(5, "tanh", kernel_regularizer="l2", activity_regularizer="l2"),
            L.BatchNormalization(),
            L.Dropout(0.4, seed=1),
            L.GaussianNoise(0.1, seed=2),
            L.Dense(3, "softmax"),
        ]
    )
    settings = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile("adam", **{**settings, **compile_settings})
    return model


@pytest.mark.parametrize("batch_size", [48, 20])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_is_that_of_evaluate(batch_size, weighted):
    x, y = classes()
    weights = np.random.default_rng(0).uniform(size=48) if weighted else None
    model = rich()
    model.fit(x, y, verbose=0)
    objective = Objective(model, x, y, weights, batch_size=batch_size)
    expected = model.evaluate(x, y, sample_weight=weights, batch_size=batch_size, verbose=0)[0]
    assert objective.value(objective.get_vector()) == pytest.approx(expected, rel=1e-5)


def test_batches_make_the_whole():
    x, y = classes()
    model = rich()
    whole, parts = (Objective(model, x, y, batch_size=size) for size in (None, 20))
    w = whole.get_vector()
    np.testing.assert_allclose(parts.value(w), whole.value(w), rtol=1e-5)
    (_, one), (_, other) = (each.value_and_gradient(w) for each in (whole, parts))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_gradient_is_that_of_finite_differences(training):
    x, y = classes()
    objective = Objective(rich(), x, y, training=training)
    w = objective.get_vector()
    value, gradient = objective.value_and_gradient(w)
    assert value == pytest.approx(objective.value(w), rel=1e-6)
    rng, step = np.random.default_rng(0), 3e-3
    for _ in range(4):
        d = rng.normal(size=w.size)
        d = (d / np.linalg.norm(d)).astype("float32")
        slope = (objective.value(w + step * d) - objective.value(w - step * d)) / (2 * step)
        # Central differences in float32: rounding 6e-8 * |loss| / step, curvature step².
        assert slope == pytest.approx(float(gradient @ d), abs=5e-4)


def test_float64_is_exact_on_tensorflow():
    if keras.config.backend() != "tensorflow":
        pytest.skip("Keras layers compute in float32 on JAX and PyTorch")
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        x, y = classes()
        model = keras.Sequential([keras.Input((6,)), L.Dense(4, "tanh"), L.Dense(3, "softmax")])
        model.compile(loss="sparse_categorical_crossentropy")
        objective = Objective(model, x, y)
        w = objective.get_vector()
        d = np.random.default_rng(0).normal(size=w.size)
        slope = (objective.value(w + 1e-6 * d) - objective.value(w - 1e-6 * d)) / 2e-6
        assert slope == pytest.approx(objective.value_and_gradient(w)[1] @ d, rel=1e-8)
    finally:
        keras.config.set_floatx("float32")


def test_training_mode_is_deterministic_and_not_inference():
    x, y = classes()
    model = rich()
    objective, still = (Objective(model, x, y, training=mode) for mode in (True, False))
    w = objective.get_vector()
    assert objective.value(w) == objective.value(w)
    assert objective.value(w) != pytest.approx(still.value(w), rel=1e-3)


def test_unseeded_dropout_is_deterministic_too_and_leaves_the_global_state():
    x, y = classes()
    model = keras.Sequential([keras.Input((6,)), L.Dropout(0.5), L.Dense(3, "softmax")])
    model.compile(loss="sparse_categorical_crossentropy")
    objective = Objective(model, x, y, training=True)
    w = objective.get_vector()
    keras.utils.set_random_seed(1)
    expected = np.asarray(keras.ops.convert_to_numpy(keras.random.uniform((3,))))
    keras.utils.set_random_seed(1)
    assert objective.value_and_gradient(w)[0] == objective.value(w)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.random.uniform((3,))), expected)


def test_vector_round_trip_and_order():
    x, y = classes()
    model = rich()
    objective = Objective(model, x, y)
    w = np.arange(objective.size, dtype="float32")
    objective.set_vector(w)
    np.testing.assert_array_equal(objective.get_vector(), w)
    np.testing.assert_array_equal(model.trainable_variables[0].numpy().ravel(), w[:30])
    with pytest.raises(ValueError, match="keeps its weights"):
        objective.set_vector(w * np.nan)
    np.testing.assert_array_equal(objective.get_vector(), w)


def test_set_vector_within_a_fit_holds_for_the_next_batch():
    x, y = classes()
    model = keras.Sequential([keras.Input((6,)), L.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    objective = Objective(model, x, y)
    w = np.arange(21, dtype="float32")
    set_once = keras.callbacks.LambdaCallback()
    set_once.on_train_batch_end = lambda batch, logs=None: (
        objective.set_vector(w) if batch == 0 else None
    )
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[set_once])
    np.testing.assert_array_equal(objective.get_vector(), w)


def test_two_inputs_two_outputs_and_a_later_change_of_the_statistics():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    h = L.BatchNormalization(name="norm")(L.Concatenate()([a, b]))
    model = keras.Model(
        {"a": a, "b": b}, {"p": L.Dense(1, name="p")(h), "q": L.Dense(2, name="q")(h)}
    )
    model.compile(loss={"p": "mse", "q": "mae"}, loss_weights={"p": 1.0, "q": 0.3})
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(10, 2)), "b": rng.normal(size=(10, 3))}
    y = {"p": rng.normal(size=(10, 1)), "q": rng.normal(size=(10, 2))}
    objective = Objective(model, x, y, batch_size=4)
    before = everything(model)
    first = objective.value(objective.get_vector())
    assert_unchanged(model, before)
    assert first == pytest.approx(
        model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)["loss"], rel=1e-5
    )
    model.get_layer("norm").moving_mean.assign(np.ones(5))
    second = objective.value(objective.get_vector())
    assert second == pytest.approx(
        model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)["loss"], rel=1e-5
    )
    assert second != pytest.approx(first, rel=1e-4)
