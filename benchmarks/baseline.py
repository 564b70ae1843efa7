"""Seconds of each phase of `kerasrecipes baseline digits`, and the share outside of training.

Run: KERAS_BACKEND=tensorflow python -m benchmarks.baseline [DATA]

The result is written to benchmarks/results.
"""

import sys
import tempfile

import jinja2  # noqa: F401
import matplotlib.image  # noqa: F401
import sklearn.ensemble  # noqa: F401
import sklearn.impute  # noqa: F401
import sklearn.linear_model  # noqa: F401
import sklearn.metrics  # noqa: F401

from benchmarks._result import keep, setting
from kerasrecipes.methodology.baseline import baseline_of
from kerasrecipes.methodology.source import from_anything

# What a first use imports is imported above: the share is that of the work alone.


def main(data="digits", seed=0):
    """Runs once and returns seconds, share, accuracy and versions."""
    source = from_anything(data)
    with tempfile.TemporaryDirectory() as folder:
        result = baseline_of(
            source, task=None, out=f"{folder}/out", seed=seed, epochs=None, budget=10.0, quiet=True
        )
    seconds = result.metrics["seconds"]
    total = sum(seconds.values())
    return {
        "benchmark": f"baseline {data}",
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "total": round(total, 2),
        "outside of training": round(1 - seconds["training"] / total, 3),
        "test": result.metrics["test"],
        **setting(),
    }


if __name__ == "__main__":
    keep(main(*sys.argv[1:2]))
