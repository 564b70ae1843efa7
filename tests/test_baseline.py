"""The parts of a baseline against NumPy and scikit-learn, and whole runs on tiny data."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest

import kerasrecipes as kr
from kerasrecipes import cli
from kerasrecipes._report.plots import GREY, inline_svg, lines
from kerasrecipes._report.table import text_table
from kerasrecipes.data.read import BadInput, read_table
from kerasrecipes.methodology import (
    encode,
    findings,
    networks,
    report,
    rows,
    run,
    scores,
    source,
    target,
)
from kerasrecipes.methodology.classical import classical_baselines
from kerasrecipes.methodology.folder import free_folder, whole_folder
from kerasrecipes.methodology.split import split
from kerasrecipes.methodology.training import plan

RNG = np.random.default_rng(0)


# Reading


def test_read_finds_separator_header_encoding_and_missing_values(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffname; size ;n\nÄ b ; 1.5;?\n"x; ""y""";;3\n ?;2e3 ;4\n'.encode())
    columns, options = read_table(str(path))
    assert list(columns) == ["name", "size", "n"] and options["sep"] == ";"
    assert columns["name"].tolist() == ["Ä b", 'x; "y"', None]
    np.testing.assert_array_equal(columns["size"], [1.5, np.nan, 2000.0])
    np.testing.assert_array_equal(columns["n"], [np.nan, 3.0, 4.0])


