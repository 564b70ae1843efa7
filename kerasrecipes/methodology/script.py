"""Writes train.py: the run as one script, made of the very functions that ran."""

import inspect
import pprint

import keras

from kerasrecipes.data import read
from kerasrecipes.methodology import encode, networks, scores, split, target, training

HEAD = '''"""Baseline of {name}: yours from here.

Result: {result} on {rows} test rows (seed {seed}, Keras {keras}, {backend}).
Needs:  {needs}
Run:    KERAS_BACKEND={backend} python train.py
"""

{imports}

{constants}
'''

LOADS = {
    "name": '''
def load():
    """Raw rows and targets of {name}, and its own test part."""
    (x, y), (x_test, y_test) = kerasrecipes.data.load(DATA)
    return x, y.ravel(), (x_test, y_test.ravel())
''',
    "table": '''
def load():
    """Raw columns and target of the file; no test part of its own."""
    frame = pandas.read_csv(DATA, low_memory=False, **READ)
    columns = {{name: column_of(frame[name]) for name in [*COLUMNS, TARGET]}}
    return columns, columns.pop(TARGET), None
''',
    "arrays": '''
def load():
    """Raw rows and targets: np.savez(DATA, x=x, y=y), or x_train, y_train, x_test, y_test."""
    with np.load(DATA) as archive:
        parts = [archive[name] for name in {names}]
    parts[::2] = [rows(x) for x in parts[::2]]
    parts[1::2] = [y.ravel() for y in parts[1::2]]
    return parts[0], parts[1], tuple(parts[2:]) or None


def rows(x):
    """Images as they are, a matrix as named columns."""
    return {{n: x[:, int(n)].astype("float64") for n in COLUMNS}} if x.ndim == 2 else x
''',
    "columns": '''
def load():
    """Raw columns and targets: DATA has an array of each target and of each "x.COLUMN"."""
    with np.load(DATA) as archive:
        parts = [archive[n] if n in archive else columns(archive, n) for n in {names}]
    return parts[0], parts[1], tuple(parts[2:]) or None


def columns(archive, part):
    """Numbers, or text with None where it is empty."""
    found = {{name: archive[f"{{part}}.{{name}}"] for name in COLUMNS}}
    return {{n: np.where(c == "", None, c) if c.dtype.kind == "U" else c for n, c in found.items()}}
''',
}

MAIN = '''
def main(seed=SEED):
    """Trains and returns the metrics of the test and the validation rows."""
    x, y, test = load()
    train_rows, validation_rows, test_rows = split(y, seed, {classes}, test is not None)
    parts = [(take(x, rows), y[rows]) for rows in (train_rows, validation_rows, test_rows)]
    parts[2] = test or parts[2]
    inputs, target = fit_{kind}(parts[0][0]{bins}), fit_target(parts[0][1], TASK)
    train, validation, test = (
        (encode_{kind}(x, **inputs), encode_target(y, target)) for x, y in parts
    )
    keras.utils.set_random_seed(seed)
    model = {network}
    rate = cycle(LEARNING_RATE, len(train[1]), BATCH, EPOCHS)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY)
    model.compile(optimizer, loss={loss!r}, metrics={metrics})
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience={patience}, restore_best_weights=True
    )
    keras.utils.set_random_seed(seed)
    model.fit(
        *train,
        batch_size=BATCH,
        epochs=LAST_EPOCH,
        validation_data=validation,
        callbacks=[stop],
        verbose=2,
    )
    found = {{}}
    for name, (x, y) in {{"test": test, "validation": validation}}.items():
        output = decode_prediction(model.predict(x, batch_size=1024, verbose=0), target)
        found[name] = score(truth(y, target), output)
    return model, found


if __name__ == "__main__":
    model, found = main()
    print(json.dumps(found, indent=2))
    model.save("retrained.keras")
'''


