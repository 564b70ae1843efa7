"""Every public name, with what the contracts need to know of it.

A name of the package without an entry here fails, and so does an entry without a name. An entry
skips a contract only with a reason.
"""

import functools
import importlib
import os
import pkgutil
import tempfile

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr
from kerasrecipes import diagnostics, pretraining
from kerasrecipes.schedules import theory
from tests import entries, references
from tests.entry import Entry
from tests.problems import classes, network, values


def _sgd(**kwargs):
    """Momentum SGD of ours: Keras's own, saved under PyTorch, cannot train on elsewhere."""
    settings = {"learning_rate": 0.1, "momentum": 0.9, "threshold": 0.0, "seed": 0, **kwargs}
    return kr.optimizers.PerturbedSGD(**settings)


def _seeded(build):
    """`build` from the same random state at each call, so that runs can be compared."""

    def model(**kwargs):
        keras.utils.set_random_seed(0)
        return build(**kwargs)

    return model


PERTURBED = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "threshold": 3.0,
    "interval": 1,
    "radius": 0.5,
    "seed": 3,
}


def _perturbed_equality():
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=s).astype("float32") for s in ((3, 4), (3, 4), (2,))]
    steps = [[rng.normal(size=s.shape).astype("float32") * a for s in starts] for a in (1, 0.1) * 3]
    variables = [keras.Variable(s) for s in starts]
    optimizer = kr.optimizers.PerturbedSGD(**PERTURBED)
    for gradients in steps:
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
    expected = references.perturbed_sgd(starts, steps, **PERTURBED)
    for variable, reference in zip(values(variables), expected, strict=True):
        yield variable, reference, 1e-5


def _weight_normalization_equality():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 4)).astype("float32")
    layer = kr.layers.WeightNormalization(keras.layers.Dense(3))
    layer.build((None, 4))
    g, v, b = rng.normal(size=(3,)), rng.normal(size=(4, 3)), rng.normal(size=(3,))
    layer.g.assign(g)
    layer.v.assign(v)
    layer.layer.bias.assign(b)
    ours = ops.convert_to_numpy(layer(x))
    yield ours, references.weight_normalized_dense(x, g, v, b), 1e-5


def _sparse_equality():
    for shape in ((40, 7), (3, 3, 6, 5)):
        ours = kr.initializers.Sparse(connections=15, stddev=0.5, seed=4)(shape)
        yield ops.convert_to_numpy(ours), references.sparse(shape, 15, 0.5, 4), 1e-6


def _one_cycle_equality():
    settings = {"peak": 0.2, "steps": 40, "warmup": 0.25}
    schedule = kr.schedules.OneCycle(**settings)
    for step in (0, 5, 9, 10, 25, 39, 60):
        expected = references.one_cycle(step, **settings, initial_divisor=25, final_divisor=1e4)
        yield float(schedule(step)), expected, 1e-4


def _pair_equality():
    rate, momentum = kr.schedules.one_cycle(0.2, 40, momentum_range=(0.8, 0.9))
    for step in (0, 11, 20, 39, 60):
        yield float(rate(step)), references.one_cycle(step, 0.2, 40, 0.3, 25, 1e4), 1e-4
        yield float(momentum(step)), references.one_cycle(step, 0.8, 40, 0.3, 0.8 / 0.9, 1), 1e-6


def _theory_equality(name):
    for rate, momentum, eigenvalue in ((0.1, 0.9, 1), (0.5, 0.81, 1), (1.0, 0.2, 3), (0.9, 0, 1)):
        roots = np.linalg.eigvals(references.momentum_matrix(rate, momentum, eigenvalue))
        radius = np.abs(roots).max()
        if name == "momentum_rate":
            yield theory.momentum_rate(rate, momentum, eigenvalue), radius, 1e-6
        else:
            complex_roots = np.abs(roots.imag).max() > 1e-9
            negative = roots[np.argmax(np.abs(roots))].real < 0
            phase = "ripples" if complex_roots else "oscillations" if negative else "monotone"
            expected = "divergence" if radius >= 1 else phase
            yield theory.momentum_phase(rate, momentum, eigenvalue) == expected, True, 0


