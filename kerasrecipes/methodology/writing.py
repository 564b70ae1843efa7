"""The files of a finished run."""

import csv
import json
import os

import numpy as np

from kerasrecipes.methodology.folder import whole_folder
from kerasrecipes.methodology.script import script
from kerasrecipes.methodology.source import arrays_of


def write(result, source, page, out):
    """Writes every part of `result`, and the page of its report, under `out`: all or nothing."""
    with whole_folder(out) as part:
        result.model.save(os.path.join(part, "model.keras"))
        write_json(os.path.join(part, "preprocessing.json"), result.preprocessing)
        write_json(os.path.join(part, "metrics.json"), result.metrics)
        write_history(os.path.join(part, "history.csv"), result.history)
        write_text(os.path.join(part, "report.html"), page)
        write_text(os.path.join(part, "train.py"), script(result))
        if source.origin.get("beside"):
            np.savez_compressed(os.path.join(part, "data.npz"), **arrays_of(source))
    result.folder = out


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_history(path, history):
    """One row an epoch."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *history])
        rows = zip(*history.values(), strict=True)
        writer.writerows([epoch, *row] for epoch, row in enumerate(rows, start=1))
