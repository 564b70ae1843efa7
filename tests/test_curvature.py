"""Second derivatives of an Objective: exact, linear, symmetric, also where TensorFlow's are not."""

import contextlib

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.objective import Objective
from tests.problems import assert_unchanged, classes, everything, values

L = keras.layers
BACKEND = keras.config.backend()


def logits():
    """Made anew: a loss keeps the precision that held when it was made."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@contextlib.contextmanager
def widest():
    """Float64 where Keras's layers really compute in it; yields (step, relative tolerance)."""
    if BACKEND != "tensorflow":
        yield 1e-2, 4e-3
        return
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield 1e-5, 1e-7
    finally:
        keras.config.set_floatx("float32")


def network(*hidden, shape=(6,), regularizer=None):
    head = L.Dense(3, kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input(shape), *hidden, L.Flatten(), head])
    model.compile(loss=logits())
    return model


def directions(size, count=2):
    d = np.random.default_rng(2).normal(size=(count, size))
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def differences(objective, w, d, step):
    up, down = (objective.value_and_gradient(w + s * d)[1].astype("float64") for s in (step, -step))
    return (up - down) / (2 * step)


def close(ours, reference, tolerance):
    reference = np.asarray(reference, "float64")
    assert np.abs(ours - reference).max() <= tolerance * np.abs(reference).max()


class SelfAttention(L.Layer):
    def __init__(self):
        super().__init__()
        self.inner = L.MultiHeadAttention(2, 2)

    def build(self, shape):
        self.inner.build(shape, shape)

    def call(self, inputs):
        return self.inner(inputs, inputs)


