"""Every knob, moved in one fit, follows a NumPy loop; what is saved meanwhile is plain Keras."""

import json
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import kerasrecipes as kr
from kerasrecipes.callbacks import HyperparameterMonitor, HyperparameterSchedule
from kerasrecipes.callbacks._knobs import find_knob
from kerasrecipes.optimizers import inject_hyperparams
from kerasrecipes.optimizers.inject_hyperparams import Unsaved
from tests.entries.hyperparameters import (
    numpy_adam,
    numpy_rmsprop,
    numpy_sgd,
    numpy_trajectory,
)
from tests.problems import values

BACKEND = keras.config.backend()
RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(12, n)).astype("float32") for n in (3, 1))
PARTS = [slice(a, a + 4) for a in (0, 4, 8)] * 2
FIT = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
SGD, Adam, RMSprop = keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.RMSprop
not_on_torch = pytest.mark.skipif(BACKEND == "torch", reason="eager: nothing is compiled")


class Factor(keras.layers.Layer):
    """Multiplies with a knob; counts how often Python runs through it."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones", trainable=False, name="factor")
        self.fixed, self.entered = 1.0, []

    def call(self, inputs):
        self.entered.append(1)
        return inputs * self.factor


def linear(optimizer, jit="auto", loss="mse"):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), Factor(name="scale"), keras.layers.Dense(1, name="only")]
    model = keras.Sequential(layers, name="linear")
    model.compile(optimizer, loss, jit_compile=jit)
    return model


def decay(start):
    return keras.optimizers.schedules.ExponentialDecay(start, 1, 0.8)


class Record(keras.callbacks.Callback):
    """The trained weights after each batch."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(values(self.model.trainable_variables))


def follow(model, *callbacks, **kwargs):
    """(weights after each step, logs) of a fit."""
    record = Record()
    history = model.fit(X, Y, callbacks=[*callbacks, record], **FIT | kwargs)
    return record.weights, history.history


def assert_close(ours, expected):
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# In float32 the 1 - 0.999**t of Keras is itself 2e-5 away from the truth.
COARSE = {"beta_2": 0.9}

# knob -> its name in the NumPy rule, first value, optimizer, rule, fixed settings
KNOBS = {
    "learning_rate": ("rate", 0.2, lambda: SGD(0.1), numpy_sgd, {}),
    "momentum": ("momentum", 0.9, lambda: SGD(0.1, momentum=0.5), numpy_sgd, {"rate": 0.1}),
    "nesterov": (
        "momentum",
        0.9,
        lambda: SGD(0.1, momentum=0.5, nesterov=True),
        numpy_sgd,
        {"rate": 0.1, "nesterov": True},
    ),
    "weight_decay": (
        "decay",
        0.5,
        lambda: SGD(0.1, momentum=0.5),
        numpy_sgd,
        {"rate": 0.1, "momentum": 0.5},
    ),
    "adamw": (
        "decay",
        0.5,
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1, **COARSE),
        numpy_adam,
        {"rate": 0.1, **COARSE},
    ),
    "beta_1": ("beta_1", 0.9, lambda: Adam(0.1, **COARSE), numpy_adam, {"rate": 0.1, **COARSE}),
    "beta_2": ("beta_2", 0.9, lambda: Adam(0.1), numpy_adam, {"rate": 0.1}),
    "epsilon": ("epsilon", 0.5, lambda: Adam(0.1, **COARSE), numpy_adam, {"rate": 0.1, **COARSE}),
    "rho": ("rho", 0.9, lambda: RMSprop(0.1), numpy_rmsprop, {"rate": 0.1}),
    "clipnorm": ("clipnorm", 0.5, lambda: SGD(0.1, clipnorm=9), numpy_sgd, {"rate": 0.1}),
    "global_clipnorm": (
        "global_clipnorm",
        0.5,
        lambda: SGD(0.1, global_clipnorm=9.0),
        numpy_sgd,
        {"rate": 0.1},
    ),
    "scale.factor": ("factor", 2.0, lambda: SGD(0.1), numpy_sgd, {"rate": 0.1}),
    "cost.coefficient": ("coefficient", 2.0, lambda: SGD(0.1), numpy_sgd, {"rate": 0.1}),
    "variable": ("factor", 2.0, lambda: SGD(0.1), numpy_sgd, {"rate": 0.1}),
}
TARGETS = {"nesterov": "momentum", "adamw": "weight_decay"}


