"""Planted faults: each must turn a test red. Run all: `python -m tests.faults [text in the file]`.

The tests run in a copy of the tree, so nothing here is changed. A fault that no test notices is
printed, and the exit status is 1.
"""

import concurrent.futures
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile

from tests.catalog import PARTS
from tests.entry import Fault, faults

ROOT = pathlib.Path(__file__).parent.parent


FAULTS = [
    *faults(
        "optimizers.PerturbedSGD",
        "optimizers/perturbed_sgd.py",
        "test_optimizers.py",
        ("** (1.0 / size)", "** 1.0"),
        ("self.random_state.assign(state + used)", "pass"),
        ("waited >= self.interval", "waited > self.interval"),
        ("[0, len(shapes) + 1]", "[0, 0]"),
        ("self.state = current + ops", "self.state = current + 0 * ops"),
    ),
    *faults(
        "optimizers.PerturbedSGD",
        "optimizers/perturbed_sgd.py",
        "test_contracts.py",
        ("self.momentum * velocity - rate", "self.momentum * velocity - 0.5 * rate"),
        ('"radius": self.radius,', ""),
    ),
    *faults(
        "layers.WeightNormalization",
        "layers/weight_normalization.py",
        "test_layers.py",
        ("for loss in scope.losses:", "for loss in []:"),
        ("/ ops.sqrt(ops.maximum(squares, 1e-30))", "/ ops.maximum(squares, 1e-30)"),
        ("initializer=self._length", 'initializer="ones"'),
    ),
    Fault(
        ("layers.WeightNormalization",),
        "layers/weight_normalization.py",
        '"add_loss", self.add_loss)',
        '"add_loss", self.layer.add_loss)',
        "tests/test_layers.py",
        backend="jax",
    ),
    Fault(
        ("layers.WeightNormalization",),
        "_model/kernels.py",
        "return (rank - 2,)",
        "return (rank - 1,)",
        "tests/test_layers.py",
    ),
    *faults(
        "initializers.Sparse",
        "initializers/sparse.py",
        "test_initializers.py",
        ("rank < self.connections", "rank <= self.connections"),
        ("self.stddev * keep * values", "keep * values"),
        ("ops.argsort(ops.argsort(flat, axis=0), axis=0)", "ops.argsort(flat, axis=0)[::-1] * 0"),
    ),
    *faults(
        "initializers.initialize_from_data",
        "initializers/from_data.py",
        "test_initializers.py",
        ("layer.g.assign(g * scale.reshape(g.shape))", "layer.g.assign(g)"),
        ("bias.assign((old - mean) * scale)", "bias.assign(-mean)"),
        ("if id(layer) not in last]", "if id(layer) not in {}]"),
        ("if layer.trainable]", "]"),
        ("with _without_activation(core):", "if True:"),
    ),
    *faults(
        "schedules.OneCycle",
        "schedules/one_cycle.py",
        "test_schedules.py",
        ("start / self.final_divisor\n", "start * self.final_divisor\n"),
        ("top = warmup * steps - 1.0", "top = warmup * steps"),
        ('ops.minimum(ops.cast(step, "float32"), float(steps - 1))', 'ops.cast(step, "float32")'),
    ),
    *faults(
        "schedules.one_cycle",
        "schedules/one_cycle.py",
        "test_schedules.py",
        ("OneCycle(low, steps", "OneCycle(high, steps"),
        ("warmup, low / high, 1.0", "warmup, high / low, 1.0"),
        ("low / high, 1.0, name", "low / high, 2.0, name"),
    ),
    *[
        Fault((f"schedules.theory.{name}",), "schedules/theory.py", right, wrong, test)
        for test, name, right, wrong in (
            (
                "tests/test_contracts.py",
                "optimal_momentum",
                "Optimum((2 / (low + high)) ** 2",
                "Optimum((1 / (low + high)) ** 2",
            ),
            ("tests/test_contracts.py", "optimal_momentum", "ratio**2, ratio)", "ratio, ratio)"),
            (
                "tests/test_contracts.py",
                "optimal_momentum",
                "ratio**2, ratio)",
                "ratio**2, ratio**2)",
            ),
            (
                "tests/test_contracts.py",
                "optimal_gradient_descent",
                "Optimum(2 / (low + high), 0.0",
                "Optimum(1 / high, 0.0",
            ),
            (
                "tests/test_contracts.py",
                "optimal_gradient_descent",
                "0.0, (high - low)",
                "0.0, high * (high - low)",
            ),
            (
                "tests/test_contracts.py",
                "optimal_gradient_descent",
                "/ (high + low))\n\n\ndef mom",
                "/ high)\n\n\ndef mom",
            ),
            ("tests/test_contracts.py", "momentum_rate", "- 4 * beta)", "- 2 * beta)"),
            ("tests/test_contracts.py", "momentum_rate", "beta - root)) / 2", "beta - root))"),
            ("tests/test_contracts.py", "momentum_rate", "max(abs(1 - step", "min(abs(1 - step"),
            ("tests/test_schedules.py", "momentum_phase", ">= 1:", ">= 2:"),
            ("tests/test_schedules.py", "momentum_phase", "(1 - root) ** 2:", "(1 - root):"),
            (
                "tests/test_schedules.py",
                "momentum_phase",
                "step < (1 + root) ** 2",
                "step < 1 + root",
            ),
        )
    ],
    *faults(
        "data.load",
        "data/load.py",
        "test_data.py",
        ("test_size=360", "test_size=300"),
        ("stratify=digits.target", "stratify=None"),
        ("random_state=0", "random_state=None"),
    ),
    *faults(
        "callbacks.HyperparameterSchedule",
        "callbacks/hyperparameter_schedule.py",
        "test_callbacks.py",
        ("logs.update(self._values | reached)", "pass"),
        ("return int(ops.convert_to_numpy(self.model.optimizer.iterations))", "return 0"),
        ("            self._set(epoch)", "            self._set(0)"),
        ("            knob.write(value)", "            pass"),
    ),
    *faults(
        "objective.Objective",
        "objective/objective.py",
        "test_objective.py",
        ("gradient += np.asarray(share * ops", "gradient += np.asarray(ops"),
        ("outputs = self.model(x, training=self.training)", "outputs = self.model(x)"),
        ("collect_losses=True", "collect_losses=False"),
    ),
    Fault(
        ("objective.Objective",),
        "objective/objective.py",
        "others = [*self.model.variables, *self.model.metrics_variables]",
        "others = []",
        "tests/test_objective.py",
        backend="jax",
    ),
    *faults(
        "inference.reestimate_batch_normalization",
        "inference/batch_statistics.py",
        "test_inference.py",
        ("+ n * m * (shift / parts) ** 2", ""),
        ("count = seen.sum(axis=0)", "count = np.full(seen.shape[1], len(seen))"),
        (
            "np.moveaxis(np.broadcast_to(seen, values.shape), layer.axis, -1)",
            "np.broadcast_to(seen, values.shape)",
        ),
        ("with restored(model, always=False):", "if True:"),
        ("layer.moving_variance.assign(variance)", "layer.moving_variance.assign(variance**0.5)"),
    ),
    *faults(
        "inference.reestimate_batch_normalization",
        "inference/batch_statistics.py",
        "test_contracts.py",
        ("if all((leaf == leaf[:1]).all() for leaf in keras.tree.flatten(x)):", "if False:"),
    ),
    *faults(
        "diagnostics.interpolate",
        "diagnostics/interpolation.py",
        "test_diagnostics.py",
        ("(1 - a) * s + a * e", "a * s + (1 - a) * e"),
        ("with restored(model):", "if True:"),
        ("            if normalized:", "            if False:"),
    ),
    *faults(
        "diagnostics.find_learning_rate",
        "diagnostics/learning_rate.py",
        "test_diagnostics.py",
        ("model.optimizer, model.steps_per_execution = trial, 1", "model.steps_per_execution = 1"),
        ("model.optimizer.learning_rate = rate", "pass"),
        ("int(np.argmin(smoothed))] / 10", "int(np.argmin(smoothed))]"),
    ),
    *faults(
        "diagnostics.find_learning_rate",
        "diagnostics/learning_rate.py",
        "test_contracts.py",
        ("self.model.reset_metrics()", "pass"),
    ),
    *faults(
        "pretraining.greedy_supervised",
        "pretraining/greedy.py",
        "test_pretraining.py",
        ("own.set_weights(trained.get_weights())", "pass"),
        ("with restored(model, always=False):", "if True:"),
        ("vars(one).update(attributes)", "pass"),
        ("keras.layers.Flatten()] if flatten else []", "] if flatten else []"),
        ("if depth < len(stages) - 1:", "if False:"),
    ),
    *faults(
        "methodology.baseline",
        "methodology/split.py",
        "test_baseline.py::test_split_is_stratified_disjoint_and_seeded",
        ("stratify=strata)", "stratify=None)"),
        ("random_state=seed", "random_state=0"),
        ("train_test_split(rest, test", "train_test_split(np.arange(len(y)), test"),
    ),
    *faults(
        "methodology.baseline",
        "methodology/classical.py",
        "test_baseline.py::test_classical_baselines_take_categories_missing_values_and_thin_large_data",
        ("np.random.default_rng(seed).permutation(len(y))", "np.arange(len(y))"),
        ("np.unique([*first, *range(", "np.unique([*range("),
        ("range(min(count, len(y)))", "range(count)"),
        ("int(len(y) * limit / cells)", "len(y) // 2"),
    ),
    *faults(
        "methodology.baseline",
        "methodology/source.py",
        "test_baseline.py::test_script_reads_what_was_given_in_memory",
        ('"" if value is None else value', "str(value)"),
        ("*(source.test or ())", "*(source.test and (source.x, source.y) or ())"),
    ),
    *faults(
        "methodology.baseline",
        "methodology/report.py",
        "test_baseline.py::test_report_shows_wrong_rows_alone_and_where_they_stand",
        ("worst = worst[outputs[worst].argmax(axis=1) != truths[worst]]", "pass"),
        ("np.argsort(-row_losses(truths, outputs)", "np.argsort(row_losses(truths, outputs)"),
    ),
    *faults(
        "methodology.Baseline",
        "methodology/encode.py",
        "test_baseline.py",
        ("np.clip((column - mean) / deviation, -8, 8)", "np.clip(column - mean, -8, 8)"),
        ("number.get(value, 0)", "number.get(value, 1)"),
        ("np.where(known, column, mean)[:, None]", "column[:, None]"),
    ),
    *faults(
        "methodology.load",
        "methodology/target.py",
        "test_baseline.py",
        (
            '* state["deviation"] + state["mean"]\n    return output',
            '+ state["mean"]\n    return output',
        ),
        ("number[plain(label)] for label", "number[plain(label)] * 0 for label"),
        ('"mean": float(y.mean())', '"mean": 0.0'),
    ),
] + [fault for part in PARTS for fault in part.FAULTS]


