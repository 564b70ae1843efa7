"""Saxe's view of training: deep linear networks learn mode by mode, in closed form."""

import keras
import numpy as np

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
