"""Layers, starts and signals of the initialization lectures."""

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr
from tests.entry import Entry, faults
from tests.problems import network

_MeanOnly, _Maxout = kr.layers.MeanOnlyBatchNormalization, kr.layers.Maxout


def _rng():
    return np.random.default_rng(0)


def _mean_only_equality():
    """Salimans and Kingma 2016, section 4: t - mean(t) + b, running means for the test."""
    rng = _rng()
    for shape, axis in (((16, 5), -1), ((4, 5, 3, 2), 1)):
        layer = _MeanOnly(axis=axis, momentum=0.8)
        layer.build(shape)
        beta, moving = rng.normal(size=5), np.zeros(5)
        layer.beta.assign(beta)
        for _ in range(3):
            x = rng.normal(2.0, 3.0, size=shape).astype("float32")
            last = np.moveaxis(x.astype("float64"), axis, -1)
            mean = last.reshape(-1, 5).mean(axis=0)
            moving = 0.8 * moving + 0.2 * mean
            trained = np.moveaxis(last - mean + beta, -1, axis)
            yield ops.convert_to_numpy(layer(x, training=True)), trained, 1e-4
            yield ops.convert_to_numpy(layer.moving_mean), moving, 1e-5
            inferred = np.moveaxis(last - moving + beta, -1, axis)
            yield ops.convert_to_numpy(layer(x)), inferred, 1e-4


def _maxout_equality():
    x = _rng().normal(size=(4, 6, 3, 12)).astype("float32")
    for pieces, axis in ((3, -1), (2, 1), (3, 2), (1, -1), (12, 3)):
        units = np.split(x, x.shape[axis] // pieces, axis=axis)
        expected = np.concatenate([u.max(axis=axis, keepdims=True) for u in units], axis=axis)
        yield ops.convert_to_numpy(_Maxout(pieces, axis)(x)), expected, 0


def _model(*layers):
    """A classifier with these hidden layers, from the same random state each time."""

    def build(**kwargs):
        keras.utils.set_random_seed(0)
        rate = {"learning_rate": 0.1, "momentum": 0.9, "threshold": 0.0, "seed": 0, **kwargs}
        optimizer = kr.optimizers.PerturbedSGD(**rate)
        return network(*(make() for make in layers), optimizer=optimizer)

    return build


ENTRIES = {
    "layers.MeanOnlyBatchNormalization": Entry(
        kind="layer",
        equality=_mean_only_equality,
        make=lambda: _MeanOnly(momentum=0.9, beta_regularizer="l2", beta_constraint="max_norm"),
        model=_model(
            lambda: kr.layers.WeightNormalization(keras.layers.Dense(5, use_bias=False)),
            lambda: _MeanOnly(momentum=0.9),
            lambda: keras.layers.Activation("tanh"),
        ),
        errors=[
            (ValueError, "momentum <= 1", lambda *_: _MeanOnly(momentum=1.5)),
            (TypeError, "`momentum` must be a number", lambda *_: _MeanOnly(momentum="0.9")),
            (TypeError, "`axis` must be an integer", lambda *_: _MeanOnly(axis=[1, 2])),
            (ValueError, "axis=2", lambda *_: _MeanOnly(axis=2)(np.ones((2, 3)))),
            (ValueError, "that of the examples", lambda *_: _MeanOnly(axis=0)(np.ones((2, 3)))),
            (
                ValueError,
                "one axis less",
                lambda *_: _MeanOnly()(np.ones((2, 3)), training=True, mask=np.ones((2, 3), bool)),
            ),
        ],
        skip={"accumulation": "each small batch is centered by its own mean"},
    ),
    "layers.Maxout": Entry(
        kind="layer",
        equality=_maxout_equality,
        make=lambda: _Maxout(3, axis=1),
        model=_model(lambda: keras.layers.Dense(10), lambda: _Maxout(2)),
        errors=[
            (ValueError, "at least 1", lambda *_: _Maxout(0)),
            (TypeError, "integer", lambda *_: _Maxout(2.0)),
            (TypeError, "integer", lambda *_: _Maxout(2, axis=None)),
            (ValueError, "n \\* 4 units", lambda *_: _Maxout(4)(np.ones((2, 6)))),
            (ValueError, "axis=3", lambda *_: _Maxout(2, axis=3)(np.ones((2, 6)))),
            (ValueError, "that of the examples", lambda *_: _Maxout(2, axis=-2)(np.ones((2, 6)))),
        ],
    ),
}


def _faults(name, file, *planted):
    """`planted` are triples (right, wrong, the test that must notice)."""
    return [
        fault
        for right, wrong, test in planted
        for fault in faults(name, file, test, (right, wrong))
    ]


LAYERS = "test_layers.py::"
CONTRACTS = "test_contracts.py"

FAULTS = [
    *_faults(
        "layers.MeanOnlyBatchNormalization",
        "layers/mean_only_batch_normalization.py",
        ("if training and self.trainable:", "if training:", f"{LAYERS}test_mean_only_frozen"),
        (
            "ops.where(counts, x, 0.0)",
            "ops.where(counts, x, x)",
            f"{LAYERS}test_mean_only_masks_as_keras_does",
        ),
        (
            "shift = batch_mean(x, self.axis, mask)",
            "shift = ops.stop_gradient(batch_mean(x, self.axis, mask))",
            f"{LAYERS}test_mean_only_gradient_has_no_mean",
        ),
        ("x = precise(inputs)", "x = inputs", f"{LAYERS}test_mean_only_in_half_precision"),
    ),
    *_faults(
        "layers.Maxout",
        "layers/maxout.py",
        (
            "[*before, units, self.pieces, *after]), axis=axis + 1)",
            "[*before, self.pieces, units, *after]), axis=axis)",
            f"{LAYERS}test_maxout_is_relu_and_absolute_value",
        ),
        ("shape[axis] //= self.pieces", "pass", f"{LAYERS}test_maxout_in_a_model"),
        (">= len(previous_mask.shape)", ">= 0", f"{LAYERS}test_maxout_passes_the_mask_on"),
    ),
]