class Runner:
    """Runs tests on one backend in copies of the tree; one at a time."""

    def __init__(self, backend):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.planting"],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def fails(self, test, fault=None):
        """Whether `test` fails in a copy of the tree, in which `fault` is planted if given."""
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder)
            for part in ("kerasrecipes", "tests", "recipes"):
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / part, copy / part, ignore=ignored)
            shutil.copy(ROOT / "setup.cfg", copy)
            if fault:
                target = copy / "kerasrecipes" / fault.file
                text = target.read_text()
                if text.count(fault.right) != 1:
                    raise ValueError(f"{fault.file}: {fault.right!r} is not there exactly once")
                target.write_text(text.replace(fault.right, fault.wrong))
            arguments = ["-q", "-x", "-p", "no:cacheprovider", test]
            if "contracts" in test:
                cells = " or ".join(fault.of) if fault else "contract"
                arguments += ["-k", f"({cells}) and not travels"]
            self.process.stdin.write(json.dumps([folder, arguments]) + "\n")
            self.process.stdin.flush()
            status = self.process.stdout.readline().strip()
            if status not in ("0", "1"):
                output = copy / "output.txt"
                raise RuntimeError(output.read_text()[-2000:] if output.exists() else status)
            return status == "1"


def on_backend(backend, chosen):
    """The faults of `chosen` that no test notices on `backend`, and tests that always fail."""
    runners, missed = queue.SimpleQueue(), []
    for _ in range(os.cpu_count() or 1):
        runners.put(Runner(backend))

    def fails(test, fault=None):
        runner = runners.get()
        try:
            return runner.fails(test, fault)
        finally:
            runners.put(runner)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        # A test that fails without a fault would notice anything.
        tests = sorted({f.test for f in chosen})
        broken = [t for t, failed in zip(tests, pool.map(fails, tests), strict=True) if failed]
        for test in broken:
            print("FAILS   without a fault:", test, "on", backend, flush=True)
        chosen = [f for f in chosen if f.test not in broken]
        found = pool.map(lambda f: fails(f.test, f), chosen)
        for fault, noticed in zip(chosen, found, strict=True):
            word = "noticed" if noticed else "MISSED "
            print(word, fault.file, "|", fault.wrong or "(deleted)", flush=True)
            missed += [] if noticed else [fault]
    return [*broken, *missed]


def main(arguments):
    chosen = [f for f in FAULTS if not arguments or any(a in f.file for a in arguments)]
    usual, missed = os.environ.get("KERAS_BACKEND", "torch"), 0
    for backend in sorted({f.backend or usual for f in chosen}):
        missed += len(on_backend(backend, [f for f in chosen if backend == (f.backend or usual)]))
    print(f"{len(chosen)} faults planted, {missed} missed; the usual backend was {usual}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
