"""Layers with knobs: dropout, noise, mollified activation, blur, batch renormalization."""

import functools

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr
from tests.entry import Entry, faults
from tests.problems import network

L = kr.layers


def corrected(x, mean, sigma, momentum, epsilon, r_max, d_max):
    """Ioffe 2017, Algorithm 1: outputs and new averages; at (1, 0) variances are averaged."""
    m, s = x.mean(axis=0), np.sqrt(x.var(axis=0) + epsilon)
    r = np.clip(s / sigma, 1 / r_max, r_max)
    d = np.clip((m - mean) / sigma, -d_max, d_max)
    average = lambda old, new: momentum * old + (1 - momentum) * new  # noqa: E731
    plain = r_max == 1 and d_max == 0
    new = np.sqrt(average(sigma**2, s**2)) if plain else average(sigma, s)
    return (x - m) / s * r + d, average(mean, m), new


def blurred(images, sigma, radius):
    """Each pixel is the mean of its neighbours, weighted; the picture goes on with its edge."""
    k = np.arange(-radius, radius + 1)
    w = np.exp(-(k**2) / (2 * max(sigma, 1e-3) ** 2))
    for axis in (1, 2):
        sizes = [(0, 0)] * 4
        sizes[axis] = (radius, radius)
        padded, n = np.pad(images, sizes, mode="edge"), images.shape[axis]
        images = sum(
            weight * padded.take(range(j, j + n), axis) for j, weight in enumerate(w / w.sum())
        )
    return images


def _rng():
    return np.random.default_rng(0)


def _dropout_equality():
    x = _rng().normal(size=(6, 5)).astype("float32")
    for shape in ((6, 5), (6, 1)):
        layer = L.AnnealedDropout(0.3, noise_shape=(None, shape[1]), seed=3)
        draws = keras.random.SeedGenerator(3)
        for rate in (0.3, 0.9, 0.0, 0.5, 1.0):
            layer.rate = rate
            uniform = ops.convert_to_numpy(keras.random.uniform(shape, seed=draws))
            expected = np.where(uniform >= rate, x / max(1 - rate, 1e-7), 0)
            yield ops.convert_to_numpy(layer(x, training=True)), expected, 1e-5
            yield ops.convert_to_numpy(layer(x)), x, 0


def _noise_equality():
    x = _rng().normal(size=(6, 5)).astype("float32")
    layer, draws = L.AnnealedGaussianNoise(0.3, seed=3), keras.random.SeedGenerator(3)
    for stddev in (0.3, 2.0, 0.0, 0.5):
        layer.stddev = stddev
        z = ops.convert_to_numpy(keras.random.normal(x.shape, seed=draws))
        yield ops.convert_to_numpy(layer(x, training=True)), x + stddev * z, 1e-5
        yield ops.convert_to_numpy(layer(x)), x, 0


def _mollified_equality():
    x = _rng().normal(size=(6, 5)).astype("float32")
    layer = L.MollifiedActivation("tanh", p=0.25)
    for p in (0.25, 0.0, 0.6, 1.0):
        layer.p = p
        yield ops.convert_to_numpy(layer(x)), (1 - p) * np.tanh(x) + p * x, 1e-5


def _blur_equality():
    x = _rng().normal(size=(2, 7, 4, 3)).astype("float32")
    for data_format in ("channels_last", "channels_first"):
        layer = L.GaussianBlur2D(1.5, data_format=data_format)
        first = data_format == "channels_first"
        for sigma in (1.5, 0.4, 0.0, 1.0):
            layer.sigma = sigma
            ours = ops.convert_to_numpy(layer(np.moveaxis(x, 3, 1) if first else x))
            yield np.moveaxis(ours, 1, 3) if first else ours, blurred(x, sigma, 6), 1e-5


