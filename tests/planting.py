"""Runs tests in forks of one process that has loaded Keras; `tests.faults` starts it.

Each line read is a folder and pytest's arguments in JSON, each line written pytest's exit status.
"""

import json
import os
import sys

import keras  # noqa: F401  (the forks need not load what takes most of the time)
import numpy  # noqa: F401
import pytest


def run(folder, arguments):
    """Never returns: a fork that goes on would read its parent's lines."""
    status = 3
    try:
        sink = os.open(os.path.join(folder, "output.txt"), os.O_WRONLY | os.O_CREAT)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.chdir(folder)
        for name in [n for n in sys.modules if n.partition(".")[0] == "tests"]:
            del sys.modules[name]
        sys.path.insert(0, folder)
        os.environ["PYTHONPATH"] = folder
        status = int(pytest.main(arguments))
    finally:
        os._exit(status)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
