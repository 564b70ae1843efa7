"""Hyperparameters that move within one fit: entries, planted faults, and the NumPy loops."""

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr
from tests.entry import Entry, Fault, faults
from tests.problems import network, values


def numpy_sgd(w, g, slots, t, rate, momentum=0.0, nesterov=False, decay=0.0):
    (m,) = slots or (0.0,)
    w = w - w * decay * rate
    m = momentum * m - rate * g
    return w + (momentum * m - rate * g if nesterov else m), (m,)


def numpy_adam(w, g, slots, t, rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7, decay=0.0):
    m, v = slots or (0.0, 0.0)
    w = w - w * decay * rate
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    rate = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    return w - rate * m / (np.sqrt(v) + epsilon), (m, v)


def numpy_rmsprop(w, g, slots, t, rate, rho=0.9, epsilon=1e-7):
    (v,) = slots or (0.0,)
    v = rho * v + (1 - rho) * g**2
    return w - rate * g / np.sqrt(v + epsilon), (v,)


def clipped(gradients, clipnorm=None, global_clipnorm=None):
    if clipnorm is not None:
        norms = [np.linalg.norm(g) for g in gradients]
        return [g * clipnorm / max(n, clipnorm) for g, n in zip(gradients, norms, strict=True)]
    if global_clipnorm is not None:
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        return [g * min(global_clipnorm / norm, 1.0) for g in gradients]
    return gradients


def numpy_trajectory(x, y, weights, parts, rule, settings):
    """Weights after each step of least squares on rows `parts[i]` with `settings(i)`."""
    (w, b), slots, seen = [np.array(v, "float64") for v in weights], [(), ()], []
    for i, rows in enumerate(parts):
        chosen = dict(settings(i))
        factor, coefficient = chosen.pop("factor", 1.0), chosen.pop("coefficient", 1.0)
        clip = {name: chosen.pop(name, None) for name in ("clipnorm", "global_clipnorm")}
        inputs = factor * x[rows]
        residual = coefficient * 2 * (inputs @ w + b - y[rows]) / len(inputs)
        gradients = clipped([inputs.T @ residual, residual.sum(0)], **clip)
        w, slots[0] = rule(w, gradients[0], slots[0], i + 1, **chosen)
        b, slots[1] = rule(b, gradients[1], slots[1], i + 1, **chosen)
        seen.append((w, b))
    return seen


def _inject_equality():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 1))
    start = [rng.normal(size=(3, 1)), rng.normal(size=(1,))]
    parts = [slice(4 * i, 4 * i + 4) for i in (0, 1, 2)]
    momenta = (0.9, 0.5, 0.1)
    seen = numpy_trajectory(
        x, y, start, parts, numpy_sgd, lambda i: {"rate": 0.1, "momentum": momenta[i]}
    )
    optimizer = kr.optimizers.inject_hyperparams(keras.optimizers.SGD(0.1, 0.9), "momentum")
    w, b = [keras.Variable(v, dtype="float32") for v in start]
    for rows, momentum, expected in zip(parts, momenta, seen, strict=True):
        optimizer.momentum = momentum
        inputs = ops.convert_to_tensor(x[rows], "float32")
        residual = 2 * (ops.matmul(inputs, w) + b - ops.convert_to_tensor(y[rows], "float32")) / 4
        gradients = [ops.matmul(ops.transpose(inputs), residual), ops.sum(residual, 0)]
        optimizer.apply([g if BACKEND != "torch" else g.detach() for g in gradients], [w, b])
        for ours, reference in zip(values([w, b]), expected, strict=True):
            yield ours, reference, 1e-5


BACKEND = keras.config.backend()


def _monitor_equality():
    rate = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    model = network(optimizer=keras.optimizers.SGD(rate, momentum=0.25, weight_decay=0.125))
    x = np.zeros((8, 6), "float32")
    logs = model.fit(x, x[:, 0], batch_size=4, epochs=2, verbose=0, callbacks=[_monitor()]).history
    yield logs["learning_rate"], [0.5 * 0.5**1, 0.5 * 0.5**3], 1e-6
    yield logs["momentum"], [0.25, 0.25], 1e-7
    yield logs["weight_decay"], [0.125, 0.125], 1e-7


_monitor = kr.callbacks.HyperparameterMonitor
_inject = kr.optimizers.inject_hyperparams


def _built_without_momentum():
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([keras.Variable([1.0])])
    return optimizer


def _two():
    pairs = {"a": keras.optimizers.SGD(momentum=0.5, name="one")}
    default = keras.optimizers.SGD(momentum=0.5, name="two")
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(default, pairs))


def _refusal(message, optimizer, names):
    return (ValueError, message, lambda *_: _inject(optimizer(), names))


_ON_JAX = [
    _refusal("'clipvalue' of Adam .* JAX", lambda: keras.optimizers.Adam(clipvalue=1), "clipvalue"),
    _refusal("'l1_regu.*' of Ftrl .* JAX", keras.optimizers.Ftrl, "l1_regularization_strength"),
]

