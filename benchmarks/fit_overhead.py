"""What each part costs in a fit, as a ratio to the bare fit, interleaved fit by fit.

Run: KERAS_BACKEND=tensorflow python -m benchmarks.fit_overhead [ROUNDS]

A small convnet on data of MNIST's shape, two epochs. Each fit is divided by the mean of the bare
fits right before and after it. "bare again" is the bare fit itself: what it differs from 1 is the
noise, and the limits count beyond its spread. TensorFlow runs on one thread: with its own choice
on two cores the same fit takes 1.3 or 1.9 seconds. Two rounds that compile go before those that
count. The result is written to benchmarks/results.
"""

import statistics
import sys
import time

import keras
import numpy as np

import kerasrecipes as kr
from benchmarks._result import keep, on_one_thread, quartiles, setting

BATCHES, BATCH = 120, 32
DECAY = keras.optimizers.schedules.ExponentialDecay(0.9, 1000, 0.99)


def build(
    optimizer=None, loss="sparse_categorical_crossentropy", dropout=None, norm=None, concept=None
):
    """A compiled convnet; the same weights each time."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(8, 3, activation="relu", name="first"),
        norm or keras.layers.BatchNormalization(name="norm"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        dropout or keras.layers.Dropout(0.3, name="drop"),
        keras.layers.Dense(10, "softmax"),
    ]
    model = keras.Sequential(layers + ([concept] if concept else []))
    model.compile(optimizer or sgd(), loss)
    return model


def sgd(rate=0.01):
    return keras.optimizers.SGD(rate, momentum=0.9)


def cases():
    """name -> (limit, model, callbacks); None where the cost is only told."""
    schedule, callbacks = keras.optimizers.schedules.CosineDecay(0.01, 1000), kr.callbacks
    loss = kr.losses.Scheduled("sparse_categorical_crossentropy", 1.0, name="cost")
    return {
        "bare again": (None, build(), []),
        "Keras schedule of the rate": (1.05, build(sgd(schedule)), []),
        "Keras schedule of the momentum, in the step": (
            1.05,
            build(),
            [callbacks.HyperparameterSchedule("momentum", DECAY)],
        ),
        "Masked, nothing frozen": (1.05, build(kr.optimizers.Masked(sgd())), []),
        "Masked with Unfreeze": (
            1.05,
            build(kr.optimizers.Masked(sgd())),
            [callbacks.Unfreeze({1: ["first", "norm"]})],
        ),
        "SAM": (None, build(kr.optimizers.SAM(sgd())), []),
        "ParameterBlur": (None, build(kr.optimizers.ParameterBlur(sgd(), 0.01)), []),
        "momentum by epoch": (
            1.02,
            build(),
            [callbacks.HyperparameterSchedule("momentum", lambda epoch: 0.9, "epoch")],
        ),
        "knob of a layer by epoch": (
            1.02,
            build(dropout=kr.layers.AnnealedDropout(0.3, name="drop")),
            [callbacks.HyperparameterSchedule("drop.rate", lambda epoch: 0.3, "epoch")],
        ),
        "Scheduled loss by epoch": (
            1.02,
            build(loss=loss),
            [callbacks.HyperparameterSchedule("cost.coefficient", lambda epoch: 1.0, "epoch")],
        ),
        "HyperparameterMonitor": (1.02, build(), [callbacks.HyperparameterMonitor()]),
        "momentum by a host callable, each batch": (
            None,
            build(),
            [callbacks.HyperparameterSchedule("momentum", lambda step: 0.9)],
        ),
    }


def seconds(model, callbacks, x, y):
    """Of two epochs, so that what happens between epochs counts too."""
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    return time.perf_counter() - start


def main(rounds=11):
    """Ratios to the bare fit of the same round: median, quartiles."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCHES * BATCH, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, len(x))
    bare, measured = build(), cases()
    ratios = {name: [] for name in measured}
    for turn in range(rounds + 2):
        base = [seconds(bare, [], x, y)]
        for name, case in measured.items():
            found = seconds(*case[1:], x, y)
            base.append(seconds(bare, [], x, y))
            if turn >= 2:
                ratios[name].append(found / statistics.mean(base[-2:]))
    report = {}
    for name, values in ratios.items():
        report[name] = {**quartiles(values, 3), "limit": measured[name][0]}
    return {
        "benchmark": "fit_overhead",
        "rounds": rounds,
        "bare seconds": round(statistics.median(base), 3),
        "ratios": report,
        **setting(),
    }


if __name__ == "__main__":
    on_one_thread()
    keep(main(*map(int, sys.argv[1:2])))