@pytest.mark.parametrize(
    "text, header, names",
    [
        ("a,b\n1,2\n3,4\n", None, ["a", "b"]),
        ("1,2\n3,4\n", None, ["0", "1"]),
        ("7,8,y\n1,2,3\n4,5,6\n", None, ["7", "8", "y"]),
        ("1,?\n3,4\n", None, ["0", "1"]),
        ("ham,hello\nspam,buy\nham,bye\n", None, ["0", "1"]),
        ("kind,text\nham,hello\nspam,buy\n", None, ["kind", "text"]),
        (",a,b\n0,1,2\n1,3,4\n", None, ["0", "a", "b"]),
        ("a,b\nc,d\n", False, ["0", "1"]),
        ("1,2\n3,4\n", True, ["1", "2"]),
    ],
)
def test_read_recognises_a_header(tmp_path, text, header, names):
    path = tmp_path / "a.csv"
    path.write_text(text)
    columns, _ = read_table(str(path), header)
    assert list(columns) == names
    assert {len(c) for c in columns.values()} == {len(text.splitlines()) - ("0" not in names)} or (
        names == ["0", "a", "b"]
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_read_takes_other_encodings(tmp_path, encoding):
    path = tmp_path / "a.tsv"
    path.write_bytes("größe\tart\n1\tä\n2\tö\n".encode(encoding))
    columns, _ = read_table(str(path))
    assert columns["art"].tolist() == ["ä", "ö"] and columns["größe"].tolist() == [1.0, 2.0]


# Encoding


def test_numbers_are_standardised_and_fill_their_bins():
    from sklearn.preprocessing import StandardScaler

    column = RNG.lognormal(size=300)
    state = encode.fit_number(column, bins=4)
    encoded = np.stack(encode.encode_number(column, **state), axis=1)
    expected = StandardScaler().fit_transform(column[:, None])[:, 0]
    np.testing.assert_allclose(encoded[:, 0], expected.clip(-8, 8), rtol=1e-9)
    # Piecewise linear: full below, empty above, linear inside, so the sum is the place in bins.
    place = np.interp(column, np.quantile(column, [0, 0.25, 0.5, 0.75, 1]), range(5))
    np.testing.assert_allclose(encoded[:, 1:].sum(axis=1), place, atol=1e-9)
    assert encoded.shape[1] == 5


def test_unknown_numbers_are_flagged_and_stand_at_the_mean():
    state = encode.fit_number(np.array([1.0, 3.0, np.nan]), bins=0)
    value, unknown = encode.encode_number(np.array([np.nan, np.inf, 3.0]), **state)
    assert value.tolist() == [0, 0, 1] and unknown.tolist() == [True, True, False]


def test_categories_count_the_commonest_first_and_know_the_unseen():
    column = np.array(["b"] * 4 + ["a"] * 3 + ["rare"] + [None], object)
    values = encode.fit_category(column)
    assert values == ["b", "a"]
    assert encode.encode_category(["a", "b", "rare", "new", None], values) == [3, 2, 0, 0, 1]


def test_encoders_survive_json_exactly():
    columns = {"n": RNG.normal(size=50), "c": np.array(["x", "y"] * 25, object)}
    state = encode.fit_table(columns, bins=3)
    again = json.loads(json.dumps(state))
    for name, value in encode.encode(columns, state).items():
        np.testing.assert_array_equal(value, encode.encode(columns, again)[name])
    images = RNG.integers(0, 16, (5, 4, 3), "uint8")
    state = json.loads(json.dumps(encode.fit_image(images)))
    encoded = encode.encode(images, state)
    assert encoded.shape == (5, 4, 3, 1) and (encoded.min(), encoded.max()) == (0, 1)


def test_encoders_learn_from_training_rows_alone(tmp_path):
    x = {"n": np.r_[np.zeros(60), 1000.0 * np.ones(40)], "m": RNG.normal(size=100)}
    y = np.arange(100) % 2
    result = kr.baseline(x, y, epochs=1, quiet=True)
    train_rows = split(y, 0, 2, False)[0]
    state = result.preprocessing["inputs"]["numbers"]
    assert state["n"]["mean"] == x["n"][train_rows].mean()
    assert state["m"]["deviation"] == x["m"][train_rows].std()


@pytest.mark.parametrize(
    "y, task, state",
    [
        (np.array(["b", "a", "b"], object), "classification", ["a", "b"]),
        (np.array([5.0, 6.0, 5.0]), "classification", [5, 6]),
        (np.array([True, False]), "classification", [False, True]),
        (np.array([1.0, 2.0, 4.5]), "regression", None),
        (np.arange(21), "regression", None),
        (np.arange(20), "classification", list(range(20))),
    ],
)
def test_task_is_recognised_and_labels_return(y, task, state):
    assert target.recognise(y) == task
    fitted = target.fit_target(y, task)
    encoded = target.encode_target(y, fitted)
    if state is None:
        np.testing.assert_allclose(encoded, (y - y.mean()) / y.std(), rtol=1e-6)
        decoded = target.decode_prediction(encoded[:, None], fitted)
        np.testing.assert_allclose(decoded, y, atol=1e-5)
    else:
        assert json.loads(json.dumps(fitted))["classes"] == state
        assert [state[i] for i in encoded] == y.tolist()


# Splitting


def test_split_is_stratified_disjoint_and_seeded():
    y = np.repeat([0, 1, 2], [100, 60, 40])
    parts = split(y, 0, 3, False)
    assert [len(part) for part in parts] == [130, 30, 40]
    assert sorted(np.concatenate(parts)) == list(range(200))
    for part in parts:
        np.testing.assert_allclose(np.bincount(y[part]) / len(part), [0.5, 0.3, 0.2], atol=0.02)
    assert np.array_equal(split(y, 0, 3, False)[0], parts[0])
    assert not np.array_equal(split(y, 1, 3, False)[0], parts[0])
    assert [len(part) for part in split(y, 0, 3, True)] == [170, 30, 0]
    assert [len(part) for part in split(np.arange(200_000.0), 0, 0, False)] == [
        180_000,
        10_000,
        10_000,
    ]


def test_split_gives_each_part_a_row_of_classes_of_three():
    y = np.repeat(np.arange(20), 3)
    assert all(set(y[part]) == set(range(20)) for part in split(y, 0, 20, False))


# Scores and classical baselines


def test_scores_equal_numpy():
    y, p = RNG.integers(0, 3, 50), RNG.dirichlet(np.ones(3), 50)
    found = scores.score(y, p)
    hit = p.argmax(1) == y
    recalls = [hit[y == c].mean() for c in range(3)]
    assert found["accuracy"] == hit.mean()
    np.testing.assert_allclose(found["balanced_accuracy"], np.mean(recalls))
    np.testing.assert_allclose(found["log_loss"], scores.row_losses(y, p).mean())
    expected = [[np.sum((y == i) & (p.argmax(1) == j)) for j in range(3)] for i in range(3)]
    assert scores.confusion(y, p).tolist() == expected
    values = RNG.normal(size=50)
    found = scores.score(y.astype(float), values)
    np.testing.assert_allclose(found["rmse"], np.sqrt(np.mean((y - values) ** 2)))
    np.testing.assert_allclose(found["r2"], 1 - np.mean((y - values) ** 2) / y.var())


def test_classical_baselines_are_those_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    x, z = RNG.normal(3, 2, (200, 4)), RNG.normal(3, 2, (100, 4))
    y, v = (x[:, 0] > x[:, 1]).astype(int), (z[:, 0] > z[:, 1]).astype(int)
    fit = StandardScaler().fit(x)
    said = []

    def run(task, y, v):
        pairs = ({"numbers": x}, y), ({"numbers": z}, v)
        return classical_baselines(
            task, *pairs, 0, 6, scores.score, lambda name, *_: said.append(name)
        )

    found = run("classification", y, v)
    model = LogisticRegression(max_iter=100).fit(fit.transform(x), y)
    assert found["logistic_regression"]["accuracy"] == model.score(fit.transform(z), v)
    assert found["majority"]["accuracy"] == np.mean(v == np.bincount(y).argmax())
    found = run("regression", x[:, 0] * 2.0, z[:, 0] * 2.0)
    model = Ridge().fit(fit.transform(x), x[:, 0] * 2)
    np.testing.assert_allclose(found["ridge"]["r2"], model.score(fit.transform(z), z[:, 0] * 2))
    np.testing.assert_allclose(found["mean"]["r2"], 0, atol=0.05)
    assert found["gradient_boosting"]["r2"] > 0.9
    assert said == ["majority", "logistic_regression", "gradient_boosting"] + [
        "mean",
        "ridge",
        "gradient_boosting",
    ]


def test_boosting_in_rounds_is_the_same_and_ends_at_the_deadline():
    from sklearn.ensemble import HistGradientBoostingRegressor

    from kerasrecipes.methodology import classical

    x, y = RNG.normal(size=(100, 3)), RNG.normal(size=100)
    settings = {"random_state": 0, "early_stopping": False, "max_iter": 30}
    whole, rounds, late = (HistGradientBoostingRegressor(**settings) for _ in range(3))
    with classical.one_thread():
        whole.fit(x, y)
        classical.fit(rounds, x, y, 1e9, np.inf)
        classical.fit(late, x, y, 1e9, -np.inf)
    np.testing.assert_allclose(rounds.predict(x), whole.predict(x))
    assert (rounds.n_iter_, late.n_iter_) == (30, classical.STEP)


def test_classical_baselines_take_categories_missing_values_and_thin_large_data(monkeypatch):
    from kerasrecipes.methodology import classical

    monkeypatch.setattr(classical, "CELLS", 1200)
    numbers, ids = RNG.normal(size=(400, 1)), RNG.integers(0, 4, (400, 1))
    numbers[::9] = np.nan
    y = (ids[:, 0] == 2).astype(int)
    pair = {"numbers": numbers, "categories": ids.astype("int32")}, y
    found = classical_baselines("classification", pair, pair, 0, 6, scores.score, lambda *_: None)
    assert found["logistic_regression"]["accuracy"] == 1 and "rows" not in found["majority"]
    assert found["gradient_boosting"]["accuracy"] == 1
    assert found["gradient_boosting"]["rows"] == 300
    monkeypatch.setattr(classical, "CELLS", 1)
    rare = np.r_[np.zeros(399, int), 1]
    rows_kept = classical.thinned(rare, 100, 0, "classification")
    assert rare[rows_kept].sum() == 1 and len(set(rows_kept)) == len(rows_kept) in (100, 101)
    assert sorted(rows_kept)[-2] > 200, "the first rows may be of one kind"
    assert sorted(classical.thinned(rare[-60:], 100, 0, "classification")) == list(range(60))


# Plan, findings, folders, drawings


def test_plan_follows_from_the_number_of_rows():
    table, images = {}, np.zeros(0)
    assert [plan(images, n, 0, None).batch for n in (50, 1_221, 51_000, 10**6)] == [
        32,
        32,
        128,
        1024,
    ]
    assert [plan(images, n, 0, None).epochs for n in (50, 1_221, 51_000, 10**6)] == [40, 38, 12, 8]
    assert [plan(table, n, 0, None).bins for n in (60, 250, 10**6)] == [0, 2, 16]
    assert plan(table, 50, 7, 3).epochs == 3 and plan(table, 50, 7, 3).seed == 7


def metrics_of(network, classical, *, train=0.9, held=0.9, balanced=None, rows=1000, ended="whole"):
    return {
        "task": "classification",
        "test": {"accuracy": network, "balanced_accuracy": balanced or network},
        "training": {"accuracy": train},
        "validation": {"accuracy": held},
        "baselines": {"majority": {"accuracy": 0.1}, "gradient_boosting": {"accuracy": classical}},
        "rows": {"test": rows},
        "ended": ended,
    }


@pytest.mark.parametrize(
    "metrics, repeated, first, words",
    [
        (metrics_of(0.80, 0.90), 0, "Gradient boosting beats the network", "0.8000"),
        (metrics_of(0.899, 0.90), 0, "about equal", "chance"),
        (metrics_of(0.95, 0.90), 0, "The network beats", "0.9000"),
        (metrics_of(0.95, 0.9, train=1.0, held=0.9), 0, "The network beats", "knows the training"),
        (metrics_of(0.95, 0.9, train=0.7, held=0.7), 0, "The network beats", "does not even fit"),
        (metrics_of(0.95, 0.9, balanced=0.5), 0, "The network beats", "Rare classes"),
        (metrics_of(0.95, 0.9, ended="budget"), 0, "The network beats", "before its schedule"),
        (metrics_of(0.95, 0.9), 50, "The network beats", "50 of 1000"),
    ],
)
def test_findings_name_the_gap_first_and_give_the_figure(metrics, repeated, first, words):
    state = {"target": {"classes": ["a", "b"]}, "plan": {"dropout": 0.3}}
    right = {"test": np.eye(2)[[0, 1]]}, {"test": np.array([0, 1])}
    found = findings.findings(metrics, state, *right, repeated)
    assert first in found[0]["title"]
    assert words in str(found)
    sound = metrics_of(0.95, 0.90, train=0.96, held=0.95)
    assert len(findings.findings(sound, state, *right)) == 1


def test_finding_of_a_classical_method_without_error():
    state = {"target": {}, "plan": {"dropout": 0.3}}
    figures = {"rmse": 0.5, "r2": 0.9}
    metrics = metrics_of(0, 0) | {"task": "regression", "baselines": {"ridge": {"rmse": 0.0}}}
    metrics |= {part: figures for part in ("training", "validation", "test")}
    found = findings.findings(metrics, state, {}, {})
    assert found[0]["title"] == "Ridge beats the network"


def test_finding_of_the_commonest_confusion():
    y = np.array([0] * 10 + [1] * 10)
    output = np.eye(2)[np.r_[np.ones(4, int), np.zeros(6, int), np.ones(10, int)]]
    found = findings.confused(y, output, ["cat", "dog"])
    assert (
        found["title"] == "'cat' is most often taken for 'dog'" and "4 of its 10" in found["reason"]
    )
    assert findings.confused(y, np.eye(2)[y], ["cat", "dog"]) is None


def test_folder_is_whole_or_absent(tmp_path, monkeypatch):
    out = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError), whole_folder(str(out)) as part:
        pathlib.Path(part, "a").write_text("a")
        raise RuntimeError
    assert list((tmp_path / "deep").iterdir()) == []
    with whole_folder(str(out)) as part:
        pathlib.Path(part, "a").write_text("a")
    assert os.listdir(out) == ["a"]
    with pytest.raises(BadInput), whole_folder(str(out)) as part:
        pathlib.Path(part, "a").write_text("another")
    assert (out / "a").read_text() == "a" and len(list((tmp_path / "deep").iterdir())) == 1
    monkeypatch.chdir(tmp_path)
    os.makedirs("runs/x-1")
    assert free_folder("x") == os.path.join("runs", "x-2")


