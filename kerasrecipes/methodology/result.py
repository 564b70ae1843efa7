"""The outcome of a baseline: a network, the encoders beside it, and what was measured.

How to use
    >>> import os, tempfile
    >>> import numpy as np
    >>> import kerasrecipes as kr
    >>> x = np.random.default_rng(0).normal(size=(90, 2))
    >>> folder = os.path.join(tempfile.mkdtemp(), "out")
    >>> _ = kr.baseline(x, x[:, 0] - x[:, 1], out=folder, epochs=1, quiet=True)
    >>> kr.methodology.load(folder).predict(x[:3]).shape
    (3,)

    On the command line: `kerasrecipes predict FOLDER NEWDATA --out predictions.csv`.

Suggested hyperparameters
    `folder`: the one that was named as out, or that the command printed.

When not to use
    To train on: the network is saved without its optimizer. That is what train.py is for.

Technical details
    model.keras is a plain Keras model of encoded inputs, preprocessing.json the state of the
    encoders; both load on any backend, without pickle and without TensorFlow. Columns are found
    by name, or by place where there were no names. Values never seen count as unknown, missing
    numbers as the mean, with a flag if some were missing in training.

Attribution
    Own work. Why no string lookups within the model: Keras's need TensorFlow.
"""

import json
import os
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kerasrecipes._report.table import text_table
from kerasrecipes.data.read import BadInput
from kerasrecipes.methodology.encode import encode
from kerasrecipes.methodology.rows import match
from kerasrecipes.methodology.target import decode_prediction


@dataclass
class Baseline:
    """A trained network with everything it needs to serve raw rows.

    Args:
        model: the `keras.Model`; it takes encoded inputs.
        preprocessing: state of the encoders, plain JSON.
        metrics: what metrics.json holds.
        history: dict of lists, one entry an epoch.
        name: name of the data.
        folder: where the parts were written, or None.

    Raises:
        ValueError: by `predict` and `probabilities`, if the rows lack a column that was trained
            on, or images have another shape.
    """

    model: Any
    preprocessing: dict
    metrics: dict
    history: dict = field(default_factory=dict)
    name: str = "data"
    folder: str | None = None

    @property
    def findings(self):
        """What the run teaches: dicts of title, reason and advice, the weightiest first."""
        return self.metrics["findings"]

    def probabilities(self, x):
        """Probabilities (rows, classes) of raw rows, or the values of a regression.

        Args:
            x: rows as they were given to `baseline`: columns or images, without the target.

        Returns:
            A NumPy array of float64.
        """
        inputs, columns = self.preprocessing["inputs"], self.preprocessing["columns"]
        return self.output(encode(match(x, inputs, columns), inputs))

    def output(self, inputs):
        """The same of encoded inputs."""
        output = self.model.predict(inputs, batch_size=1024, verbose=0)
        return decode_prediction(output, self.preprocessing["target"])

    def predict(self, x):
        """Predicted labels or values of raw rows.

        Args:
            x: rows as they were given to `baseline`: columns or images, without the target.

        Returns:
            A NumPy array, one label or value a row.
        """
        output = self.probabilities(x)
        if output.ndim == 1:
            return output
        return np.array(self.preprocessing["target"]["classes"])[output.argmax(axis=1)]

    def __str__(self):
        test, names = self.metrics["test"], list(self.metrics["test"])
        rows = [
            [name, *(figures[n] for n in names)]
            for name, figures in [*self.metrics["baselines"].items(), ("network", test)]
        ]
        return text_table(["test rows", *names], rows)


def load(folder):
    """Loads what `baseline` wrote, on any backend.

    Args:
        folder: the folder given as `out`.

    Returns:
        A `Baseline` that predicts raw rows.

    Raises:
        ValueError: if the folder holds no finished baseline.
    """
    parts = {}
    for name in ("preprocessing.json", "metrics.json"):
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                parts[name] = json.load(file)
        except (OSError, ValueError) as error:
            raise BadInput(f"{folder!r} holds no baseline: {name} cannot be read") from error
    try:
        model = keras.saving.load_model(os.path.join(folder, "model.keras"), compile=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder!r} holds no baseline: model.keras cannot be read") from error
    return Baseline(model, parts["preprocessing.json"], parts["metrics.json"], folder=folder)
