"""Masked, Unfreeze and Freeze."""

import keras
import numpy as np
from keras import ops

from kerasrecipes.callbacks.freezing import Freeze, Unfreeze
from kerasrecipes.optimizers.masked import Masked
from tests.entry import Entry, Fault, faults
from tests.problems import network, values

RATE, MOMENTUM, DECAY, CLIP = 0.1, 0.9, 0.05, 1.5


def masked_sgd(starts, steps, masks):
    """Momentum SGD with decay and a clipped global norm, in NumPy; a row of `masks` a step."""
    w = [np.array(s, "float64") for s in starts]
    v = [np.zeros_like(s) for s in w]
    for gradients, mask in zip(steps, masks, strict=True):
        norm = np.sqrt(sum(m * (g**2).sum() for m, g in zip(mask, gradients, strict=True)))
        for i in np.flatnonzero(mask):
            w[i] *= 1 - RATE * DECAY
            v[i] = MOMENTUM * v[i] - RATE * gradients[i] * CLIP / max(norm, CLIP)
            w[i] += v[i]
    return w


def _masked_equality():
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=s).astype("float32") for s in ((3, 4), (4,), (2,))]
    steps = [[rng.normal(size=s.shape).astype("float32") for s in starts] for _ in range(6)]
    masks = [(1, 1, 1), (0, 1, 1), (0, 1, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1)]
    variables = [keras.Variable(s) for s in starts]
    optimizer = Masked(
        keras.optimizers.SGD(RATE, MOMENTUM, weight_decay=DECAY, global_clipnorm=CLIP)
    )
    optimizer.build(variables)
    for gradients, mask in zip(steps, masks, strict=True):
        optimizer.unfreeze()
        optimizer.freeze([v for v, m in zip(variables, mask, strict=True) if not m])
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
    for ours, reference in zip(values(variables), masked_sgd(starts, steps, masks), strict=True):
        yield ours, reference, 1e-5


def _stages_equality(callback, frozen):
    """The trajectory of y = x (a + b): `frozen(epoch)` says when `a` stands still."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3)).astype("float32")
    y = rng.normal(size=(12, 1)).astype("float32")
    inputs = keras.Input((3,))
    parts = [keras.layers.Dense(1, use_bias=False, name=name) for name in "ab"]
    model = keras.Model(inputs, keras.layers.add([part(inputs) for part in parts]))
    model.compile(Masked(keras.optimizers.SGD(0.05, momentum=0.9)), "mse")
    w, v, seen = [p.astype("float64") for p in model.get_weights()], [0.0, 0.0], []
    record = keras.callbacks.LambdaCallback()
    record.on_train_batch_end = lambda batch, logs=None: seen.append(record.model.get_weights())
    settings = {"batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(x, y, epochs=4, callbacks=[callback, record], **settings)
    for step, ours in enumerate(seen):
        rows = slice(4 * (step % 3), 4 * (step % 3) + 4)
        gradient = x[rows].T @ (x[rows] @ (w[0] + w[1]) - y[rows]) / 2
        for i in (1,) if frozen(step // 3) else (0, 1):
            v[i] = 0.9 * v[i] - 0.05 * gradient
            w[i] = w[i] + v[i]
        yield np.concatenate(ours), np.concatenate(w), 1e-5


def _masked(**kwargs):
    """A model of which the hidden layer is frozen from the start."""
    keras.utils.set_random_seed(0)
    masked = Masked(keras.optimizers.SGD(**{"learning_rate": 0.1, "momentum": 0.9, **kwargs}))
    model = network(keras.layers.Dense(5, "tanh"), optimizer=masked)
    masked.build(model.trainable_variables)
    masked.freeze(model.layers[0].trainable_variables)
    return model


def staged(**kwargs):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, "tanh", name="low"), keras.layers.BatchNormalization(name="bn")]
    masked = Masked(keras.optimizers.SGD(0.1, momentum=0.9, **kwargs))
    model = network(*layers, optimizer=masked)
    masked.build(model.trainable_variables)  # as `fit` does on some backends before callbacks
    return model


def _fit(callback, model=None, **kwargs):
    """A call that fits the entry's model, or another, with `callback()`."""

    def call(m, x, y):
        m = m if model is None else model()
        m.fit(x, y, callbacks=[callback()], **{"epochs": 3, "verbose": 0, **kwargs})

    return call


def _two_of_one_name():
    inner = keras.Sequential([keras.layers.Dense(5, name="low")])
    return network(keras.layers.Dense(5, name="low"), inner, optimizer=Masked("sgd"))


def _frozen_for_good():
    layer = keras.layers.Dense(5, name="low", trainable=False)
    return network(layer, optimizer=Masked("sgd"))


def _inside_out():
    from kerasrecipes.optimizers.sam import SAM

    return network(keras.layers.Dense(5, name="low"), optimizer=SAM(Masked("sgd")))


