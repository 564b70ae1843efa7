"""The command: bad input in one line and exit status 2, files whole or not at all."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from kerasrecipes import cli
from kerasrecipes.data.read import read_table
from kerasrecipes.methodology import catalogue, load, predicting, training

ROWS = 90


def write_table(path, rows, header="a,b,kind,y"):
    path.write_text("\n".join(([header] if header else []) + rows) + "\n", encoding="utf-8")
    return str(path)


def some_rows(target=lambda i: "yes" if i % 3 else "no"):
    return [f"{i},{i * 7 % 11},{'uvw'[i % 3]},{target(i)}" for i in range(ROWS)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A baseline of a small table, two epochs long, that several tests look at."""
    folder = tmp_path_factory.mktemp("written")
    rows = some_rows()
    rows[4] = "?,NA, u ,yes"
    table = write_table(folder / "table.csv", rows, "a,<script>alert(1)</script>,kind,y")
    out = str(folder / "out")
    assert cli.main(["baseline", table, "--out", out, "--epochs", "2", "--quiet"]) == 0
    return table, out


def refused(capsys, argv):
    """The one line that a bad call prints."""
    assert cli.main(argv) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1 and output.err.startswith("kerasrecipes: ")
    return output.err


def table_cases(folder):
    """Name, arguments after `baseline`, and what the line must name."""
    good = write_table(folder / "good.csv", some_rows())
    plain = write_table(folder / "plain.csv", [f"{i},{i % 2}" for i in range(ROWS)], None)

    def make(name, rows, header="a,b,kind,y"):
        return write_table(folder / f"{name}.csv", rows, header)

    (folder / "bytes.csv").write_bytes(bytes(range(256)) * 20)
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    os.symlink(folder / "nowhere.csv", folder / "dangling.csv")
    np.savez(folder / "alone.npz", x=np.zeros((4, 2)))
    np.savez(folder / "objects.npz", x=np.array([{}, []], object), y=np.zeros(2))
    np.savez(folder / "lengths.npz", x=np.zeros((4, 2)), y=np.zeros(3))
    np.savez(folder / "nanpixels.npz", x=np.full((9, 4, 4), np.nan), y=np.arange(9) % 2)
    taken = folder / "taken"
    taken.mkdir()
    (taken / "keep").write_text("mine")
    once = some_rows(lambda i: "rare" if i == 5 else "often")
    ragged = some_rows()
    ragged[7] = "1,2,3"
    long = some_rows()
    long[7] = "1,2,3,4,5"
    return {
        "missing file": ([str(folder / "none.csv")], "none.csv"),
        "dangling link": ([str(folder / "dangling.csv")], "link to"),
        "a folder": ([str(folder)], "is a folder"),
        "unknown name": (["digitz"], "Did you mean 'digits'"),
        "not text": ([str(folder / "bytes.csv")], "not text"),
        "no such target": ([good, "--target", "kin"], "Did you mean 'kind'"),
        "no such index": ([good, "--target", "4"], "no column 4"),
        "name without header": ([plain, "--target", "y"], "has no header"),
        "empty": ([make("empty", [], None)], "is empty"),
        "header only": ([make("header", [])], "header only"),
        "one class": ([make("one", some_rows(lambda i: "same"))], "one class only, 'same'"),
        "class of one": ([make("once", once)], "class 'rare'"),
        "NaN target": ([make("nan", some_rows(lambda i: "" if i == 3 else i))], "data row 3"),
        "inf target": ([make("inf", some_rows(lambda i: "inf" if i == 3 else i))], "data row 3"),
        "constant": ([make("flat", some_rows(lambda i: 2)), "--task", "regression"], "always 2"),
        "text as number": ([good, "--task", "regression"], "no number"),
        "fractions as classes": (
            [make("fractions", some_rows(lambda i: i / 7)), "--task", "classification"],
            "fractions",
        ),
        "short row": ([make("short", ragged)], "line 9 has 3 cells"),
        "long row": ([make("long", long)], "line 9 has 5 cells"),
        "one name twice": ([make("twice", some_rows(), "a,b,a,y")], "two columns named 'a'"),
        "no useful column": (
            [make("useless", [f"1,text {i},{i % 2}" for i in range(ROWS)], "a,b,y")],
            "no column to learn from",
        ),
        "broken archive": ([str(folder / "broken.npz")], "no readable .npz"),
        "archive without y": ([str(folder / "alone.npz")], "it has x"),
        "objects": ([str(folder / "objects.npz")], "no readable .npz"),
        "unequal lengths": ([str(folder / "lengths.npz")], "4 rows, 3 targets"),
        "NaN pixels": ([str(folder / "nanpixels.npz")], "NaN"),
        "out is taken": ([good, "--out", str(taken)], "exists already"),
        "out is a file's child": ([good, "--out", str(folder / "good.csv" / "x")], "not a folder"),
        "target of an archive": ([str(folder / "alone.npz"), "--target", "a"], "files of text"),
        "two rows": ([make("two", ["1,2.5", "3,4.5"], "a,y")], "there are 2 rows"),
        "seed": ([good, "--seed", "-1"], "seed"),
        "epochs": ([good, "--epochs", "0"], "epochs"),
        "budget": ([good, "--budget", "0"], "budget"),
    }


