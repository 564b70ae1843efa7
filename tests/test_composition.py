"""Everything at once: what moves within one fit, together, against one NumPy loop."""

import keras
import numpy as np
import pytest

import kerasrecipes as kr
from kerasrecipes import callbacks
from tests.problems import values

EPOCHS, STEPS, BATCH = 5, 4, 8


class Look(keras.callbacks.Callback):
    """Keeps the batches of each epoch, as the dataset gives them, and the weights after each."""

    def __init__(self, dataset):
        super().__init__()
        self.dataset, self.batches, self.weights, self.entries = dataset, [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.batches += [self.dataset[i] for i in range(STEPS)]

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(values(self.model.trainable_variables))

    def on_epoch_end(self, epoch, logs=None):
        self.entries.append(Counting.entries)


class Counting(keras.layers.Layer):
    entries = 0

    def call(self, inputs):
        Counting.entries += 1
        return inputs


def expected(start, batches, rate, momentum, decay, weight, frozen):
    """Momentum SGD with decoupled decay on weight(e) * mean((x a b - y)²), `a` frozen at first."""
    a, b = (w.astype("float64") for w in start)
    u, v, path = 0 * a, 0 * b, []
    for step, (x, y) in enumerate(batches):
        error = 2 * weight(step // STEPS) * (x @ a @ b - y) / y.size
        slopes = [x.T @ error @ b.T, (x @ a).T @ error]
        lr, mu, shrink = rate(step), momentum(step), 1 - rate(step) * decay(step // STEPS)
        if step // STEPS >= frozen:
            u = mu * u - lr * slopes[0]
            a = shrink * a + u
        v = mu * v - lr * slopes[1]
        b = shrink * b + v
        path.append([a, b])
    return path


@pytest.mark.parametrize("jit", [False, True])
def test_three_schedules_a_loss_weight_a_curriculum_and_unfreezing_in_one_fit(jit, backend):
    if jit and backend == "torch":
        pytest.skip("torch.compile takes half a minute a model and breaks graphs (Keras)")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype("float32")
    y = (x @ rng.normal(size=(3, 2))).astype("float32")
    dataset = kr.data.CurriculumDataset(
        x, y, np.abs(y).sum(axis=1), batch_size=BATCH, steps_per_epoch=STEPS, start=0.3, seed=0
    )
    layers = [keras.layers.Dense(n, use_bias=False, name=name) for n, name in ((3, "a"), (2, "b"))]
    model = keras.Sequential([keras.Input((3,)), Counting(), *layers])
    schedules = keras.optimizers.schedules
    rate = schedules.CosineDecay(0.05, EPOCHS * STEPS, alpha=0.1)
    momentum = schedules.PolynomialDecay(0.5, EPOCHS * STEPS, end_learning_rate=0.9)
    sgd = keras.optimizers.SGD(rate, momentum=0.5, weight_decay=0.1)
    loss = kr.losses.Scheduled("mse", 1.0, name="cost")
    model.compile(kr.optimizers.Masked(sgd), loss, jit_compile=jit)
    start = values(model.trainable_variables)
    look = Look(dataset)

    def decay(epoch):
        return 0.1 * 0.5**epoch

    def weight(epoch):
        return [0.2, 0.6, 1.0, 1.0, 1.0][epoch]

    model.fit(
        dataset,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[
            callbacks.HyperparameterSchedule("momentum", momentum),
            callbacks.HyperparameterSchedule("weight_decay", decay, per="epoch"),
            callbacks.Continuation("cost.coefficient", [0.2, 0.6, 1.0], advance=1),
            callbacks.Curriculum(dataset),
            callbacks.Unfreeze({2: ["a"]}),
            callbacks.HyperparameterMonitor(),
            look,
        ],
    )
    path = expected(
        start,
        look.batches,
        lambda step: float(rate(step)),
        lambda step: float(momentum(step)),
        decay,
        weight,
        frozen=2,
    )
    assert len(path) == len(look.weights) == EPOCHS * STEPS
    for ours, theirs in zip(look.weights, path, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    for weights in look.weights[: 2 * STEPS]:
        np.testing.assert_array_equal(weights[0], start[0])
    if backend == "tensorflow" or jit:
        assert len(set(look.entries)) == 1, "what the first epoch compiled serves all"
