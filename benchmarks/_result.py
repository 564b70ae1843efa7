"""What every benchmark ends with: the setting it ran in, and the file its result is kept in."""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform

import keras

FOLDER = pathlib.Path(__file__).parent / "results"


def setting(*packages):
    """Backend, versions of it, of Keras, NumPy and the `packages` that are there, and machine."""
    backend = keras.config.backend()
    names = [
        name for name in ("keras", backend, "numpy", *packages) if importlib.util.find_spec(name)
    ]
    return {
        "backend": backend,
        "versions": {name: importlib.metadata.version(name) for name in names},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def keep(result):
    """Prints a result and writes it to benchmarks/results/BENCHMARK_BACKEND.json."""
    text = json.dumps(result, indent=2)
    print(text)
    FOLDER.mkdir(exist_ok=True)
    name = f"{result['benchmark'].split()[0]}_{result['backend']}.json"
    (FOLDER / name).write_text(text + "\n")
