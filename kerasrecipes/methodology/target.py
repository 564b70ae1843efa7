"""What is to be predicted: classes or a number, checked and turned into what a loss takes."""

import numpy as np

from kerasrecipes.data.read import BadInput
from kerasrecipes.methodology.rows import check_size


def recognise(y):
    """The task a target asks for: numbers of many values are "regression"."""
    if y.dtype == object or y.dtype.kind in "bUS":
        return "classification"
    whole = np.all(np.mod(y, 1) == 0)
    return "classification" if whole and len(np.unique(y)) <= 20 else "regression"


def check_known(y, name):
    """Raises BadInput where the target is missing or not finite."""
    bad = y == np.array(None) if y.dtype == object else np.zeros(len(y), bool)
    bad = ~np.isfinite(y) if y.dtype.kind == "f" else bad
    if bad.any():
        raise BadInput(
            f"the target {name!r} is missing, NaN or infinite in {bad.sum()} of {len(y)} rows "
            f"(first in data row {np.argmax(bad)}, counted from 0): remove or complete them"
        )


def check_target(y, task, name="y"):
    """Raises BadInput if `y`, known everywhere, cannot be learned as this task."""
    if len(y) < 3:
        raise BadInput(
            f"there are {len(y)} rows, and training, validation and test need one each: get more"
        )
    if task == "regression":
        if y.dtype.kind not in "biuf":
            raise BadInput(
                f"the target {name!r} is no number (as {y[0]!r}): use --task classification"
            )
        check_size(y, f"the target {name!r}")
        if np.ptp(y.astype("float64")) == 0:
            raise BadInput(f"the target {name!r} is always {y[0]:g}: there is nothing to learn")
        return
    if y.dtype.kind == "f" and np.any(np.mod(y, 1)):
        raise BadInput(f"the target {name!r} has fractions, so no classes: use --task regression")
    classes, counts = np.unique(as_labels(y), return_counts=True)
    if len(classes) < 2:
        raise BadInput(f"the target {name!r} has one class only, {plain(classes[0])!r}")
    if counts.min() < 3:
        number, rare = counts.min(), plain(classes[counts.argmin()])
        raise BadInput(
            f"class {rare!r} of the target {name!r} has {number} example{'s'[: number - 1]}, and "
            "training, validation and test need one each: drop or merge it, or get more"
            + (" (or is it a number? --task regression)" if y.dtype.kind in "iuf" else "")
        )


def fit_target(y, task):
    """The state of the target's encoder: its classes, or its mean and deviation."""
    if task == "regression":
        y = y.astype("float64")
        return {"task": task, "mean": float(y.mean()), "deviation": float(y.std()) or 1.0}
    return {"task": task, "classes": [plain(label) for label in np.unique(as_labels(y))]}


def as_labels(y):
    """Text in the place of objects, so that labels can be sorted."""
    return y.astype(str) if y.dtype == object else y


def plain(label):
    """A label as JSON has it: text, true or false, or a whole number."""
    label = label.item() if isinstance(label, np.generic) else label
    return int(label) if isinstance(label, float) else label


def encode_target(y, state):
    """Class numbers (int32), or standardised values (float32)."""
    if state["task"] == "regression":
        return ((y.astype("float64") - state["mean"]) / state["deviation"]).astype("float32")
    number = {label: index for index, label in enumerate(state["classes"])}
    return np.array([number[plain(label)] for label in as_labels(y)], "int32")


def decode_prediction(output, state):
    """The network's output as probabilities (rows, classes), or as values in their unit."""
    if state["task"] == "regression":
        return output[:, 0].astype("float64") * state["deviation"] + state["mean"]
    return output.astype("float64") / output.sum(axis=1, keepdims=True, dtype="float64")


def truth(y, state):
    """Encoded targets as `score` takes them: class numbers, or values in their unit again."""
    if state["task"] == "regression":
        return y.astype("float64") * state["deviation"] + state["mean"]
    return y


def check_test(y, test, name, task):
    """Raises BadInput if a separate test target does not fit the training target."""
    check_known(test, name)
    if (y.dtype == object) != (test.dtype == object):
        raise BadInput("the targets to train and to test are of two kinds, text and numbers")
    if task == "regression":
        return
    if test.dtype.kind == "f" and np.any(np.mod(test, 1)):
        raise BadInput("the targets to test have fractions, so they are no classes")
    known = {plain(label) for label in as_labels(y)}
    unknown = [label for label in {plain(v) for v in as_labels(test)} if label not in known]
    if unknown:
        raise BadInput(f"class {unknown[0]!r} of the test rows is not among the training rows")