@pytest.mark.parametrize("jit", [False, True] if BACKEND != "torch" else [False])
@pytest.mark.parametrize("way", ["keras", "function", "epoch"])
@pytest.mark.parametrize("knob", KNOBS)
def test_the_whole_trajectory_follows_a_numpy_loop(knob, way, jit):
    setting, first, optimizer, rule, fixed = KNOBS[knob]
    loss = kr.losses.Scheduled("mse", name="cost") if knob == "cost.coefficient" else "mse"
    model = linear(optimizer(), jit, loss)
    target = model.layers[0].factor if knob == "variable" else TARGETS.get(knob, knob)
    schedule = decay(first) if way == "keras" else lambda count: first * 0.8 ** float(count)
    per = "epoch" if way == "epoch" else "batch"
    start = values(model.trainable_variables)
    ours, logs = follow(model, HyperparameterSchedule(target, schedule, per))
    counts = (0, 0, 0, 1, 1, 1) if way == "epoch" else range(6)
    moved = [first * 0.8**count for count in counts]
    expected = numpy_trajectory(X, Y, start, PARTS, rule, lambda i: {**fixed, setting: moved[i]})
    assert_close(ours, expected)
    name = "scale.factor" if knob == "variable" else target
    np.testing.assert_allclose(logs[name], [moved[2], moved[5]], rtol=1e-6)


OPTIMIZERS = {
    "SGD": {"momentum": 0.5},
    "Adam": {},
    "AdamW": {},
    "Adamax": {},
    "Nadam": {},
    "RMSprop": {"momentum": 0.5},
    "Adagrad": {},
    "Adadelta": {},
    "Adafactor": {},
    "Ftrl": {"beta": 0.1, "l2_regularization_strength": 0.1, "l1_regularization_strength": 0.01},
    "Lamb": {},
    "Lion": {},
    "Muon": {"adam_lr_ratio": 1.0},
    "ScheduleFreeAdamW": {},
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_number_of_every_keras_optimizer_moves_as_if_set_by_hand(kind):
    """Eagerly Keras hears a plain attribute, so that the optimizer itself is the reference."""
    cls = getattr(keras.optimizers, kind)
    refused = {"loss_scale_factor", "initial_accumulator_value", "ema_momentum"}
    refused |= {"ema_overwrite_frequency", "gradient_accumulation_steps", "warmup_steps"}
    refused |= {"ns_steps", "learning_rate", "muon_b"}  # this one diverges by itself
    refused |= {"clipvalue", "l1_regularization_strength"} if BACKEND == "jax" else set()
    clips = {name: 0.5 for name in ("clipnorm", "global_clipnorm", "clipvalue")}
    rng = np.random.default_rng(1)
    start = [rng.normal(size=s).astype("float32") for s in ((4, 3), (3,))]
    steps = [[rng.normal(size=w.shape).astype("float32") for w in start] for _ in range(3)]
    checked = 0
    for name, given in (cls(**OPTIMIZERS[kind]).get_config() | clips).items():
        if name in refused or isinstance(given, (bool, str)):
            continue
        if not (isinstance(given, (int, float)) or name == "weight_decay"):
            continue
        results = []
        for by_hand in (True, False):
            settings = {**OPTIMIZERS[kind], **({name: 0.5} if name in clips else {})}
            optimizer = cls(learning_rate=0.01, **settings)
            variables = [keras.Variable(w) for w in start]
            optimizer.build(variables)
            if not by_hand:
                inject_hyperparams(optimizer, name)
            for i, gradients in enumerate(steps):
                setattr(optimizer, name, 0.9 ** (i + 1) * (0.1 if given is None else given))
                optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
            results.append(values(variables))
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=name)
        checked += 1
    assert checked >= 3


@not_on_torch
@pytest.mark.parametrize("wrap", [lambda o: o, keras.optimizers.LossScaleOptimizer])
def test_several_steps_an_execution_follow_a_keras_schedule(wrap):
    results = []
    for steps in (1, 3):
        model = linear(wrap(SGD(0.1, momentum=0.5)))
        model.steps_per_execution = steps
        follow(model, HyperparameterSchedule("momentum", decay(0.9)))
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@not_on_torch
@pytest.mark.parametrize(
    "target, schedule", [("momentum", lambda step: 0.5), ("scale.factor", decay(1.0))]
)
def test_what_the_host_sets_per_batch_is_refused_for_several_steps(target, schedule):
    model = linear(SGD(0.1, momentum=0.5))
    model.steps_per_execution = 3
    before = model.get_weights()
    with pytest.raises(ValueError, match="steps_per_execution=1"):
        follow(model, HyperparameterSchedule(target, schedule))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert type(model.optimizer.momentum) is float


