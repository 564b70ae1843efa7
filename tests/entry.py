"""What the catalogue and the planted faults are made of."""

import dataclasses
from collections.abc import Callable

from tests.problems import network

SERIALIZABLE = ("optimizer", "layer", "initializer", "schedule", "loss")


@dataclasses.dataclass
class Entry:
    """`kind` decides which contracts apply.

    `equality()` yields triples (ours, reference, relative tolerance). `make(**kwargs)` makes an
    instance and `model(**kwargs)` a compiled model that uses one, `kwargs` being base arguments
    of its optimizer. `call(model, x, y)` is an ordinary call. `errors` are triples of a
    documented exception, a piece of its message, and a call that must raise it. `without_noise`
    are the base arguments that take randomness out: TensorFlow draws other numbers under XLA.
    """

    kind: str
    equality: Callable
    make: Callable | None = None
    model: Callable = network
    call: Callable | None = None
    errors: list = dataclasses.field(default_factory=list)
    skip: dict = dataclasses.field(default_factory=dict)
    without_noise: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Fault:
    """In `kerasrecipes/{file}` the text `right` becomes `wrong`; `test` is what must notice.

    `backend` is the one on which it shows, where it does not show on each.
    """

    of: tuple
    file: str
    right: str
    wrong: str
    test: str
    backend: str | None = None


def faults(of, file, test, *pairs):
    return [Fault((of,), file, right, wrong, f"tests/{test}") for right, wrong in pairs]
