"""Rows in memory: arrays, DataFrames and dicts, checked and brought to one form."""

import numpy as np

from kerasrecipes.data.read import BadInput, column_of


def as_rows(x, what="x", names=None):
    """A dict of columns, or an array of images.

    Args:
        x: matrix, DataFrame or dict of columns for a table; 3 or 4 axes for images.
        what: what to call it in an error.
        names: names of a matrix's columns.
    """
    if hasattr(x, "columns") or isinstance(x, dict):
        known = list(map(str, x.columns if hasattr(x, "columns") else x))
        if twice := [name for name in known if known.count(name) > 1]:
            raise BadInput(f"{what} has two columns named {twice[0]!r}: rename one")
        x = {str(name): as_column(x[name], name) for name in x}
        if len({len(column) for column in x.values()}) > 1:
            raise BadInput(f"the columns of {what} differ in length")
        empty = not x or not len(next(iter(x.values())))
    else:
        x = np.asarray(x)
        if x.ndim not in (2, 3, 4):
            raise BadInput(f"{what} must be a table (2 axes) or images (3 or 4), not {x.shape}")
        empty = not x.size
    if empty:
        raise BadInput(f"{what} is empty")
    if isinstance(x, dict):
        return x
    if x.ndim == 2:
        names = names if names and len(names) == x.shape[1] else map(str, range(x.shape[1]))
        return {name: as_column(x[:, i]) for i, name in enumerate(names)}
    return as_images(x, what)


def as_column(values, name=""):
    """Float64 with NaN, or text with None."""
    values = np.asarray(values)
    if values.ndim != 1:
        raise BadInput(f"column {name!r} must have one value a row, not the shape {values.shape}")
    if values.dtype.kind in "iuf":
        return values.astype("float64")
    import pandas

    return column_of(pandas.Series(values))


def as_images(x, what):
    """Images of numbers that are all known."""
    if x.dtype.kind not in "biuf":
        raise BadInput(f"{what} must hold numbers, not {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise BadInput(f"{what} has pixels that are NaN or infinite")
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[-1] not in (1, 3, 4):
        raise BadInput(f"{what} has its channels first {x.shape}: move them to the last axis")
    return x


def as_target(y, what="y"):
    """A target of one axis: numbers, or text with None."""
    import pandas

    # NumPy would make text of a missing value that stands between words.
    y = np.asarray(y) if hasattr(y, "shape") else np.array(y, object)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise BadInput(f"{what} must have one value a row, not the shape {y.shape}")
    y = pandas.Series(y).infer_objects().to_numpy() if y.dtype == object else y
    if y.dtype.kind in "iufb":
        return y
    values = [None if v else str(u) for u, v in zip(y.tolist(), pandas.isna(y), strict=True)]
    return np.array(values, object)


def check_size(values, what, most=1e150):
    """Raises BadInput for numbers whose squares are too large for a float."""
    if values.dtype.kind == "f" and np.any(np.abs(values[np.isfinite(values)]) > most):
        raise BadInput(
            f"{what} has a number beyond {most:g}: leave it empty if it stands for a missing one, "
            "or rescale"
        )


def check_lengths(x, y, what):
    """Raises BadInput unless there is one target for each row."""
    rows = len(next(iter(x.values()))) if isinstance(x, dict) else len(x)
    if rows != len(y):
        raise BadInput(f"{what} differ in length: {rows} rows, {len(y)} targets")


def match(x, inputs, columns=None):
    """New rows in the form in which the training rows were encoded.

    Raises:
        BadInput: if a needed column is lacking or the images have another shape.
    """
    if inputs["kind"] == "image":
        shape = np.shape(x)[1:]
        if list(shape) + [1] * (3 - len(shape)) != inputs["shape"]:
            raise BadInput(f"images of {inputs['shape']} are needed, got the shape {np.shape(x)}")
        return as_images(np.asarray(x), "x")
    x = as_rows(x, names=columns)
    if not isinstance(x, dict):
        raise BadInput("a table is needed, got images")
    needed = [*inputs["numbers"], *inputs["categories"]]
    if lacking := [name for name in needed if name not in x]:
        raise BadInput(
            f"the new data lacks the column{'s'[: len(lacking) - 1]} "
            + ", ".join(map(repr, lacking[:5]))
            + f": it has {', '.join(list(x)[:8])}"
        )
    return alike(x, inputs["numbers"], inputs["categories"])


def alike(x, numbers, categories):
    """The columns that are named, each as a number or as text."""
    return {n: to_number(x[n]) for n in numbers} | {n: to_text(x[n]) for n in categories}


def to_number(column):
    """What is no number counts as missing."""
    if column.dtype != object:
        return column
    import pandas

    return pandas.to_numeric(pandas.Series(column), errors="coerce").to_numpy("float64")


def to_text(column):
    """A category that happens to be written in digits only is text again."""
    if column.dtype == object:
        return column
    text = [None if v != v else str(int(v)) if v % 1 == 0 else str(v) for v in column.tolist()]
    return np.array(text, object)
