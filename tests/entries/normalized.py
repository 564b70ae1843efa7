"""Batch norm in use: folded, with the batch's statistics, and switched while it trains."""

import keras
import numpy as np
from keras import ops

from kerasrecipes.callbacks.freeze_batch_statistics import FreezeBatchStatistics
from kerasrecipes.inference.fold import fold_batch_normalization
from kerasrecipes.inference.with_batch_statistics import with_batch_statistics
from tests import references
from tests.entry import Entry, Fault, faults
from tests.problems import classes, network, values

RATE, MOMENTUM, KEEP, EPSILON = 0.05, 0.9, 0.8, 1e-3


def descent(x, y, weights, batches, frozen):
    """Momentum SGD on mean((BN(x W) a - y)²), BN in test mode from step `frozen` on, in NumPy.

    `weights` are W, gamma, beta, a, moving mean, moving variance; yields them after each step.
    """
    *w, mean, variance = (np.array(v, "float64") for v in weights)
    velocities = [np.zeros_like(one) for one in w]
    for step, rows in enumerate(batches):
        kernel, gamma, beta, head = w
        h = x[rows] @ kernel
        trains = step < frozen
        if trains:
            mean = KEEP * mean + (1 - KEEP) * h.mean(axis=0)
            variance = KEEP * variance + (1 - KEEP) * h.var(axis=0)
        mu, var = (h.mean(axis=0), h.var(axis=0)) if trains else (mean, variance)
        hat = (h - mu) / np.sqrt(var + EPSILON)
        u = gamma * hat + beta
        e = 2 * (u @ head - y[rows]) / len(h)
        du = e @ head.T
        dh = gamma * du
        if trains:
            dh = dh - dh.mean(axis=0) - hat * (dh * hat).mean(axis=0)
        dh = dh / np.sqrt(var + EPSILON)
        gradients = [x[rows].T @ dh, (du * hat).sum(axis=0), du.sum(axis=0), u.T @ e]
        velocities = [MOMENTUM * v - RATE * g for v, g in zip(velocities, gradients, strict=True)]
        w = [one + v for one, v in zip(w, velocities, strict=True)]
        yield [*w, mean, variance]


def regression(jit="auto", optimizer=None):
    """The compiled model of `descent`."""
    norm = keras.layers.BatchNormalization(momentum=KEEP, epsilon=EPSILON, name="norm")
    dense = [keras.layers.Dense(n, use_bias=False) for n in (4, 1)]
    model = keras.Sequential([keras.Input((3,)), dense[0], norm, dense[1]])
    optimizer = optimizer or keras.optimizers.SGD(RATE, momentum=MOMENTUM)
    model.compile(optimizer, "mse", jit_compile=jit)
    return model


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(14, 3)).astype("float32")
    return x, rng.normal(size=(14, 1)).astype("float32")


BATCHES = [slice(0, 6), slice(6, 12), slice(12, 14)]  # the last one is short


def fitted(model, callback, epochs=4, **kwargs):
    """Fits on `data()`; the weights, in the order of `descent`, after each step."""
    x, y = data()
    seen, record = [], keras.callbacks.LambdaCallback()
    record.on_train_batch_end = lambda batch, logs=None: seen.append(
        values([*record.model.trainable_variables, *record.model.non_trainable_variables])
    )
    settings = {"batch_size": 6, "shuffle": False, "verbose": 0, **kwargs}
    model.fit(x, y, epochs=epochs, callbacks=[*callback, record], **settings)
    return seen


def trajectories(model, callbacks, frozen, epochs=4, **kwargs):
    """Pairs of our weights and those of `descent`, frozen from an epoch on, after each step."""
    start = values([*model.trainable_variables, *model.non_trainable_variables])
    found = fitted(model, callbacks, epochs, **kwargs)
    expected = descent(*data(), start, BATCHES * epochs, 3 * frozen)
    for ours, reference in zip(found, expected, strict=True):
        yield from zip(ours, reference, strict=True)


def _trajectory_equality():
    keras.utils.set_random_seed(0)
    for ours, reference in trajectories(regression(), [FreezeBatchStatistics(2)], 2):
        yield ours, reference, 1e-4


def _statistics(norm):
    for i, weight in enumerate(norm.weights):
        weight.assign(np.random.default_rng(i).uniform(0.5, 2, size=weight.shape))
    return values([norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance])


