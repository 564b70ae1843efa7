"""Gradual unfreezing against fine-tuning all at once, on few examples of new classes.

A convnet learns five classes of Fashion-MNIST and is then fine-tuned on a few images of the five
others: head alone, everything at once, or from the head down, one block at a time, in one `fit`.
Each way gets the same epochs and its own best rate by a validation set.

Result: gradual unfreezing does not help here. Test accuracy, mean (lowest, highest), seeds 0-4, 10
        images of each new class, Keras 3.15.1, JAX 0.10.2, CPU:
            from scratch         0.858 (0.840, 0.880)
            head alone           0.642 (0.575, 0.686)
            all at once          0.867 (0.856, 0.885)
            gradual unfreezing   0.861 (0.845, 0.883), better than all at once on 1 seed of 5
        What five classes teach is worth one point here; the features of the body must move.
Tune:   SHOTS, then STAGES, then EPOCHS.
"""

import keras
import numpy as np

import kerasrecipes as kr

SHOTS, HELD = 10, 100  # labelled images of each new class, and those that choose the rate
RATES = (3e-4, 1e-3, 3e-3)
OLD, PRETRAIN = 10_000, 4  # images of the old classes and epochs on them
EPOCHS, BATCH = 40, 10
STAGES = {10: ["dense"], 20: ["conv2"], 30: ["conv1"]}  # epochs of EPOCHS
BODY = ["conv1", "conv2", "dense"]
WAYS = ("from scratch", "head alone", "all at once", "gradual unfreezing")


def load():  # your images go here: (n, height, width) and labels; the upper half of them is new
    (x, y), (x_test, y_test) = kr.data.load("fashion_mnist")
    return ((x / 255.0).astype("float32"), y), ((x_test / 255.0).astype("float32"), y_test)


def build(shape, classes):
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(16, 3, activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, activation="relu", name="conv2"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, "relu", name="dense"),
            keras.layers.Dense(classes, "softmax", name="head"),
        ]
    )


def compiled(model, rate):
    optimizer = kr.optimizers.Masked(keras.optimizers.Adam(rate))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def accuracy(model, x, y):
    return model.evaluate(x, y, batch_size=1000, verbose=0, return_dict=True)["accuracy"]


def pretrain(x, y, classes, epochs, seed):
    """The weights of the body after training on the old classes."""
    keras.utils.set_random_seed(seed)
    model = compiled(build(x.shape[1:], classes), 1e-3)
    model.fit(x, y, batch_size=128, epochs=epochs, verbose=0)
    return {name: model.get_layer(name).get_weights() for name in BODY}


def finetune(way, body, x, y, rate, epochs, seed):
    keras.utils.set_random_seed(seed)
    model = compiled(build(x.shape[1:], int(y.max()) + 1), rate)
    if way != "from scratch":
        for name in BODY:
            model.get_layer(name).set_weights(body[name])
    # The same share of the run for each stage, however long it is.
    stages = {epoch * epochs // EPOCHS: layers for epoch, layers in STAGES.items()}
    callbacks = {
        "head alone": [kr.callbacks.Freeze({0: BODY})],
        "gradual unfreezing": [kr.callbacks.Unfreeze(stages)],
    }.get(way, [])
    model.fit(x, y, batch_size=BATCH, epochs=epochs, callbacks=callbacks, verbose=0)
    return model


def split(y, count, rng):
    """Indices of `count` random examples of each class."""
    return np.concatenate([rng.permutation(np.flatnonzero(y == c))[:count] for c in np.unique(y)])


def main(data=None, epochs=EPOCHS, seed=0):
    (x, y), (x_test, y_test) = data or load()
    x, x_test = x[..., None], x_test[..., None]
    half = (int(y.max()) + 1) // 2
    old, new, new_test = y < half, y >= half, y_test >= half
    body = pretrain(x[old][:OLD], y[old][:OLD], half, max(1, PRETRAIN * epochs // EPOCHS), seed)
    x, y, x_test, y_test = x[new], y[new] - half, x_test[new_test], y_test[new_test] - half
    shots = min(SHOTS, int(np.bincount(y).min()) // 2)
    chosen = split(y, shots + HELD, np.random.default_rng(seed))
    few = np.concatenate([chosen[y[chosen] == c][:shots] for c in range(y.max() + 1)])
    held = np.setdiff1d(chosen, few)

    result = {}
    for way in WAYS:
        best = -1.0
        for rate in RATES:
            model = finetune(way, body, x[few], y[few], rate, epochs, seed)
            score = accuracy(model, x[held], y[held])
            if score > best:
                best, result[f"{way}, rate"] = score, rate
                result[way] = accuracy(model, x_test, y_test)
    print(f"test accuracy on {y.max() + 1} new classes, {shots} images of each, seed {seed}")
    for way in WAYS:
        print(f"  {way:<20}{result[way]:>8.4f}   rate {result[f'{way}, rate']:g}")
    return result


if __name__ == "__main__":
    main()