def _best_on_a_grid(ours, momenta):
    """The best worst-case radius of a fine grid of rates and momenta on the spectrum 1..30."""
    ends, rates = (1.0, 30.0), np.linspace(0.005, 0.2, 400)
    worst = [
        max(np.abs(np.linalg.eigvals(references.momentum_matrix(a, b, e))).max() for e in ends)
        for a in rates
        for b in momenta
    ]
    yield ours.convergence_rate, min(worst), 0.02
    radius = max(
        np.abs(np.linalg.eigvals(references.momentum_matrix(*ours[:2], e))).max() for e in ends
    )
    yield radius, ours.convergence_rate, 1e-6


def _descent_equality():
    """SGD whose rate is set by the callback, against the loop with these rates."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3)).astype("float32")
    y = rng.normal(size=(12, 1)).astype("float32")
    for per in ("batch", "epoch"):
        model = _linear(x)
        start = values(model.trainable_variables)[0]
        callback = kr.callbacks.HyperparameterSchedule("learning_rate", _halving, per)
        history = model.fit(
            x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[callback]
        )
        count = range(6) if per == "batch" else (0, 0, 0, 1, 1, 1)
        parts = [slice(a, a + 4) for a in (0, 4, 8)] * 2
        rates = [_halving(i) for i in count]
        _, expected = references.least_squares_descent(x, y, start, rates, parts)
        yield values(model.trainable_variables)[0], expected, 1e-5
        last = [rates[2], rates[5]]
        yield history.history["learning_rate"], last, 1e-6


def _halving(step):
    return 0.2 * 0.5 ** float(step)


def _linear(x, optimizer=None):
    model = keras.Sequential(
        [keras.Input((x.shape[1],)), keras.layers.Dense(1, use_bias=False, name="only")]
    )
    model.compile(optimizer or keras.optimizers.SGD(0.5), "mse")
    return model


def _objective_equality():
    x, y = classes()
    model = network()
    w = np.random.default_rng(1).normal(size=21)
    for batch_size in (None, 20):
        objective = _Objective(model, x, y, batch_size=batch_size)
        value, gradient = objective.value_and_gradient(w)
        expected, slope = references.softmax_regression(w, x, y, 3)
        yield objective.value(w), expected, 1e-5
        yield value, expected, 1e-5
        yield gradient, slope, 1e-4


def _interpolation_equality():
    x, y = classes()
    model = network()
    start, end = model.get_weights(), [w + 1 for w in model.get_weights()]
    line = diagnostics.interpolate(model, x, y, start, end, steps=4, bounds=(-0.5, 1.0))
    flat = np.concatenate([w.ravel() for w in start])
    expected = [references.softmax_regression(flat + a, x, y, 3)[0] for a in line.alpha]
    yield line.alpha, [-0.5, 0.0, 0.5, 1.0], 1e-7
    yield line.loss, expected, 1e-5


def _range_test_equality():
    """The range test on least squares is descent at these very rates, batch by batch."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype("float32")
    y = rng.normal(size=(64, 1)).astype("float32")
    model = _linear(x)
    found = diagnostics.find_learning_rate(
        model, x, y, low=1e-3, high=0.1, steps=20, batch_size=16, seed=5
    )
    order = np.random.default_rng(5)
    indices = np.concatenate([order.permutation(64) for _ in range(5)])[: 20 * 16].reshape(20, 16)
    rates = np.geomspace(1e-3, 0.1, 20)
    start = values(model.trainable_variables)[0]
    losses, _ = references.least_squares_descent(x, y, start, rates, indices)
    yield found.rates, rates, 1e-6
    yield found.losses, losses, 1e-4


def _statistics_equality():
    x, _ = classes(count=50)
    dense, norms = keras.layers.Dense(5), [keras.layers.BatchNormalization() for _ in range(2)]
    model = network(norms[0], dense, norms[1])
    kr.inference.reestimate_batch_normalization(model, x, batch_size=16)
    kernel, bias = values([dense.kernel, dense.bias])
    z = references.batch_norm_inference(x, 1, 0, x.mean(0), x.var(0), norms[0].epsilon)
    z = z @ kernel + bias
    for norm, inputs in zip(norms, (x, z), strict=True):
        yield ops.convert_to_numpy(norm.moving_mean), inputs.mean(axis=0), 1e-4
        yield ops.convert_to_numpy(norm.moving_variance), inputs.var(axis=0), 1e-4