HIDDEN = {
    "regularized": lambda: [L.Dense(5, "tanh", kernel_regularizer="l2", activity_regularizer="l2")],
    "batch norm": lambda: [L.Dense(5, "tanh"), L.BatchNormalization()],
    "layer norm": lambda: [L.Dense(5, "tanh"), L.LayerNormalization()],
    "group norm": lambda: [L.Dense(6, "tanh"), L.GroupNormalization(2)],
    "dropout": lambda: [L.Dense(6, "tanh"), L.Dropout(0.3, seed=1), L.Dropout(0.2)],
    "convolution": lambda: [L.Reshape((6, 1)), L.Conv1D(3, 3, activation="tanh")],
    "attention": lambda: [L.Reshape((3, 2)), SelfAttention()],
    "recurrent": lambda: [L.Reshape((3, 2)), L.LSTM(3)],
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", HIDDEN)
def test_products_are_those_of_central_differences(name, training):
    with widest() as (step, tolerance):
        x, y = classes()
        model = network(*HIDDEN[name](), regularizer=keras.regularizers.L2(0.1))
        weights = np.random.default_rng(3).uniform(size=len(x))
        objective = Objective(model, x, y, weights, training=training)
        w, before = objective.get_vector(), everything(model)
        for d in directions(w.size):
            product = objective.hessian_vector_product(w, d)
            close(product, differences(objective, w, d, step), tolerance)
            np.testing.assert_array_equal(product, objective.hessian_vector_product(w, d))
        assert_unchanged(model, before)


def tanh_net(w, x, y, xp):
    """The mean cross-entropy of a 12-20-7 net, without Keras: 407 weights."""
    a, b, c, d = w[:240].reshape(12, 20), w[240:260], w[260:400].reshape(20, 7), w[400:]
    z = xp.tanh(x @ a + b) @ c + d
    return xp.mean(xp.log(xp.sum(xp.exp(z), axis=1)) - z[xp.arange(len(x)), y])


def tanh_net_gradient(w, x, y):
    a, b, c, d = w[:240].reshape(12, 20), w[240:260], w[260:400].reshape(20, 7), w[400:]
    h = np.tanh(x @ a + b)
    e = np.exp(h @ c + d)
    e = (e / e.sum(axis=1, keepdims=True) - np.eye(7)[y]) / len(x)
    back = (e @ c.T) * (1 - h**2)
    return np.concatenate([(x.T @ back).ravel(), back.sum(0), (h.T @ e).ravel(), e.sum(0)])


@pytest.mark.parametrize("batch_size", [None, 25])
def test_hessian_of_four_hundred_weights(batch_size):
    x, y = classes(count=60, features=12, kinds=7)
    model = keras.Sequential([keras.Input((12,)), L.Dense(20, "tanh"), L.Dense(7)])
    model.compile(loss=logits())
    objective = Objective(model, x, y, batch_size=batch_size)
    w = objective.get_vector()
    hessian, wide, step = objective.hessian(w), w.astype("float64"), 1e-5
    assert hessian.shape == (407, 407)
    reference = [
        (tanh_net_gradient(wide + d, x, y) - tanh_net_gradient(wide - d, x, y)) / (2 * step)
        for d in step * np.eye(407)
    ]
    close(hessian, reference, 3e-6)
    np.testing.assert_array_equal(hessian, hessian.T)
    if BACKEND == "jax":
        import jax

        close(hessian, jax.hessian(tanh_net)(w, x, y, jax.numpy), 3e-6)


def test_products_are_linear_and_symmetric_and_make_up_the_hessian():
    x, y = classes()
    objective = Objective(network(*HIDDEN["batch norm"]()), x, y, training=True)
    w = objective.get_vector()
    u, v = directions(w.size)
    for product in (objective.hessian_vector_product, objective.gauss_newton_vector_product):
        hu, hv = product(w, u), product(w, v)
        close(product(w, 2 * u - 3 * v), 2 * hu - 3 * hv, 1e-5)
        assert u @ hv == pytest.approx(v @ hu, abs=1e-5 * float(np.abs(hu).max()))
    close(objective.hessian_vector_product(w, u), objective.hessian(w) @ u, 1e-5)


def test_batches_make_the_whole_product():
    x, y = classes()
    model = network(*HIDDEN["regularized"]())
    whole, parts = (Objective(model, x, y, batch_size=size) for size in (None, 20))
    w = whole.get_vector()
    (v,) = directions(w.size, 1)
    close(parts.hessian_vector_product(w, v), whole.hessian_vector_product(w, v), 1e-5)
    close(parts.gauss_newton_vector_product(w, v), whole.gauss_newton_vector_product(w, v), 1e-5)


def test_hessian_of_logistic_regression_is_the_closed_form_and_has_no_negative_eigenvalue():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype("float32"), rng.integers(0, 2, size=(40, 1))
    model = keras.Sequential([keras.Input((3,)), L.Dense(1, "sigmoid")])
    model.compile(loss="binary_crossentropy")
    objective = Objective(model, x, y)
    w = rng.normal(size=4)
    rows = np.column_stack([x, np.ones(40)])
    p = 1 / (1 + np.exp(-rows @ w))
    expected = rows.T @ (rows * (p * (1 - p))[:, None]) / 40
    hessian = objective.hessian(w)
    close(hessian, expected, 1e-5)
    assert np.linalg.eigvalsh(hessian).min() > 0
    # The same column twice: a direction in which nothing changes, so only semidefinite.
    twins = keras.Sequential([keras.Input((2,)), L.Dense(1, "sigmoid")])
    twins.compile(loss="binary_crossentropy")
    flat = np.linalg.eigvalsh(Objective(twins, x[:, [0, 0]], y).hessian(w[:3]))
    assert flat[0] == pytest.approx(0, abs=1e-7)
    assert flat[1] > 1e-3


def test_gauss_newton_is_jacobian_and_curvature_of_the_loss():
    x, y = classes(count=10)
    model = network(L.Dense(4, "tanh", kernel_regularizer=keras.regularizers.L2(0.3)))
    objective = Objective(model, x, y)
    w = objective.get_vector()

    def outputs(w):
        a, b, c, d = w[:24].reshape(6, 4), w[24:28], w[28:40].reshape(4, 3), w[40:]
        return (np.tanh(x @ a + b) @ c + d).ravel()

    w64 = w.astype("float64")
    jacobian = np.array([(outputs(w64 + d) - outputs(w64 - d)) / 2e-6 for d in 1e-6 * np.eye(43)]).T
    p = np.exp(outputs(w64).reshape(10, 3))
    p /= p.sum(axis=1, keepdims=True)
    curvature = np.zeros((30, 30))
    for i, q in enumerate(p):
        curvature[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = (np.diag(q) - np.outer(q, q)) / 10
    expected = jacobian.T @ curvature @ jacobian + 0.6 * np.diag(np.arange(43) < 24)
    ours = np.array([objective.gauss_newton_vector_product(w, e) for e in np.eye(43)])
    close(ours, expected, 1e-5)
    assert np.linalg.eigvalsh((ours + ours.T) / 2).min() > -1e-6


def test_gauss_newton_of_a_linear_model_is_its_hessian_also_with_two_outputs_and_weights():
    a = keras.Input((3,), name="a")
    model = keras.Model(a, {"p": L.Dense(1, name="p")(a), "q": L.Dense(2, name="q")(a)})
    model.compile(loss={"p": "mse", "q": "mse"}, loss_weights={"p": 1.0, "q": 0.3})
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(10, 3)), rng.uniform(size=10)
    y = {"p": rng.normal(size=(10, 1)), "q": rng.normal(size=(10, 2))}
    objective = Objective(model, x, y, {"p": weights, "q": weights})
    w = objective.get_vector()
    (v,) = directions(w.size, 1)
    product = objective.gauss_newton_vector_product(w, v)
    close(product, objective.hessian_vector_product(w, v), 1e-5)
    close(product, objective.hessian(w) @ v, 1e-5)


def test_gauss_newton_of_a_loss_that_standardizes_outputs():
    """Second derivatives through moments are in the loss here, not in the model."""

    def standardized(y_true, y_pred):
        mean, variance = ops.moments(y_pred, axes=[0], keepdims=True)
        z = (y_pred - mean) / ops.sqrt(variance + 0.1)
        return ops.mean(ops.square(z - y_true), axis=-1)

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    with widest() as (step, tolerance):
        model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
        model.compile(loss=standardized)
        objective = Objective(model, x, y)
        w = objective.get_vector()
        for d in directions(w.size):
            product = objective.gauss_newton_vector_product(w, d)
            close(product, differences(objective, w, d, step), tolerance)


def test_gauss_newton_refuses_a_loss_that_sees_more_than_outputs():
    class Own(keras.Model):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) + self(np.ones((1, 3)))[0, 0] ** 2

    a = keras.Input((3,))
    model = Own(a, L.Dense(1)(a))
    model.compile(loss="mse")
    tokens = keras.Input((4,), dtype="int32")
    masked = keras.Model(tokens, L.Dense(1)(L.Embedding(5, 2, mask_zero=True)(tokens)))
    masked.compile(loss="mse")
    x = np.array([[1, 2, 3, 4], [3, 0, 0, 0]])
    for objective in (
        Objective(model, np.ones((2, 3)), np.ones((2, 1))),
        Objective(masked, x, np.arange(8.0).reshape(2, 4, 1)),
        Objective(masked, x, np.arange(8.0).reshape(2, 4, 1), batch_size=1),
    ):
        w = objective.get_vector()
        (v,) = directions(w.size, 1)
        with pytest.raises(ValueError, match="overridden, or outputs carry a mask"):
            objective.gauss_newton_vector_product(w, v)
        close(objective.hessian_vector_product(w, v), differences(objective, w, v, 1e-2), 4e-3)


