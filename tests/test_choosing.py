"""Every row of docs/choosing.md: its card is found as the page says, its files show the method."""

import ast
import functools
import inspect
import json
import pathlib
import re

import pytest

import kerasrecipes as kr
from tests.test_cards import HEADINGS

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
TABLE = [line.strip()[1:-1].split("|") for line in PAGE.splitlines() if line.startswith("|")]
ROWS = [tuple(cell.strip() for cell in row) for row in TABLE[2:]]
COMMANDS = ["kerasrecipes baseline"]
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2])


def modules(row):
    """name -> module, the way the page tells the reader."""
    found = re.findall(r"`(kr\.[\w.]+)`", row[2])
    objects = {name: functools.reduce(getattr, name.split(".")[1:], kr) for name in found}
    return {name: inspect.getmodule(value) for name, value in objects.items()}


def public(module):
    """The names that its room offers of a module."""
    room = getattr(kr, module.__name__.split(".")[1])
    offered = {name: getattr(room, name) for name in room.__all__}
    return {name for name, value in offered.items() if inspect.getmodule(value) is module}


def code(path):
    """The names used in the code of a recipe or a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [
            cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"
        ]
        lines = "\n".join("".join(source) for source in cells).splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    return {
        getattr(node, "attr", None) or getattr(node, "id", None)
        for node in ast.walk(ast.parse(text))
    }


@rows
def test_cards_are_found_as_the_page_says(row):
    assert len(row) == 4 and all(row[:3])
    assert modules(row)
    for name, module in modules(row).items():
        assert module.__name__ == name.replace("kr.", "kerasrecipes.")
        assert re.findall(r"^([A-Z][a-z ]+)$", module.__doc__, flags=re.MULTILINE) == HEADINGS


@rows
def test_recipes_and_tutorials_show_the_method(row):
    recipes = [name for name in re.findall("`([^`]+)`", row[3]) if name not in COMMANDS]
    links = re.findall(r"\[(\w+)\]\(([^)]+)\)", row[3])
    assert all(pathlib.Path(link).stem == text for text, link in links)
    files = [ROOT / "recipes" / f"{name}.py" for name in recipes]
    files += [ROOT / "docs" / link for _, link in links]
    assert bool(files) == bool(row[3])
    for file in files:
        for module in modules(row).values():
            assert public(module) & code(file), (file.name, module.__name__)


def test_the_page_says_how():
    assert "help(inspect.getmodule(kr.…))" in PAGE
