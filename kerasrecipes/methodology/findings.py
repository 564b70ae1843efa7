"""What a run teaches and what to try next, each with the figure that says so."""

import math

import numpy as np

from kerasrecipes.methodology.scores import confusion


def findings(metrics, state, outputs, truths, repeated=0):
    """A list of dicts with `title`, `reason` and `advice`, the weightiest first.

    Args:
        metrics: as metrics.json has them.
        state: the encoders' state.
        outputs, truths: by part, as `score` takes them.
        repeated: number of test rows that are training rows too.
    """
    classes = state["target"].get("classes")
    found = [against_classical(metrics), fit_of(metrics, state)]
    if classes:
        found += [imbalance(metrics), confused(truths["test"], outputs["test"], classes)]
    found += [unfinished(metrics), leaking(repeated, metrics["rows"]["test"])]
    return [finding for finding in found if finding]


def finding(title, reason, advice):
    return {"title": title, "reason": reason, "advice": advice}


def best_classical(metrics):
    """Name and main figure of the best classical baseline."""
    if metrics["task"] == "classification":
        best = max(metrics["baselines"].items(), key=lambda item: item[1]["accuracy"])
        return best[0], best[1]["accuracy"]
    best = min(metrics["baselines"].items(), key=lambda item: item[1]["rmse"])
    return best[0], best[1]["rmse"]


def against_classical(metrics):
    """Whether the network is worth its trouble."""
    name, theirs = best_classical(metrics)
    label, rows = name.replace("_", " "), metrics["rows"]["test"]
    if metrics["task"] == "classification":
        ours = metrics["test"]["accuracy"]
        ahead, behind = ours > theirs, theirs - ours > 0.01
        noise = 2 * math.sqrt((ours * (1 - ours) + theirs * (1 - theirs)) / rows)
        reason = (
            f"Accuracy {ours:.4f} of the network against {theirs:.4f}. With {rows} test rows, "
            f"differences below {noise:.3f} can be chance."
        )
        close = abs(ours - theirs) <= noise
    else:
        ours = metrics["test"]["rmse"]
        ahead, behind = ours < theirs, ours > 1.05 * theirs
        close = abs(ours - theirs) < 0.05 * theirs
        reason = f"RMSE {ours:.4g} of the network against {theirs:.4g}"
        reason += f" ({ours / theirs - 1:+.1%})." if theirs else "."
    if behind:
        return finding(
            f"{label.capitalize()} beats the network",
            reason,
            f"Use {label} for now. For the "
            "network: more rows or better features first, then UNITS and DROPOUT in train.py.",
        )
    if close:
        return finding(
            f"The network and {label} are about equal",
            reason,
            f"Prefer {label}, the simpler "
            "one, unless more data will come: networks gain more from it.",
        )
    if ahead:
        return finding(
            f"The network beats the best classical baseline, {label}",
            reason,
            "It earns its place: improve it further.",
        )
    return finding(f"{label.capitalize()} is a little ahead", reason, "Either will do for now.")


def fit_of(metrics, state):
    """Whether it memorises, underfits or neither."""
    train, held = metrics["training"], metrics["validation"]
    dropout = state["plan"]["dropout"]
    if metrics["task"] == "classification":
        a, b = train["accuracy"], held["accuracy"]
        memorises, poor = a - b > 0.05, a < 0.95 and a - b < 0.02
        reason = f"Accuracy {a:.4f} on the training rows, {b:.4f} on the validation rows."
    else:
        a, b = train["rmse"], held["rmse"]
        memorises, poor = b > 1.25 * a, train["r2"] < 0.9 and b < 1.1 * a
        reason = f"RMSE {a:.4g} on the training rows, {b:.4g} on the validation rows."
    if memorises:
        return finding(
            "It knows the training rows better than new ones",
            reason,
            "More rows help most; then "
            f"DROPOUT above {dropout} or a stronger WEIGHT_DECAY; for images, augmentation.",
        )
    if poor:
        return finding(
            "It does not even fit the training rows",
            reason,
            "A larger network (UNITS), more "
            "EPOCHS, less DROPOUT; or the inputs do not say more about the target.",
        )
    return None


def imbalance(metrics):
    """Whether accuracy hides the rare classes."""
    accuracy, balanced = metrics["test"]["accuracy"], metrics["test"]["balanced_accuracy"]
    if accuracy - balanced < 0.05:
        return None
    return finding(
        "Rare classes fare worse than accuracy says",
        f"Accuracy {accuracy:.4f}, but {balanced:.4f} as the mean over the classes.",
        "Decide which errors matter. Then class_weight in fit, or more examples of the rare ones.",
    )


def confused(y, output, classes):
    """The commonest confusion."""
    counts = confusion(y, output)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    true, taken = np.unravel_index(counts.argmax(), counts.shape)
    if counts[true, taken] < 3:
        return None
    return finding(
        f"{classes[true]!r} is most often taken for {classes[taken]!r}",
        f"{counts[true, taken]} of its {totals[true]} test rows; all errors: {counts.sum()}.",
        "Look at these rows below: are the labels right, can you tell them apart yourself?",
    )


def unfinished(metrics):
    """Whether training ended before its schedule did."""
    if metrics["ended"] not in ("budget", "interrupted"):
        return None
    return finding(
        "Training ended before its schedule",
        f"Ended by: {metrics['ended']}. The rate had not "
        "yet come down, and that is where a one-cycle gains most.",
        "A larger --budget.",
    )


def leaking(repeated, rows):
    """Whether the test rows are new."""
    if repeated <= 0.01 * rows:
        return None
    return finding(
        "Test rows repeat training rows",
        f"{repeated} of {rows} test rows have a training row with equal inputs.",
        "If they are copies, remove them before splitting: scores are too good otherwise.",
    )