def _renorm_equality():
    rng = _rng()
    layer = L.BatchRenormalization(momentum=0.8)
    layer.build((None, 5))
    gamma, beta = rng.normal(size=5), rng.normal(size=5)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    mean, sigma = np.zeros(5), np.sqrt(np.ones(5) + 1e-3)
    for r_max, d_max in ((1, 0), (1, 0), (1.2, 0), (1.2, 0.4), (3, 5), (1, 0.4), (1, 0), (2, 1)):
        layer.r_max, layer.d_max = r_max, d_max
        x = rng.normal(size=(16, 5)) * [0.2, 1, 1, 2, 6] + [0, 0, 0.2, 3, 0]
        y, mean, sigma = corrected(x, mean, sigma, 0.8, 1e-3, r_max, d_max)
        ours = layer(x.astype("float32"), training=True)
        yield ops.convert_to_numpy(ours), gamma * y + beta, 1e-4
        yield ops.convert_to_numpy(layer.moving_mean), mean, 1e-4
        yield np.sqrt(ops.convert_to_numpy(layer.moving_variance) + 1e-3), sigma, 1e-4
        inferred = gamma * (x - mean) / sigma + beta
        yield ops.convert_to_numpy(layer(x.astype("float32"))), inferred, 1e-4


def _model(make, **settings):
    """A classifier around the layer that `make` returns, from the same random state each time."""

    def build(value=None, **kwargs):
        keras.utils.set_random_seed(0)
        before, after = settings.get("before", []), settings.get("after", [])
        layer = make() if value is None else make(value)
        rate = {"learning_rate": 0.1, "momentum": 0.9, "threshold": 0.0, "seed": 0, **kwargs}
        optimizer = kr.optimizers.PerturbedSGD(**rate)
        return network(*(b() for b in before), layer, *(a() for a in after), optimizer=optimizer)

    return build


def _dense():
    return keras.layers.Dense(5, "tanh")


_DRAWS = {"accumulation": "each small batch draws its own noise, the whole batch another"}
_Dropout, _Noise, _Mollified = L.AnnealedDropout, L.AnnealedGaussianNoise, L.MollifiedActivation
_Blur, _Renorm = L.GaussianBlur2D, L.BatchRenormalization
_picture = functools.partial(keras.layers.Reshape, (2, 3, 1))