def test_table_and_drawings():
    assert text_table(["a", "b"], [["long", 0.5], ["x", None]]).splitlines() == [
        "a          b",
        "------------",
        "long  0.5000",
        "x          -",
    ]
    figure = lines([1, 2], {"training": [1.0, 0.5]}, xlabel="epoch", ylabel="loss")
    drawn = inline_svg(figure, "loss by epoch")
    assert drawn.startswith("<svg") and 'aria-label="loss by epoch"' in drawn
    assert ">training</text>" in drawn and "currentColor" in drawn and GREY not in drawn


# Networks


@pytest.mark.parametrize("outputs", [0, 3])
def test_networks_take_their_inputs_and_survive_saving(tmp_path, outputs):
    images = networks.image_network((7, 5, 2), outputs, 4, 0.3)
    table = networks.table_network(2, [3, 5], outputs, 8, 0.3)
    wide = {"numbers": RNG.normal(size=(6, 2)).astype("float32")}
    wide["categories"] = np.array([[2, 4]] * 3 + [[0, 0]] * 3, "int32")
    for model, x in ((images, RNG.random((6, 7, 5, 2), "float32")), (table, wide)):
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        output = model.predict(x, verbose=0)
        assert output.shape == (6, outputs or 1)
        np.testing.assert_allclose(again.predict(x, verbose=0), output, rtol=1e-5)
    embedding = next(v for v in table.weights if v.path.endswith("embeddings"))
    assert embedding.shape[0] == 8