def _map(default, other):
    rules = keras.optimizers.OptimizerMap(default, {".*bias": other})
    return keras.optimizers.MultiOptimizer(rules)


WRAPPED = {
    "plain": lambda: SGD(0.1, momentum=0.5),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        SGD(0.1, momentum=0.5), initial_scale=8.0
    ),
    "multi": lambda: _map(SGD(0.1, momentum=0.5, name="a"), SGD(0.1, momentum=0.5, name="b")),
    "masked": lambda: kr.optimizers.Masked(SGD(0.1, momentum=0.5)),
    "ema": lambda: SGD(0.1, momentum=0.5, use_ema=True, ema_overwrite_frequency=2),
    "adamw": lambda: keras.optimizers.AdamW(0.1),
    "ours": lambda: kr.optimizers.PerturbedSGD(0.1, momentum=0.5, threshold=0.0, seed=0),
}
WRAPPED = {k: v for k, v in WRAPPED.items() if k != "masked" or hasattr(kr.optimizers, "Masked")}


def _targets(optimizer):
    if hasattr(optimizer, "optimizers"):
        return [f"{part.name}.momentum" for part in optimizer.optimizers]
    return ["weight_decay" if isinstance(optimizer, keras.optimizers.AdamW) else "momentum"]


def _moves(optimizer):
    return [HyperparameterSchedule(target, decay(0.9)) for target in _targets(optimizer)]


@pytest.mark.parametrize("kind", [k for k in WRAPPED if k not in ("ema", "adamw")])
def test_inside_other_optimizers_too(kind):
    model = linear(WRAPPED[kind]())
    assert isinstance(model.optimizer, type(WRAPPED[kind]()))
    kinds = type(model.optimizer).__mro__
    start = values(model.trainable_variables)
    ours, _ = follow(model, *_moves(model.optimizer))
    expected = numpy_trajectory(
        X, Y, start, PARTS, numpy_sgd, lambda i: {"rate": 0.1, "momentum": 0.9 * 0.8**i}
    )
    assert_close(ours, expected)
    assert isinstance(model.optimizer, kinds[0])


def test_averaged_weights_follow_the_moving_decay():
    model = linear(SGD(0.1, use_ema=True, ema_momentum=0.5))
    start = values(model.trainable_variables)
    _, logs = follow(model, HyperparameterSchedule("ema_momentum", decay(0.9)))
    seen = numpy_trajectory(X, Y, start, PARTS, numpy_sgd, lambda i: {"rate": 0.1})
    average = seen[0]  # Keras takes the first weights whole
    for i, weights in list(enumerate(seen))[1:]:
        m = 0.9 * 0.8**i
        average = [m * a + (1 - m) * w for a, w in zip(average, weights, strict=True)]
    assert_close([values(model.trainable_variables)], [average])
    np.testing.assert_allclose(logs["ema_momentum"], [0.9 * 0.8**2, 0.9 * 0.8**5], rtol=1e-6)


@pytest.mark.parametrize("schedule", [decay(0.9), lambda step: 0.9 * 0.8**step])
def test_accumulated_batches_are_one_update_of_the_schedule(schedule):
    model = linear(SGD(0.1, momentum=0.5, gradient_accumulation_steps=3))
    start = values(model.trainable_variables)
    ours, _ = follow(model, HyperparameterSchedule("momentum", schedule), epochs=3)
    expected = numpy_trajectory(
        X,
        Y,
        start,
        [slice(0, 12)] * 3,
        numpy_sgd,
        lambda i: {"rate": 0.1, "momentum": 0.9 * 0.8**i},
    )
    assert_close(ours[2::3], expected)


