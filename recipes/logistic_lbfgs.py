"""Small and large scale: softmax regression by L-BFGS and by SGD, time to the test error.

Bottou and Bousquet (2007): where examples are few, training to the minimum is cheap, and a batch
solver does it best. Where time is what runs out, the minimum is not worth waiting for: SGD, a poor
optimizer, needs as many examples as before, and a batch solver's steps have become dear.

Result: MNIST, test error, mean (lowest, highest), seeds 0-2, Keras 3.15.1, JAX 0.10.2, CPU; until
        it stays within 0.0025 of that at the minimum:
                            seconds              passes         error at the end
            small L-BFGS    0.02 (0.02, 0.03)    11 (8, 16)     0.1211 (0.1151, 0.1259)
            small SGD       0.62 (0.06, 1.12)    120 (12, 215)  0.1214 (0.1156, 0.1262)
            large L-BFGS    1.30 (1.25, 1.33)    28 (28, 28)    0.0740 (0.0740, 0.0740)
            large SGD       1.40 (1.26, 1.48)    4.6 (4.2, 4.8) 0.0755 (0.0754, 0.0755)
        Small is 1,000 images, large 60,000. In examples it is as Bottou says: at large scale SGD
        needs a sixth. By the clock the two are even there, since a pass in batches of 64 takes
        six times as long as one gradient; at small scale L-BFGS is ahead, and has no rate.
Tune:   DECAY by validation, then RATES by `tune`, which matter at large scale (L-BFGS has none).
"""

import time

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr

SMALL, CLASSES = 1_000, 10  # examples at small scale; large scale is all of them
DECAY = {"small": 3e-3, "large": 1e-4}  # times the weights' squares
RATES = {"small": 1.0, "large": 3.0}  # of SGD in the beginning, by `tune`
GRID = (0.3, 1.0, 3.0, 10.0)
BATCH, EPOCHS = 64, 5  # of SGD: at small scale as many updates as in 5 epochs at large scale
LOOKS, AT_ONCE, EVALUATIONS = 25, 4, 400  # L-BFGS is looked at each AT_ONCE evaluations
GOALS = (0.01, 0.005, 0.0025)  # above the test error at the minimum


def load():  # your arrays go here
    (x, y), (x_test, y_test) = kr.data.load("mnist")
    x, x_test = (np.reshape(a / 255, (len(a), -1)).astype("float32") for a in (x, x_test))
    mean = x.mean(axis=0)  # left in, it is by far the largest curvature
    return (x - mean, y), (x_test - mean, y_test)


def small():
    global SMALL, LOOKS, AT_ONCE, EVALUATIONS
    SMALL, LOOKS, AT_ONCE, EVALUATIONS = 200, 3, 20, 60
    (x, y), (x_test, y_test) = kr.data.load("digits")
    x, x_test = (np.reshape(a / 16, (len(a), -1)).astype("float32") for a in (x, x_test))
    return (x, y), (x_test, y_test)


class Clock(keras.callbacks.Callback):
    """Seconds of training until each look at the test examples, without the looks."""

    def on_train_begin(self, logs=None):
        self.seconds, self.begin = [], time.perf_counter()

    def on_test_begin(self, logs=None):
        self.model.get_weights()  # waits for the last step to end
        self.seconds.append(time.perf_counter() - self.begin)

    def on_test_end(self, logs=None):
        self.begin = time.perf_counter() - self.seconds[-1]


