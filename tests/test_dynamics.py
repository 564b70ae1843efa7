"""Saxe's view of training: deep linear networks learn mode by mode, in closed form."""

import keras
import numpy as np
import pytest

from tests.problems import values


def test_deep_linear_network_learns_mode_by_mode_as_in_saxes_closed_form():
    """Saxe, McClelland, Ganguli 2014, equation 6: a(t) = s e^(2st) / (e^(2st) - 1 + s / a(0))."""
    rng = np.random.default_rng(0)
    strengths, first, rate, epochs, batches = np.array([4.0, 2.0, 1.0]), 0.01, 5e-3, 16, 40
    u, v, r = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(3))
    # White inputs: three examples whose second moments are the identity.
    x = np.sqrt(3) * np.eye(3, dtype="float32")
    y = (x @ (v * strengths) @ u.T).astype("float32")
    settings = {"use_bias": False}
    layers = [keras.layers.Dense(3, **settings), keras.layers.Dense(3, **settings)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    # Half the sum of squares: its gradient is that of the paper, without Keras's mean over units.
    model.compile(
        keras.optimizers.SGD(rate),
        loss=lambda y_true, y_pred: keras.ops.sum((y_true - y_pred) ** 2, axis=-1) / 2,
    )
    model.set_weights([v @ np.diag([first**0.5] * 3) @ r, r.T @ np.diag([first**0.5] * 3) @ u.T])
    modes = []
    record = keras.callbacks.LambdaCallback()

    def look(epoch, logs=None):
        a, b = values(record.model.trainable_variables)
        modes.append(v.T @ a @ b @ u)

    record.on_epoch_end = look
    x, y = np.tile(x, (batches, 1)), np.tile(y, (batches, 1))
    model.fit(x, y, batch_size=3, epochs=epochs, shuffle=False, verbose=0, callbacks=[record])
    time = rate * batches * np.arange(1, epochs + 1)[:, None]
    growth = np.exp(2 * strengths * time)
    expected = strengths * growth / (growth - 1 + strengths / first)
    learnt = np.array([np.diag(m) for m in modes])
    np.testing.assert_allclose(learnt, expected, atol=0.06)
    # The modes do not mix, and the strong ones come first: plateaus between them.
    assert max(np.abs(m - np.diag(np.diag(m))).max() for m in modes) < 1e-3
    half = [int(np.argmax(learnt[:, i] > strengths[i] / 2)) for i in range(3)]
    assert half[0] < half[1] < half[2]
    assert learnt[half[0], 2] < 0.1


STRENGTHS, RATE = np.array([2.0, 1.5]), 0.02


def learnt_modes(depth, gain):
    """(80, 2), strengths of the two modes after each step from Keras's orthogonal start."""
    starts = [keras.initializers.Orthogonal(gain, seed=s) for s in range(depth)]
    layers = [keras.layers.Dense(2, use_bias=False, kernel_initializer=one) for one in starts]
    model = keras.Sequential([keras.Input((2,)), *layers])
    # The curvature at the minimum grows with the depth, and with it the rate that is stable falls.
    model.compile(
        keras.optimizers.SGD(RATE / depth),
        loss=lambda y_true, y_pred: keras.ops.sum((y_true - y_pred) ** 2, axis=-1) / 2,
    )
    v = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
    turn = np.linalg.multi_dot(values(model.trainable_variables)) / gain**depth
    # White inputs, and a target that stretches the start along the columns of v.
    x = np.sqrt(2) * np.eye(2, dtype="float32")
    y = x @ ((v * STRENGTHS) @ v.T @ turn).astype("float32")
    modes = []
    for _ in range(80):
        model.train_on_batch(x, y)
        product = np.linalg.multi_dot(values(model.trainable_variables))
        modes.append(np.diag(v.T @ product @ turn.T @ v))
    return np.array(modes)


@pytest.mark.parametrize("depth", [3, 10, 30])
def test_learning_time_does_not_grow_with_depth_from_an_orthogonal_start(depth):
    """Saxe, McClelland, Ganguli 2014, section 3: a mode follows u' = u^(2 - 2/D) (s - u).

    With u from 1 to s, u^(2/D) lies between 1 and s^(2/D): so does the learning time, in units
    of that of infinite depth.
    """
    u, s = 0.95 * STRENGTHS, STRENGTHS
    modes = learnt_modes(depth, gain=1.0)
    assert (modes[-1] > u).all()
    time = RATE * (1 + np.argmax(modes > u, axis=0))
    infinite = np.log(u * (s - 1) / (s - u)) / s**2 + (1 - 1 / u) / s
    # Discrete steps: one more or less.
    assert (time > infinite - RATE).all()
    assert (time < infinite * s ** (2 / depth) + RATE).all()


def test_learning_time_grows_with_depth_from_a_start_that_shrinks():
    """From u = gain^D the way up to 1 alone takes (gain^(2 - D) - 1) / (1 - 2/D) / s or longer."""
    for depth in (10, 30):
        shortest = (0.8 ** (2 - depth) - 1) / (1 - 2 / depth) / STRENGTHS
        assert (shortest > 80 * RATE).all() and (learnt_modes(depth, gain=0.8) < 1).all()