PLAIN = """
import json, pathlib, sys, warnings
import keras
import numpy as np

warnings.simplefilter("error", UserWarning)

@keras.saving.register_keras_serializable("test_hyperparameters")
class Factor(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones", trainable=False, name="factor")
    def call(self, inputs):
        return inputs * self.factor

folder, found = pathlib.Path(sys.argv[1]), {}
data = np.load(folder / "data.npz")
for path in sorted(folder.glob("*/1.keras")):
    model = keras.saving.load_model(path, custom_objects={"Factor": Factor})
    slots = [np.ravel(keras.ops.convert_to_numpy(v)).tolist() for v in model.optimizer.variables]
    config = model.optimizer.get_config()
    fit = dict(batch_size=4, epochs=2, shuffle=False, verbose=0)
    losses = model.fit(data["x"], data["y"], **fit).history["loss"]
    kind = f"{type(model.optimizer).__name__} {type(model.optimizer).__module__}"
    found[path.parent.name] = {"slots": slots, "losses": losses, "config": config, "kind": kind}
assert not any(name.startswith("kerasrecipes") for name in sys.modules)
print(json.dumps(found))
"""


@keras.saving.register_keras_serializable("test_hyperparameters")
class Held(keras.optimizers.schedules.LearningRateSchedule):
    """Falls in the first epoch of three batches, and stays there."""

    def __call__(self, step):
        return 0.9 * 0.8 ** ops.minimum(ops.cast(step, "float32"), 2.0)

    def get_config(self):
        return {}


def test_a_checkpoint_in_the_middle_is_plain_keras_and_trains_on_equally(tmp_path):
    """The file of the first epoch goes on, elsewhere, as the fit itself does."""
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    expected = {}
    for kind in ("plain", "loss scale", "multi", "ema", "adamw"):
        model = linear(WRAPPED[kind]())
        slots = []

        def look(epoch, logs, model=model, slots=slots):
            held = [v for v in model.optimizer.variables if not isinstance(v, Unsaved)]
            slots.append([np.ravel(v).tolist() for v in values(held)])

        moving = [HyperparameterSchedule(t, Held()) for t in _targets(model.optimizer)]
        saving = keras.callbacks.ModelCheckpoint(tmp_path / kind / "{epoch}.keras")
        looking = keras.callbacks.LambdaCallback(on_epoch_end=look)
        _, logs = follow(model, *moving, saving, looking, epochs=3)
        expected[kind] = slots[0], logs["loss"][1:]
    out = subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr[-2000:]
    found = json.loads(out.stdout.splitlines()[-1])
    assert set(found) == set(expected)
    for kind, (slots, losses) in expected.items():
        assert "keras" in found[kind]["kind"]
        assert found[kind]["slots"] == slots
        np.testing.assert_array_equal(found[kind]["losses"], losses)
    for kind, name in (("plain", "momentum"), ("adamw", "weight_decay")):
        np.testing.assert_allclose(found[kind]["config"][name], 0.9 * 0.8**2, rtol=1e-6)


@pytest.mark.parametrize("kind", [k for k in WRAPPED if k in ("ours", "masked")])
def test_what_is_loaded_here_trains_on_equally(kind, tmp_path):
    model = linear(WRAPPED[kind]())
    follow(model, *_moves(model.optimizer))
    model.save(tmp_path / "m.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.saving.load_model(tmp_path / "m.keras", custom_objects={"Factor": Factor})
    assert type(loaded.optimizer) is type(WRAPPED[kind]())
    losses = [m.fit(X, Y, **FIT).history["loss"] for m in (model, loaded)]
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize("per", ["batch", "epoch"])
@pytest.mark.parametrize("kind", ["plain", "loss scale"])
def test_a_run_that_was_cut_off_resumes_where_it_was(kind, per, tmp_path):
    def run(folder, stop=None):
        model = linear(WRAPPED[kind]())
        moving = HyperparameterSchedule("momentum", decay(0.9), per)
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder)
        cut = keras.callbacks.LambdaCallback()
        cut.on_epoch_begin = lambda epoch, logs=None: 1 / (epoch != stop)
        model.fit(X, Y, callbacks=[moving, backup, cut], **FIT | {"epochs": 3})
        return model.get_weights()

    whole = run("whole")
    with pytest.raises(ZeroDivisionError):
        run("cut", stop=2)
    for one, other in zip(whole, run("cut"), strict=True):
        np.testing.assert_array_equal(one, other)


class CountingSGD(SGD):
    entered = 0

    def apply(self, grads, trainable_variables=None):
        CountingSGD.entered += 1
        return super().apply(grads, trainable_variables)


