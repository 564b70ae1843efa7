"""Optimizers that take their gradients away from the accepted weights, and their callback."""

import keras
import numpy as np
from keras import ops

from kerasrecipes.callbacks import SwapAcceptedWeights
from kerasrecipes.optimizers import SAM, ParameterBlur
from tests.entry import Entry, Fault, faults
from tests.problems import network, values


def sam_loop(w, pairs, rate, momentum, rho):
    """Foret et al. 2021, Algorithm 1: what the model holds after each of its two gradients.

    `pairs` holds (gradient for the ascent, gradient for the descent), functions of the weights.
    """
    velocity, points = 0.0, []
    for first, second in pairs:
        g = first(w)
        trial = w + rho * g / np.sqrt((g**2).sum())
        velocity = momentum * velocity - rate * second(trial)
        w = w + velocity
        points += [trial, w]
    return points


def _quadratic(a):
    """Gradient of w'diag(a)w / 2."""
    return lambda w: a * w


CURVATURES = np.array([1.0, 3.0, 0.5, 2.0])


def _fed(optimizer, start, steps, gradient):
    """What two variables, of two weights each, hold after each apply."""
    variables = [keras.Variable(part.astype("float32")) for part in np.split(start, 2)]
    seen = []
    for _ in range(steps):
        slope = gradient(np.concatenate(values(variables))).astype("float32")
        optimizer.apply([ops.convert_to_tensor(g) for g in np.split(slope, 2)], variables)
        seen.append(np.concatenate(values(variables)))
    return np.array(seen)


START = np.array([1.0, -2.0, 0.5, 1.5])


def _sam_equality():
    sgd = keras.optimizers.SGD(0.1, momentum=0.9)
    seen = _fed(SAM(sgd, rho=0.3), START, 12, _quadratic(CURVATURES))
    pairs = [(_quadratic(CURVATURES),) * 2] * 6
    yield seen, np.array(sam_loop(START, pairs, 0.1, 0.9, 0.3)), 1e-5


def _blur_equality():
    """On a quadratic a pair's mean is the gradient itself, for each draw."""
    sgd = keras.optimizers.SGD(0.1)
    seen = _fed(ParameterBlur(sgd, sigma=0.5, seed=2), START, 11, _quadratic(CURVATURES))
    plus, minus = seen[0::2], seen[1::2]
    centres = [START * (1 - 0.1 * CURVATURES) ** t for t in range(5)]
    yield (plus[:5] + minus) / 2, np.array(centres), 1e-4


def _swap_equality():
    """Where an epoch ends in the middle of a pair, callbacks see the weights of the loop."""
    x, y = least_squares()
    model = linear(SAM(keras.optimizers.SGD(0.05, momentum=0.9), rho=0.3))
    start, seen = model.get_weights()[0].astype("float64"), []
    record = keras.callbacks.LambdaCallback()
    record.on_epoch_end = lambda epoch, logs=None: seen.append(values(record.model.weights)[0])
    fitted(model, x, y, epochs=2, callbacks=[SwapAcceptedWeights(), record])
    slopes = [slope(x, y, i) for i in (*range(5), *range(5))]
    pairs = list(zip(slopes[0::2], slopes[1::2], strict=True))
    points = sam_loop(start, pairs, 0.05, 0.9, 0.3)
    yield np.array(seen), np.array([points[3], points[9]]), 1e-5