def test_products_see_the_current_statistics():
    x, y = classes()
    model = network(*HIDDEN["batch norm"]())
    objective = Objective(model, x, y)
    w = objective.get_vector()
    (v,) = directions(w.size, 1)
    before = objective.hessian_vector_product(w, v)
    model.layers[1].moving_variance.assign(np.full(5, 4.0))
    close(objective.hessian_vector_product(w, v), differences(objective, w, v, 1e-2), 4e-3)
    assert np.abs(objective.hessian_vector_product(w, v) - before).max() > 1e-3


def test_bad_vectors_and_a_large_hessian_are_refused():
    x, y = classes(count=4, features=2000)
    model = keras.Sequential([keras.Input((2000,)), L.Dense(3)])
    model.compile(loss=logits())
    objective, before = Objective(model, x, y), values(model.weights)
    w = objective.get_vector()
    with pytest.raises(ValueError, match="6003 weights has 36,036,009 entries"):
        objective.hessian(w)
    with pytest.raises(ValueError, match="`v` must be a vector"):
        objective.hessian_vector_product(w, w[1:])
    with pytest.raises(ValueError, match="`w` must be a vector"):
        objective.gauss_newton_vector_product(w[1:], w)
    np.testing.assert_array_equal(values(model.weights)[0], before[0])