@not_on_torch
def test_all_knobs_together_cost_one_compilation():
    def run(model, *callbacks):
        layer = model.layers[0]
        before = len(layer.entered), CountingSGD.entered
        model.fit(X, Y, callbacks=list(callbacks), **FIT)
        return len(layer.entered) - before[0], CountingSGD.entered - before[1]

    def new():
        loss = kr.losses.Scheduled("mse", name="cost")
        return linear(CountingSGD(0.1, momentum=0.5, clipnorm=1.0), loss=loss)

    def moving():
        return [
            HyperparameterSchedule(("learning_rate", "momentum"), kr.schedules.one_cycle(0.1, 9)),
            HyperparameterSchedule("clipnorm", lambda step: 1.0 + step),
            HyperparameterSchedule("weight_decay", lambda epoch: 0.1 * epoch, per="epoch"),
            HyperparameterSchedule("scale.factor", lambda step: 1.0 + step),
            HyperparameterSchedule("cost.coefficient", lambda step: 1.0 + step),
            HyperparameterMonitor(),
        ]

    once = run(new())
    assert 1 <= once[1] <= 2, "TensorFlow traces twice where variables are made"
    model = new()
    assert run(model, *moving()) == once
    assert run(model, *moving()) == (0, 0)
    assert run(model) == (0, 0)
    later = new()
    run(later)
    entered, applied = run(later, *moving())
    assert 1 <= applied <= once[1] and entered >= 1, "after an earlier fit: compiled once again"
    assert run(later, *moving()) == (0, 0)


def test_after_an_earlier_fit_the_change_is_heard():
    model = linear(SGD(0.1, momentum=0.5))
    model.fit(X, Y, **FIT | {"epochs": 1})
    start = values(model.trainable_variables)
    slots = [(m,) for m in values(model.optimizer.momentums)]
    ours, _ = follow(model, HyperparameterSchedule("momentum", lambda epoch: 0.0, "epoch"))
    assert any(np.abs(m).max() > 1e-3 for (m,) in slots)
    expected = numpy_trajectory(X, Y, start, PARTS, numpy_sgd, lambda i: {"rate": 0.1})
    assert_close(ours, expected)


@pytest.mark.parametrize("schedule", [decay(0.9), lambda step: 0.9 * 0.8**step])
@pytest.mark.parametrize("target", ["momentum", "learning_rate"])
def test_the_last_value_stays_and_a_value_set_by_hand_is_kept(target, schedule):
    model = linear(SGD(0.1, momentum=0.5))
    follow(model, HyperparameterSchedule(target, schedule))
    knob = find_knob(model, target)
    np.testing.assert_allclose(knob.read(), 0.9 * 0.8**5, rtol=1e-6)
    model.fit(X, Y, **FIT)
    np.testing.assert_allclose(knob.read(), 0.9 * 0.8**5, rtol=1e-6)
    setattr(model.optimizer, target, 0.25)
    model.fit(X, Y, **FIT)
    assert knob.read() == 0.25


def test_a_value_set_by_hand_ends_a_schedule_that_was_not_ended():
    model = linear(inject_hyperparams(SGD(0.1, momentum=0.5), {"momentum": decay(0.9)}))
    model.fit(X, Y, **FIT)
    np.testing.assert_allclose(values([model.optimizer.momentum])[0], 0.9 * 0.8**5, rtol=1e-6)
    model.optimizer.momentum = 0.25
    model.fit(X, Y, **FIT)
    assert values([model.optimizer.momentum])[0] == 0.25


@pytest.mark.parametrize("left_by", ["interrupted fit", "injection"])
@pytest.mark.parametrize("later", ["schedule", "continuation"])
def test_a_schedule_left_in_the_step_ends_where_another_callback_moves_the_value(left_by, later):
    if left_by == "injection":
        model = linear(inject_hyperparams(SGD(0.1, momentum=0.5), {"momentum": decay(0.9)}))
    else:
        model = linear(SGD(0.1, momentum=0.5))

        def interrupt(batch, logs):
            raise KeyboardInterrupt

        ctrl_c = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
        with pytest.raises(KeyboardInterrupt):
            follow(model, HyperparameterSchedule("momentum", decay(0.9)), ctrl_c)
    moves = {
        "schedule": HyperparameterSchedule("momentum", lambda epoch: 0.25 - epoch / 8, "epoch"),
        "continuation": kr.callbacks.Continuation("momentum", [0.25, 0.125], advance=1),
    }
    reached = []
    read = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: reached.append(find_knob(model, "momentum").read())
    )
    _, logs = follow(model, moves[later], read)
    assert logs["momentum"] == reached == [0.25, 0.125]


