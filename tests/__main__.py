"""All tests, a process for each backend: `python -m tests [backend ...] [-- pytest arguments]`."""

import os
import pathlib
import re
import subprocess
import sys

BACKENDS = ("tensorflow", "jax", "torch")


def main(arguments):
    split = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, extra = arguments[:split] or BACKENDS, arguments[split + 1 :]
    root = pathlib.Path(__file__).parent.parent
    failed, counts = [], {"ran": 0, "skipped": 0}
    for backend in chosen:
        print(f"\n=== {backend} ===", flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", *extra],
            cwd=root,
            env={**os.environ, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in process.stdout:
            print(line, end="", flush=True)
            found = re.match(r"contracts on \w+: (\d+) cells ran, (\d+) skipped", line)
            if found:
                counts["ran"] += int(found[1])
                counts["skipped"] += int(found[2])
        if process.wait():
            failed.append(backend)
    print(
        f"\ncontracts: {counts['ran']} cells (name x contract x backend) ran, "
        f"{counts['skipped']} were skipped with a reason"
    )
    print(f"failed on: {', '.join(failed)}" if failed else f"passed on: {', '.join(chosen)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
