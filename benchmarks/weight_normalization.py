"""Time of a training step of a convnet in WeightNormalization, as a ratio to the plain convnet.

Run: KERAS_BACKEND=tensorflow python -m benchmarks.weight_normalization [ROUNDS]

Four convolutions, images of CIFAR-10's shape, batches of 100, SGD with momentum. Plain and wrapped
take turns step by step (`train_on_batch`), the first to go changing from round to round; "plain
again" is a second plain model: what it differs from 1 is the noise. Five rounds that compile go
before those that count. TensorFlow runs on one thread, as in fit_overhead. The result is written
to benchmarks/results.
"""

import sys
import time

import keras
import numpy as np

import kerasrecipes as kr
from benchmarks._result import keep, on_one_thread, quartiles, setting

WIDTHS = (16, 32)  # two convolutions each, then pooling
BATCH, BEFORE = 100, 5
LIMIT = 1.15


def build(wrap=lambda layer: layer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for width in WIDTHS:
        for _ in range(2):
            conv = keras.layers.Conv2D(width, 3, padding="same", activation="relu")
            model.add(wrap(conv))
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(10, "softmax"))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    return model


def seconds(model, x, y):
    start = time.perf_counter()
    model.train_on_batch(x, y)
    return time.perf_counter() - start


def main(rounds=101):
    """Seconds of a step, and ratios within a round: median, quartiles."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(BATCH, 32, 32, 3)).astype("float32"), rng.integers(0, 10, BATCH)
    runs = {
        "plain": build(),
        "wrapped": build(kr.layers.WeightNormalization),
        "plain again": build(),
    }
    times = {name: [] for name in runs}
    for turn in range(rounds + BEFORE):
        for name in list(runs) if turn % 2 else reversed(runs):
            found = seconds(runs[name], x, y)
            if turn >= BEFORE:
                times[name].append(found)
    ratios = {
        f"{name} / plain": quartiles(
            [a / b for a, b in zip(times[name], times["plain"], strict=True)]
        )
        for name in ("wrapped", "plain again")
    }
    return {
        "benchmark": "weight_normalization",
        "rounds": rounds,
        "plain seconds a step": quartiles(times["plain"]),
        **ratios,
        "limit": LIMIT,
        **setting(),
    }


if __name__ == "__main__":
    on_one_thread()
    keep(main(*map(int, sys.argv[1:2])))