def test_equal_numbers_of_two_categories_have_their_own_embeddings():
    model = networks.table_network(0, [2, 2], 0, 4, 0.0)
    embedding = next(v for v in model.weights if v.path.endswith("embeddings"))
    values = np.arange(embedding.shape[0] * embedding.shape[1], dtype="float32")
    embedding.assign(values.reshape(embedding.shape))
    flatten = next(layer for layer in model.layers if isinstance(layer, keras.layers.Flatten))
    inner = keras.Model(model.input, flatten.output)
    out = inner.predict({"categories": np.array([[1, 1]], "int32")}, verbose=0)
    np.testing.assert_array_equal(out.reshape(2, -1), values.reshape(4, -1)[[1, 3]])


# Whole runs


def squares(rows=120):
    """Images with a bright square on the left or on the right."""
    x, y = RNG.normal(0, 0.1, (rows, 8, 8)), np.arange(rows) % 2
    x[y == 0, 2:6, :3] += 1
    x[y == 1, 2:6, 5:] += 1
    return x, np.array(["left", "right"], object)[y]


def test_images_are_learned_served_and_reproduced_by_the_script(tmp_path, monkeypatch):
    x, y = squares()
    np.savez(tmp_path / "data.npz", x=x, y=y.astype(str))
    kept = source.from_anything(str(tmp_path / "data.npz"))
    from kerasrecipes.methodology.baseline import baseline_of

    settings = {"task": None, "epochs": 20, "budget": 9.0, "quiet": True, "seed": 3}
    out = str(tmp_path / "out")
    result = baseline_of(kept, out=out, **settings)
    assert result.metrics["test"]["accuracy"] == 1
    assert set(result.predict(x[:2])) == {"left", "right"}
    np.testing.assert_array_equal(
        kr.methodology.load(out).probabilities(x), result.probabilities(x)
    )
    assert "No test row is wrong." in pathlib.Path(out, "report.html").read_text(encoding="utf-8")
    check_script(out, monkeypatch)