def _start_equality():
    x, _ = classes(count=200)
    hidden = [keras.layers.Dense(5, "tanh"), kr.layers.WeightNormalization(keras.layers.Dense(4))]
    model = network(*hidden)
    report = kr.initializers.initialize_from_data(model, x)
    z = x
    kernels = [hidden[0].kernel, hidden[1].compute_kernel()]
    biases = [hidden[0].bias, hidden[1].layer.bias]
    for row, kernel, bias in zip(report, values(kernels), values(biases), strict=True):
        z = z @ kernel + bias
        yield z.mean(axis=0) + 1, np.ones(z.shape[1]), 1e-4
        yield z.std(axis=0), np.ones(z.shape[1]), 1e-3
        yield row["bias"], bias, 0
        z = np.tanh(z)


def _greedy_equality():
    """Stage by stage by hand: a network of one hidden layer, then the next on its outputs."""
    x, y = classes()
    hidden = [keras.layers.Dense(5, "tanh"), keras.layers.Dense(4, "tanh")]
    model = network(*hidden)
    starts = [layer.get_weights() for layer in hidden]
    keras.utils.set_random_seed(7)
    _greedy(model, x, y, epochs=2, shuffle=False, verbose=0)
    keras.utils.set_random_seed(7)
    inputs = x
    for layer, start in zip(hidden, starts, strict=True):
        width = len(start[1])
        by_hand = network(keras.layers.Dense(width, "tanh"), features=inputs.shape[1])
        by_hand.layers[0].set_weights(start)
        by_hand.fit(inputs, y, epochs=2, shuffle=False, verbose=0)
        for ours, reference in zip(layer.get_weights(), by_hand.get_weights(), strict=False):
            yield ours, reference, 1e-4
        kernel, bias = by_hand.layers[0].get_weights()
        inputs = np.tanh(inputs @ kernel + bias)
    for ours, reference in zip(
        model.layers[-1].get_weights(), by_hand.get_weights()[2:], strict=True
    ):
        yield ours, reference, 1e-4


def _load_equality():
    from sklearn.datasets import load_digits

    (x_train, y_train), (x_test, y_test) = kr.data.load("digits")
    digits = load_digits()
    ours = np.concatenate([x_train, x_test]).reshape(1797, 64)
    both = np.column_stack([ours, np.concatenate([y_train, y_test])])
    theirs = np.column_stack([digits.data, digits.target])
    yield np.unique(both, axis=0), np.unique(theirs, axis=0), 0


@functools.cache
def _small_baseline():
    """A baseline on two classes with its own test rows, kept in a folder."""
    x, y = classes(count=240, kinds=2)
    folder = os.path.join(tempfile.mkdtemp(), "out")
    rows, test = (x[:160], y[:160]), (x[160:], y[160:])
    result = kr.baseline(*rows, test_data=test, out=folder, epochs=2, quiet=True)
    return result, folder, rows, test


def _baseline_equality():
    result, _, (_, y), (x_test, y_test) = _small_baseline()
    majority = (y_test == np.bincount(y).argmax()).mean()
    yield result.metrics["baselines"]["majority"]["accuracy"], majority, 1e-9
    yield result.metrics["test"]["accuracy"], (result.predict(x_test) == y_test).mean(), 1e-9


def _result_equality():
    result, _, _, (x_test, _) = _small_baseline()
    numbers = result.preprocessing["inputs"]["numbers"].values()
    scale = [[n["mean"] for n in numbers], [n["deviation"] for n in numbers]]
    encoded = (x_test - scale[0]) / scale[1]
    assert not any(n["edges"] for n in numbers), "too few rows for bins"
    outputs = result.model.predict({"numbers": encoded}, verbose=0)
    yield result.probabilities(x_test), outputs, 1e-4
    yield result.predict(x_test), outputs.argmax(axis=1), 0


def _loaded_equality():
    result, folder, _, (x_test, _) = _small_baseline()
    loaded = kr.methodology.load(folder)
    yield loaded.probabilities(x_test), result.probabilities(x_test), 1e-6
    yield loaded.metrics["test"]["accuracy"], result.metrics["test"]["accuracy"], 0


