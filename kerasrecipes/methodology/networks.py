"""The default networks: plain Keras, small, regularised from the start."""

import keras
import numpy as np


def table_network(numbers, sizes, outputs, units, dropout):
    """Numbers and embedded categories through two hidden layers.

    Args:
        numbers: number of numeric features, or 0.
        sizes: number of values of each category.
        outputs: number of classes, or 0 for one number.
        units, dropout: of each hidden layer.
    """
    inputs, features = {}, []
    if numbers:
        inputs["numbers"] = keras.Input((numbers,), name="numbers")
        features.append(inputs["numbers"])
    if sizes:
        inputs["categories"] = keras.Input((len(sizes),), dtype="int32", name="categories")
        # One table for all columns: each column's values begin where the last one's end.
        ids = inputs["categories"] + np.cumsum([0, *sizes[:-1]], dtype="int32")
        embedded = keras.layers.Embedding(sum(sizes), min(16, 2 + max(sizes) // 2))(ids)
        features.append(keras.layers.Flatten()(embedded))
    x = keras.layers.Concatenate()(features) if len(features) > 1 else features[0]
    x = keras.layers.Dropout(dropout / 4)(x)
    for _ in range(2):
        x = keras.layers.Dense(units, use_bias=False)(x)
        x = keras.layers.Activation("relu")(normalize(x))
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(inputs, head(x, outputs))


def image_network(shape, outputs, units, dropout):
    """Convolutions that double their channels as the picture halves, then one hidden layer."""
    inputs = x = keras.Input(tuple(shape), name="images")
    halvings = max(1, min(3, int(np.log2(min(shape[:2]))) - 1))
    for width in [units * 2**i for i in range(halvings)]:
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.Activation("relu")(normalize(x))
        x = keras.layers.MaxPooling2D(padding="same")(x)
    x = keras.layers.Dropout(dropout)(keras.layers.Flatten()(x))
    x = keras.layers.Dense(4 * units, use_bias=False)(x)
    x = keras.layers.Activation("relu")(normalize(x))
    return keras.Model(inputs, head(keras.layers.Dropout(dropout)(x), outputs))


def normalize(x):
    """Batch normalization that a few epochs of a few batches are enough for."""
    return keras.layers.BatchNormalization(momentum=0.9)(x)


def head(x, outputs):
    """Probabilities of the classes, or one number."""
    if outputs:
        return keras.layers.Dense(outputs, "softmax", dtype="float32", name="probabilities")(x)
    return keras.layers.Dense(1, dtype="float32", name="value")(x)
