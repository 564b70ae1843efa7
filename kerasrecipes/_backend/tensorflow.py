"""TensorFlow's side of `_backend`."""

import contextlib

import tensorflow as tf
from keras import ops

from kerasrecipes._backend.graph_numbers import (  # noqa: F401
    cond,
    dot,
    largest,
    number,
    numbers,
    packed,
    parts,
    unit,
)


def compiled(function):
    """`function` of tensors, traced once per shape."""
    return tf.function(function)


def eager(function, static):
    """`function` for calls outside of a compiled one too; `static` names what holds no tensors."""
    return function


def value_and_gradient(function):
    """`(w, *data) -> (function(w, *data), its gradient with respect to w)`, compiled."""

    @tf.function
    def evaluate(w, *data):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = function(w, *data)
        return value, tape.gradient(value, w, unconnected_gradients="zero")

    return evaluate


def loop(begin, going_on, body, function):
    """`(w, *data) -> state`: `body(state, *found)` from `begin(w)` while `going_on(state)`.

    Compiled; found are `function(w, *data)` and its gradient at w = `state["trial"]`.
    """
    evaluate = value_and_gradient(function)

    @tf.function
    def run(w, *data):
        (last,) = tf.while_loop(
            going_on, lambda state: (body(state, *evaluate(state["trial"], *data)),), (begin(w),)
        )
        return last

    return run


def hessian_vector_product(function):
    """`(w, v, *data) -> H v` with the Hessian H of `function` at `w`, compiled."""

    @tf.function
    def evaluate(w, v, *data):
        with tf.GradientTape() as outer:
            outer.watch(w)
            along = tf.reduce_sum(_slope(function, w, data) * v)
        return outer.gradient(along, w, unconnected_gradients="zero")

    return evaluate


def hessian_rows(function):
    """`(w, rows, *data) -> rows H` for a matrix of some rows, compiled."""

    @tf.function
    def evaluate(w, rows, *data):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(w)
            along = tf.linalg.matvec(rows, _slope(function, w, data))
        # A loop: not every backward pass of a layer can be vectorized.
        return outer.jacobian(along, w, "zero", experimental_use_pfor=False)

    return evaluate


def gauss_newton_vector_product(outputs, loss):
    """`(w, v, *data) -> J' H J v`, compiled.

    J is the Jacobian of the list of tensors `outputs(w, *data)`, H the Hessian in them of
    `loss(tensors, w, *data)`.
    """

    @tf.function
    def evaluate(w, v, *data):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(w)
            z = outputs(w, *data)
        # The pull-back is linear in what is pulled: its derivative, pulled back, is J v.
        zeros = [tf.zeros_like(t) for t in z]
        with tf.GradientTape() as outer:
            outer.watch(zeros)
            pulled = tape.gradient(z, w, zeros, unconnected_gradients="zero")
        moved = outer.gradient(pulled, zeros, v, unconnected_gradients="zero")
        with tf.GradientTape() as outer:
            outer.watch(z)
            with tf.GradientTape() as inner:
                inner.watch(z)
                with _right_moments():
                    value = loss(z, w, *data)
            slope = inner.gradient(value, z, unconnected_gradients="zero")
        curved = outer.gradient(slope, z, moved, unconnected_gradients="zero")
        return tape.gradient(z, w, curved, unconnected_gradients="zero")

    return evaluate


def _slope(function, w, data):
    with _right_moments(), tf.GradientTape() as tape:
        tape.watch(w)
        value = function(w, *data)
    return tape.gradient(value, w, unconnected_gradients="zero")


@contextlib.contextmanager
def _right_moments():
    # Batch, layer and group normalization call `tf.nn.moments`, which holds the mean inside the
    # variance constant: right value, right gradient, wrong second derivatives.
    shipped, tf.nn.moments = tf.nn.moments, _moments
    try:
        yield
    finally:
        tf.nn.moments = shipped


def _moments(x, axes, shift=None, keepdims=False, name=None):
    wide = tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
    mean = tf.reduce_mean(wide, axes, keepdims=True)
    both = mean, tf.reduce_mean(tf.square(wide - mean), axes, keepdims=True)
    if not keepdims:
        both = (tf.squeeze(m, axes) for m in both)
    return tuple(tf.cast(m, x.dtype) for m in both)


def square(vector):
    """The product of a vector with itself, a number."""
    # In one pass, and without a vector of the squares.
    return 2.0 * tf.nn.l2_loss(vector)


def dense(gradient):
    """A gradient whose rows stand each once: that of an Embedding names a row several times."""
    return tf.convert_to_tensor(gradient)


def flat(tensors):
    """One vector of all entries."""
    return tf.concat([tf.reshape(tensor, (-1,)) for tensor in tensors], axis=0)


def matvec(matrix, vector):
    return ops.reshape(matrix @ vector[:, None], (-1,))


def vecmat(vector, matrix):
    return ops.reshape(vector[None] @ matrix, (-1,))


def passing(loss):
    """A loss, unchanged, and a function that returns its value outside of its gradient."""
    return loss, lambda: tf.stop_gradient(loss)


def with_row(matrix, index, row, when):
    """`matrix` with one row replaced where `when`, if possible in its memory: drop the old one."""
    variable = getattr(matrix, "value", None)
    if not isinstance(variable, tf.Variable):
        row = tf.where(when, row, tf.gather(matrix, index))
        return tf.tensor_scatter_nd_update(matrix, [[index]], row[None])

    def write():
        variable.scatter_nd_update([[index]], row[None])
        return 0  # the variable as a result would be read, and what is read gets copied

    tf.cond(when, write, lambda: 0)
    return matrix


def sync(model):
    """Variables are always current here."""


@contextlib.contextmanager
def random_state():
    """Layers keep their state in variables; TensorFlow's own counter cannot be read back."""
    yield