def check_script(out, monkeypatch):
    """train.py gives the figures of metrics.json, whatever the random state before."""
    np.random.default_rng().random(3)
    monkeypatch.chdir(out)
    metrics = json.loads(pathlib.Path("metrics.json").read_text())
    _, found = runpy.run_path("train.py")["main"]()
    for part in ("test", "validation"):
        assert found[part] == pytest.approx(metrics[part], rel=1e-4)


def in_memory(kind, count):
    """Rows as a user may hold them, with labels that a file of text would take for other ones."""
    import pandas

    i = np.arange(count)
    y = np.array(["9", "10", "none"], object)[i % 3]
    if kind == "images":
        return squares(count)[0], y
    if kind == "matrix":
        return np.c_[i % 3, np.ones(count), RNG.normal(size=(count, 2))], y
    frame = pandas.DataFrame(
        {"file": i / 7, "empty": None, "a/b": [['u, "', "ö", None][j % 3] for j in i]}
    )
    frame["whole"] = pandas.array([None if j % 5 == 0 else j for j in i], "Int64")
    frame["kind"] = pandas.Categorical.from_codes(i % 4, ["p", "q", "r", "s"])
    return frame.assign(truth=i % 2 == 0), y


@pytest.mark.parametrize(
    "kind, test_rows", [("matrix", 0), ("matrix", 12), ("frame", 0), ("frame", 12), ("images", 12)]
)
def test_script_reads_what_was_given_in_memory(kind, test_rows, tmp_path, monkeypatch):
    x, y = in_memory(kind, 90)
    test = in_memory(kind, test_rows) if test_rows else None
    out = str(tmp_path / "out")
    kr.baseline(x, y, test_data=test, out=out, epochs=2, quiet=True)
    check_script(out, monkeypatch)
    with np.load("data.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive)


def test_test_columns_are_of_the_kind_of_the_training_columns():
    x = {"kind": ["1", "2", "b"] * 10, "n": range(30)}
    test = {"n": ["3", "oops"], "kind": [1, None]}
    kept = source.from_arrays(x, np.arange(30) % 2, (test, [0, 1]))
    assert kept.test[0]["kind"].tolist() == ["1", None]
    np.testing.assert_array_equal(kept.test[0]["n"], [3, np.nan])


def test_report_shows_wrong_rows_alone_and_where_they_stand():
    outputs = np.array([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9], [0.55, 0.45]])
    assert report.most_wrong(np.array([0, 0, 0, 1]), outputs).tolist() == [2, 1, 3]
    assert report.most_wrong(np.array([0, 1, 1, 0]), outputs).tolist() == []
    assert report.most_wrong(np.array([1.0, 2.0]), np.array([1.0, 0.0])).tolist() == [1, 0]
    for shape in ((1, 1), (5, 1), (4, 4, 1), (4, 4, 2), (4, 4, 4)):
        pictures = report.pictures((np.ones((1, *shape)), ["a"]), [7], outputs, [0], ["a", "b"])
        assert (pictures[0]["row"], pictures[0]["truth"]) == (7, "a")
    kept = source.from_arrays({"n": np.arange(100.0)}, np.arange(100) % 2)
    parts, numbers = run.cut(kept, "classification", 0)
    np.testing.assert_array_equal(parts["test"][0]["n"], numbers)
    assert len(numbers) == 20


