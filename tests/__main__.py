"""All tests, a process for each backend: `python -m tests [backend ...] [-- pytest arguments]`.

As many backends run at once as there are cores for them.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

BACKENDS = ("tensorflow", "jax", "torch")
ROOT = pathlib.Path(__file__).parent.parent


def run(backend, extra, threads):
    """Whether the tests pass on `backend`, and how many cells of the contracts ran and did not."""
    ran = skipped = 0
    # The backends' own pools of threads would otherwise fight for the cores.
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", *extra],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        print(f"{backend}: {line}", end="", flush=True)
        found = re.match(r"contracts on \w+: (\d+) cells ran, (\d+) skipped", line)
        if found:
            ran, skipped = int(found[1]), int(found[2])
    return process.wait() == 0, ran, skipped


def parts(backend, extra):
    """Arguments of pytest for each process: all tests on TensorFlow take longer than on others."""
    contracts = "tests/test_contracts.py"
    if backend == "tensorflow" and not extra:
        return [["--ignore", contracts], [contracts]]
    return [extra]


def main(arguments):
    split = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, extra = arguments[:split] or BACKENDS, arguments[split + 1 :]
    cores = os.cpu_count() or 1
    runs = [(backend, part) for backend in chosen for part in parts(backend, extra)]
    at_once = min(cores, len(runs))
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(lambda r: run(*r, cores // at_once), runs))
    print(
        f"\ncontracts: {sum(r[1] for r in results)} cells (name x contract x backend) ran, "
        f"{sum(r[2] for r in results)} were skipped with a reason"
    )
    failed = [b for (b, _), (passed, *_) in zip(runs, results, strict=True) if not passed]
    print(f"failed on: {', '.join(failed)}" if failed else f"passed on: {', '.join(chosen)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
