"""PyTorch's side of `_backend`."""

import contextlib
import math
import types

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def compiled(function):
    """`function` of tensors without a graph (PyTorch runs eagerly)."""

    def evaluate(*arguments):
        with torch.no_grad(), _same_draws():
            return function(*arguments)

    return evaluate


def eager(function, static):
    """`function` for calls outside of a compiled one too; `static` names what holds no tensors."""
    return function


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
    """`(w, *data) -> state`: `body(state, *found)` from `begin(w)` while `going_on(state)`.

    Found are `function(w, *data)` and its gradient at w = `state["trial"]`.
    """
    evaluate = None

    def run(w, *data):
        nonlocal evaluate
        if evaluate is None:
            evaluate = _traced(value_and_gradient(function), w, data)
        with torch.no_grad():
            state = begin(w)
            while going_on(state):
                state = body(state, *evaluate(state["trial"], *data))
        return state

    return run


def _traced(evaluate, w, data):
    """The same, without Keras's calls, which for small models take longer than what they call.

    It is `evaluate` itself where that cannot be traced, draws random numbers, or comes out
    different by one bit away from where it was traced.
    """
    # Only here is the second that this import takes of use.
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        graph = make_fx(evaluate)(w, *data)
    except Exception:  # such as of a layer that looks at a value
        return evaluate
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return evaluate
    elsewhere = w + 1e-3
    pairs = zip(evaluate(elsewhere, *data), graph(elsewhere, *data), strict=True)
    return graph if all(torch.equal(a, b) for a, b in pairs) else evaluate


def hessian_vector_product(function):
    """`(w, v, *data) -> H v` with the Hessian H of `function` at `w`."""
    rows = hessian_rows(function)
    return lambda w, v, *data: rows(w, v[None], *data)[0]


def hessian_rows(function):
    """`(w, rows, *data) -> rows H` for a matrix of some rows."""

    def evaluate(w, rows, *data):
        w = w.detach().requires_grad_(True)
        with torch.enable_grad(), _same_draws(), _twice_differentiable():
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
        with torch.enable_grad(), _same_draws(), _twice_differentiable():
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


def dense(gradient):
    """A gradient whose rows stand each once, as they always do here."""
    return gradient


def flat(tensors):
    """One vector of all entries."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def parts(vector, shapes):
    """The tensors of these shapes that `flat` has laid into a vector."""
    pieces = vector.split([math.prod(shape) for shape in shapes])
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def passing(loss):
    """A loss, unchanged, and a function that returns its value outside of its gradient."""
    return loss, loss.detach


def with_row(matrix, index, row, when):
    """`matrix` with one row replaced where `when`, in its memory: do not use it again."""
    if when:
        matrix[index] = row
    return matrix


# PyTorch runs one operation at a time, and each costs more than the number it is about: numbers
# live on the host, as NumPy's float64.
number = types.SimpleNamespace(
    where=lambda condition, a, b: a if condition else b,
    clip=lambda a, low, high: min(max(a, low), high),
    isfinite=np.isfinite,
    isinf=np.isinf,
    sqrt=np.sqrt,
    integer=int,
)


def numbers(tensor):
    """What a tensor holds: a number for a scalar, a list of numbers for a vector."""
    held = np.array(tensor.tolist())
    return [*held] if held.ndim else held[()]


def packed(values, like):
    """Numbers as a tensor of the shape and dtype of `like`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def dot(a, b):
    """The product of two vectors, a number."""
    return numbers(torch.dot(a, b))


def square(vector):
    """The product of a vector with itself, a number."""
    return dot(vector, vector)


def unit(index, like):
    """The unit vector of the shape and dtype of `like` in the direction `index`."""
    vector = torch.zeros_like(like)
    vector[index] = 1
    return vector


def matvec(matrix, vector):
    return matrix @ vector


def vecmat(vector, matrix):
    return vector @ matrix


def largest(vector):
    """The largest absolute entry, a number."""
    return numbers(vector.abs().max())


def cond(predicate, true, false):
    """`true()` or `false()`: nests of tensors, by a number."""
    return true() if predicate else false()


def sync(model):
    """Variables are always current here."""


@contextlib.contextmanager
def random_state():
    """Leaves the global generators, from which an unseeded Dropout draws, as they were."""
    with torch.random.fork_rng():
        yield


@contextlib.contextmanager
def _twice_differentiable():
    # Fused attention and cuDNN's recurrent layers have no second derivative.
    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
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
