"""TensorFlow's side of `_backend`."""

import contextlib

import tensorflow as tf


def compiled(function):
    """`function` of tensors, traced once per shape."""
    return tf.function(function)


def value_and_gradient(function):
    """`(w, *data) -> (function(w, *data), its gradient with respect to w)`, compiled."""

    @tf.function
    def evaluate(w, *data):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = function(w, *data)
        return value, tape.gradient(value, w, unconnected_gradients="zero")

    return evaluate


def sync(model):
    """Variables are always current here."""


@contextlib.contextmanager
def random_state():
    """Layers keep their state in variables; TensorFlow's own counter cannot be read back."""
    yield