def _fold_equality():
    x, _ = classes()
    dense, norm = keras.layers.Dense(5, use_bias=False), keras.layers.BatchNormalization()
    model = network(dense, norm)
    gamma, beta, mean, variance = _statistics(norm)
    (kernel,) = values([dense.kernel])
    folded = fold_batch_normalization(model)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    yield folded.layers[0].kernel, kernel * scale, 1e-6
    yield folded.layers[0].bias, beta - mean * scale, 1e-5
    expected = references.batch_norm_inference(
        x @ kernel, gamma, beta, mean, variance, norm.epsilon
    )
    yield ops.convert_to_numpy(folded.layers[0](x)), expected, 1e-5


def _batch_equality():
    x, _ = classes()
    dense, norm = keras.layers.Dense(5), keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((6,)), dense, norm, keras.layers.Dropout(0.5)])
    gamma, beta, *_ = _statistics(norm)
    h = x @ values([dense.kernel])[0] + values([dense.bias])[0]
    ours = with_batch_statistics(model)
    for rows in (slice(None), slice(0, 7)):
        mean, variance = h[rows].mean(axis=0), h[rows].var(axis=0)
        expected = references.batch_norm_inference(
            h[rows], gamma, beta, mean, variance, norm.epsilon
        )
        yield ours.predict(x[rows], batch_size=len(x), verbose=0), expected, 1e-4


def normalized(**kwargs):
    keras.utils.set_random_seed(0)
    norm = keras.layers.BatchNormalization(name="norm")
    dropout = keras.layers.Dropout(0.3, seed=1)
    return network(keras.layers.Dense(5), norm, dropout, metrics=["accuracy"], **kwargs)


class Own(keras.Model):
    """A model with a `call` of its own."""

    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()

    def call(self, inputs, training=None):
        return self.norm(inputs, training=training)


@keras.saving.register_keras_serializable("tests")
class Hides(keras.layers.Layer):
    """A layer with batch norm inside."""

    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units, self.norm = units, keras.layers.BatchNormalization(name="inside")

    def build(self, input_shape):
        self.norm.build(input_shape)

    def call(self, inputs, training=None):
        return self.norm(inputs, training=training)


class Forgets(keras.layers.Dense):
    """Its copy has one unit."""

    def get_config(self):
        return {**super().get_config(), "units": 1}


def own_call(*_):
    model = Own()
    model(np.ones((2, 3)))
    return model


def _graph_errors(function):
    return [
        (TypeError, "must be a keras.Model", lambda *_: function(keras.layers.Dense(1))),
        (
            ValueError,
            "Build it first",
            lambda *_: function(keras.Sequential([keras.layers.BatchNormalization()])),
        ),
        (ValueError, "Own has a `call` of its own", lambda *_: function(own_call())),
        (ValueError, "no BatchNormalization", lambda *_: function(network())),
        (
            ValueError,
            r"cannot be copied: Forgets.from_config",
            lambda *_: function(
                network(keras.layers.BatchNormalization(), Forgets(5), keras.layers.ReLU())
                if function is with_batch_statistics
                else network(Forgets(5, "relu"), keras.layers.BatchNormalization())
            ),
        ),
    ]


def _fit(*args, model=None, **kwargs):
    def call(m, x, y):
        m = m if model is None else model()
        callback = FreezeBatchStatistics(*args)
        m.fit(x, y, callbacks=[callback], **{"epochs": 3, "verbose": 0, **kwargs})

    return call


ENTRIES = {
    "inference.fold_batch_normalization": Entry(
        kind="function",
        equality=_fold_equality,
        model=normalized,
        call=lambda m, x, y: fold_batch_normalization(m),
        errors=_graph_errors(fold_batch_normalization),
    ),
    "inference.with_batch_statistics": Entry(
        kind="function",
        equality=_batch_equality,
        model=normalized,
        call=lambda m, x, y: with_batch_statistics(m).predict(x, verbose=0),
        errors=[
            *_graph_errors(with_batch_statistics),
            (
                ValueError,
                "'inside' is inside 'hides'",
                lambda *_: with_batch_statistics(network(Hides(name="hides"))),
            ),
            (
                ValueError,
                "other than renormalizing",
                lambda *_: with_batch_statistics(
                    network(keras.layers.BatchNormalization(renorm=True))
                ),
            ),
        ],
    ),
    "callbacks.FreezeBatchStatistics": Entry(
        kind="callback",
        equality=_trajectory_equality,
        make=lambda: FreezeBatchStatistics(0),
        model=normalized,
        errors=[
            (TypeError, "integer", lambda *_: FreezeBatchStatistics(1.5)),
            (ValueError, "at least 0", lambda *_: FreezeBatchStatistics(-1)),
            (ValueError, "`epoch` 3 is never reached", _fit(3)),
            (ValueError, "no BatchNormalization to freeze", _fit(1, model=network)),
        ],
    ),
}