class Silent(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of a user, who left out `get_config`."""

    def __init__(self, value):
        self.value = value

    def __call__(self, step):
        return ops.cast(self.value, "float32")


class Empty(Silent):
    def get_config(self):
        return {}


class Broken(Silent):
    def get_config(self):
        return {"value": np.array([self.value, self.value])}


@pytest.mark.parametrize("kind", [Silent, Empty, Broken])
def test_schedules_that_cannot_be_compared_are_different(kind):
    model = linear(SGD(0.1, momentum=0.5))
    for value in (0.75, 0.25):
        _, logs = follow(model, HyperparameterSchedule("momentum", kind(value)))
        assert logs["momentum"] == [value, value]


def test_the_knobs_of_wrappers_are_found_by_name_and_bounded():
    model = linear(kr.optimizers.ParameterBlur(SGD(0.1), sigma=0.5, seed=0))
    moving = HyperparameterSchedule("sigma", lambda epoch: 0.25 - epoch / 8, "epoch")
    _, logs = follow(model, moving, HyperparameterMonitor())
    assert logs["sigma"] == [0.25, 0.125]
    assert "learning_rate" in logs
    model = linear(kr.optimizers.SAM(RMSprop(0.1, rho=0.75, name="rmsprop"), rho=0.5))
    with pytest.raises(ValueError, match="one of sam.rho, rmsprop.rho"):
        find_knob(model, "rho")
    for target in ("sam.rho", model.optimizer.rho):
        knob = find_knob(model, target)
        assert knob.name == "sam.rho"
        with pytest.raises(ValueError, match="not negative"):
            knob.write(-0.5)
        knob.write(2.0)
        assert values([model.optimizer.rho])[0] == 2.0
    inside = HyperparameterSchedule("sam.rho", keras.optimizers.schedules.PolynomialDecay(1, 1, 1))
    outside = HyperparameterSchedule("rmsprop.rho", lambda epoch: 0.25, "epoch")
    _, logs = follow(model, inside, outside, HyperparameterMonitor())
    assert logs["sam.rho"] == [1.0, 1.0] and logs["rmsprop.rho"] == [0.25, 0.25]
    assert values([model.optimizer.inner_optimizer.rho])[0] == 0.25


@keras.saving.register_keras_serializable("test_hyperparameters")
class Breaks(keras.optimizers.schedules.LearningRateSchedule):
    """`first` before step 4, `later` from there."""

    def __init__(self, first, later):
        self.first, self.later = first, later

    def __call__(self, step):
        return ops.where(ops.cast(step, "float32") < 4, self.first, self.later)

    def get_config(self):
        return {"first": self.first, "later": self.later}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5, 1.5])
def test_a_bad_value_inside_the_step_is_not_taken_and_told_at_the_epochs_end(bad):
    model = linear(SGD(0.1, momentum=0.5))
    start, record = values(model.trainable_variables), Record()
    callbacks = [record, HyperparameterSchedule("momentum", Breaks(0.75, bad))]
    with pytest.raises(ValueError, match="schedule of 'momentum'.*0.75, was kept"):
        model.fit(X, Y, callbacks=callbacks, **FIT)
    expected = numpy_trajectory(
        X, Y, start, PARTS, numpy_sgd, lambda i: {"rate": 0.1, "momentum": 0.75}
    )
    assert_close(record.weights, expected)


def test_bad_values_from_the_host_stop_training_at_once():
    for per, seen in (("batch", 4), ("epoch", 0)):
        model, record = linear(SGD(0.1, momentum=0.5)), Record()
        schedule = {"batch": lambda i: -1.0 if i == 4 else 0.5, "epoch": lambda i: 0.5 + i}[per]
        callbacks = [HyperparameterSchedule("momentum", schedule, per), record]
        with pytest.raises(ValueError, match=f"'momentum' returned .* at {per}"):
            model.fit(X, Y, callbacks=callbacks, **FIT)
        assert len(record.weights) == seen


def test_the_values_of_all_epochs_of_a_fit_are_checked_before_its_first_batch():
    model, record = linear(SGD(0.1, momentum=0.5)), Record()
    good = {2: 0.5, 3: 0.25}
    moving = HyperparameterSchedule("momentum", lambda epoch: good.get(epoch, -1.0), "epoch")
    for initial, epochs, bad in ((1, 4, 1), (2, 5, 4)):
        with pytest.raises(ValueError, match=f"'momentum' returned -1.0 at epoch {bad}"):
            model.fit(
                X, Y, callbacks=[moving, record], **FIT | {"epochs": epochs}, initial_epoch=initial
            )
        assert record.weights == []
    _, logs = follow(model, moving, epochs=4, initial_epoch=2)
    assert logs["momentum"] == [0.5, 0.25]


@pytest.mark.parametrize("target", ["momentum", "scale.factor", "cost.coefficient"])
def test_two_schedules_of_one_target_in_one_fit_are_refused(target):
    model = linear(SGD(0.1, momentum=0.75), loss=kr.losses.Scheduled("mse", name="cost"))
    other = {"momentum": "sgd.momentum", "scale.factor": model.layers[0].factor}
    model.optimizer.name = "sgd"
    first = HyperparameterSchedule(target, decay(0.5))
    second = HyperparameterSchedule(
        other.get(target, model.loss), lambda epoch: 0.25 - epoch / 8, per="epoch"
    )
    twice = HyperparameterSchedule((target, target), (decay(0.5), decay(0.25)))
    record = Record()
    for callbacks in ([first, second], [twice]):
        with pytest.raises(ValueError, match="two schedules in this fit"):
            model.fit(X, Y, callbacks=[*callbacks, record], **FIT)
    assert record.weights == []
    follow(model)
    assert find_knob(model, target).read() == (0.75 if target == "momentum" else 1.0)

    def interrupt(batch, logs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(model, first, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt))
    for one in (second, first, second):
        follow(model, one)
    np.testing.assert_allclose(find_knob(model, target).read(), 0.125, rtol=1e-6)


def test_momentum_of_zero_has_slots_if_injected_before_fit(tmp_path):
    model = linear(inject_hyperparams(SGD(0.1), "momentum"))
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.9, 0.0])
    follow(model, HyperparameterSchedule("momentum", schedule))
    assert len(model.optimizer.momentums) == 2
    model.save(tmp_path / "m.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.saving.load_model(tmp_path / "m.keras", custom_objects={"Factor": Factor})
    for one, other in zip(model.optimizer.momentums, loaded.optimizer.momentums, strict=True):
        assert np.abs(values([one])).max() > 0
        np.testing.assert_array_equal(*values([one, other]))
    losses = [m.fit(X, Y, **FIT).history["loss"] for m in (model, loaded)]
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize("trained", [False, True])
def test_momentum_that_was_zero_when_built_is_refused_before_training(trained):
    model = linear(SGD(0.1))
    if trained:
        model.fit(X, Y, **FIT)
    before = model.get_weights()
    with pytest.raises(ValueError, match="without slots"):
        follow(model, HyperparameterSchedule("momentum", decay(0.9)))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "target, message",
    [
        ("scale.factr", "Did you mean 'scale.factor'"),
        ("scale.fixed", "constant and would not see"),
        ("only.kernel", "scalar float variable"),
        ("momentun", "Did you mean 'momentum'"),
        (keras.Variable(1.0), "belongs neither"),
        (kr.losses.Scheduled("mse"), "not among those"),
    ],
)
def test_what_compiled_code_would_not_see_is_refused(target, message):
    model = linear(SGD(0.1, momentum=0.5))
    with pytest.raises(ValueError, match=message):
        follow(model, HyperparameterSchedule(target, lambda step: 0.5))


def test_knobs_of_variables_of_the_optimizer_and_of_wrappers():
    model = linear(keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=8.0))
    rate = model.optimizer.inner_optimizer.learning_rate
    knob = find_knob(model, rate)
    assert knob.name.endswith(".learning_rate")
    knob.write(0.25)
    assert values([rate])[0] == 0.25
    with pytest.raises(ValueError, match="not negative"):
        knob.write(-1.0)


def test_a_pair_of_one_cycle_moves_rate_and_momentum():
    model = linear(SGD(0.5, momentum=0.5))
    pair = kr.schedules.one_cycle(0.2, 6, warmup=0.5)
    start = values(model.trainable_variables)
    cycle = HyperparameterSchedule(("learning_rate", "momentum"), pair)
    ours, logs = follow(model, cycle)
    moved = [[float(s(i)) for i in range(6)] for s in pair]
    expected = numpy_trajectory(
        X, Y, start, PARTS, numpy_sgd, lambda i: {"rate": moved[0][i], "momentum": moved[1][i]}
    )
    assert_close(ours, expected)
    np.testing.assert_allclose(logs["momentum"], [moved[1][2], moved[1][5]], rtol=1e-6)


def test_monitor_shows_what_the_last_step_used():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    model = linear(SGD(schedule, momentum=0.5), loss=kr.losses.Scheduled("mse", name="cost"))
    factor = HyperparameterSchedule("scale.factor", lambda epoch: 1.0 + epoch, "epoch")
    _, logs = follow(model, factor, HyperparameterMonitor())
    np.testing.assert_allclose(logs["learning_rate"], [0.1 * 0.5**2, 0.1 * 0.5**5], rtol=1e-6)
    assert logs["scale.factor"] == [1.0, 2.0]
    assert logs["cost.coefficient"] == [1.0, 1.0]
    assert logs["momentum"] == [0.5, 0.5]
    assert int(values([model.optimizer.iterations])[0]) == 6


def test_monitor_shows_layers_and_several_optimizers():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    model = linear(_map(SGD(schedule, name="a"), Adam(0.5, name="b")))
    _, logs = follow(model, HyperparameterMonitor())
    np.testing.assert_allclose(logs["a.learning_rate"], [0.1 * 0.5**2, 0.1 * 0.5**5], rtol=1e-6)
    assert logs["b.learning_rate"] == [0.5, 0.5]
    assert logs["scale.factor"] == [1.0, 1.0]
    _, logs = follow(model, HyperparameterMonitor(["b.learning_rate"]))
    assert "a.learning_rate" not in logs and "b.learning_rate" in logs


@pytest.mark.parametrize("wrap", [lambda o: o, kr.optimizers.Masked])
def test_monitor_and_schedule_know_what_a_function_will_return(wrap):
    def model():
        sgd, adam = SGD(0.1, momentum=0.5, name="a"), Adam(0.5, name="b")
        choose = keras.optimizers.MultiOptimizer(lambda v: adam if "bias" in v.path else sgd)
        return linear(wrap(choose))

    _, logs = follow(model(), HyperparameterMonitor(["a.momentum", "b.learning_rate"]))
    assert logs["a.momentum"] == [0.5, 0.5] and logs["b.learning_rate"] == [0.5, 0.5]
    moving = HyperparameterSchedule("a.momentum", lambda epoch: 0.25 * epoch, "epoch")
    _, logs = follow(model(), moving, HyperparameterMonitor(["a.momentum"]))
    assert logs["a.momentum"] == [0.0, 0.25]


@pytest.mark.parametrize("held", [3, {"a": 1}, "model"])
def test_monitor_takes_a_layer_that_calls_something_else_its_layers(held):
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            inner = keras.Sequential([Factor(name="scale")])
            self.layers = inner if held == "model" else held

        def call(self, inputs):
            return self.layers(inputs) if held == "model" else inputs

    model = keras.Sequential([keras.Input((3,)), Block(), keras.layers.Dense(1)])
    model.compile(SGD(0.1), "mse")
    _, logs = follow(model, HyperparameterMonitor())
    assert ("scale.factor" in logs) == (held == "model")


def test_monitor_changes_nothing():
    results = []
    for callbacks in ([], [HyperparameterMonitor()]):
        model = linear(Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)))
        model.fit(X, Y, callbacks=callbacks, **FIT)
        results.append(model.get_weights() + values(model.optimizer.variables))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_monitor_tells_layers_of_one_name_apart():
    blocks = [keras.Sequential([Factor(name="scale")], name=name) for name in ("one", "two")]
    layers = [keras.Input((3,)), *blocks, keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(SGD(0.1), "mse")
    factors = [block.layers[0].factor for block in blocks]
    for factor, value in zip(factors, (0.5, 0.25), strict=True):
        factor.assign(value)
    known = {"loss", "learning_rate", *(factor.path for factor in factors)}
    assert len(known) == 4
    _, logs = follow(model, HyperparameterMonitor())
    assert known <= set(logs)
    assert [logs[factor.path] for factor in factors] == [[0.5, 0.5], [0.25, 0.25]]
    moving = HyperparameterSchedule(factors[1], lambda epoch: 1.0 + epoch, "epoch")
    _, logs = follow(model, moving, HyperparameterMonitor([factors[0].path]))
    assert [logs[factor.path] for factor in factors] == [[0.5, 0.5], [1.0, 2.0]]
