"""Every tutorial runs in full, and is kept without outputs."""

import os
import pathlib

import keras
import pytest

from tests.problems import mostly_on_tensorflow

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = pathlib.Path(__file__).parents[1] / "tutorials"
each = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@each
def test_no_outputs_are_stored(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not c.outputs and c.execution_count is None for c in code_cells(notebook))


@each
@mostly_on_tensorflow
def test_runs_and_shows_figures(path, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook's own: figures in the page
    notebook = nbformat.read(path, as_version=4)
    # The kernel may warn about a tutorial's libraries as it does for a user: no error here.
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": os.fspath(tmp_path)}}
    ).execute()
    shown = [o.get("data", {}) for cell in code_cells(notebook) for o in cell.outputs]
    assert any("image/png" in data for data in shown)