def _stage_errors(kind):
    return [
        (TypeError, r"dict.*Received: \['low'\]", lambda *_: kind(["low"])),
        (ValueError, "at least one epoch", lambda *_: kind({})),
        (ValueError, "Epoch 1 of `stages` lists no layer", lambda *_: kind({1: []})),
        (ValueError, "must be at least 0", lambda *_: kind({-1: "low"})),
        (TypeError, "integer", lambda *_: kind({1.5: "low"})),
        (ValueError, r"must rise. Received: \[2, 1\]", lambda *_: kind({2: "low", 1: "bn"})),
        (TypeError, "layers or their names", lambda *_: kind({1: ["low", 3]})),
        (TypeError, "True or False", lambda *_: kind({1: "low"}, freeze_statistics=1)),
        (ValueError, "Did you mean 'low'", _fit(lambda: kind({1: "lwo"}))),
        (ValueError, "not part of", _fit(lambda: kind({1: keras.layers.Dense(1, name="x")}))),
        (ValueError, "Epoch 3 of `stages` is never reached", _fit(lambda: kind({3: "low"}))),
        (ValueError, "at an earlier epoch", _fit(lambda: kind({1: "low", 2: ["low"]}))),
        (ValueError, r"Masked\(SGD\(...\)\)", _fit(lambda: kind({1: "head"}), network)),
        (ValueError, "2 layers .* are named", _fit(lambda: kind({1: "low"}), _two_of_one_name)),
        (ValueError, "layer.trainable = True", _fit(lambda: kind({1: "low"}), _frozen_for_good)),
        (ValueError, r"Masked\(SAM\(...\)\)", _fit(lambda: kind({1: "low"}), _inside_out)),
    ]


ENTRIES = {
    "optimizers.Masked": Entry(
        kind="optimizer",
        equality=_masked_equality,
        make=lambda: Masked(keras.optimizers.AdamW(0.01), name="frozen"),
        model=_masked,
        errors=[
            (ValueError, "LossScaleOptimizer", lambda *_: Masked(_scaled())),
            (ValueError, "one Masked", lambda *_: Masked(Masked("sgd"))),
            (ValueError, "'weight_decay': give it", lambda *_: Masked("sgd", weight_decay=0.1)),
            (ValueError, "optimizer identifier", lambda *_: Masked(3)),
            (ValueError, "build", lambda *_: Masked("sgd").freeze([keras.Variable(1.0)])),
            (
                ValueError,
                "Not trained by this optimizer",
                lambda m, *_: m.optimizer.freeze([keras.Variable(1.0)]),
            ),
            (ValueError, "cannot tell which weight", lambda *_: Masked(_Loose()).build(_one())),
        ],
    ),
    "callbacks.Unfreeze": Entry(
        kind="callback",
        equality=lambda: _stages_equality(Unfreeze({2: ["a"]}), lambda epoch: epoch < 2),
        make=lambda: Unfreeze({0: ["low", "bn"]}),
        model=staged,
        errors=_stage_errors(Unfreeze),
    ),
    "callbacks.Freeze": Entry(
        kind="callback",
        equality=lambda: _stages_equality(Freeze({2: ["a"]}), lambda epoch: epoch >= 2),
        make=lambda: Freeze({0: ["low", "bn"]}),
        model=staged,
        errors=_stage_errors(Freeze),
    ),
}


def _scaled():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())


def _one():
    return [keras.Variable(np.ones(2), name="w")]


class _Loose(keras.optimizers.SGD):
    """Keeps a slot where Masked does not look."""

    def build(self, variables):
        super().build(variables)
        self.slot = {"w": self.add_variable_from_reference(variables[0], "slot")}


FAULTS = [
    *faults(
        "optimizers.Masked",
        "optimizers/masked.py",
        "test_freezing.py",
        ("rest = ops.zeros_like(value)", "rest = _tensor(slot)"),
        ('if name in ("_model_variables_moving_average", "other_point")', "if False"),
        ("            variable.assign(value)\n\n\ndef", "            pass\n\n\ndef"),
        ("other.assign(_tensor(accepted))", "pass"),
        ("return ops.copy(ops.convert_to_tensor(variable))", "return variable.value"),
        ("yield from find_slots(one)", "pass"),
    ),
    *faults(
        "optimizers.Masked",
        "optimizers/masked.py",
        "test_contracts.py::test_contract[numpy-optimizers.Masked]",
        ("ops.where(trains, gradient, ops.zeros_like(gradient))", "gradient"),
    ),
    Fault(
        ("optimizers.Masked",),
        "optimizers/_wrapper.py",
        "variable.assign(ops.copy(ops.convert_to_tensor(variable)))",
        "pass",
        "tests/test_freezing.py",
        backend="jax",
    ),
    *faults(
        "callbacks.Unfreeze",
        "callbacks/freezing.py",
        "test_freezing.py",
        ("return epoch < at", "return epoch <= at"),
        ("frozen = set().union(*by_all.values())", "frozen = by_all[id(self)]"),
        ("masked.unfreeze([", "masked.indices(["),
        ("hold_statistics(model, {}, dropped=set(held))", "pass"),
    ),
    *faults(
        "callbacks.Freeze",
        "callbacks/freezing.py",
        "test_freezing.py",
        ("return epoch >= at", "return epoch > at"),
        ("            hold_statistics(model, flags)", "            pass"),
        ("if epoch_of[i] == epoch)", ")"),
    ),
    *faults(
        "callbacks.Freeze",
        "_model/statistics.py",
        "test_freezing.py",
        ("if id(v) not in states", ""),
        ("own += [one.kernel]", "pass"),
        ("ops.where(free > 0, ops", "ops.where(free < 0, ops"),
    ),
    Fault(
        ("callbacks.Freeze",),
        "_model/statistics.py",
        "moved[at] = ops.where(free, moved[at], state[1][at])",
        "pass",
        "tests/test_freezing.py",
        backend="jax",
    ),
    Fault(
        ("callbacks.Freeze",),
        "_model/statistics.py",
        "if force or model.train_function is None:",
        "if not isinstance(model.train_step, HeldStatistics):",
        "tests/test_freezing.py",
        backend="jax",
    ),
    Fault(
        ("callbacks.Freeze",),
        "_model/statistics.py",
        "    model.make_train_function(force=True)",
        "pass",
        "tests/test_freezing.py",
        backend="jax",
    ),
]