ENTRIES = {
    "layers.AnnealedDropout": Entry(
        kind="layer",
        equality=_dropout_equality,
        make=lambda: _Dropout(0.4, noise_shape=(None, 5), seed=2),
        # Without a seed: that its state is saved and restored shows in `trains_on`.
        model=_model(lambda rate=0.4: _Dropout(rate), before=[_dense]),
        without_noise={"value": 0.0},
        errors=[
            (ValueError, "rate <= 1", lambda *_: _Dropout(1.5)),
            (ValueError, "0 <= rate", lambda *_: _Dropout(-0.1)),
            (ValueError, "finite", lambda *_: _Dropout(float("nan"))),
            (TypeError, "`rate` must be a number", lambda *_: _Dropout("0.5")),
            (ValueError, "rate <= 1", lambda *_: setattr(_Dropout(0.5), "rate", 2)),
            (TypeError, "tuple of integers", lambda *_: _Dropout(0.5, noise_shape="ab")),
            (TypeError, "tuple of integers", lambda *_: _Dropout(0.5, noise_shape=3)),
            (TypeError, "an integer", lambda *_: _Dropout(0.5, noise_shape=(None, 1.5))),
            (ValueError, "at least 1", lambda *_: _Dropout(0.5, noise_shape=(None, 0))),
            (
                ValueError,
                "the 2 axes",
                lambda *_: _Dropout(0.5, (None, 1, 4))(np.ones((2, 4)), training=True),
            ),
            (TypeError, "`seed` must be an integer", lambda *_: _Dropout(0.5, seed="a")),
        ],
        skip=_DRAWS,
    ),
    "layers.AnnealedGaussianNoise": Entry(
        kind="layer",
        equality=_noise_equality,
        make=lambda: _Noise(0.4, seed=2),
        model=_model(lambda stddev=0.4: _Noise(stddev), before=[_dense]),
        without_noise={"value": 0.0},
        errors=[
            (ValueError, "0 <= stddev", lambda *_: _Noise(-0.1)),
            (ValueError, "finite", lambda *_: _Noise(float("inf"))),
            (TypeError, "`stddev` must be a number", lambda *_: _Noise(None)),
            (ValueError, "0 <= stddev", lambda *_: setattr(_Noise(0.5), "stddev", -1)),
            (ValueError, "`seed` must be at least 0", lambda *_: _Noise(0.5, seed=-1)),
        ],
        skip=_DRAWS,
    ),
    "layers.MollifiedActivation": Entry(
        kind="layer",
        equality=_mollified_equality,
        make=lambda: _Mollified("tanh", p=0.4),
        model=_model(lambda: _Mollified("tanh", p=0.4), before=[lambda: keras.layers.Dense(5)]),
        errors=[
            (ValueError, "p <= 1", lambda *_: _Mollified("relu", 1.5)),
            (TypeError, "`p` must be a number", lambda *_: _Mollified("relu", "1")),
            (ValueError, "0 <= p", lambda *_: setattr(_Mollified("relu"), "p", -0.5)),
            (ValueError, "Did you mean 'relu'", lambda *_: _Mollified("rellu")),
        ],
    ),
    "layers.GaussianBlur2D": Entry(
        kind="layer",
        equality=_blur_equality,
        make=lambda: _Blur(0.8, kernel_size=5, data_format="channels_first"),
        model=_model(lambda: _Blur(0.8), before=[_picture], after=[keras.layers.Flatten, _dense]),
        errors=[
            (ValueError, "0 <= sigma", lambda *_: _Blur(-1)),
            (TypeError, "`sigma` must be a number", lambda *_: _Blur((1, 1))),
            (ValueError, "must be given where sigma begins at 0", lambda *_: _Blur(0)),
            (ValueError, "must be odd", lambda *_: _Blur(1, kernel_size=4)),
            (TypeError, "an integer", lambda *_: _Blur(1, kernel_size=3.0)),
            (ValueError, "Did you mean 'channels_last'", lambda *_: _Blur(1, 3, "channel_last")),
            (ValueError, "ndim=4", lambda *_: _Blur(1)(np.ones((2, 3, 3)))),
        ],
    ),
    "layers.BatchRenormalization": Entry(
        kind="layer",
        equality=_renorm_equality,
        make=lambda: _Renorm(momentum=0.9, r_max=2, d_max=1, gamma_regularizer="l2"),
        model=_model(
            lambda: _Renorm(momentum=0.9, r_max=2, d_max=1), before=[lambda: keras.layers.Dense(5)]
        ),
        errors=[
            (ValueError, "1 <= r_max", lambda *_: _Renorm(r_max=0.5)),
            (ValueError, "0 <= d_max", lambda *_: _Renorm(d_max=-1)),
            (TypeError, "`r_max` must be a number", lambda *_: _Renorm(r_max=None)),
            (ValueError, "1 <= r_max", lambda *_: setattr(_Renorm(), "r_max", 0)),
            (ValueError, "does not take 'renorm_clipping'", lambda *_: _Renorm(renorm_clipping={})),
            (
                ValueError,
                "one axis less",
                lambda *_: _Renorm()(np.ones((2, 3)), training=True, mask=np.ones((2, 3), bool)),
            ),
        ],
        skip={"accumulation": "each small batch is normalized by its own statistics"},
    ),
}

