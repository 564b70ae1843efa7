"""The report of a run: what `_report.page` needs, drawn from the result and its raw test rows."""

import base64
import io

import numpy as np

from kerasrecipes._report.page import page
from kerasrecipes._report.plots import inline_svg, lines, scatter
from kerasrecipes._report.table import show
from kerasrecipes.methodology.scores import confusion, row_losses

MOST_CLASSES, EXAMPLES, COLUMNS, DOTS = 25, 12, 8, 1500


def report(result, raw, numbers, outputs, truths):
    """The page as text.

    Args:
        result: a `Baseline`.
        raw: raw rows and targets of the test part.
        numbers: where the test rows stand in the data, counted from 0.
        outputs, truths: of the test rows, as `score` takes them.
    """
    metrics, state = result.metrics, result.preprocessing
    target = state["target"]
    images = state["inputs"]["kind"] == "image"
    worst = most_wrong(truths, outputs)
    classes = target.get("classes", [])
    return page(
        title=f"Baseline of {result.name}",
        summary=summary(metrics, target),
        findings=metrics["findings"],
        rows=metrics["rows"],
        comparison=comparison(metrics),
        drawings=drawings(result.history, outputs, truths),
        confusion=heat(truths, outputs, classes) if 0 < len(classes) <= MOST_CLASSES else None,
        pairs=pairs(truths, outputs, classes) if len(classes) > MOST_CLASSES else None,
        pictures=pictures(raw, numbers, outputs, worst, classes) if images else None,
        wrong=None if images else wrong(raw, numbers, outputs, worst, classes),
        facts=facts(metrics, state),
    )


def summary(metrics, target):
    """One sentence: what was predicted, and how well."""
    name, value = next(iter(metrics["test"].items()))
    rows = ", ".join(f"{count} {part}" for part, count in metrics["rows"].items())
    kind = f"{len(target['classes'])} classes" if "classes" in target else "a number"
    return f"Predicting {kind}: {name} {value:.4g} on the test rows. Rows: {rows}."


def comparison(metrics):
    """The table of the network beside the classical baselines."""
    heads = list(metrics["test"])
    named = [*metrics["baselines"].items(), ("network", metrics["test"])]
    firsts = [figures[heads[0]] for _, figures in named]
    best = int(np.argmin(firsts) if heads[0] == "rmse" else np.argmax(firsts))
    rows = [[name.replace("_", " "), *(show(f[h]) for h in heads)] for name, f in named]
    return {"heads": ["method", *(h.replace("_", " ") for h in heads)], "rows": rows, "best": best}


def drawings(history, outputs, truths):
    """Curves of what was measured by epoch; for values also prediction against truth."""
    drawn, size = [], (4.6, 2.8)
    for name in ("loss", "accuracy"):
        if name in history:
            series = {"training": history[name], "validation": history[f"val_{name}"]}
            epochs = range(1, len(history[name]) + 1)
            figure = lines(epochs, series, xlabel="epoch", ylabel=name, size=size)
            drawn.append(inline_svg(figure, f"{name} by epoch"))
    if outputs.ndim == 1:
        rows = np.linspace(0, len(truths) - 1, min(DOTS, len(truths))).astype(int)
        labels = {"xlabel": "true value", "ylabel": "predicted value"}
        figure = scatter(truths[rows], outputs[rows], **labels, size=size)
        drawn.append(inline_svg(figure, "predicted by true value"))
    return drawn


def heat(truths, outputs, classes):
    """The confusion matrix with the share of each cell in its row, as a shade."""
    counts = confusion(truths, outputs)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        (label, [(int(c), f"{0.65 * s:.2f}") for c, s in zip(cells, shares, strict=True)])
        for label, cells, shares in zip(classes, counts, share, strict=True)
    ]
    return {"labels": classes, "rows": rows}


def pairs(truths, outputs, classes, most=10):
    """The commonest confusions, where a matrix would be too large to read."""
    counts = confusion(truths, outputs)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None)[:most]
    places = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [[classes[i], classes[j], int(counts[i, j])] for i, j in places if counts[i, j]]


def most_wrong(truths, outputs):
    """The rows with the largest losses; of classes only those that are taken for another."""
    worst = np.argsort(-row_losses(truths, outputs), kind="stable")
    if outputs.ndim > 1:
        worst = worst[outputs[worst].argmax(axis=1) != truths[worst]]
    return worst[:EXAMPLES]


def answer(output, row, classes):
    """What the network said of one row."""
    if not classes:
        return show(float(output[row]))
    best = output[row].argmax()
    return f"{classes[best]} ({output[row, best]:.0%})"


def pictures(raw, numbers, outputs, worst, classes):
    """The worst images, each a small PNG within the page."""
    from matplotlib.image import imsave

    images, y = raw
    found = []
    for row in worst:
        image = np.atleast_3d(np.asarray(images[row], "float64"))
        image = image[..., :3] if image.shape[-1] > 2 else image[..., 0]
        file = io.BytesIO()
        imsave(file, (image - image.min()) / (np.ptp(image) or 1.0), cmap="gray", format="png")
        png = base64.b64encode(file.getvalue()).decode()
        guess = answer(outputs, row, classes)
        truth = readable(y[row])
        found.append({"row": int(numbers[row]), "truth": truth, "guess": guess, "png": png})
    return found


def wrong(raw, numbers, outputs, worst, classes):
    """The worst rows of a table, with its first columns."""
    columns, y = raw
    names = list(columns)[:COLUMNS]
    rows = [
        [int(numbers[row]), readable(y[row]), answer(outputs, row, classes)]
        + [readable(columns[name][row]) for name in names]
        for row in worst
    ]
    return {"heads": ["row", "true", "predicted", *names], "rows": rows}


def readable(value):
    """A cell of a table as short text."""
    if value is None or value != value:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def facts(metrics, state):
    """What is needed to repeat the run."""
    seconds = metrics["seconds"]
    known = {
        "command": metrics["command"],
        "seed": metrics["seed"],
        "settings": ", ".join(f"{n} {v}" for n, v in state["plan"].items()),
        "training ended": metrics["ended"],
        "seconds": ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in metrics["versions"].items()),
    }
    if state["inputs"]["kind"] == "table":
        known["columns"] = ", ".join([*state["inputs"]["numbers"], *state["inputs"]["categories"]])
        known["left out"] = ", ".join(state["ignored"]) or "no column"
    return {name: readable_fact(value) for name, value in known.items()}


def readable_fact(value):
    text = str(value)
    return text if len(text) <= 600 else text[:599] + "…"
