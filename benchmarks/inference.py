"""Time of `predict_on_batch` with batch norm folded in, as a ratio to the unfolded model.

Run: KERAS_BACKEND=tensorflow python -m benchmarks.inference [ROUNDS]

MobileNetV2 and ResNet50 of `keras.applications` with random weights and statistics, batches of 1
and 32. Folded and unfolded take turns, the first to go changing from round to round; "unfolded
again" is the same model a second time: what it differs from 1 is the noise. Each time is the mean
of a few calls in a row, after two rounds that compile. A ratio under 1 says that folding helps.
TensorFlow runs on one thread, as in fit_overhead. The result is written to benchmarks/results.
"""

import sys
import time

import keras
import numpy as np

import kerasrecipes as kr
from benchmarks._result import keep, on_one_thread, quartiles, setting

MODELS = {"MobileNetV2": 224, "ResNet50": 224}
BATCHES = {1: 5, 32: 1}  # calls in a row for one time


def build(name, size):
    """The model with statistics that no start has, its folded twin, and the report."""
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(input_shape=(size, size, 3), weights=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(rng.uniform(0.5, 1.5, size=weight.shape))
    return model, *kr.inference.fold_batch_normalization(model, return_report=True)


def seconds(model, x, calls):
    start = time.perf_counter()
    for _ in range(calls):
        model.predict_on_batch(x)
    return (time.perf_counter() - start) / calls


def compare(model, folded, batch, size, calls, rounds):
    """Seconds of both and the ratios of one round, median and quartiles."""
    x = np.random.default_rng(1).uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    runs = {"unfolded": model, "folded": folded, "unfolded again": model}
    times = {name: [] for name in runs}
    for turn in range(rounds + 2):
        for name in list(runs) if turn % 2 else reversed(runs):
            found = seconds(runs[name], x, calls)
            if turn >= 2:
                times[name].append(found)
    ratios = {
        name: quartiles([a / b for a, b in zip(times[name], times["unfolded"], strict=True)])
        for name in ("folded", "unfolded again")
    }
    return {
        "unfolded seconds": quartiles(times["unfolded"]),
        "folded seconds": quartiles(times["folded"]),
        "folded / unfolded": ratios["folded"],
        "unfolded again / unfolded": ratios["unfolded again"],
    }


def main(rounds=9, models=MODELS, batches=BATCHES):
    """The comparison of every model and batch size."""
    report = {}
    for name, size in models.items():
        model, folded, found = build(name, size)
        counts = {"folded": len(found.folded), "kept": len(found.kept)}
        counts |= {"layers": [len(model.layers), len(folded.layers)]}
        measured = {
            f"batch {batch}": compare(model, folded, batch, size, calls, rounds)
            for batch, calls in batches.items()
        }
        report[name] = {"size": size, **counts, **measured}
    return {
        "benchmark": "inference",
        "rounds": rounds,
        "models": report,
        **setting(),
    }


if __name__ == "__main__":
    on_one_thread()
    keep(main(*map(int, sys.argv[1:2])))
