"""JAX's side of `_backend`."""

import contextlib

import jax


def compiled(function):
    """`function` of tensors, traced once per shape."""
    return jax.jit(function)


def value_and_gradient(function):
    """`(w, *data) -> (function(w, *data), its gradient with respect to w)`, compiled."""
    return jax.jit(jax.value_and_grad(function))


def sync(model):
    """During `fit` the state lives outside the variables: brings it back into them."""
    model.jax_state_sync()


@contextlib.contextmanager
def random_state():
    """JAX has no global random state."""
    yield
