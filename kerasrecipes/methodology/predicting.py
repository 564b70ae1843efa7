"""Predictions of a written baseline for a file of new rows."""

import csv
import os
import sys

from kerasrecipes.data.read import BadInput, read_table
from kerasrecipes.methodology.result import load
from kerasrecipes.methodology.source import NAMED, from_name, missing, read_npz


def predict_file(folder, data, out=None):
    """Writes a CSV of predictions: a row each, with its probability where there are classes.

    Args:
        folder: what `baseline` wrote.
        data: a file of new rows, or the name of a known data set, whose test rows are taken.
        out: a new file; None for the terminal.

    Raises:
        BadInput: if something cannot be read, lacks a column, or `out` exists.
    """
    if out is not None and os.path.lexists(out):
        raise BadInput(f"{out!r} exists already and is kept as it is: name another file")
    result = load(folder)
    output = result.probabilities(new_rows(data, result.preprocessing))
    if output.ndim == 1:
        heads, rows = ["prediction"], [[repr(float(value))] for value in output]
    else:
        classes = result.preprocessing["target"]["classes"]
        best = output.argmax(axis=1)
        heads = ["prediction", "probability"]
        rows = [[classes[i], f"{p[i]:.6f}"] for i, p in zip(best, output, strict=True)]
    write_rows([heads, *rows], out)


def new_rows(data, state):
    """Raw rows in the form they had when the network was trained."""
    if data in NAMED:
        return from_name(data).test[0]
    if not os.path.exists(data):
        raise BadInput(missing(data))
    if data.lower().endswith(".npz"):
        arrays = read_npz(data)
        found = [arrays[name] for name in ("x", "x_test") if name in arrays]
        if not found:
            raise BadInput(f"{data!r} has no array x (or x_test) of new rows")
        return found[0]
    if state["inputs"]["kind"] == "image":
        raise BadInput(f"images are needed: give an .npz with an array x, not {data!r}")
    return named_rows(data, state)


def named_rows(path, state):
    """The columns of a file of text, by name, or by place where it was trained without names."""
    options, known = state["origin"].get("read"), state["columns"]
    had_header = options is None or options["header"] is not None
    columns, _ = read_table(path, None if options is None else had_header)
    if had_header and set(known) & set(columns):
        return columns
    if options and len(columns) == len(known) + 1:
        return dict(zip(options["names"], columns.values(), strict=True))
    if len(columns) == len(known):
        return dict(zip(known, columns.values(), strict=True))
    raise BadInput(
        f"{path!r} has {len(columns)} columns, and {len(known)} are needed"
        + (f": {', '.join(known[:8])}" if had_header else " (the target may be among them)")
    )


def write_rows(rows, out):
    """Writes the file whole or not at all."""
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    try:
        with open(out, "x", encoding="utf-8", newline="") as file:
            try:
                csv.writer(file).writerows(rows)
            except BaseException:
                os.unlink(out)
                raise
    except OSError as error:
        raise BadInput(f"{out!r} cannot be written: {error.strerror}") from error