def test_table_of_all_kinds_is_learned_served_elsewhere_and_reproduced(tmp_path, monkeypatch):
    path, rows_kept = tmp_path / "t.csv", ["size,kind,note,price"]
    for i in range(150):
        kind = "abc"[i % 3]
        price = 100 * (i % 3) + i / 10
        rows_kept.append(f"{i if i % 10 else '?'}, {kind} ,text {i},{price}")
    path.write_text("\n".join(rows_kept))
    out = str(tmp_path / "out")
    assert cli.main(["baseline", str(path), "--out", out, "--epochs", "30", "--quiet"]) == 0
    metrics = json.loads(pathlib.Path(out, "metrics.json").read_text())
    assert metrics["task"] == "regression"
    assert metrics["test"]["rmse"] < 0.3 * metrics["baselines"]["mean"]["rmse"]
    state = json.loads(pathlib.Path(out, "preprocessing.json").read_text())
    assert state["ignored"] == ["note"]
    check_script(out, monkeypatch)
    new = {"size": [5.0, np.nan], "kind": ["a", "unseen"]}
    here = kr.methodology.load(out).predict(new)
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import kerasrecipes as kr\n"
        f"new = {{'size': [5.0, float('nan')], 'kind': ['a', 'unseen']}}\n"
        f"print(*kr.methodology.load({out!r}).predict(new))\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose([float(v) for v in done.stdout.split()], here, rtol=1e-4)


