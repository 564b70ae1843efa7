"""The plan of the house, read from the syntax trees and from a fresh process."""

import ast
import configparser
import json
import pathlib
import subprocess
import sys

import keras
import pytest

import kerasrecipes as kr
from tests.catalog import CATALOG
from tests.faults import FAULTS

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "kerasrecipes"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may import any room further left, none of its own group and none to its right.
GROUPS = [
    {"_checks"},
    {"_backend", "_report", "schedules"},
    {"_model"},
    {"objective"},
    {"optimizers", "layers", "losses", "initializers", "data"},
    {"callbacks", "inference"},
    {"pretraining", "growth", "diagnostics"},
    {"methodology"},
    {"cli", "__main__"},
]
LEVEL = {room: level for level, group in enumerate(GROUPS) for room in group}


def imports(path):
    """(module, name) pairs of all imports of a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def room_of(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_left_and_are_public(path):
    room = room_of(path)
    for module, name in imports(path):
        assert name != "*", "star import"
        assert not module.startswith("keras.src")
        if module.split(".")[0] in ("tensorflow", "jax", "torch"):
            assert room == "_backend", f"{module} is imported outside _backend"
        if module.split(".")[0] != "kerasrecipes" or room == "__init__":
            continue
        target = module.split(".")[1] if "." in module else name
        if target != room and target in LEVEL:
            assert LEVEL[target] < LEVEL[room], f"{room} imports {target}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_private_keras(path):
    assert "keras.src" not in path.read_text()


def test_every_room_has_a_place():
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms <= set(LEVEL)
    for room in PACKAGE.iterdir():
        if room.is_dir() and room.name != "__pycache__":
            assert any(f.name != "__init__.py" for f in room.glob("*.py")), f"{room} is empty"


def test_setup_lists_every_room():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {".".join(init.parent.relative_to(ROOT).parts) for init in PACKAGE.rglob("__init__.py")}
    assert listed == found | {"kerasrecipes.recipes"}
    modules = {path.stem for path in ROOT.glob("*.py")}
    assert set(config["options"]["py_modules"].split()) == modules
    command = config["options.entry_points"]["console_scripts"].split("=")[1].strip()
    assert command.split(":")[0] in modules
    data = {
        f"{package}/{name}"
        for package, names in config["options.package_data"].items()
        for name in names.split()
    }
    others = {
        f"{'.'.join(path.parent.relative_to(ROOT).parts)}/{path.name}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert data == others, "what is no Python must be named to travel in a wheel"


def test_nothing_that_keras_ships():
    twins = {
        "optimizers": keras.optimizers,
        "layers": keras.layers,
        "initializers": keras.initializers,
        "callbacks": keras.callbacks,
        "schedules": keras.optimizers.schedules,
    }
    for room, theirs in twins.items():
        both = set(getattr(kr, room).__all__) & set(dir(theirs))
        assert not both, f"Keras ships {both} now: take ours away"


FRESH = """
import json, sys
import keras
before = set(sys.modules)
import kerasrecipes
added = set(sys.modules) - before
from keras.saving import get_registered_object
print(json.dumps({"added": sorted({m.split(".")[0] for m in added}),
                  "registered": sorted(keras.saving.get_custom_objects())}))
"""


def test_import_registers_all_and_loads_nothing_more():
    out = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found = json.loads(out.stdout.splitlines()[-1])
    heavy = {"matplotlib", "sklearn", "pandas", "jinja2", "scipy", "tensorflow", "jax", "torch"}
    assert not heavy & set(found["added"]), "import kerasrecipes loads what it should not"
    for name, entry in CATALOG.items():
        if entry.kind in ("optimizer", "layer", "initializer", "schedule"):
            assert f"kerasrecipes>{name.split('.')[-1]}" in found["registered"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.file}:{f.right[:30]}")
def test_planted_faults_still_have_their_place(fault):
    text = (PACKAGE / fault.file).read_text()
    assert text.count(fault.right) == 1, "the text a fault replaces must be there exactly once"
    assert fault.right != fault.wrong
    assert (ROOT / fault.test.split("::")[0]).exists()


def test_every_exemplar_has_three_faults():
    for name in CATALOG:
        count = sum(1 for fault in FAULTS if name in fault.of)
        assert count >= 3, f"{name} has {count} planted faults"


def test_readme_names_everything_public():
    text = (ROOT / "README.md").read_text().split("## What is here")[1]
    rows = {
        row.split("|")[1].strip(" `"): row for row in text.splitlines() if row.startswith("| `")
    }
    missing = [
        name
        for name in CATALOG
        if f"`{name.split('.', 1)[1]}`" not in rows.get(name.split(".")[0], "")
    ]
    assert not missing
