"""Small problems with known answers, shared by the tests."""

import keras
import numpy as np
import pytest
from keras import ops


def mostly_on_tensorflow(test):
    """For tests that take long and whose parts are tested on each backend by others: on JAX and
    PyTorch they run under `-m evidence` alone."""
    return test if keras.config.backend() == "tensorflow" else pytest.mark.evidence(test)


class Saddle(keras.layers.Layer):
    """w -> w0²/2 - w1²/2 + w1⁴/4 plus nothing of its input: minima -1/4 at (0, ±1)."""

    def build(self, input_shape):
        self.w = self.add_weight(
            shape=(2,), initializer=lambda shape, dtype=None: ops.convert_to_tensor([1.0, 0.0])
        )

    def call(self, inputs):
        a, b = self.w[0], self.w[1]
        return 0.0 * inputs + a**2 / 2 - b**2 / 2 + b**4 / 4


def saddle_model(optimizer):
    """A model whose loss is the strict saddle above, started on its stable ridge."""
    model = keras.Sequential([keras.Input((1,)), Saddle()])
    model.compile(optimizer, loss=lambda y_true, y_pred: y_pred)
    return model


def steps_on(model, count):
    """`count` full-batch steps of a model that ignores its data."""
    nothing = np.zeros((count, 1), "float32")
    return model.fit(nothing, nothing, batch_size=1, shuffle=False, verbose=0)


def classes(count=48, features=6, kinds=3, seed=0):
    """Linearly separable classes with some noise: `x` float32, `y` int32."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, features)).astype("float32")
    y = np.argmax(x @ rng.normal(size=(features, kinds)), axis=1).astype("int32")
    return x, y


def images(count=24, size=6, channels=2, seed=0):
    """Random images, float32, channels last."""
    return np.random.default_rng(seed).normal(size=(count, size, size, channels)).astype("float32")


def network(*hidden, features=6, kinds=3, optimizer=None, metrics=()):
    """A compiled softmax classifier with the given hidden layers, and a head of fixed seed."""
    start = keras.initializers.GlorotUniform(seed=11)
    head = keras.layers.Dense(kinds, "softmax", kernel_initializer=start, name="head")
    layers = [keras.Input((features,)), *hidden, head]
    model = keras.Sequential(layers)
    model.compile(
        optimizer or keras.optimizers.SGD(0.1, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=list(metrics),
    )
    return model


def values(variables):
    """NumPy copies of variables or tensors."""
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def everything(model):
    """Copies of all a model and its optimizer hold, and of its flags."""
    optimizer = getattr(model, "optimizer", None)
    held = [*model.variables, *model.metrics_variables]
    held += optimizer.variables if optimizer is not None else []
    flags = [layer.trainable for layer in model.layers]
    found = {id(v): value for v, value in zip(held, values(held), strict=True)}
    return found, flags, optimizer, getattr(model, "loss", None)


def assert_unchanged(model, before):
    """Bit for bit as `everything` found it."""
    after = everything(model)
    assert set(before[0]) <= set(after[0])
    for key, value in after[0].items():
        # What only came to be inside (metrics that Keras builds late) is as when it was made.
        np.testing.assert_array_equal(value, before[0].get(key, 0))
    assert before[1:] == after[1:]