def _with(layer):
    return _seeded(lambda **kwargs: network(layer(), optimizer=_sgd(**kwargs)))


@_seeded
def _perturbed_model(**kwargs):
    settings = {**PERTURBED, "threshold": 100.0, "radius": 0.01, **kwargs}
    return network(keras.layers.Dense(5, "tanh"), optimizer=kr.optimizers.PerturbedSGD(**settings))


@_seeded
def _scheduled_model(**kwargs):
    return network(optimizer=_sgd(learning_rate=kr.schedules.OneCycle(0.1, 20), **kwargs))


_NAN = np.full((48, 6), np.nan)
_UNBUILT = keras.Sequential([keras.layers.Dense(1)])


def _uncompiled():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])


def _data_errors(function):
    """The bad inputs that every function of a model and data refuses."""
    return [
        (TypeError, "must be a keras.Model", lambda m, x, y: function("model", x, y)),
        (ValueError, "Build it first", lambda m, x, y: function(_UNBUILT, x, y)),
        (ValueError, "NaN", lambda m, x, y: function(m, _NAN, y)),
        (ValueError, "at least one example", lambda m, x, y: function(m, x[:0], y[:0])),
    ]


def _compile_error(function):
    return (ValueError, "not compiled", lambda m, x, y: function(_uncompiled(), x, y))


@_seeded
def _normalized(**kwargs):
    return network(
        keras.layers.Dense(5),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3, seed=1),
        optimizer=_sgd(**kwargs),
        metrics=["accuracy"],
    )


def _line(m, x, y, **kwargs):
    ends = {"start": m.get_weights(), "end": [w + 1 for w in m.get_weights()]}
    return diagnostics.interpolate(m, x, y, **{"steps": 3, **ends, **kwargs})


def _find(m, x, y, **kwargs):
    return diagnostics.find_learning_rate(m, x, y, **{"steps": 10, "batch_size": 16, **kwargs})


def _fit_with(schedule, **kwargs):
    def run(m, x, y):
        callback = kr.callbacks.HyperparameterSchedule("learning_rate", schedule, **kwargs)
        m.fit(x, y, verbose=0, callbacks=[callback])

    return run


def _line_of(model, x, y):
    return diagnostics.interpolate(model, x, y, [], [])


_Objective, _greedy = kr.objective.Objective, pretraining.greedy_supervised
_PerturbedSGD, _OneCycle = kr.optimizers.PerturbedSGD, kr.schedules.OneCycle
_WN, _Sparse, _HS = (
    kr.layers.WeightNormalization,
    kr.initializers.Sparse,
    kr.callbacks.HyperparameterSchedule,
)

