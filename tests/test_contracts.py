"""The contracts: each is one function, run over every entry of the catalogue that it applies to."""

import json
import os
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

import kerasrecipes as kr
from tests.catalog import CATALOG
from tests.entry import SERIALIZABLE
from tests.problems import assert_unchanged, classes, everything, values

BACKEND = keras.config.backend()
X, Y = classes()


def numpy_equality(name, entry, saved):
    checked = 0
    for ours, reference, tolerance in entry.equality():
        np.testing.assert_allclose(ours, reference, rtol=tolerance, atol=tolerance * 1e-1)
        checked += 1
    assert checked


def config(name, entry, saved):
    made = entry.make()
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))
    revived = keras.saving.deserialize_keras_object(serialized)
    assert type(revived) is type(made)
    assert revived.get_config() == made.get_config()
    assert serialized["registered_name"].startswith("kerasrecipes>")
    required = {"self", "args", "kwargs", "layer"}
    code = type(made).__init__.__code__
    arguments = set(code.co_varnames[: code.co_argcount]) - required
    assert arguments <= set(made.get_config()), "an argument is missing in the config"


def _trained(entry, **kwargs):
    model = entry.model(**kwargs)
    model.fit(X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0)
    return model


def trains_on(name, entry, saved):
    model = _trained(entry)
    model.save(saved / "resumed.keras")
    resumed = keras.saving.load_model(saved / "resumed.keras")
    assert type(resumed.optimizer) is type(model.optimizer)
    losses = [
        m.fit(X, Y, epochs=3, batch_size=16, shuffle=False, verbose=0).history["loss"]
        for m in (model, resumed)
    ]
    np.testing.assert_array_equal(*losses)


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory):
    """What each other backend makes of a saved model of every serializable entry."""
    folder, results = tmp_path_factory.mktemp("elsewhere"), {}
    np.savez(folder / "data.npz", x=X, y=Y)
    for name, entry in CATALOG.items():
        if entry.kind in SERIALIZABLE:
            model = _trained(entry)
            model.save(folder / f"{name}.keras")
            slots = {f"slot{i}": v for i, v in enumerate(values(model.optimizer.variables))}
            predicted = keras.ops.convert_to_numpy(model(X))
            np.savez(folder / f"{name}.npz", predicted=predicted, **slots)
    for other in {"tensorflow", "jax", "torch"} - {BACKEND}:
        subprocess.run(
            [sys.executable, str(pathlib.Path(__file__).with_name("elsewhere.py")), str(folder)],
            env={**os.environ, "KERAS_BACKEND": other},
            check=True,
            capture_output=True,
        )
        results[other] = json.loads((folder / f"{other}.json").read_text())
    return results


def travels(name, entry, saved, elsewhere):
    for found in elsewhere.values():
        result = found[name]
        assert "error" not in result, result["error"]
        assert result["apart"] < 1e-5
        assert result["trained"]
        assert result["slots"] == result["of"] > 2


def _mixed(entry, policy):
    keras.config.set_dtype_policy(policy)
    model = entry.model()
    if policy == "mixed_float16":
        # The default scale of 2^15 overflows at first, and each such step is skipped.
        inner = model.optimizer.inner_optimizer
        scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)
        model.compile(scaled, loss=model.loss)
    model.fit(X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0)
    assert all(np.isfinite(v).all() for v in values(model.variables))
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    keras.config.set_dtype_policy("float32")
    return model, _trained(entry)


def float16(name, entry, saved):
    _close_to_full_precision(*_mixed(entry, "mixed_float16"), 0.05)


def bfloat16(name, entry, saved):
    _close_to_full_precision(*_mixed(entry, "mixed_bfloat16"), 0.3)


def _close_to_full_precision(model, reference, tolerance):
    """Six steps in half precision end near those in float32."""
    models = (model, reference)
    ours, theirs = (np.concatenate([v.ravel() for v in m.get_weights()]) for m in models)
    assert np.linalg.norm(ours - theirs) < tolerance * np.linalg.norm(theirs)


