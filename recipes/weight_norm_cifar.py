"""Weight normalization with mean-only batch norm against batch norm, on a piece of CIFAR-10.

Salimans and Kingma's comparison (2016, section 5.1) in miniature: 4,000 training images, a small
convnet, the same Adam for all. `python weight_norm_cifar.py file.npz`, or the variable CIFAR10 of
the environment, takes images from a file of x_train, y_train, x_test, y_test; where CIFAR-10
cannot be had it says so and takes the digits.

Result: mean (lowest, highest) on 1,000 test images, seeds 0-2, 4,000 images, 15 epochs,
        Keras 3.15.1, TensorFlow 2.21.0, CPU:
                                              training loss         test accuracy
            plain                             1.267 (1.244, 1.300)  0.481 (0.472, 0.487)
            weight norm                       1.264 (1.242, 1.304)  0.485 (0.482, 0.488)
            batch norm                        1.153 (1.129, 1.181)  0.526 (0.522, 0.529)
            weight norm, mean-only batch norm 1.071 (1.031, 1.124)  0.542 (0.540, 0.545)
        The paper's order (errors of 8.43, 8.46, 8.05 and 7.31 %): weight norm alone gives nothing,
        with the mean it beats batch norm on each seed, by 0.011 to 0.020, which 1,000 images of
        one test set can hardly show (standard error 0.016).
Tune:   LEARNING_RATE for each way, then WIDTHS, then EPOCHS.
"""

import os
import sys

import keras
import numpy as np

import kerasrecipes as kr

WIDTHS = (16, 32)  # two convolutions each, then pooling
LEARNING_RATE, BATCH, EPOCHS = 3e-3, 100, 15
IMAGES, TEST, LOOKED_AT = 4000, 1000, 500
FILE = sys.argv[1] if __name__ == "__main__" and sys.argv[1:] else os.environ.get("CIFAR10")

WAYS = ("plain", "weight norm", "batch norm", "weight norm, mean-only batch norm")


def load(path=FILE):  # your images go here: (n, height, width, channels), 0 to 255, and labels
    if path is not None:
        with np.load(path) as file:
            x, y, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
        return (x[:IMAGES], y[:IMAGES]), (x_test[:TEST], y_test[:TEST])
    try:
        (x, y), (x_test, y_test) = kr.data.load("cifar10")
    except OSError as error:
        print(f"No CIFAR-10, so the figures are those of the digits. {error}")
        (x, y), (x_test, y_test) = kr.data.load("digits")
        x, x_test = (a[..., None] * (255 / 16) for a in (x, x_test))
    return (x[:IMAGES], y[:IMAGES]), (x_test[:TEST], y_test[:TEST])


def small():
    (x, y), (x_test, y_test) = kr.data.load("digits")
    x, x_test = (a[..., None] * (255 / 16) for a in (x, x_test))
    return (x[:200], y[:200]), (x_test[:100], y_test[:100])


def convolution(way, width):
    """A convolution and what normalizes it, before its activation."""
    conv = keras.layers.Conv2D(
        width, 3, padding="same", kernel_initializer="he_normal", use_bias="batch norm" not in way
    )
    norm = []
    if way == "batch norm":
        norm = [keras.layers.BatchNormalization(momentum=0.9)]
    elif way.endswith("mean-only batch norm"):
        norm = [kr.layers.MeanOnlyBatchNormalization(momentum=0.9)]
    return [kr.layers.WeightNormalization(conv) if "weight norm" in way else conv, *norm]


def build(way, x, classes, steps, seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(x.shape[1:])])
    for width in WIDTHS:
        for _ in range(2):
            for layer in (*convolution(way, width), keras.layers.LeakyReLU(0.1)):
                model.add(layer)
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(classes, "softmax"))
    rate = keras.optimizers.schedules.PolynomialDecay(LEARNING_RATE, steps, 0.0)
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    if way != "batch norm":  # the plain network too, as in the paper
        kr.initializers.initialize_from_data(model, x[:LOOKED_AT])
    return model


def main(data=None, epochs=EPOCHS, seed=0):
    (x, y), (x_test, y_test) = data or load()
    mean, std = x.mean(), x.std()
    x, x_test = (((a - mean) / std).astype("float32") for a in (x, x_test))
    y, y_test = np.ravel(y), np.ravel(y_test)
    steps = epochs * -(-len(x) // BATCH)
    result = {"CIFAR-10": float(x.shape[1:] == (32, 32, 3))}
    print(f"{len(x)} images, {epochs} epochs, seed {seed}")
    print(f"  {'':<36}{'training loss':>14}{'test accuracy':>14}")
    for way in WAYS:
        model = build(way, x, int(y.max()) + 1, steps, seed)
        losses = model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0).history["loss"]
        result[f"{way}, loss"] = losses[-1]
        result[way] = model.evaluate(x_test, y_test, batch_size=500, verbose=0)[1]
        print(f"  {way:<36}{losses[-1]:>14.4f}{result[way]:>14.4f}", flush=True)
    return result


if __name__ == "__main__":
    main()
