"""Layers, starts and signals of the initialization lectures."""

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr
from kerasrecipes import diagnostics
from tests.entry import Entry, faults
from tests.problems import network

_MeanOnly, _Maxout = kr.layers.MeanOnlyBatchNormalization, kr.layers.Maxout
_Delta, _Dirac, _fixup = (
    kr.initializers.DeltaOrthogonal,
    kr.initializers.Dirac,
    kr.initializers.fixup,
)
_signals = diagnostics.signal_report


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


def _delta_equality():
    """Xiao et al. 2018, Algorithm 1: the orthogonal factor of a normal matrix in the middle."""
    for shape, middle in (((3, 4, 7), (1,)), ((3, 5, 4, 4), (1, 2)), ((2, 1, 3, 2, 5), (0, 0, 1))):
        channels, filters = shape[-2:]
        draw = keras.random.normal((filters, channels), seed=5)
        q, r = np.linalg.qr(ops.convert_to_numpy(draw).astype("float64"))
        expected = np.zeros(shape)
        q = q * np.sign(np.diag(r))
        expected[middle] = 1.5 * (q.T if channels < filters else q)
        yield ops.convert_to_numpy(_Delta(gain=1.5, seed=5)(shape)), expected, 1e-5


def _dirac_equality():
    for shape, groups in (((3, 4, 4), 1), ((3, 5, 2, 6), 3), ((2, 4, 6), 2), ((1, 1, 5, 3), 1)):
        expected, each = np.zeros(shape), shape[-1] // groups
        for i in range(shape[-1]):
            if i % each < shape[-2]:
                expected[(*((n - 1) // 2 for n in shape[:-2]), i % each, i)] = 0.5
        yield ops.convert_to_numpy(_Dirac(groups, gain=0.5)(shape)), expected, 0


def _fixup_equality():
    """Zhang et al. 2019: with 3 branches of 3 layers the inner ones are divided by 3^(1/4)."""
    model = _residual(blocks=3, layers=3)
    dense = [one for one in model.layers if isinstance(one, keras.layers.Dense)]
    before = [one.get_weights()[0] for one in dense]
    _fixup(model)
    factors = [1.0, *[3**-0.25, 3**-0.25, 0.0] * 3, 0.0]
    for layer, old, factor in zip(dense, before, factors, strict=True):
        yield layer.get_weights()[0], factor * old, 1e-6


def _signal_equality():
    """Two layers by hand, and the chain rule through the mean squared error."""
    rng = _rng()
    x, y = rng.normal(size=(20, 6)), rng.normal(size=(20, 3))
    layers = [keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(loss="mse")
    (w, b), (v, c) = (layer.get_weights() for layer in layers)
    a = np.tanh(x @ w + b)
    z = a @ v + c
    slope = 2 * (z - y) / y.size
    rows = _signals(model, x.astype("float32"), y).rows
    for row, out, back in zip(rows, (a, z), (slope @ v.T, slope), strict=True):
        ours = [row[f"{p}{m}"] for p in ("", "gradient_") for m in ("mean", "variance")]
        yield ours, [out.mean(), out.var(), back.mean(), back.var()], 1e-5


@keras.saving.register_keras_serializable("kerasrecipes-tests")
class _Silent(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.held = keras.layers.Dense(1)

    def build(self, input_shape):
        self.held.build(input_shape)

    def call(self, inputs):
        return inputs


def _silent(x):
    model = _Silent()
    model.build(x.shape)
    return model


def _normalized(**kwargs):
    hidden = [keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
    return network(*hidden, metrics=["accuracy"])


def _residual(blocks=2, layers=2):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5)(inputs)
    for _ in range(blocks):
        z = x
        for _ in range(layers):
            z = keras.layers.Dense(5, "tanh")(z)
        x = keras.layers.Add()([x, z])
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def _convolution(start):
    conv = {"padding": "same", "activation": "tanh"}
    return (
        lambda: keras.layers.Reshape((6, 1)),
        lambda: keras.layers.Conv1D(4, 3, kernel_initializer=start(), **conv),
        lambda: keras.layers.Flatten(),
    )


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
    "initializers.DeltaOrthogonal": Entry(
        kind="initializer",
        equality=_delta_equality,
        make=lambda: _Delta(gain=1.5, seed=3),
        model=_model(*_convolution(lambda: _Delta(seed=3))),
        errors=[
            (ValueError, "0 < gain", lambda *_: _Delta(gain=0)),
            (TypeError, "`gain` must be a number", lambda *_: _Delta(gain="1")),
            (ValueError, "3 filters for 4 channels", lambda *_: _Delta()((3, 3, 4, 3))),
            (ValueError, "Orthogonal for a Dense", lambda *_: _Delta()((4, 4))),
        ],
    ),
    "initializers.Dirac": Entry(
        kind="initializer",
        equality=_dirac_equality,
        make=lambda: _Dirac(groups=2, gain=0.5),
        model=_model(*_convolution(_Dirac)),
        errors=[
            (ValueError, "at least 1", lambda *_: _Dirac(0)),
            (TypeError, "`gain` must be a number", lambda *_: _Dirac(gain=None)),
            (ValueError, "divide the number of filters, 4", lambda *_: _Dirac(3)((3, 4, 4))),
            (ValueError, "Identity for a Dense", lambda *_: _Dirac()((4, 4))),
        ],
    ),
    "initializers.fixup": Entry(
        kind="function",
        equality=_fixup_equality,
        model=_residual,
        errors=[
            (TypeError, "must be a keras.Model", lambda *_: _fixup("model")),
            (
                ValueError,
                "Build it first",
                lambda *_: _fixup(keras.Sequential([keras.layers.Dense(1)])),
            ),
            (ValueError, "no residual branch", lambda *_: _fixup(network())),
        ],
        skip={"leaves": "its purpose is to change the weights"},
    ),
    "diagnostics.signal_report": Entry(
        kind="function",
        equality=_signal_equality,
        model=_normalized,
        call=lambda m, x, y: [_signals(m, x, y, training=mode) for mode in (False, True)],
        errors=[
            (TypeError, "must be a keras.Model", lambda m, x, y: _signals("model", x)),
            (
                ValueError,
                "Build it first",
                lambda m, x, y: _signals(keras.Sequential([keras.layers.Dense(1)]), x),
            ),
            (ValueError, "NaN", lambda m, x, y: _signals(m, x * np.nan)),
            (ValueError, "at least one example", lambda m, x, y: _signals(m, x[:0])),
            (ValueError, "same number", lambda m, x, y: _signals(m, x, y[1:])),
            (ValueError, "not compiled", lambda m, x, y: _signals(_silent(x), x, y)),
            (ValueError, "No layer of", lambda m, x, y: _signals(_silent(x), x)),
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


LAYERS, STARTS = "test_layers.py::", "test_initializers.py::"
LENGTHS = f"{STARTS}test_thirty_delta_orthogonal_layers_keep_every_length"
DIRAC = f"{STARTS}test_dirac_passes_pictures_on_bit_for_bit"
REFUSES = f"{STARTS}test_fixup_refuses_and_changes_nothing"
SIGNALS = "test_signals.py::"
LSUV = f"{STARTS}test_lsuv_is_orthonormal_with_variance_1_in_ten_layers"
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
    *_faults(
        "initializers.DeltaOrthogonal",
        "initializers/delta_orthogonal.py",
        ("if shape[-2] > shape[-1]:", "if False:", CONTRACTS),
        ("super().__call__(shape[-2:]", "super().__call__(shape[:1] + shape[-1:]", LENGTHS),
    ),
    *_faults(
        "initializers.DeltaOrthogonal",
        "initializers/_center.py",
        ("(size - 1) // 2", "size // 2", DIRAC),
    ),
    *_faults(
        "initializers.Dirac",
        "initializers/dirac.py",
        ("np.eye(channels, filters // self.groups)", "np.eye(channels, filters)", DIRAC),
        ("self.gain * matrix", "matrix", DIRAC),
        ('"groups": self.groups, ', "", CONTRACTS),
    ),
    *_faults(
        "initializers.fixup",
        "initializers/fixup.py",
        ("(-1 / (2 * layers - 2))", "(-1 / (2 * layers))", CONTRACTS),
        ("or id(one) in again", "", REFUSES),
        (
            "_within([one for one in called if count[id(one)] > 1])",
            "[one for one in called if count[id(one)] > 1]",
            REFUSES,
        ),
        ("if isinstance(one, _NORMALIZERS):", "if False:", REFUSES),
        ('if any("kernel" in w.name', 'if any("kernel" == w.name', REFUSES),
        (
            "if scale == 0 and core.bias is not None:",
            "if False:",
            f"{STARTS}test_fixup_scales_each_branch_as_the_paper_says",
        ),
        (
            "id(one) not in wrapped",
            "True",
            f"{STARTS}test_fixup_finds_nested_branches_and_wrapped_layers",
        ),
    ),
    *_faults(
        "initializers.initialize_from_data",
        "initializers/from_data.py",
        ("+ np.var(mean))", "+ 0.0)", LSUV),
        (
            "core.bias.assign(np.zeros(core.bias.shape))",
            "pass",
            f"{STARTS}test_lsuv_for_every_kind_of_layer",
        ),
        (
            "layer.g.assign(np.sqrt(np.square(kernel).sum(axis=rows)))",
            "pass",
            LSUV,
        ),
        (
            "_without_scale(mean, std).all():",
            "_without_scale(mean, std).any():",
            f"{STARTS}test_lsuv_minds_constant_layers_but_not_constant_units",
        ),
        (
            "for _ in range(_TRIES):",
            "for _ in range(1):",
            f"{STARTS}test_lsuv_of_a_shared_layer_comes_within_the_papers_tolerance",
        ),
        (
            "_inputs_of(layer, model, x) if again else inputs)",
            "inputs)",
            f"{STARTS}test_a_shared_layer_is_standardized_over_all_its_calls",
        ),
        (
            "& known or _makers(call.layer, known)",
            "& known",
            f"{STARTS}test_heads_inside_nested_models_are_left_alone",
        ),
    ),
    *_faults(
        "initializers.fixup",
        "_model/graph.py",
        (
            "len(call.inputs) == 1 and",
            "",
            f"{STARTS}test_fixup_leaves_a_network_without_head_its_projection",
        ),
    ),
    *_faults(
        "initializers.initialize_from_data",
        "_model/kernels.py",
        (
            'else getattr(layer, "groups", 1)',
            "else 1",
            f"{STARTS}test_lsuv_for_every_kind_of_layer",
        ),
    ),
    *_faults(
        "diagnostics.signal_report",
        "diagnostics/signals.py",
        (
            "if isinstance(layer, keras.Model):",
            "if False:",
            f"{SIGNALS}test_activations_are_what_a_model_cut_off_there_returns",
        ),
        (
            "with restored(model):",
            "if True:",
            f"{SIGNALS}test_a_look_in_between_does_not_change_the_training",
        ),
        ("return tensor + ops.cast(part, tensor.dtype)", "return tensor", CONTRACTS),
        (
            "training=self.training)\n            if y",
            ")\n            if y",
            f"{SIGNALS}test_gradients_sum_up_to_those_of_the_biases",
        ),
        ("float(wide.var())", "float(wide.std())", CONTRACTS),
        (
            'if "float" in dtype else tensor',
            "",
            f"{SIGNALS}test_recurrent_subclassed_and_embedding_layers_have_rows",
        ),
    ),
]