def test_same_seed_same_run_and_given_test_rows_are_the_test_rows():
    x, y = RNG.normal(size=(80, 3)), np.arange(80) % 2
    test = x[:7], y[:7]
    a, b = (kr.baseline(x, y, test_data=test, epochs=1, quiet=True) for _ in range(2))
    np.testing.assert_allclose(a.probabilities(x), b.probabilities(x), rtol=1e-5)
    assert a.metrics["rows"]["test"] == 7
    assert a.metrics["test"]["accuracy"] == np.mean(a.predict(x[:7]) == y[:7])


def test_more_columns_than_rows():
    x = RNG.normal(size=(60, 400))
    result = kr.baseline(x, x[:, 0], epochs=1, quiet=True)
    assert np.isfinite(result.metrics["test"]["rmse"])


def test_too_small_a_budget_takes_epochs_away_and_says_so(monkeypatch):
    from kerasrecipes.methodology import training

    monkeypatch.setattr(training, "seconds_per_batch", lambda *_: 2.0)
    x, y = RNG.normal(size=(80, 3)), np.arange(80) % 2
    # 52 training rows are 2 batches, so 4 seconds an epoch by that measure.
    result = kr.baseline(x, y, budget=0.9, quiet=True)
    assert 1 <= result.metrics["epochs"] <= 11


@pytest.mark.parametrize(
    "x, y, words",
    [
        (np.zeros((4, 0)), np.arange(4), "empty"),
        (np.zeros(4), np.arange(4), "2 axes"),
        (np.zeros((4, 2)), np.zeros((4, 2)), "one value a row"),
        (np.zeros((9, 3, 8, 8)), np.arange(9) % 3, "channels first"),
        ({"a": [1, 2], "b": [1]}, [0, 1], "differ in length"),
        (np.zeros((4, 4, 4), object), np.arange(4), "numbers"),
        ({"a": [1, 2], 1: [1, 2], "1": [1, 2]}, [0, 1], "two columns named '1'"),
        ({"a": [[1], [2]]}, [0, 1], "one value a row"),
        (np.eye(4), ["a", "b", float("nan"), "a"], "missing"),
        (np.eye(2), [0.5, 1.5], "2 rows"),
        (np.diag([1, 1, -1.7e308]), [0, 0, 1], "column '2' has a number beyond 1e.150"),
        (np.eye(3), [0.5, 1.5, 1e200], "the target 'y' has a number beyond"),
    ],
)
def test_bad_arrays(x, y, words):
    with pytest.raises(ValueError, match=words):
        kr.baseline(x, y, quiet=True)


def test_targets_of_objects_are_what_they_hold():
    import pandas

    assert rows.as_target(np.array([1, 2], object)).dtype == "int64"
    assert rows.as_target([True, False]).dtype == bool
    assert rows.as_target([[0.5], [1.5]]).tolist() == [0.5, 1.5]
    assert rows.as_target(["a", float("nan")]).tolist() == ["a", None]
    assert rows.as_target(pandas.Series(["a", pandas.NA])).tolist() == ["a", None]
    train = np.array([0.0, 1.0])
    with pytest.raises(BadInput, match="fractions"):
        target.check_test(train, np.array([0.0, 0.5]), "y", "classification")


def test_new_rows_are_matched_by_name_place_and_kind():
    import pandas

    columns = {"n": np.arange(9.0), "c": np.array(["1", "2", "3"] * 3, object)}
    state = encode.fit_table(columns, 0)
    same = rows.match(pandas.DataFrame({"c": [1, 2], "n": ["5", "oops"]}), state)
    assert same["c"].tolist() == ["1", "2"] and same["n"][0] == 5 and np.isnan(same["n"][1])
    placed = rows.match(np.array([[7.0, 2.0]]), state, ["n", "c"])
    assert placed["n"].tolist() == [7.0] and placed["c"].tolist() == ["2"]
    with pytest.raises(BadInput, match="lacks the column 'n'"):
        rows.match({"c": ["1"]}, state)
    with pytest.raises(BadInput, match="shape"):
        rows.match(np.zeros((2, 5, 5)), encode.fit_image(np.zeros((3, 4, 4))))


@pytest.mark.evidence
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_reach_97_percent(seed, tmp_path):
    out = str(tmp_path / "out")
    assert cli.main(["baseline", "--out", out, "--seed", str(seed), "--quiet"]) == 0
    metrics = json.loads(pathlib.Path(out, "metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.97