ENTRIES = {
    "optimizers.inject_hyperparams": Entry(
        kind="tool",
        equality=_inject_equality,
        errors=[
            (TypeError, "Keras optimizer", lambda *_: _inject("sgd", "momentum")),
            (
                TypeError,
                "a LearningRateSchedule",
                lambda *_: _inject(keras.optimizers.SGD(momentum=0.5), {"momentum": len}),
            ),
            _refusal("Did you mean 'momentum'", keras.optimizers.SGD, "momentun"),
            _refusal("one of one.momentum, two.momentum", _two, "momentum"),
            _refusal("without slots", _built_without_momentum, "momentum"),
            _refusal(r"Start with SGD\(clipnorm", keras.optimizers.SGD, "clipnorm"),
            _refusal("taken in when", keras.optimizers.SGD, "nesterov"),
            _refusal("use_ema=True", keras.optimizers.SGD, "ema_momentum"),
            _refusal(
                "LossScaleOptimizer",
                lambda: keras.optimizers.SGD(loss_scale_factor=2.0),
                "loss_scale_factor",
            ),
            _refusal("only once", keras.optimizers.Adagrad, "initial_accumulator_value"),
            _refusal(
                "a schedule already",
                lambda: keras.optimizers.SGD(kr.schedules.OneCycle(0.1, 10)),
                "learning_rate",
            ),
            _refusal(
                "at most 1",
                lambda: keras.optimizers.SGD(momentum=0.5),
                {"momentum": kr.schedules.OneCycle(50.0, 10)},
            ),
            *(_ON_JAX if BACKEND == "jax" else []),
        ],
    ),
    "callbacks.HyperparameterMonitor": Entry(
        kind="callback",
        equality=_monitor_equality,
        make=_monitor,
        errors=[
            (TypeError, "list of strings", lambda *_: _monitor("momentum")),
            (
                ValueError,
                "Did you mean 'momentum'",
                lambda m, x, y: m.fit(x, y, verbose=0, callbacks=[_monitor(["momentun"])]),
            ),
        ],
    ),
}

_T = "test_hyperparameters.py::test_"
_PLACES = {
    "optimizers.inject_hyperparams": "optimizers/inject_hyperparams.py",
    "callbacks.HyperparameterSchedule": "callbacks/hyperparameter_schedule.py",
    "callbacks.HyperparameterMonitor": "callbacks/hyperparameter_monitor.py",
}
_PLANTED = [
    (
        "optimizers.inject_hyperparams",
        "a_checkpoint_in_the_middle_is_plain_keras_and_trains_on_equally",
        ("if not (self._plain and isinstance(v, Unsaved))]", "]"),
    ),
    (
        "optimizers.inject_hyperparams",
        "momentum_of_zero_has_slots_if_injected_before_fit",
        ("config[name] = sys.float_info.min", "pass"),
    ),
    (
        "optimizers.inject_hyperparams",
        "a_bad_value_inside_the_step_is_not_taken_and_told_at_the_epochs_end",
        ("ops.where(ops.logical_and(on > 0, good), given, now)", "ops.where(on > 0, given, now)"),
        ("ops.where(ops.logical_or(on <= 0, good), on, -1.0)", "on"),
    ),
    (
        "optimizers.inject_hyperparams",
        "the_last_value_stays_and_a_value_set_by_hand_is_kept",
        ("ops.where(ops.logical_and(on > 0, good), given, now)", "ops.where(good, given, now)"),
    ),
    (
        "optimizers.inject_hyperparams",
        "accumulated_batches_are_one_update_of_the_schedule",
        ("ops.convert_to_tensor(self.iterations)", "ops.convert_to_tensor(self._iterations)"),
    ),
    (
        "optimizers.inject_hyperparams",
        "what_is_loaded_here_trains_on_equally",
        ("keras.saving.get_custom_objects()[registered] = cls", "pass"),
    ),
    (
        "optimizers.inject_hyperparams",
        "a_value_set_by_hand_ends_a_schedule_that_was_not_ended",
        ("            release(self, name)\n        held", "            pass\n        held"),
    ),
    (
        "callbacks.HyperparameterSchedule",
        "the_last_value_stays_and_a_value_set_by_hand_is_kept",
        ("            knob.release()", "            knob.variable.assign(0.5)"),
    ),
    (
        "callbacks.HyperparameterSchedule",
        "a_pair_of_one_cycle_moves_rate_and_momentum",
        ("reached = {knob.name: knob.read() for knob in self._inside}", "reached = {}"),
    ),
    (
        "optimizers.inject_hyperparams",
        "schedules_that_cannot_be_compared_are_different",
        ("return bool(one.get_config()) and bool(", "return bool("),
    ),
    (
        "optimizers.inject_hyperparams",
        "the_knobs_of_wrappers_are_found_by_name_and_bounded",
        ("or _shown(optimizer, name[1:], value))", "or False)"),
    ),
    (
        "callbacks.HyperparameterSchedule",
        "two_schedules_of_one_target_in_one_fit_are_refused",
        ("        self._refuse_second(knobs)\n", ""),
        ("owner.on_train_end()", "pass"),
    ),
    (
        "callbacks.HyperparameterSchedule",
        "the_values_of_all_epochs_of_a_fit_are_checked_before_its_first_batch",
        ("if not self._checked:", "if False:"),
    ),
    (
        "callbacks.HyperparameterMonitor",
        "monitor_shows_what_the_last_step_used",
        ("count.assign(max(now - 1, 0))", "pass"),
        ("        count.assign(now)", "        pass"),
        ("self._knobs = own_knobs(model)", "self._knobs = []"),
    ),
    (
        "callbacks.HyperparameterMonitor",
        "monitor_shows_layers_and_several_optimizers",
        ('f"{part.name}.{name}" if several or names.count(name) > 1 else name', "name"),
    ),
]
FAULTS = [
    fault
    for name, test, *pairs in _PLANTED
    for fault in faults(name, _PLACES[name], _T + test, *pairs)
]
FAULTS += [
    *faults(
        "callbacks.HyperparameterMonitor",
        "_model/calls.py",
        "test_hyperparameters.py",
        ("list(current.layers) if isinstance(current, keras.Model) else []", "[*current.layers]"),
    ),
    Fault(
        ("callbacks.HyperparameterMonitor",),
        "callbacks/_knobs.py",
        "        model.optimizer.build(model.trainable_variables)\n",
        "        pass\n",
        "tests/test_hyperparameters.py",
        backend="tensorflow",
    ),
]
