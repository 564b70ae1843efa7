"""Writing a folder whole or not at all, and never over another."""

import contextlib
import os
import shutil
import tempfile

from kerasrecipes.data.read import BadInput


def free_folder(name, parent="runs"):
    """The first of runs/NAME-1, runs/NAME-2, … that does not exist."""
    number = 1
    while os.path.lexists(os.path.join(parent, f"{name}-{number}")):
        number += 1
    return os.path.join(parent, f"{name}-{number}")


def check_free(out):
    """Raises BadInput unless `out` can become a new folder."""
    if os.path.lexists(out) and not (os.path.isdir(out) and not os.listdir(out)):
        raise BadInput(f"{out!r} exists already and is kept as it is: name another folder")
    parent = os.path.dirname(os.path.abspath(out))
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if not (os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)):
        raise BadInput(f"{out!r} cannot be made: {parent!r} is not a folder one may write to")


@contextlib.contextmanager
def whole_folder(out):
    """A folder to fill that appears at `out` only if the block ends without an error."""
    out = os.path.abspath(out)
    os.makedirs(os.path.dirname(out), exist_ok=True)
    part = tempfile.mkdtemp(prefix=f".{os.path.basename(out)}.", dir=os.path.dirname(out))
    try:
        yield part
        os.chmod(part, 0o755)
        # A folder takes the place of an empty one only, so that a run that raced us is kept.
        os.rename(part, out)
    except OSError as error:
        raise BadInput(f"{out!r} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
