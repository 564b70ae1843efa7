"""The recipes: single files to read, copy and run, from a wheel as from a checkout."""

import ast
import os
import re
import runpy
import shutil
import sys
import textwrap

from kerasrecipes._checks import nearest
from kerasrecipes.data.read import BadInput


def folder():
    """Where the recipes lie: in the installed package, or beside it in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    places = [os.path.join(package, "recipes"), os.path.join(os.path.dirname(package), "recipes")]
    return next((place for place in places if os.path.isdir(place)), places[0])


def names():
    """The recipes' names, in order."""
    found = sorted(os.listdir(folder())) if os.path.isdir(folder()) else []
    return [name[:-3] for name in found if name.endswith(".py") and name[0] not in "_."]


def path_of(name):
    """The file of a recipe."""
    name = name.removesuffix(".py")
    if name not in names():
        raise BadInput(
            f"no recipe is called {name!r}: `kerasrecipes list` shows them."
            + nearest(name, names())
        )
    return os.path.join(folder(), f"{name}.py")


def header(name):
    """A recipe's docstring."""
    with open(path_of(name), encoding="utf-8") as file:
        return ast.get_docstring(ast.parse(file.read())) or ""


def list_recipes():
    """Prints one line a recipe: its name, its title, its measured result."""
    for name in names():
        text = header(name)
        title, _, rest = text.partition("\n")
        found = re.search(r"^Result:(.*?)(?=^[A-Z]\w+:|\Z)", rest, re.MULTILINE | re.DOTALL)
        result = " ".join(found[0].split()) if found else "Result: not measured"
        print(f"{name}: {title} {textwrap.shorten(result, 240, placeholder=' …')}")
    return 0


def show_recipe(name):
    """Prints a recipe's header."""
    print(header(name))
    return 0


def copy_recipe(name, destination=None):
    """Writes the single file, never over another."""
    path = path_of(name)
    target = destination or os.curdir
    if os.path.isdir(target):
        target = os.path.join(target, os.path.basename(path))
    try:
        with open(path, "rb") as source, open(target, "xb") as file:
            shutil.copyfileobj(source, file)
    except FileExistsError:
        raise BadInput(f"{target!r} exists already and is kept as it is: name another") from None
    except OSError as error:
        raise BadInput(f"{target!r} cannot be written: {error.strerror}") from error
    print(target)
    return 0


def run_recipe(name):
    """Runs a recipe with its own settings."""
    path = path_of(name)
    sys.argv = [path]
    try:
        runpy.run_path(path, run_name="__main__")
    except OSError as error:  # data that cannot be downloaded: the message says what to do
        raise BadInput(str(error)) from error
    return 0


COMMANDS = {"list": list_recipes, "show": show_recipe, "copy": copy_recipe, "run": run_recipe}
