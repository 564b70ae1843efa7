"""From what the user names to raw rows: a known set, arrays, a table file or an .npz."""

import os
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerasrecipes._checks import nearest
from kerasrecipes.data import load as load_named
from kerasrecipes.data.read import BadInput, read_table
from kerasrecipes.methodology.rows import alike, as_rows, as_target, check_lengths, check_size

NAMED = ("digits", "mnist", "fashion_mnist")
PARTS = ("x", "y", "x_train", "y_train", "x_test", "y_test")


@dataclass
class Source:
    """Raw rows: `x` is a dict of columns or an array of images; `origin` says how to read again."""

    name: str
    x: Any
    y: Any
    test: tuple | None = None
    target: str = "y"
    origin: dict = field(default_factory=dict)
    columns: list = field(default_factory=list)
    ignored: list = field(default_factory=list)


def from_anything(data, target=None, header=None):
    """The source of the command's DATA: a name or a path.

    Raises:
        BadInput: if it is neither, or cannot be used.
    """
    named = data in NAMED
    if not named and not os.path.exists(data):
        raise BadInput(missing(data))
    if not named and os.path.isdir(data):
        raise BadInput(f"{data!r} is a folder: name a CSV, TSV or .npz file in it")
    if not named and not data.lower().endswith(".npz"):
        return from_table(data, target, header)
    if target is not None or header is not None:
        raise BadInput(f"--target and --no-header are for files of text, not for {data!r}")
    return from_name(data) if named else from_npz(data)


def missing(data):
    """What to say of a name that is neither known nor a file."""
    if os.path.islink(data):
        return f"{data!r} is a link to {os.readlink(data)!r}, which does not exist"
    if os.path.splitext(data)[1] or os.path.dirname(data):
        return f"there is no file {data!r}"
    return f"no data is called {data!r}: give a file or one of {', '.join(NAMED)}." + nearest(
        data, NAMED
    )


def from_name(name):
    """A data set that Keras or scikit-learn brings, with its own test rows."""
    try:
        (x, y), (x_test, y_test) = load_named(name)
    except (OSError, ImportError, ValueError) as error:
        raise BadInput(str(error)) from error
    return Source(name, x, y.ravel(), (x_test, y_test.ravel()), "label", {"name": name})


def from_table(path, target=None, header=None):
    """A CSV or TSV file; the target is the last column unless it is named or numbered."""
    columns, options = read_table(path, header)
    names = list(columns)
    target = find_target(names, target, options["header"] is not None)
    y = columns.pop(target)
    options["na_values"] = list(options["na_values"])
    origin = {"path": os.path.abspath(path), "read": options, "target": target}
    name = os.path.splitext(os.path.basename(path))[0]
    return usable(Source(name, columns, y, target=target, origin=origin))


def find_target(names, target, header):
    """The name of the target's column."""
    if target is None:
        return names[-1]
    if target in names and header:
        return target
    if target.lstrip("-").isdigit():
        if -len(names) <= int(target) < len(names):
            return names[int(target)]
        raise BadInput(f"there is no column {target}: the {len(names)} columns are numbered from 0")
    known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    raise BadInput(
        f"there is no target column {target!r}: the columns are {known}." + nearest(target, names)
        if header
        else f"there is no target column {target!r}: the file has no header, number it from 0"
    )


def usable(source):
    """Without the columns that cannot help: one value only, or text that hardly recurs."""
    source.columns = list(source.x)
    for name, column in list(source.x.items()):
        check_size(column, f"column {name!r}")
        if not helps(column):
            del source.x[name]
            source.ignored.append(name)
    if not source.x:
        raise BadInput(
            f"{source.name!r} has no column to learn from besides the target {source.target!r}: "
            "each is constant, empty or free text"
        )
    return source


def helps(column):
    """Whether a column differs between rows and its values recur or are numbers."""
    if column.dtype != object:
        known = column[np.isfinite(column)]
        return len(known) > 0 and (len(known) < len(column) or np.ptp(known) > 0)
    values = set(column)
    return len(values) > 1 and (len(values) <= 20 or len(values) <= len(column) / 2)


def from_npz(path):
    """An archive with `x` and `y`, or with a training and a test part."""
    arrays = read_npz(path)
    if {"x_train", "y_train"} <= arrays.keys():
        names = ["x_train", "y_train"]
    elif {"x", "y"} <= arrays.keys():
        names = ["x", "y"]
    else:
        held = ", ".join(arrays) or "none of them"
        raise BadInput(f"{path!r} needs arrays x and y, or x_train and y_train; it has {held}")
    names += ["x_test", "y_test"] if {"x_test", "y_test"} <= arrays.keys() else []
    parts = [arrays[name] for name in names]
    name = os.path.splitext(os.path.basename(path))[0]
    origin = {"path": os.path.abspath(path), "arrays": names}
    return from_arrays(*parts[:2], tuple(parts[2:]) or None, name, origin)


def read_npz(path):
    """The arrays of an archive that have a meaning here."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in PARTS if name in archive}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path!r} is no readable .npz archive: {reason}") from error


def from_arrays(x, y, test=None, name="data", origin=None):
    """Arrays, a pandas DataFrame or a dict of columns, with their target.

    Raises:
        BadInput: if shapes or kinds do not fit.
    """
    x, y = as_rows(x, "x"), as_target(y, "y")
    check_lengths(x, y, "x and y")
    if test is not None:
        test = (as_rows(test[0], "the test rows"), as_target(test[1], "the test target"))
        check_lengths(*test, "the test part")
        if isinstance(x, dict) != isinstance(test[0], dict):
            raise BadInput("training and test rows must be of one kind")
        if isinstance(x, np.ndarray) and x.shape[1:] != test[0].shape[1:]:
            raise BadInput(f"images of {x.shape[1:]} to train, of {test[0].shape[1:]} to test")
        if isinstance(x, dict) and (lacking := [n for n in x if n not in test[0]]):
            raise BadInput(f"the test rows lack the column {lacking[0]!r}")
        if isinstance(x, dict):
            text = [name for name, column in x.items() if column.dtype == object]
            test = (alike(test[0], [name for name in x if name not in text], text), test[1])
    source = Source(name, x, y, test, origin=origin or of_memory(test))
    return usable(source) if isinstance(x, dict) else source


def of_memory(test):
    """Where train.py finds rows that came from no file: `write` puts them beside it."""
    names = ["x", "y"] if test is None else ["x_train", "y_train", "x_test", "y_test"]
    return {"path": "data.npz", "arrays": names, "beside": True}


def arrays_of(source):
    """The rows of a source by the names of its origin, a column at a time and without pickle."""
    arrays, parts = {}, [source.x, source.y, *(source.test or ())]
    for name, part in zip(source.origin["arrays"], parts, strict=True):
        if isinstance(part, dict):
            arrays |= {f"{name}.{column}": plain_array(part[column]) for column in source.x}
        else:
            arrays[name] = plain_array(part)
    return arrays


def plain_array(values):
    """Text in the place of objects, empty where it is missing: no column has empty text."""
    if values.dtype != object:
        return values
    return np.array(["" if value is None else value for value in values.tolist()], str)