def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = table_cases(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for case, (argv, words) in cases.items():
        assert words in refused(capsys, ["baseline", *argv, "--quiet"]), case
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "taken" / "keep").read_text() == "mine"


@pytest.mark.parametrize(
    "argv", [["baseline", "--epochs", "x"], ["baseline", "--task", "x"], [], ["nothing"]]
)
def test_bad_arguments_are_one_line(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_data_that_cannot_be_downloaded(monkeypatch, capsys, tmp_path):
    def offline():
        raise OSError("no network\nsecond line")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras.datasets.mnist.load_data", offline)
    assert "no network" in refused(capsys, ["baseline", "mnist"])
    assert not list(tmp_path.iterdir())


def test_what_is_written(written):
    _, out = written
    names = ["history.csv", "metrics.json", "model.keras", "preprocessing.json"]
    assert sorted(os.listdir(out)) == sorted([*names, "report.html", "train.py"])
    metrics = json.loads(pathlib.Path(out, "metrics.json").read_text(encoding="utf-8"))
    assert metrics["task"] == "classification" and metrics["seed"] == 0
    assert set(metrics["baselines"]) == {"majority", "logistic_regression", "gradient_boosting"}
    assert metrics["baselines"]["majority"]["accuracy"] == 12 / 18
    assert metrics["rows"] == {"training": 58, "validation": 14, "test": 18}
    assert [set(found) for found in metrics["findings"][:1]] == [{"title", "reason", "advice"}]
    assert load(out).findings == metrics["findings"]
    assert {"accuracy"} <= metrics["test"].keys() & metrics["validation"].keys()
    assert metrics["command"].startswith("kerasrecipes baseline ")
    assert set(metrics["seconds"]) >= {"training", "finding the rate", "classical baselines"}
    with open(os.path.join(out, "history.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["val_loss"]) > 0


def test_report_escapes_and_needs_no_network(written):
    _, out = written
    page = pathlib.Path(out, "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    # References within the page (#…) are how a drawing names its own parts.
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert not re.findall(r"""url\(["']?(?!#)""", page) and "@import" not in page
    assert "prefers-color-scheme: dark" in page and "width=device-width" in page


def test_existing_folder_is_kept(written, capsys):
    table, out = written
    before = pathlib.Path(out, "metrics.json").read_bytes()
    assert "exists already" in refused(capsys, ["baseline", table, "--out", out])
    assert pathlib.Path(out, "metrics.json").read_bytes() == before


def test_predict_writes_what_load_predicts(written, tmp_path, capsys):
    table, out = written
    file = tmp_path / "predictions.csv"
    assert cli.main(["predict", out, table, "--out", str(file)]) == 0
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns, _ = read_table(table)
    assert [row["prediction"] for row in rows] == load(out).predict(columns).tolist()
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    assert "exists already" in refused(capsys, ["predict", out, table, "--out", str(file)])


def test_predict_takes_new_categories_missing_values_and_no_target(written, tmp_path, capsys):
    _, out = written
    new = tmp_path / "new.csv"
    new.write_text("kind,a,<script>alert(1)</script>\nnever seen,?,3\n,1e9,oops\nu,5,\n")
    assert cli.main(["predict", out, str(new)]) == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert rows[0] == ["prediction", "probability"] and len(rows) == 4
    assert {row[0] for row in rows[1:]} <= {"yes", "no"}


def test_predict_names_the_column_that_is_lacking(written, tmp_path, capsys):
    _, out = written
    new = tmp_path / "new.csv"
    new.write_text("a,kind\n1,u\n")
    assert "lacks the column '<script>" in refused(capsys, ["predict", out, str(new)])
    assert "holds no baseline" in refused(capsys, ["predict", str(tmp_path), str(new)])
    assert "no file" in refused(capsys, ["predict", out, str(tmp_path / "none.csv")])


def test_interrupt_before_anything_is_whole(tmp_path, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "find_rate", interrupted)
    table = write_table(tmp_path / "table.csv", some_rows())
    assert cli.main(["baseline", table, "--out", str(tmp_path / "out"), "--quiet"]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["table.csv"]


def test_interrupt_while_training_keeps_what_is_whole(tmp_path, capsys, monkeypatch):
    import signal

    from kerasrecipes.methodology.progress import Watch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Watch, "on_epoch_begin", on_epoch_begin)
    before = signal.getsignal(signal.SIGINT)
    table, out = write_table(tmp_path / "table.csv", some_rows()), tmp_path / "out"
    argv = ["baseline", table, "--out", str(out), "--epochs", "9", "--quiet"]
    assert cli.main(argv) == 130
    assert signal.getsignal(signal.SIGINT) is before
    table, finding = capsys.readouterr().out.split("\n\n")[0].splitlines(), load(out).findings[0]
    assert table[-2] == f"{finding['title']}. {finding['reason']}"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["ended"] == "interrupted" and metrics["epochs"] == 3
    assert "Training ended before its schedule" in (out / "report.html").read_text()


def test_predictions_are_whole_or_absent(tmp_path):
    def rows():
        yield ["prediction"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predicting.write_rows(rows(), str(tmp_path / "out.csv"))
    assert not list(tmp_path.iterdir())


def test_recipes_are_listed_shown_and_copied(tmp_path, capsys, monkeypatch):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "__init__.py").write_text("")
    text = '"""Small: a title.\n\nResult: accuracy 0.9.\n"""\nprint("ran")\n'
    (recipes / "small.py").write_text(text)
    monkeypatch.setattr(catalogue, "folder", lambda: str(recipes))
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == "small: Small: a title. Result: accuracy 0.9.\n"
    assert cli.main(["show", "small"]) == 0
    assert capsys.readouterr().out == "Small: a title.\n\nResult: accuracy 0.9.\n"
    assert cli.main(["copy", "small", str(tmp_path)]) == 0
    capsys.readouterr()
    assert (tmp_path / "small.py").read_text() == text
    assert "exists already" in refused(capsys, ["copy", "small", str(tmp_path)])
    assert "Did you mean 'small'" in refused(capsys, ["show", "smal"])
    assert cli.main(["run", "small"]) == 0
    assert capsys.readouterr().out == "ran\n"
    (recipes / "small.py").write_text("raise OSError('no network')")
    assert "no network" in refused(capsys, ["run", "small"])


def test_recipes_of_this_checkout_are_found():
    root = pathlib.Path(__file__).parent.parent / "recipes"
    files = {path.stem for path in root.glob("*.py")} - {"__init__"}
    assert files and files <= set(catalogue.names())


START = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        hidden = name.split(".")[0] in {hidden!r}
        return None if hidden else self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [Hiding(finder) for finder in sys.meta_path]
import kerasrecipes_command
sys.exit(kerasrecipes_command.main())
"""


def started(home, installed, *argv, **variables):
    """The command in a process in which only some of the backends are to be found."""
    hidden = {"tensorflow", "jax", "torch"} - set(installed)
    kept = {k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "KERAS_HOME")}
    return subprocess.run(
        [sys.executable, "-c", START.format(hidden=hidden), *argv],
        env=kept | {"HOME": str(home)} | variables,
        cwd=pathlib.Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "installed, chosen, line",
    [
        ((), {}, "no backend is installed: pip install tensorflow, jax or torch"),
        (
            ("jax",),
            {"KERAS_BACKEND": "torch"},
            "KERAS_BACKEND=torch is not installed: pip install torch, or choose jax",
        ),
        (
            ("jax", "torch"),
            {"KERAS_BACKEND": "numpy"},
            "KERAS_BACKEND=numpy is not known: choose jax, torch",
        ),
    ],
)
def test_backend_that_is_not_installed_is_one_line(tmp_path, installed, chosen, line):
    done = started(tmp_path, installed, "baseline", **chosen)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"kerasrecipes: {line}\n")
    assert not list(tmp_path.iterdir())


def test_an_installed_backend_is_taken_in_the_place_of_one_that_is_not(tmp_path, backend):
    other = next(name for name in ("tensorflow", "jax", "torch") if name != backend)
    (tmp_path / "keras.json").write_text(json.dumps({"backend": other}))
    done = started(tmp_path, [backend], "list", KERAS_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == catalogue.names()
