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


def loop(begin, going_on, body, function):
    """`(w, *data) -> state`: `body(state, evaluate)` from `begin(w)` while `going_on(state)`.

    `evaluate(w)` returns `function(w, *data)` and its gradient.
    """
    evaluate = value_and_gradient(function)

    def run(w, *data):
        with torch.no_grad():
            state = begin(w)
            while going_on(state):
                state = body(state, lambda w: evaluate(w, *data))
        return state

    return run


def hessian_vector_product(function):
    """`(w, v, *data) -> H v` with the Hessian H of `function` at `w`."""
    rows = hessian_rows(function)
    return lambda w, v, *data: rows(w, v[None], *data)[0]


def hessian_rows(function):
    """`(w, rows, *data) -> rows H` for a matrix of some rows."""

    def evaluate(w, rows, *data):
        w = w.detach().requires_grad_(True)
        with torch.enable_grad(), _same_draws():
            slope = _pulled([function(w, *data)], [w], create_graph=True)[0]
            return torch.stack([_pulled([slope], [w], [row], retain_graph=True)[0] for row in rows])

    return evaluate


def gauss_newton_vector_product(outputs, loss):
    """`(w, v, *data) -> J' H J v`.

    J is the Jacobian of the list of tensors `outputs(w, *data)`, H the Hessian in them of
    `loss(tensors, w, *data)`.
    """

    def evaluate(w, v, *data):
        w = w.detach().requires_grad_(True)
        with torch.enable_grad(), _same_draws():
            z = outputs(w, *data)
            # The pull-back is linear in what is pulled: its derivative, pulled back, is J v.
            zeros = [torch.zeros_like(t, requires_grad=True) for t in z]
            pulled = _pulled(z, [w], zeros, create_graph=True)
            moved = _pulled(pulled, zeros, [v], retain_graph=True)
            at = [t.detach().requires_grad_(True) for t in z]
            slope = _pulled([loss(at, w.detach(), *data)], at, create_graph=True)
            return _pulled(z, [w], _pulled(slope, at, moved))[0]

    return evaluate


def _pulled(targets, sources, weights=None, **settings):
    """Gradients of `targets`, weighted, in `sources`; zero where nothing connects them."""
    if not any(t.requires_grad for t in targets):
        return [torch.zeros_like(s) for s in sources]
    pairs = [(t, w) for t, w in zip(targets, weights or [None] * len(targets), strict=True)]
    targets, weights = zip(*(p for p in pairs if p[0].requires_grad), strict=True)
    return torch.autograd.grad(
        targets, sources, weights, allow_unused=True, materialize_grads=True, **settings
    )


def flat(tensors):
    """One vector of all entries."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def with_row(matrix, index, row):
    """`matrix` with one row replaced, in its memory: do not use it again."""
    matrix[index] = row
    return matrix


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
        # torch.manual_seed formats a traceback each time, which costs more than a small model.
        torch.default_generator.manual_seed(0)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)
        yield