def compiled(name, entry, saved):
    results = []
    for jit in (True, False):
        model = entry.model(**entry.without_noise)
        model.jit_compile = jit
        model.fit(X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def accumulation(name, entry, saved):
    """Three batches of 16, accumulated, are one batch of 48."""
    small, whole = entry.model(gradient_accumulation_steps=3), entry.model()
    small.fit(X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0)
    whole.fit(X, Y, epochs=2, batch_size=48, shuffle=False, verbose=0)
    for one, other in zip(small.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def ema(name, entry, saved):
    """With `use_ema` the weights after `fit` are the running average of the plain trajectory."""
    plain, averaged = entry.model(), entry.model(use_ema=True, ema_momentum=0.5)
    seen = [values(plain.trainable_variables)]
    record = keras.callbacks.LambdaCallback()
    record.on_train_batch_end = lambda batch, logs=None: seen.append(
        values(record.model.trainable_variables)
    )
    plain.fit(X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0, callbacks=[record])
    averaged.fit(X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0)
    average = seen[1]  # Keras takes the first weights whole
    for weights in seen[2:]:
        average = [0.5 * a + 0.5 * w for a, w in zip(average, weights, strict=True)]
    for one, other in zip(values(averaged.trainable_variables), average, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def several_steps(name, entry, saved):
    one, three = entry.model(), entry.model()
    three.steps_per_execution = 3
    for model in (one, three):
        model.fit(X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0)
    for a, b in zip(one.get_weights(), three.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def no_retrace(name, entry, saved):
    """After the first fit no Python of the layers or of the optimizer runs again."""
    model = entry.model()
    callbacks = [entry.make()] if entry.kind == "callback" else []
    settings = {"batch_size": 16, "verbose": 0, "shuffle": False, "callbacks": callbacks}
    counts = {"call": 0, "apply": 0}

    def counting(owner, method):
        original = getattr(owner, method)

        def counted(self, *args, **kwargs):
            counts[method] += 1
            return original(*args, **kwargs)

        object.__setattr__(owner, method, types.MethodType(counted, owner))

    for layer in model.layers:
        counting(layer, "call")
    counting(model.optimizer, "apply")
    model.fit(X, Y, **settings)
    first = dict(counts)
    assert first["call"] and first["apply"]
    model.fit(X, Y, epochs=2, **settings)
    assert counts == first
    model.fit(X[:40], Y[:40], epochs=2, **settings)
    shorter = {method: counts[method] - first[method] for method in counts}
    assert shorter["apply"] <= 1, "a short last batch may cost one trace"


def leaves(name, entry, saved):
    model = entry.model()
    model.fit(X, Y, batch_size=16, verbose=0)
    before = everything(model)
    entry.call(model, X, Y)
    assert_unchanged(model, before)


def errors(name, entry, saved):
    model = entry.model()
    before = everything(model)
    assert entry.errors, "no bad input is listed"
    for exception, message, call in entry.errors:
        with pytest.raises(exception, match=message):
            call(model, X.copy(), Y.copy())
        assert_unchanged(model, before)


# name of the contract -> kinds it applies to, function
CONTRACTS = {
    "numpy": (None, numpy_equality),
    "config": (SERIALIZABLE, config),
    "trains_on": (SERIALIZABLE, trains_on),
    "travels": (SERIALIZABLE, travels),
    "float16": (SERIALIZABLE, float16),
    "bfloat16": (SERIALIZABLE, bfloat16),
    "compiled": (SERIALIZABLE, compiled),
    "accumulation": (SERIALIZABLE, accumulation),
    "ema": (SERIALIZABLE, ema),
    "several_steps": (SERIALIZABLE, several_steps),
    "no_retrace": ((*SERIALIZABLE, "callback"), no_retrace),
    "leaves": (("function",), leaves),
    "errors": (None, errors),
}

NOT_ON = {
    ("compiled", "torch"): "torch.compile takes half a minute a model and breaks graphs (Keras)",
    ("several_steps", "torch"): "Keras raises for steps_per_execution > 1 on torch",
    ("no_retrace", "torch"): "PyTorch runs eagerly: there is nothing to trace",
}

CELLS = [
    pytest.param(contract, name, id=f"{contract}-{name}")
    for contract, (kinds, _) in CONTRACTS.items()
    for name, entry in CATALOG.items()
    if kinds is None or entry.kind in kinds
]


@pytest.mark.parametrize("contract, name", CELLS)
def test_contract(contract, name, tmp_path, request):
    entry = CATALOG[name]
    reason = entry.skip.get(contract) or NOT_ON.get((contract, BACKEND))
    if reason:
        pytest.skip(reason)
    extra = [request.getfixturevalue("elsewhere")] if contract == "travels" else []
    CONTRACTS[contract][1](name, entry, tmp_path, *extra)


def _public(module, prefix):
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, types.ModuleType):
            yield from _public(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_public_name_is_in_the_catalogue():
    names = set(_public(kr, "")) - {"baseline"}  # `kr.baseline` is methodology.baseline
    assert names == set(CATALOG)


def test_skips_have_reasons():
    for entry in CATALOG.values():
        assert set(entry.skip) <= set(CONTRACTS)
        assert all(len(reason) > 15 for reason in entry.skip.values())


@pytest.mark.parametrize("name", [n for n, e in CATALOG.items() if e.kind in SERIALIZABLE])
def test_models_of_the_catalogue_repeat_themselves(name):
    """The contracts compare runs: the same model must start from the same weights."""
    twins = (CATALOG[name].model().get_weights() for _ in range(2))
    for one, other in zip(*twins, strict=True):
        np.testing.assert_array_equal(one, other)
