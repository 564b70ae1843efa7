"""Settings of every test process: one backend, quiet, no display, and the count of cells."""

import gc
import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "Agg")
# Many cells compile the same program: JAX does it once, and not again in the next run.
CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import keras  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _fresh():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    yield
    if keras.config.backend() == "jax":
        import jax

        # Each compiled program keeps some mappings of memory, of which Linux allows 65,530.
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def backend():
    return keras.config.backend()


def pytest_terminal_summary(terminalreporter):
    """How many cells (name x contract) of the contracts ran on this backend."""

    def cells(outcome):
        reports = terminalreporter.stats.get(outcome, [])
        return [r for r in reports if "test_contracts.py::test_contract[" in r.nodeid]

    ran, skipped = cells("passed") + cells("failed"), cells("skipped")
    if ran or skipped:
        terminalreporter.write_line(
            f"contracts on {keras.config.backend()}: {len(ran)} cells ran, "
            f"{len(skipped)} skipped with a reason"
        )
