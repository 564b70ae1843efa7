"""JAX's side of `_backend`."""

import contextlib
import functools

import jax
from keras import ops

from kerasrecipes._backend import graph_numbers
from kerasrecipes._backend.graph_numbers import (  # noqa: F401
    cond,
    dot,
    largest,
    number,
    numbers,
    packed,
    square,
    unit,
)


def compiled(function):
    """`function` of tensors, traced once per shape."""
    return jax.jit(function)


def eager(function, static):
    """`function` for calls outside of a compiled one too; `static` names what holds no tensors."""
    # Each condition and loop in it would be compiled anew at each call.
    return jax.jit(function, static_argnames=static)


def value_and_gradient(function):
    """`(w, *data) -> (function(w, *data), its gradient with respect to w)`, compiled."""
    return jax.jit(jax.value_and_grad(function))


def loop(begin, going_on, body, function):
    """`(w, *data) -> state`: `body(state, *found)` from `begin(w)` while `going_on(state)`.

    Compiled; found are `function(w, *data)` and its gradient at w = `state["trial"]`.
    """
    evaluate = jax.value_and_grad(function)

    def run(w, *data):
        return jax.lax.while_loop(
            going_on, lambda state: body(state, *evaluate(state["trial"], *data)), begin(w)
        )

    return jax.jit(run, compiler_options=_in_turn())


@functools.cache
def _in_turn():
    """Compiler options for a loop of many small operations on a CPU, one after the other."""
    # XLA spreads operations over threads, which costs a loop over a small model a sixth.
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    try:
        jax.jit(lambda x: x, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:  # a version of XLA without this option
        return None
    return options


def hessian_vector_product(function):
    """`(w, v, *data) -> H v` with the Hessian H of `function` at `w`, compiled."""

    @jax.jit
    def evaluate(w, v, *data):
        return jax.jvp(jax.grad(lambda w: function(w, *data)), (w,), (v,))[1]

    return evaluate


def hessian_rows(function):
    """`(w, rows, *data) -> rows H` for a matrix of some rows, compiled."""

    @jax.jit
    def evaluate(w, rows, *data):
        slope = jax.grad(lambda w: function(w, *data))
        return jax.vmap(lambda row: jax.jvp(slope, (w,), (row,))[1])(rows)

    return evaluate


def gauss_newton_vector_product(outputs, loss):
    """`(w, v, *data) -> J' H J v`, compiled.

    J is the Jacobian of the list of tensors `outputs(w, *data)`, H the Hessian in them of
    `loss(tensors, w, *data)`.
    """

    @jax.jit
    def evaluate(w, v, *data):
        z, moved = jax.jvp(lambda w: outputs(w, *data), (w,), (v,))
        slope = jax.grad(lambda z: loss(z, w, *data))
        (curved,) = jax.vjp(lambda w: outputs(w, *data), w)[1](jax.jvp(slope, (z,), (moved,))[1])
        return curved

    return evaluate


def dense(gradient):
    """A gradient whose rows stand each once, as they always do here."""
    return gradient


@jax.jit
def flat(tensors):
    """One vector of all entries."""
    # Concatenation in XLA on a CPU asks of each entry where it comes from: ten times slower.
    whole, begin = jax.numpy.empty(sum(t.size for t in tensors), tensors[0].dtype), 0
    for tensor in tensors:
        whole = jax.lax.dynamic_update_slice(whole, tensor.reshape(-1), (begin,))
        begin += tensor.size
    return whole


def passing(loss):
    """A loss, unchanged, and a function that returns its value outside of its gradient."""
    seen = []

    @jax.custom_vjp
    def look(loss):
        return loss

    def forward(loss):
        # This runs with the value of the trace outside, which holds no derivative.
        seen.append(loss)
        return loss, None

    look.defvjp(forward, lambda _, upstream: (upstream,))
    return look(loss), lambda: seen[-1] if seen else None


# A GPU's shorter float32 would make a memory of curvature coarse.
matvec = vecmat = functools.partial(jax.numpy.matmul, precision="highest")


@functools.partial(jax.jit, static_argnums=1)
def parts(vector, shapes):
    """The tensors of these shapes that `flat` has laid into a vector."""
    return graph_numbers.parts(vector, shapes)


def with_row(matrix, index, row, when):
    """`matrix` with one row replaced where `when`, if possible in its memory: drop the old one."""

    def write(_, matrix):
        return jax.lax.dynamic_update_index_in_dim(matrix, row, index, 0)

    # What one branch of a condition returns, XLA copies; what a loop carries, it does not.
    return jax.lax.fori_loop(0, ops.cast(when, "int32"), write, matrix)


def sync(model):
    """During `fit` the state lives outside the variables: brings it back into them."""
    model.jax_state_sync()


@contextlib.contextmanager
def random_state():
    """JAX has no global random state."""
    yield
