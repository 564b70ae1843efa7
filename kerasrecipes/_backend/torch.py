"""PyTorch's side of `_backend`."""

import contextlib

import torch


def compiled(function):
    """`function` of tensors without a graph (PyTorch runs eagerly)."""

    def evaluate(*arguments):
        with torch.no_grad(), _same_draws():
            return function(*arguments)

    return evaluate


def value_and_gradient(function):
    """`(w, *data) -> (function(w, *data), its gradient with respect to w)`."""

    def evaluate(w, *data):
        w = w.detach().requires_grad_(True)
        with torch.enable_grad(), _same_draws():
            value = function(w, *data)
            (gradient,) = torch.autograd.grad(value, [w], materialize_grads=True)
        return value.detach(), gradient

    return evaluate


def sync(model):
    """Variables are always current here."""


@contextlib.contextmanager
def random_state():
    """Leaves the global generators, from which an unseeded Dropout draws, as they were."""
    with torch.random.fork_rng():
        yield


@contextlib.contextmanager
def _same_draws():
    # An unseeded Dropout draws from the global generator: a function of w must not.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
