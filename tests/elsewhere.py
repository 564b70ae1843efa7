"""Run by the contracts under another backend: loads what was saved, predicts, trains a step.

Only `import kerasrecipes` makes the classes known, and `safe_mode` is on.
"""

# isort: off
import kerasrecipes  # noqa: F401  first and alone, as a user would
import json
import pathlib
import sys

import keras
import numpy as np

# isort: on


def main(folder):
    folder, results = pathlib.Path(folder), {}
    data = np.load(folder / "data.npz")
    for path in sorted(folder.glob("*.keras")):
        try:
            model = keras.saving.load_model(path)
            # Without tracing and torch.compile: what compiled training does, other contracts say.
            if keras.config.backend() != "jax":
                model.run_eagerly, model.jit_compile = True, False
            predicted = model.predict(data["x"], verbose=0)
            slots = [np.asarray(v.numpy()) for v in model.optimizer.variables]
            saved = np.load(path.with_suffix(".npz"))
            apart = float(np.abs(predicted - saved["predicted"]).max())
            equal = [
                bool(np.array_equal(s, saved[f"slot{i}"], equal_nan=True))
                for i, s in enumerate(slots)
            ]
            model.fit(data["x"], data["y"], verbose=0, batch_size=16)
            trained = bool(np.isfinite(model.get_weights()[0]).all())
            results[path.stem] = {
                "apart": apart,
                "slots": sum(equal),
                "of": len([k for k in saved if k.startswith("slot")]),
                "trained": trained,
                "optimizer": type(model.optimizer).__name__,
            }
        except Exception as error:
            results[path.stem] = {"error": f"{type(error).__name__}: {error}"}
    (folder / f"{keras.config.backend()}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
