"""What benchmarks share: the setting they run in, how times are told, where a result is kept."""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import statistics

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


def on_one_thread():
    """TensorFlow alone: with its own choice on two cores one fit takes 1.3 or 1.9 seconds."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def quartiles(values, digits=4):
    """Median and quartiles, rounded."""
    low, median, high = (round(one, digits) for one in statistics.quantiles(values, n=4))
    return {"median": median, "quartiles": [low, high]}


def keep(result):
    """Prints a result and writes it to benchmarks/results/BENCHMARK_BACKEND.json."""
    text = json.dumps(result, indent=2)
    print(text)
    FOLDER.mkdir(exist_ok=True)
    name = f"{result['benchmark'].split()[0]}_{result['backend']}.json"
    (FOLDER / name).write_text(text + "\n")