def shuffled(x, y, seed):
    """Batches without end, in a new order in each pass."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(x))
        for begin in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[begin : begin + BATCH]
            yield x[rows], y[rows]


def train(optimizer, decay, data, steps, looks, test):
    """Errors at the looks, seconds until each; and the model."""
    penalty = keras.regularizers.L2(decay)
    head = keras.layers.Dense(CLASSES, kernel_initializer="zeros", kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input(test[0].shape[1:]), head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    clock = Clock()
    swap = [kr.callbacks.SwapAcceptedWeights()] if hasattr(optimizer, "status") else []
    settings = {"steps_per_epoch": steps, "callbacks": [*swap, clock], "shuffle": False}
    settings |= {"validation_data": test, "validation_batch_size": 1000, "verbose": 0}
    variables = [*model.variables, *optimizer.variables]
    start = [ops.convert_to_numpy(v) for v in variables]
    model.fit(data, epochs=1, **settings)  # compiles
    for variable, value in zip(variables, start, strict=True):
        variable.assign(value)
    history = model.fit(data, epochs=looks, **settings).history
    return 1 - np.array(history["val_accuracy"]), clock.seconds, model


def by_sgd(scale, x, y, test, updates, seed, rate=None):
    rate = rate or RATES[scale]
    falling = keras.optimizers.schedules.PolynomialDecay(rate, updates, 0.01 * rate)
    steps, sgd = max(1, updates // LOOKS), keras.optimizers.SGD(falling)
    run = train(sgd, DECAY[scale], shuffled(x, y, seed), steps, LOOKS, test)
    return *run, steps * BATCH / len(x)


def by_lbfgs(scale, x, y, test):
    lbfgs, data = kr.optimizers.LBFGS(tolerance=1e-4), kr.data.FullBatch(x, y, AT_ONCE)
    return *train(lbfgs, DECAY[scale], data, AT_ONCE, EVALUATIONS // AT_ONCE, test), AT_ONCE


def tune(data=None, epochs=EPOCHS, seed=0):
    """The rate of the grid with the lowest error on a held-out fifth, for each scale."""
    (x, y), _ = data or load()
    held, updates, found = len(x) // 5, epochs * len(x) // BATCH, {}
    for scale, count in (("small", SMALL), ("large", len(x) - held)):
        parts = x[:count], y[:count], (x[-held:], y[-held:])
        scores = {r: by_sgd(scale, *parts, updates, seed, r)[0][-1] for r in GRID}
        found[scale] = min(scores, key=scores.get)
        print(f"{scale:<8}" + "".join(f"  {r:g}: {e:.4f}" for r, e in scores.items()), flush=True)
    return found


def main(data=None, epochs=EPOCHS, seed=0):
    (x, y), test = data or load()
    order, result = np.random.default_rng(seed).permutation(len(x)), {}
    print(f"seed {seed}: seconds (passes) until the test error stays that close to the minimum's")
    print(f"{'':<16}" + "".join(f"{goal:>16}" for goal in GOALS) + f"{'error':>9}{'loss':>9}")
    for scale, count in (("small", SMALL), ("large", len(x))):
        chosen = x[order[:count]], y[order[:count]]
        runs = {"L-BFGS": by_lbfgs(scale, *chosen, test)}
        runs["SGD"] = by_sgd(scale, *chosen, test, epochs * len(x) // BATCH, seed)
        minimum = runs["L-BFGS"][0][-1]
        for solver, (errors, seconds, model, passes) in runs.items():
            line, name = f"  {scale:<6}{solver:<8}", f"{scale}, {solver}"
            for goal in GOALS:
                late = np.flatnonzero(errors > minimum + goal)
                look = late[-1] + 1 if len(late) else 0
                if look < len(errors):
                    found = {"seconds": seconds[look], "passes": float(passes * (look + 1))}
                    result |= {f"{name}, {key} to {goal}": v for key, v in found.items()}
                    line += "{seconds:>8.2f} ({passes:5.1f})".format(**found)
                else:
                    line += f"{'never':>16}"
            loss = model.evaluate(*chosen, batch_size=1000, verbose=0)[0]
            result |= {f"{name}, error": float(errors[-1]), f"{name}, loss": loss}
            print(f"{line}{errors[-1]:>9.4f}{loss:>9.4f}", flush=True)
    return result


if __name__ == "__main__":
    main()