FAULTS = [
    *faults(
        "inference.fold_batch_normalization",
        "inference/_merging.py",
        "test_folding.py::test_after_a_linear_layer",
        ("weights[name] = kernel * scale.reshape", "weights[name] = kernel * scale[0].reshape"),
        ("scale[:, None] if isinstance(layer, _TRANSPOSED) else scale", "scale"),
        ("scale / np.sqrt(_array(norm.moving_variance) + norm.epsilon)", "scale"),
    ),
    *faults(
        "inference.fold_batch_normalization",
        "inference/_merging.py",
        "test_folding.py::test_before_a_linear_layer",
        ("np.repeat(v.reshape(groups, -1), units // groups, axis=0)", "np.resize(v, (units, 2))"),
        ("made[:, None] * weights", "weights"),
    ),
    *faults(
        "inference.fold_batch_normalization",
        "inference/_merging.py",
        "test_folding.py::test_what_cannot_be_folded_stays_with_the_reason",
        ("if padded and max(layer.kernel_size) > 1:", "if False:"),
        ("if isinstance(layer, _TRANSPOSED):\n        raise", "if False:\n        raise"),
        ("set(inputs) - set(kernel) - set(outputs)", "set()"),
        ("layer.compute_dtype != norm.compute_dtype", "False"),
    ),
    *faults(
        "inference.fold_batch_normalization",
        "inference/fold.py",
        "test_folding.py::test_what_cannot_be_folded_stays_with_the_reason",
        ("training or any(call.training", "any(call.training"),
        ("if type(norm) not in _NORMS:", "if False:"),
    ),
    *faults(
        "inference.fold_batch_normalization",
        "inference/fold.py",
        "test_folding.py::test_through_a_sum_into_its_branches",
        ("shift / parts", "shift"),
    ),
    *faults(
        "inference.fold_batch_normalization",
        "inference/fold.py",
        "test_folding.py::test_maxima_let_no_negative_scale_pass",
        ("bool((affine.scale > 0).all())", "True"),
    ),
    *faults(
        "inference.fold_batch_normalization",
        "inference/fold.py",
        "test_folding.py::test_a_folded_norm_that_the_model_returns_is_not_folded_over",
        ("return [self._source(tensor, graph) for tensor in", "return [tensor for tensor in"),
    ),
    *faults(
        "inference.fold_batch_normalization",
        "inference/fold.py",
        "test_folding.py::test_hidden_norms_of_one_name_are_told_apart",
        ("if free not in report.kept", "if True"),
    ),
    *faults(
        "inference.fold_batch_normalization",
        "inference/fold.py",
        "test_folding.py::test_shared_layers",
        ("len(asks) < len(graph.of(call.layer)) or", ""),
    ),
    Fault(
        ("inference.fold_batch_normalization",),
        "_model/graph.py",
        "other.finalize_state()",
        "pass",
        "tests/test_folding.py::test_adapted_preprocessing_is_carried_over",
        backend="tensorflow",
    ),
    *faults(
        "inference.fold_batch_normalization",
        "_model/graph.py",
        "test_folding.py::test_operations_constants_and_lambdas_are_carried_over",
        ('config |= {"function": layer.function', 'config |= {"name": layer.name'),
    ),
    *faults(
        "inference.with_batch_statistics",
        "inference/with_batch_statistics.py",
        "test_normalized.py",
        ("if training:\n", "if True:\n"),
        ("ops.where(counts > 0, ops.square(x - mean), 0.0)", "ops.square(x - mean)"),
        ("return kind and not layer.renorm", "return kind"),
    ),
    *faults(
        "callbacks.FreezeBatchStatistics",
        "callbacks/freeze_batch_statistics.py",
        "test_normalized.py",
        ("epoch >= self.epoch and not", "epoch > self.epoch and not"),
        ("        self._thaw()\n", "        pass\n"),
        ('"training": False}', '"training": True}'),
        ("            thaw()\n            return", "            return"),
    ),
    Fault(
        ("callbacks.FreezeBatchStatistics",),
        "callbacks/freeze_batch_statistics.py",
        "if self._made is None or self._made[0] is not usual:",
        "if self._made is None:",
        "tests/test_normalized.py",
        backend="tensorflow",
    ),
]