def script(result):
    """The text of train.py."""
    state, metrics = result.preprocessing, result.metrics
    origin, inputs, plan = state["origin"], state["inputs"], state["plan"]
    kind = kind_of(origin, inputs)
    figure, value = next(iter(metrics["test"].items()))
    packages = ["keras", "kerasrecipes", "scikit-learn"] + ["pandas"] * (kind == "table")
    head = HEAD.format(
        name=quoted(result.name),
        result=f"{figure} {value:.4g}",
        rows=metrics["rows"]["test"],
        seed=plan["seed"],
        keras=keras.version(),
        backend=keras.backend.backend(),
        needs=f"pip install {' '.join(packages)}, and the backend",
        imports=imports(kind, inputs),
        constants=constants(state, metrics, kind),
    )
    load = LOADS[kind].format(name=quoted(result.name), names=origin.get("arrays"))
    parts = [head, load, *sources(inputs["kind"], kind), main(state, metrics)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def kind_of(origin, inputs):
    """Which of LOADS reads the data."""
    if "name" in origin:
        return "name"
    if "read" in origin:
        return "table"
    return "columns" if "beside" in origin and inputs["kind"] == "table" else "arrays"


def quoted(text):
    """Text that cannot end the docstring it is put into."""
    return str(text).replace("\\", "/").replace('"', "'")


def imports(kind, inputs):
    """What the script needs, in the order a formatter would give it."""
    counts = inputs["kind"] == "table"
    lines = ["import json"] + ["from collections import Counter"] * counts + ["", "import keras"]
    lines += ["import kerasrecipes"] * (kind == "name") + ["import numpy as np"]
    lines += ["import pandas"] * (kind == "table")
    return "\n".join([*lines, "from kerasrecipes.schedules import OneCycle"])


def constants(state, metrics, kind):
    """The settings of the run, one a line."""
    origin, inputs, plan = state["origin"], state["inputs"], state["plan"]
    values = {"DATA": origin.get("name") or origin["path"]}
    if inputs["kind"] == "table":
        values["COLUMNS"] = [*inputs["numbers"], *inputs["categories"]]
        values["BINS"] = plan["bins"]
    if kind == "table":
        values |= {"TARGET": origin["target"], "READ": origin["read"], "MISSING": read.MISSING}
    values |= {"TASK": metrics["task"], "SEED": plan["seed"]}
    values |= {name.upper(): plan[name] for name in ("batch", "epochs")}
    values["LAST_EPOCH"] = metrics["epochs"] if metrics["ended"] == "budget" else plan["epochs"]
    values |= {"LEARNING_RATE": plan["rate"], "WEIGHT_DECAY": training.WEIGHT_DECAY}
    values |= {name.upper(): plan[name] for name in ("units", "dropout")}
    lines = (f"{n} = {pprint.pformat(v, width=88, compact=True)}" for n, v in values.items())
    return "\n".join(lines)


def sources(inputs, kind):
    """The functions of the run that the script needs, as they are."""
    table = inputs == "table"
    names = [read.column_of] if kind == "table" else []
    names += [split.take, split.split]
    if table:
        names += [encode.fit_number, encode.encode_number, encode.fit_category]
        names += [encode.encode_category, encode.fit_table, encode.encode_table]
    else:
        names += [encode.fit_image, encode.encode_image]
    names += [target.fit_target, target.as_labels, target.plain, target.encode_target]
    names += [target.decode_prediction, target.truth, networks.normalize, networks.head]
    names += [networks.table_network if table else networks.image_network]
    names += [training.cycle, scores.score]
    return [inspect.getsource(function) for function in names]


def main(state, metrics):
    """The script's own part: the steps in their order."""
    inputs, classes = state["inputs"]["kind"], metrics["task"] == "classification"
    outputs = 'len(target["classes"])' if classes else "0"
    if inputs == "table":
        width = 'train[0]["numbers"].shape[1]' if state["inputs"]["numbers"] else "0"
        sizes = '[len(values) + 2 for values in inputs["categories"].values()]'
        network = f"table_network({width}, {sizes}, {outputs}, UNITS, DROPOUT)"
    else:
        network = f'image_network(inputs["shape"], {outputs}, UNITS, DROPOUT)'
    return MAIN.format(
        kind=inputs,
        bins=", BINS" if inputs == "table" else "",
        classes="len(np.unique(as_labels(y)))" if classes else "0",
        network=network,
        loss=training.loss_of(state["target"]),
        metrics=["accuracy"] if classes else None,
        patience=training.patience(state["plan"]["epochs"]),
    )
