"""The steps of one baseline, in their order."""

import platform
import sys

import keras
import numpy as np

from kerasrecipes.methodology import training
from kerasrecipes.methodology.classical import classical_baselines
from kerasrecipes.methodology.encode import encode, fit_image, fit_table, plain_table
from kerasrecipes.methodology.findings import findings
from kerasrecipes.methodology.result import Baseline
from kerasrecipes.methodology.rows import match
from kerasrecipes.methodology.scores import score
from kerasrecipes.methodology.split import split, take
from kerasrecipes.methodology.target import (
    as_labels,
    check_known,
    check_target,
    check_test,
    encode_target,
    fit_target,
    recognise,
    truth,
)

PARTS = ("training", "validation", "test")


def run(source, task, seed, epochs, progress):
    """From raw rows to a `Baseline`, and what its report shows of the test rows.

    Returns:
        `(result, raw, numbers, outputs, truths)`, as `report` takes them.
    """
    with progress.phase("preparing"):
        task = check(source, task)
        raw, numbers = cut(source, task, seed)
        plan = training.plan(source.x, len(raw["training"][1]), seed, epochs)
        state = fit_states(source, *raw["training"], task, plan)
        parts = {name: encoded(part, state) for name, part in raw.items()}
    progress.say(describe(source, parts, state))
    with progress.phase("classical baselines"):
        baselines = compare(raw, parts, state, seed, progress)
    model, history, ended = training.train(parts, state, plan, progress)
    result = Baseline(model, state | {"plan": vars(plan)}, {}, history, source.name)
    with progress.phase("testing"):
        outputs = {name: result.output(part[0]) for name, part in parts.items()}
        truths = {name: truth(part[1], state["target"]) for name, part in parts.items()}
        measured = {name: score(truths[name], outputs[name]) for name in parts}
        repeated = count_repeated(parts)
    result.metrics = {
        "task": task,
        **{name: measured[name] for name in reversed(PARTS)},
        "baselines": baselines,
        "seed": seed,
        "rows": {name: len(part[1]) for name, part in parts.items()},
        "epochs": len(history["loss"]),
        "ended": ended,
        "versions": versions(),
    }
    found = findings(result.metrics, result.preprocessing, outputs, truths, repeated)
    result.metrics["findings"] = found
    return result, raw["test"], numbers, outputs["test"], truths["test"]


def check(source, task):
    """The task, after a look at whether the target can be learned."""
    check_known(source.y, source.target)
    task = task or recognise(source.y)
    check_target(source.y, task, source.target)
    if source.test:
        check_test(source.y, source.test[1], source.target, task)
    return task


def cut(source, task, seed):
    """Raw rows by part, the data's own test rows where it has some; the numbers of those."""
    classes = len(np.unique(as_labels(source.y))) if task == "classification" else 0
    rows = split(source.y, seed, classes, source.test is not None)
    parts = {n: (take(source.x, r), source.y[r]) for n, r in zip(PARTS, rows, strict=True)}
    if source.test is None:
        return parts, rows[2]
    return {**parts, "test": source.test}, np.arange(len(source.test[1]))


def fit_states(source, x, y, task, plan):
    """Everything that is learned before the network, from the training rows alone."""
    return {
        "inputs": fit_table(x, plan.bins) if isinstance(x, dict) else fit_image(x),
        "target": fit_target(y, task),
        "columns": source.columns,
        "ignored": source.ignored,
        "origin": source.origin,
    }


def encoded(part, state):
    """A part as a network takes it."""
    x = encode(match(part[0], state["inputs"]), state["inputs"])
    return x, encode_target(part[1], state["target"])


def compare(raw, parts, state, seed, progress):
    """The classical baselines, on the same rows as the network."""

    def say(name, figures, seconds):
        figure = ", ".join(f"{n} {v:.4g}" for n, v in list(figures.items())[:2])
        progress.say(f"{name}: {figure} on the test rows  ({seconds:.1f} s)")

    def pair(name):
        x, y = parts[name]
        if state["inputs"]["kind"] == "table":
            x = plain_table(match(raw[name][0], state["inputs"]), **state["inputs"])
        return x, truth(y, state["target"])

    task, train, test = state["target"]["task"], pair("training"), pair("test")
    return classical_baselines(task, train, test, seed, progress.budget, score, say)


def count_repeated(parts, most=200_000):
    """How many test rows have a training row with equal inputs; 0 where it is too long a look."""

    def keys(inputs):
        arrays = inputs.values() if isinstance(inputs, dict) else [inputs]
        return [b"".join(cells) for cells in zip(*(map(bytes, a) for a in arrays), strict=True)]

    if len(parts["training"][1]) > most:
        return 0
    known = {hash(key) for key in keys(parts["training"][0])}
    return sum(hash(key) in known for key in keys(parts["test"][0]))


def describe(source, parts, state):
    """One line of what was recognised."""
    target, inputs = state["target"], state["inputs"]
    if inputs["kind"] == "image":
        kind = f"images of {'x'.join(map(str, inputs['shape']))}"
    else:
        kind = f"{len(inputs['numbers'])} numbers, {len(inputs['categories'])} categories"
    left_out = f" (left out: {', '.join(source.ignored[:5])})" if source.ignored else ""
    classes = f" of {len(target['classes'])} classes" if "classes" in target else ""
    rows = ", ".join(f"{len(part[1])} {name}" for name, part in parts.items())
    task = f"{target['task']}{classes}, target {source.target!r}"
    return f"{source.name}: {kind}{left_out}; {task}; rows: {rows}"


def versions():
    """What a figure depends on besides the data."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.version(),
        "backend": backend,
        backend: sys.modules[backend].__version__,
        "numpy": np.__version__,
        "machine": platform.platform(),
    }