CATALOG = {
    "optimizers.PerturbedSGD": Entry(
        kind="optimizer",
        equality=_perturbed_equality,
        make=lambda **kwargs: _PerturbedSGD(**PERTURBED, **kwargs),
        model=_perturbed_model,
        without_noise={"threshold": 0.0},
        errors=[
            (ValueError, "momentum < 1", lambda *_: _PerturbedSGD(momentum=1.0)),
            (ValueError, "0 <= threshold", lambda *_: _PerturbedSGD(threshold=-1)),
            (ValueError, "0 < radius", lambda *_: _PerturbedSGD(radius=0)),
            (ValueError, "finite", lambda *_: _PerturbedSGD(radius=float("nan"))),
            (TypeError, "`interval` must be an integer", lambda *_: _PerturbedSGD(interval=1.5)),
            (TypeError, "`seed` must be an integer", lambda *_: _PerturbedSGD(seed="a")),
            (ValueError, "`seed` must be at most", lambda *_: _PerturbedSGD(seed=2**31)),
            (ValueError, "learning_rate", lambda *_: _PerturbedSGD(float("nan"))),
            (ValueError, "learning_rate", lambda *_: _PerturbedSGD(-1.0)),
        ],
    ),
    "layers.WeightNormalization": Entry(
        kind="layer",
        equality=_weight_normalization_equality,
        make=lambda: _WN(keras.layers.Dense(5, "tanh", kernel_regularizer="l2")),
        model=_with(lambda: _WN(keras.layers.Dense(5, "tanh", kernel_regularizer="l2"))),
        errors=[
            (TypeError, "must be a keras.layers.Layer", lambda *_: _WN(3)),
            (ValueError, "must have one kernel", lambda *_: _WN(keras.layers.ReLU())),
            (ValueError, "wrap it once", lambda *_: _WN(_WN(keras.layers.Dense(1)))),
        ],
    ),
    "initializers.Sparse": Entry(
        kind="initializer",
        equality=_sparse_equality,
        make=lambda: _Sparse(connections=3, stddev=0.5, seed=2),
        model=_with(
            lambda: keras.layers.Dense(5, "tanh", kernel_initializer=_Sparse(3, 0.5, seed=2))
        ),
        errors=[
            (ValueError, "at least 1", lambda *_: _Sparse(connections=0)),
            (ValueError, "0 < stddev", lambda *_: _Sparse(stddev=0)),
            (TypeError, "integer", lambda *_: _Sparse(connections=2.5)),
            (TypeError, "integer", lambda *_: _Sparse(seed=1.5)),
            (ValueError, "at least 0", lambda *_: _Sparse(seed=-1)),
            (ValueError, "at least two axes", lambda *_: _Sparse()((3,))),
        ],
    ),
    "schedules.OneCycle": Entry(
        kind="schedule",
        equality=_one_cycle_equality,
        make=lambda: _OneCycle(0.1, 20, warmup=0.4, initial_divisor=10, final_divisor=100),
        model=_scheduled_model,
        errors=[
            (ValueError, "0 < peak", lambda *_: _OneCycle(0, 10)),
            (ValueError, "at least 2", lambda *_: _OneCycle(0.1, 1)),
            (TypeError, "integer", lambda *_: _OneCycle(0.1, 10.5)),
            (ValueError, "warmup < 1", lambda *_: _OneCycle(0.1, 10, warmup=1.0)),
            (ValueError, "at least 1", lambda *_: _OneCycle(0.1, 3, warmup=0.1)),
            (TypeError, "number", lambda *_: _OneCycle("0.1", 10)),
        ],
        skip={"accumulation": "Keras calls a schedule with the count of batches, not updates"},
    ),
    "callbacks.HyperparameterSchedule": Entry(
        kind="callback",
        equality=_descent_equality,
        make=lambda: _HS("learning_rate", _halving),
        errors=[
            (
                ValueError,
                "Did you mean 'learning_rate'",
                lambda m, x, y: m.fit(x, y, callbacks=[_HS("learnin_rate", _halving)]),
            ),
            (ValueError, "for each target", lambda *_: _HS(("momentum", "rho"), _halving)),
            (ValueError, "one of 'batch', 'epoch'", lambda *_: _HS("learning_rate", len, "step")),
            (TypeError, "a function of one number", lambda *_: _HS("learning_rate", 0.1)),
            (ValueError, "finite number, not negative", _fit_with(lambda step: float("nan"))),
            (ValueError, "finite number, not negative", _fit_with(lambda step: -1.0, per="epoch")),
            (ValueError, "returned None", _fit_with(lambda step: None)),
            (
                ValueError,
                "a schedule already",
                lambda m, x, y: _fit_with(_halving)(_scheduled_model(), x, y),
            ),
        ],
    ),
    "objective.Objective": Entry(
        kind="function",
        equality=_objective_equality,
        model=_normalized,
        call=lambda m, x, y: [
            _Objective(m, x, y, training=mode).value_and_gradient(np.ones(63))
            for mode in (False, True)
        ],
        errors=[
            *_data_errors(_Objective),
            _compile_error(_Objective),
            (ValueError, "same number", lambda m, x, y: _Objective(m, x, y[:-1])),
            (
                ValueError,
                r"shape \(63,\)",
                lambda m, x, y: _Objective(m, x, y).value([1]),
            ),
            (TypeError, "numbers", lambda m, x, y: _Objective(m, x.astype(str), y)),
        ],
    ),
    "inference.reestimate_batch_normalization": Entry(
        kind="function",
        equality=_statistics_equality,
        model=_normalized,
        errors=[
            *_data_errors(lambda m, x, y: kr.inference.reestimate_batch_normalization(m, x)),
            (
                ValueError,
                "no BatchNormalization",
                lambda m, x, y: kr.inference.reestimate_batch_normalization(network(), x),
            ),
            (
                ValueError,
                "examples that differ",
                lambda m, x, y: kr.inference.reestimate_batch_normalization(m, x[:1]),
            ),
            (
                ValueError,
                "examples that differ",
                lambda m, x, y: kr.inference.reestimate_batch_normalization(m, np.ones_like(x), 5),
            ),
            (
                ValueError,
                "`batch_size` must be at least 1",
                lambda m, x, y: kr.inference.reestimate_batch_normalization(m, x, 0),
            ),
        ],
        skip={"leaves": "its purpose is to change the moving statistics"},
    ),
    "initializers.initialize_from_data": Entry(
        kind="function",
        equality=_start_equality,
        model=_normalized,
        errors=[
            *_data_errors(lambda m, x, y: kr.initializers.initialize_from_data(m, x)),
            (
                ValueError,
                "at least two",
                lambda m, x, y: kr.initializers.initialize_from_data(m, x[:1]),
            ),
            (
                ValueError,
                "constant",
                lambda m, x, y: kr.initializers.initialize_from_data(m, np.ones_like(x)),
            ),
            (
                ValueError,
                "constant",
                lambda m, x, y: kr.initializers.initialize_from_data(m, np.ones_like(x), "lsuv"),
            ),
            (
                ValueError,
                "no layer to set",
                lambda m, x, y: kr.initializers.initialize_from_data(network(), x),
            ),
            (
                ValueError,
                "one of 'standardize'",
                lambda m, x, y: kr.initializers.initialize_from_data(m, x, "standard"),
            ),
        ],
        skip={"leaves": "its purpose is to change the weights"},
    ),
    "diagnostics.interpolate": Entry(
        kind="function",
        equality=_interpolation_equality,
        model=_normalized,
        call=_line,
        errors=[
            (
                TypeError,
                "must be a keras.Model",
                lambda m, x, y: _line_of(0, x, y),
            ),
            (ValueError, "NaN", lambda m, x, y: _line(m, _NAN, y)),
            (ValueError, "get_weights", lambda m, x, y: _line(m, x, y, start=m.get_weights()[1:])),
            (
                ValueError,
                "NaN",
                lambda m, x, y: _line(m, x, y, end=[w * np.nan for w in m.get_weights()]),
            ),
            (ValueError, "at least 2", lambda m, x, y: _line(m, x, y, steps=1)),
            (ValueError, "bounds", lambda m, x, y: _line(m, x, y, bounds=(1, 0))),
            (TypeError, "bounds", lambda m, x, y: _line(m, x, y, bounds=0.5)),
            (TypeError, "validation_data", lambda m, x, y: _line(m, x, y, validation_data=x)),
            (ValueError, "get_weights", lambda m, x, y: _line(m, x, y, start=None)),
            _compile_error(_line),
        ],
    ),
    "diagnostics.find_learning_rate": Entry(
        kind="function",
        equality=_range_test_equality,
        model=_normalized,
        call=lambda m, x, y: [
            _find(m, x, y, rule=rule, grid=2) for rule in ("range-test", "hundred-iterations")
        ],
        errors=[
            *_data_errors(_find),
            _compile_error(_find),
            (ValueError, "Did you mean 'range-test'", lambda m, x, y: _find(m, x, y, rule="range")),
            (ValueError, "1.0 < high", lambda m, x, y: _find(m, x, y, low=1.0, high=0.1)),
            (ValueError, "at least 10", lambda m, x, y: _find(m, x, y, steps=3)),
            (ValueError, "is a generator", lambda m, x, y: _find(m, iter([(x, y)]), None)),
            (ValueError, "lower `low`", lambda m, x, y: _find(m, x, y, low=1e20, high=1e30)),
        ],
    ),
    "pretraining.greedy_supervised": Entry(
        kind="function",
        equality=_greedy_equality,
        model=_normalized,
        errors=[
            (TypeError, "must be a keras.Model", lambda m, x, y: _greedy(0)),
            (
                ValueError,
                "Build it first",
                lambda m, x, y: _greedy(_UNBUILT, x),
            ),
            _compile_error(_greedy),
            (ValueError, "`x` is missing", lambda m, x, y: _greedy(m)),
            (ValueError, "NaN", lambda m, x, y: _greedy(m, _NAN, y)),
            (ValueError, "at least one example", lambda m, x, y: _greedy(m, x[:0], y[:0])),
            (ValueError, "must be one input", lambda m, x, y: _greedy(m, [x, x], y)),
            (ValueError, "steps_per_epoch", lambda m, x, y: _greedy(m, iter([(x, y)]))),
            (
                ValueError,
                "tuple of arrays",
                lambda m, x, y: _greedy(m, x, y, validation_data=np.zeros(3)),
            ),
            (
                ValueError,
                "hidden block",
                lambda m, x, y: _greedy(network(), x, y),
            ),
            (
                ValueError,
                "at least 1",
                lambda m, x, y: _greedy(m, x, y, epochs=0),
            ),
        ],
        skip={"leaves": "its purpose is to change the weights"},
    ),
    "data.load": Entry(
        kind="data",
        equality=_load_equality,
        errors=[(ValueError, "Did you mean 'mnist'", lambda *_: kr.data.load("mnits"))],
    ),
    "schedules.one_cycle": Entry(
        kind="theory",
        equality=_pair_equality,
        errors=[
            (
                ValueError,
                "momentum_range",
                lambda *_: kr.schedules.one_cycle(0.1, 10, momentum_range=(0.9, 0.8)),
            )
        ],
    ),
    "schedules.theory.momentum_rate": Entry(
        kind="theory",
        equality=lambda: _theory_equality("momentum_rate"),
        errors=[(ValueError, "momentum < 1", lambda *_: theory.momentum_rate(0.1, 1.0, 1.0))],
    ),
    "schedules.theory.momentum_phase": Entry(
        kind="theory",
        equality=lambda: _theory_equality("momentum_phase"),
        errors=[(ValueError, "0 < learning_rate", lambda *_: theory.momentum_phase(0, 0.9, 1.0))],
    ),
    "schedules.theory.optimal_momentum": Entry(
        kind="theory",
        equality=lambda: _best_on_a_grid(
            theory.optimal_momentum(1.0, 30.0), np.linspace(0, 0.9, 46)
        ),
        errors=[(ValueError, "0 < smallest", lambda *_: theory.optimal_momentum(0.0, 1.0))],
    ),
    "schedules.theory.optimal_gradient_descent": Entry(
        kind="theory",
        equality=lambda: _best_on_a_grid(theory.optimal_gradient_descent(1.0, 30.0), [0.0]),
        errors=[(ValueError, "largest", lambda *_: theory.optimal_gradient_descent(2.0, 1.0))],
    ),
    "methodology.baseline": Entry(
        kind="tool",
        equality=_baseline_equality,
        errors=[
            (ValueError, "one of None", lambda m, x, y: kr.baseline(x, y, task="classes")),
            (ValueError, "0 < budget", lambda m, x, y: kr.baseline(x, y, budget=0)),
            (ValueError, "differ in length", lambda m, x, y: kr.baseline(x, y[1:])),
            (ValueError, "one class only", lambda m, x, y: kr.baseline(x, y * 0)),
            (ValueError, "is empty", lambda m, x, y: kr.baseline(x[:0], y[:0])),
            (TypeError, "integer", lambda m, x, y: kr.baseline(x, y, epochs=1.5)),
        ],
    ),
    "methodology.Baseline": Entry(
        kind="tool",
        equality=_result_equality,
        errors=[
            (
                ValueError,
                "lacks the column",
                lambda m, x, y: _small_baseline()[0].predict(x[:, :2]),
            )
        ],
    ),
    "methodology.load": Entry(
        kind="tool",
        equality=_loaded_equality,
        errors=[
            (ValueError, "holds no baseline", lambda *_: kr.methodology.load(tempfile.mkdtemp()))
        ],
    ),
}

PARTS = [
    importlib.import_module(f"tests.entries.{m.name}")
    for m in pkgutil.iter_modules(entries.__path__)
]
for part in PARTS:
    CATALOG |= part.ENTRIES