MOVE = "test_every_move_within_a_fit_is_heard_by_the_next_batch"
RESUMED = "test_a_resumed_run_draws_what_the_uninterrupted_one_would_have"
ENDS = "test_dropout_is_the_identity_at_0_and_zero_at_1_with_its_gradient"
LOWER = "test_a_lower_rate_drops_a_part_of_what_a_higher_one_drops"
SIGNS = "test_noise_of_deviation_0_is_the_identity_bit_for_bit"
AFFINE = "test_a_mollified_network_is_affine_at_1_and_itself_at_0"
SCIPY = "test_blur_is_scipys_and_keeps_what_is_constant"
SHARP = "test_gradient_through_a_blur_of_width_0_is_that_without_it"
CLOSED = "test_closed_renorm_is_batch_norm_with_masks_axes_and_half_precision"
STOPPED = "test_renorm_is_not_differentiated_through_its_correction"
FROZEN = "test_frozen_renorm_stands_still"
HALF = "test_a_rate_that_half_precision_cannot_hold"
CONFIG = "test_the_config_holds_the_start_and_the_file_the_value_reached"


def _faults(name, file, *planted):
    """`planted` are triples (right, wrong, the test that must notice)."""
    return [
        fault
        for right, wrong, test in planted
        for fault in faults(
            f"layers.{name}", f"layers/{file}.py", f"test_knob_layers.py::{test}", (right, wrong)
        )
    ]


FAULTS = [
    *_faults(
        "AnnealedDropout",
        "annealed_dropout",
        ("1.0 / ops.maximum(1.0 - rate, 1e-7)", "1.0 / (1.0 - rate)", ENDS),
        ("1.0 / ops.maximum(1.0 - rate, 1e-7)", "1.0", LOWER),
        ("uniform >= rate", "uniform > 1.0 - rate", LOWER),
        ("class AnnealedDropout(SavedSeed, ", "class AnnealedDropout(", RESUMED),
        ("ops.convert_to_tensor(self.rate)", "starts(self)['rate']", ENDS),
    ),
    *_faults(
        "AnnealedGaussianNoise",
        "annealed_gaussian_noise",
        ("ops.where(stddev > 0, ops.cast", "ops.where(stddev > -1, ops.cast", SIGNS),
        ("class AnnealedGaussianNoise(SavedSeed, ", "class AnnealedGaussianNoise(", RESUMED),
        ("ops.convert_to_tensor(self.stddev)", "starts(self)['stddev']", f"{MOVE}[noise]"),
    ),
    *_faults(
        "MollifiedActivation",
        "mollified_activation",
        ("1.0 - p, precise(activated)", "1.0, precise(activated)", AFFINE),
        ("(p, precise(x))", "(p, precise(activated))", AFFINE),
        ("ops.convert_to_tensor(self.p)", "starts(self)['p']", AFFINE),
    ),
    *_faults(
        "GaussianBlur2D",
        "gaussian_blur_2d",
        ("return weights / ops.sum(weights)", "return weights", SCIPY),
        ("radius + 1), 0, size - 1)", "radius + 1), 1, size - 1)", SCIPY),
        ("= 2 * int(4 * sigma", "= 2 * int(3 * sigma", SCIPY),
        ("ops.maximum(sigma, 0.01)", "sigma", SHARP),
        ("convert_to_tensor(self.sigma)", "convert_to_tensor(starts(self)['sigma'])", SCIPY),
    ),
    *_faults(
        "BatchRenormalization",
        "batch_renormalization",
        ("1.0 / r_max, r_max)", "0.0, r_max)", CLOSED),
        ("-d_max, d_max)", "-d_max, r_max)", CLOSED),
        ("return ops.stop_gradient(r), ", "return r, ", STOPPED),
        ("if not (training and self.trainable):", "if not training:", FROZEN),
        ("ops.logical_and(r_max <= 1, d_max <= 0)", "r_max > 0", f"{MOVE}[renorm]"),
        ("ops.logical_and(r_max <= 1, d_max <= 0)", "r_max < 0", CLOSED),
        ("ops.where(counts, x - mean, 0.0)", "x - mean", CLOSED),
    ),
    *_faults(
        "AnnealedDropout",
        "_knob",
        ("            autocast=False,\n", "", HALF),
        ("vars(layer)[self.name].assign(value)\n            return", "pass", CONFIG),
        ("store[_SEED] = self.seed_generator.state", "pass", RESUMED),
        ("self.seed_generator.state.assign(state)", "pass", RESUMED),
    ),
]
