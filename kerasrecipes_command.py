"""Starts the command `kerasrecipes`. It lies beside the package, whose import needs a backend."""

import importlib.util
import json
import os
import sys

BACKENDS = ("tensorflow", "jax", "torch")


def main():
    """Runs the command on the backend that was chosen, or else on one that is installed.

    Returns:
        The exit status: 0, 2 for bad input or without a backend, 130 after Ctrl-C.
    """
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not installed:
        return complain("no backend is installed: pip install tensorflow, jax or torch")
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen and chosen not in BACKENDS:
        return complain(f"KERAS_BACKEND={chosen} is not known: choose {', '.join(installed)}")
    if chosen and chosen not in installed:
        return complain(
            f"KERAS_BACKEND={chosen} is not installed: pip install {chosen}, or choose "
            f"{', '.join(installed)}"
        )
    # Keras writes keras.json at its first import, so what it names need not be anyone's wish.
    if not chosen and configured() not in installed:
        os.environ["KERAS_BACKEND"] = installed[0]
    try:
        from kerasrecipes import cli
    except ImportError as error:
        return complain(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("kerasrecipes: interrupted; nothing was written", file=sys.stderr)
        return 130
    return cli.main()


def configured():
    """The backend that keras.json names, None without one."""
    home = os.environ.get("KERAS_HOME", os.path.join("~", ".keras"))
    try:
        with open(os.path.expanduser(os.path.join(home, "keras.json")), encoding="utf-8") as file:
            return json.load(file).get("backend")
    except (OSError, ValueError, AttributeError):
        return None


def complain(message):
    print(f"kerasrecipes: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