def least_squares():
    """Five batches of four rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)).astype("float32")
    return x, (x @ np.array([[1.0], [-2.0], [0.5]]) + 0.3 * rng.normal(size=(20, 1))).astype("f")


def linear(optimizer):
    start = keras.initializers.Constant(0.2)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer=start)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(optimizer, "mse")
    return model


def fitted(model, x, y, **kwargs):
    return model.fit(x, y, **{"batch_size": 4, "shuffle": False, "verbose": 0, **kwargs})


def slope(x, y, batch):
    """The gradient of the mean squared error of one batch, as a function of the weights."""
    rows = slice(4 * batch, 4 * batch + 4)
    return lambda w: x[rows].T @ (x[rows] @ w - y[rows]) / 2


def _model(make):
    def model(**kwargs):
        keras.utils.set_random_seed(0)
        return network(keras.layers.Dense(5, "tanh"), optimizer=make(**kwargs))

    return model


def _sgd(**kwargs):
    return keras.optimizers.SGD(**{"learning_rate": 0.1, "momentum": 0.9, **kwargs})


def _sam(rho=0.1, **kwargs):
    return SAM(_sgd(**kwargs), rho=rho)


def _blur(sigma=0.1, **kwargs):
    return ParameterBlur(_sgd(**kwargs), sigma=sigma, seed=3)


_SKIP = {
    "accumulation": "each pair has a trial point of its own; test_trial_points.py has the loop",
    "ema": "it averages accepted weights once an update; test_trial_points.py has the loop",
}


def _fit(callbacks, model=None):
    def run(m, x, y):
        (model or (lambda: m))().fit(x, y, verbose=0, callbacks=callbacks)

    return run


def _inside(wrapper):
    return [
        (
            ValueError,
            "goes inside",
            lambda *_: wrapper(keras.optimizers.LossScaleOptimizer(_sgd())),
        ),
        (ValueError, "cannot hold another", lambda *_: wrapper(_sam())),
        (ValueError, "give it to the optimizer inside", lambda *_: wrapper("sgd", clipnorm=1.0)),
    ]


ENTRIES = {
    "optimizers.SAM": Entry(
        kind="optimizer",
        equality=_sam_equality,
        make=_sam,
        model=_model(_sam),
        skip=_SKIP,
        errors=[
            (TypeError, "`rho` must be a number", lambda *_: SAM("sgd", rho="large")),
            (ValueError, "0 <= rho", lambda *_: SAM("sgd", rho=-0.1)),
            (ValueError, "finite", lambda *_: SAM("sgd", rho=float("inf"))),
            *_inside(SAM),
        ],
    ),
    "optimizers.ParameterBlur": Entry(
        kind="optimizer",
        equality=_blur_equality,
        make=_blur,
        model=_model(_blur),
        without_noise={"sigma": 0.0},
        skip=_SKIP,
        errors=[
            (TypeError, "`sigma` must be a number", lambda *_: ParameterBlur("sgd", sigma=None)),
            (ValueError, "0 <= sigma", lambda *_: ParameterBlur("sgd", sigma=-1)),
            (TypeError, "`seed` must be an integer", lambda *_: ParameterBlur("sgd", seed=0.5)),
            *_inside(ParameterBlur),
        ],
    ),
    "callbacks.SwapAcceptedWeights": Entry(
        kind="callback",
        equality=_swap_equality,
        make=SwapAcceptedWeights,
        model=_model(_sam),
        errors=[
            (TypeError, "None, True or False", lambda *_: SwapAcceptedWeights("epoch")),
            (
                ValueError,
                "must come first",
                _fit([keras.callbacks.TerminateOnNaN(), SwapAcceptedWeights()]),
            ),
            (ValueError, "Received: SGD", _fit([SwapAcceptedWeights()], network)),
        ],
    ),
}

_HERE = "test_trial_points.py"
FAULTS = [
    *faults(
        "optimizers.SAM",
        "optimizers/sam.py",
        _HERE,
        ("ops.sqrt(sum(squares)) + 1e-12", "ops.sqrt(squares[0]) + 1e-12"),
        ("return stage == 1, gradients", "return stage >= 0, gradients"),
        ("self._rho.assign(number(", "setattr(self, '_rho', number("),
    ),
    *faults(
        "optimizers.SAM",
        "optimizers/_trial.py",
        _HERE,
        ("variable.assign(ops.where(done, tensor(variable), value))", "pass"),
        ("ops.where(ops.convert_to_tensor(self.swapped), 0,", "ops.where(False, 0,"),
        ("max(code & 0x7FFFFFFF, 1)", "1"),
        ("return ops.copy(ops", "return (ops"),
        ("            self.mark.assign(self._fingerprint())", "            pass"),
    ),
    *faults(
        "optimizers.ParameterBlur",
        "optimizers/parameter_blur.py",
        _HERE,
        ("(kept + gradient) / 2", "gradient"),
        ("a - (h - a)", "a"),
        ("ops.cast(due, state.dtype) * used", "0 * used"),
        ("opens = stage != 1", "opens = stage == 2"),
        ("(due, drawn, lambda", "(due != due, drawn, lambda"),
    ),
    *faults(
        "callbacks.SwapAcceptedWeights",
        "callbacks/swap_accepted_weights.py",
        _HERE,
        ("    def on_test_begin(self, logs=None):\n        self._look()", ""),
        ('"on_train_batch_begin", *([then] if batches else [])', '"on_train_batch_begin"'),
        ("*([] if batches else [then])", "then"),
        ("        frame = frame.f_back", "        frame = None"),
        ('"on_epoch_begin", self._guard, *', '"on_epoch_begin", *'),
        ("        if not self._fitting:\n", "        if True:\n"),
        ("batches or found is None or any(", "batches or found is None and any("),
        ("                self._accepted_in()\n                self._release()\n", ""),
        ("for optimizer in self._swapped:", "for optimizer in []:"),
    ),
    Fault(
        ("optimizers.SAM",),
        "_backend/tensorflow.py",
        "return tf.convert_to_tensor(gradient)",
        "return gradient",
        f"tests/{_HERE}",
        backend="tensorflow",
    ),
    *faults(
        "optimizers.SAM",
        "optimizers/_trial.py",
        _HERE,
        (".tobytes(), code)", ".data, code)"),
    ),
    *faults(
        "optimizers.SAM",
        "optimizers/_wrapper.py",
        _HERE,
        ("self.inner_optimizer.set_weights(weights[own:])", "pass"),
    ),
]
