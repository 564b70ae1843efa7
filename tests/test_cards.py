"""Method cards: headings in order, the example runs, the advice names real parameters."""

import doctest
import importlib
import inspect
import pathlib
import re

import pytest

import kerasrecipes as kr
from tests.catalog import CATALOG

ROOT = pathlib.Path(__file__).parent.parent
HEADINGS = [
    "How to use",
    "Suggested hyperparameters",
    "When not to use",
    "Technical details",
    "Attribution",
]


def resolve(name):
    value = kr
    for part in name.split("."):
        value = getattr(value, part)
    return value


MODULES = sorted({resolve(name).__module__ for name in CATALOG})


@pytest.mark.parametrize("module", MODULES)
def test_card_has_its_headings_in_order_and_its_example_runs(module):
    module = importlib.import_module(module)
    card = module.__doc__
    found = re.findall(r"^([A-Z][a-z ]+)$", card, flags=re.MULTILINE)
    assert found == HEADINGS
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("module", MODULES)
def test_every_advised_hyperparameter_is_a_parameter(module):
    module = importlib.import_module(module)
    advice = module.__doc__.split(HEADINGS[1])[1].split(HEADINGS[2])[0]
    advised = set(re.findall(r"`([a-z_]+)`", advice))
    members = [resolve(name) for name in CATALOG if resolve(name).__module__ == module.__name__]
    parameters = {p for member in members for p in inspect.signature(member).parameters}
    assert advised, "the card advises nothing"
    assert advised <= parameters


@pytest.mark.parametrize("name", CATALOG)
def test_public_docstring_documents_every_argument(name):
    member = resolve(name)
    text = inspect.getdoc(member)
    assert text and len(text.splitlines()[0]) <= 100
    parameters = set(inspect.signature(member).parameters) - {"kwargs", "args", "name", "self"}
    described = text.split("Args:")[1] if parameters else ""
    missing = {p for p in parameters if not re.search(rf"\b{p}\b", described)}
    assert not missing
    if CATALOG[name].errors:
        assert "Raises:" in text or name.startswith("schedules.theory")


FENCE = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_python_fence_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": page.stem}
    for block in FENCE.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), scope)
