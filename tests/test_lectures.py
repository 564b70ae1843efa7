"""Every row of docs/lectures.md: nothing it names may be missing, and no item may be lost."""

import ast
import functools
import pathlib
import re

import keras
import pytest

import kerasrecipes

ROOT = pathlib.Path(__file__).parent.parent
COUNTS = {"O": 16, "N": 7, "I": 3, "P": 6, "C": 3, "R": 2, "D": 9, "M": 11, "A": 5, "B": 7}
IDS = [f"{letter}{n:02}" for letter, count in COUNTS.items() for n in range(1, count + 1)]
COLUMNS = "id", "item", "decks", "state", "API", "test", "recipe or tutorial", "trap"
STATES = "Keras", "here", "Keras + here", "not yet"


def table():
    lines = (ROOT / "docs" / "lectures.md").read_text(encoding="utf-8").splitlines()
    cells = [[c.strip() for c in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    assert tuple(cells[0]) == COLUMNS and all(len(row) == len(COLUMNS) for row in cells)
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


ROWS = table()
SERVED = [row for row in ROWS if row["state"] != "not yet"]
each_served = pytest.mark.parametrize("row", SERVED, ids=lambda row: row["id"])


def names(cell):
    """The names in backticks, less their arguments: SGD(momentum=0.9) is SGD."""
    return [name.split("(")[0] for name in re.findall("`([^`]+)`", cell)]


@functools.cache
def identifiers(path):
    """The names that each function of a test file uses: in its code, not in its docstring."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        function.name: {
            getattr(n, "attr", None) or getattr(n, "id", None) for n in ast.walk(function)
        }
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
    }


def test_every_item_of_the_lectures_has_one_row():
    assert sorted(row["id"] for row in ROWS) == sorted(IDS)
    assert {row["state"] for row in ROWS} <= set(STATES)
    assert all(row["item"] and row["decks"] for row in ROWS)


@each_served
def test_api_exists(row):
    roots = {"keras": keras, "kr": kerasrecipes}
    assert names(row["API"])
    for name in names(row["API"]):
        root, *parts = name.split(".")
        assert parts and functools.reduce(getattr, parts, roots[root])
    used = {name.split(".")[0] for name in names(row["API"])}
    assert used == {"Keras": {"keras"}, "here": {"kr"}}.get(row["state"], {"keras", "kr"})


@each_served
def test_each_test_uses_the_api(row):
    api = {name.split(".")[-1] for name in names(row["API"])}
    assert names(row["test"])
    for name in names(row["test"]):
        path, function = name.split("::")
        assert function.startswith("test_") and api & identifiers(path)[function], name


@each_served
def test_recipe_or_tutorial_exists(row):
    files = names(row["recipe or tutorial"])
    assert files or "here" not in row["state"]
    assert all((ROOT / file).is_file() for file in files), files
