"""Keras's own classes against the decks' equations (errors in the slides corrected), in NumPy.

Expected values are float64, Keras works in float32, where one operation errs by 6e-8 of its
result: `CLOSE` leaves room for some dozen operations on numbers of order one.
"""

import itertools
from collections import defaultdict

import keras
import numpy as np
import pytest
from keras import initializers, layers, ops, optimizers
from keras.optimizers import schedules

CLOSE = {"rtol": 1e-5, "atol": 2e-6}
# Adam's 1 - 0.999**t is formed in float32: off by 6e-8 / 1e-3 of itself at the first step.
CLOSE_ADAM = {"rtol": 1e-5, "atol": 1e-5}
START, *GRADIENTS = np.random.default_rng(0).normal(size=(7, 3, 4)).astype("float32")


def array(tensor):
    return np.array(ops.convert_to_numpy(tensor))  # torch's own would change with the variable


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def differ(a, b, by=1e-3):
    return np.max(np.abs(a - b)) > by


def path(optimizer, start=START, gradients=GRADIENTS):
    """The weights after each step that Keras's `optimizer` takes with these gradients."""
    variable, weights = keras.Variable(start), []
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
        weights.append(array(variable))
    return np.stack(weights)


def reference(step, start=START, gradients=GRADIENTS):
    """The same with `step(t, gradient, state)`, the change of the weights at step t = 1, 2, ..."""
    state, weights = defaultdict(float, w=start.astype("float64")), []
    for t, gradient in enumerate(gradients, 1):
        state["w"] = state["w"] + step(t, gradient.astype("float64"), state)
        weights.append(state["w"])
    return np.stack(weights)


def gradient(loss, target, kernel, *stack, inputs=None):
    """The loss's gradient at `kernel`, input of `stack` unless `inputs` stand before it.

    Keras has no public gradient: one step of SGD(1) is one. Under a loss linear in the output,
    TensorFlow's graph optimizer may let later weights change before earlier ones' gradient
    reads them (in `train_on_batch`, one model in four), so none is used here.
    """
    inputs = np.eye(len(kernel), dtype="float32") if inputs is None else inputs
    first = layers.Dense(kernel.shape[1], use_bias=False)
    model = keras.Sequential([first, *stack])
    model.build((None, inputs.shape[1]))
    first.set_weights([kernel])
    model.compile(optimizers.SGD(1.0), loss)
    model.train_on_batch(inputs, target)
    return kernel - first.get_weights()[0]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# Gradient descent and its momentum ----------------------------------------------------------


def test_fit_is_minibatch_sgd():
    """O01. The trap: the last, smaller batch is divided by its own size."""
    x, y, w = normal(10, 3), normal(10, 1, seed=2), normal(3, 1, seed=3)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model.set_weights([w])
    model.compile(optimizers.SGD(0.1), "mean_squared_error")
    model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    for i in (0, 4, 8, 0, 4, 8):
        a, b = x[i : i + 4].astype("float64"), y[i : i + 4]
        w = w - 0.1 * 2 / len(a) * a.T @ (a @ w - b)
    np.testing.assert_allclose(model.get_weights()[0], w, **CLOSE)


def test_fit_permutes_each_epoch():
    """O01. An epoch sees every example once, in random order, unless `shuffle=False`."""

    def order(shuffle, seed):
        # One-hot inputs, so that weight i keeps what momentum made of example i's only gradient.
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
        model.compile(optimizers.SGD(1.0, momentum=0.5), lambda y, p: p)
        model.fit(np.eye(8), np.zeros((8, 1)), batch_size=1, shuffle=shuffle, verbose=0)
        w = model.get_weights()[0][:, 0]
        np.testing.assert_allclose(np.sort(w), -2 * (1 - 0.5 ** np.arange(8, 0, -1)), **CLOSE)
        return tuple(np.argsort(w))

    found = [order(shuffle=False, seed=0), order(True, seed=0), order(True, seed=1)]
    assert found[0] == tuple(range(8)) and len(set(found)) == 3


@pytest.mark.parametrize("mu", [0.5, 0.9, 0.99])
def test_momentum_is_a_decaying_sum(mu):
    """O02. The rate stands inside the sum, and deck 002's last line of it has lost its minus."""
    rate = schedules.InverseTimeDecay(0.1, decay_steps=1, decay_rate=0.5)
    steps = np.diff([START, *path(optimizers.SGD(rate, momentum=mu))], axis=0)
    alpha = 0.1 / (1 + 0.5 * np.arange(6))
    for t in range(6):
        v = -sum(mu**i * alpha[t - i] * GRADIENTS[t - i] for i in range(t + 1))
        np.testing.assert_allclose(steps[t], v, **CLOSE)


def test_momentum_is_a_fixed_float():
    """O02. Raising it during training: no schedule is accepted, and not even the integer 0."""
    for momentum in (schedules.PolynomialDecay(0.5, 10, 0.9), 0):
        with pytest.raises(ValueError, match="momentum"):
            optimizers.SGD(momentum=momentum)


def test_nesterov_is_the_look_ahead():
    """O03. Keras stores the looked-ahead point phi = theta + mu v, not the deck's theta."""
    mu, hessian = 0.9, np.diag([1.0, 3.0, 10.0])
    phi = keras.Variable(START)
    sgd = optimizers.SGD(0.02, momentum=mu, nesterov=True)
    theta, v = START.astype("float64"), 0.0
    for _ in range(20):
        sgd.apply([ops.convert_to_tensor((hessian @ array(phi)).astype("float32"))], [phi])
        v = mu * v - 0.02 * hessian @ (theta + mu * v)
        theta = theta + v
        np.testing.assert_allclose(array(phi), theta + mu * v, **CLOSE)
    assert differ(array(phi), theta, by=0.01)


# Adaptive rates ----------------------------------------------------------------------------


def test_adagrad_equals_its_equation():
    """O04. The trap: squares start at 0.1 unless `initial_accumulator_value=0`; they are summed."""

    def step(t, g, s):
        s["G"] = s["G"] + g**2
        return -0.1 * g / np.sqrt(s["G"] + 1e-7)

    expected = reference(step)
    ours = optimizers.Adagrad(0.1, initial_accumulator_value=0.0, epsilon=1e-7)
    np.testing.assert_allclose(path(ours), expected, **CLOSE)
    assert differ(path(optimizers.Adagrad(0.1)), expected)


def test_adagrad_steps_shrink_with_the_root_of_time():
    """O04. Under a constant gradient step k is alpha / sqrt(k), whatever the gradient's size."""
    adagrad = optimizers.Adagrad(0.1, initial_accumulator_value=0.0)
    w = path(adagrad, np.zeros(2, "float32"), [np.float32([0.1, -7.0])] * 9)
    steps = np.diff([np.zeros(2), *w], axis=0)
    expected = -0.1 / np.sqrt(np.arange(1, 10))[:, None] * [1, -1]
    # epsilon 1e-7 beside a square of 1e-2 shortens the step by 5e-6 of itself.
    np.testing.assert_allclose(steps, expected, rtol=2e-5)


def test_rmsprop_equals_its_equation():
    """O04. The trap: epsilon stands under the root, the deck's outside; equal once it is small."""

    def rmsprop(inside, outside):
        def step(t, g, s):
            s["v"] = 0.9 * s["v"] + 0.1 * g**2
            return -0.1 * g / (np.sqrt(s["v"] + inside) + outside)

        return reference(step)

    coarse = path(optimizers.RMSprop(0.1, rho=0.9, epsilon=0.1))
    np.testing.assert_allclose(coarse, rmsprop(0.1, 0), **CLOSE)
    assert differ(coarse, rmsprop(0, 0.1), by=0.01)
    fine = path(optimizers.RMSprop(0.1, rho=0.9, epsilon=1e-14))
    np.testing.assert_allclose(fine, rmsprop(0, 1e-7), **CLOSE)


def test_adadelta_equals_its_equation():
    """O04. The trap: the rate is 0.001 unless set to 1; epsilon stands under both roots."""

    def step(t, g, s):
        s["g"] = 0.95 * s["g"] + 0.05 * g**2
        delta = -np.sqrt(s["d"] + 1e-6) / np.sqrt(s["g"] + 1e-6) * g
        s["d"] = 0.95 * s["d"] + 0.05 * delta**2
        return delta

    start, expected = 0 * START, reference(step, 0 * START)
    steps = path(optimizers.Adadelta(1.0, rho=0.95, epsilon=1e-6), start)
    np.testing.assert_allclose(steps, expected, rtol=1e-4)  # of the steps, some 5e-3 each
    default = path(optimizers.Adadelta(rho=0.95, epsilon=1e-6), start)
    np.testing.assert_allclose(default, expected / 1000, rtol=1e-4)


def adam(epsilon, epsilon_hat=0.0, decay=0.0, rate=0.1):
    """Algorithm 1 with `epsilon`; with `epsilon_hat` the form in the text before section 2.1."""

    def step(t, g, s):
        s["m"] = 0.9 * s["m"] + 0.1 * g
        s["v"] = 0.999 * s["v"] + 0.001 * g**2
        m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - 0.999**t)
        e = epsilon + epsilon_hat / np.sqrt(1 - 0.999**t)
        return -rate * (m / (np.sqrt(v) + e) + decay * s["w"])

    return reference(step)


def test_adam_equals_its_equation():
    """O04. The trap: Keras's epsilon is epsilon-hat, at step 1 worth 32 of Algorithm 1's."""
    coarse = path(optimizers.Adam(0.1, epsilon=0.1))
    np.testing.assert_allclose(coarse, adam(0, epsilon_hat=0.1), **CLOSE_ADAM)
    assert differ(coarse, adam(0.1), by=0.01)
    fine = path(optimizers.Adam(0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-8))
    np.testing.assert_allclose(fine, adam(1e-8), **CLOSE_ADAM)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_adam_first_step_is_the_sign(scale):
    """O04. Bias correction makes the first step -alpha sign(g), for every scale of the loss."""
    g = scale * np.where(np.abs(START) < 0.1, 1.0, START).astype("float32")
    moved = path(optimizers.Adam(0.1), 0 * START, [g])[0]
    # epsilon-hat: 1e-7 / (sqrt(0.001) * 0.1) = 3e-5, and as much for 1 - 0.999 in float32.
    np.testing.assert_allclose(moved, -0.1 * np.sign(g), rtol=1e-4)


def test_adamw_decays_before_the_step():
    """O04 R01. The weights shrink first, by rate * decay; the default decay is 0.004, not 0.01."""
    kept = path(optimizers.AdamW(0.1, weight_decay=0.5, epsilon=1e-8))
    np.testing.assert_allclose(kept, adam(1e-8, decay=0.5), **CLOSE_ADAM)
    assert differ(kept[0], 0.95 * adam(1e-8)[0])


# Schedules and clipping --------------------------------------------------------------------


def rates(schedule, steps):
    """The rates of the first `steps` updates, as the optimizer takes them."""
    sgd, weight, used = optimizers.SGD(schedule), keras.Variable(0.0), []
    for _ in range(steps):
        used.append(float(array(sgd.learning_rate)))
        sgd.apply([ops.ones(())], [weight])
    np.testing.assert_allclose(-array(weight), np.sum(used), rtol=1e-5)
    return np.array(used)


def test_harmonic_rate():
    """O13. 0.001 / (floor(t/N) + 10) starts at 1e-4, the number to give, and needs `staircase`."""
    schedule = schedules.InverseTimeDecay(1e-4, decay_steps=3, decay_rate=0.1, staircase=True)
    t = np.arange(40)
    np.testing.assert_allclose(rates(schedule, 40), 0.001 / (t // 3 + 10), rtol=1e-6)
    smooth = schedules.InverseTimeDecay(1e-4, decay_steps=3, decay_rate=0.1)
    np.testing.assert_allclose(rates(smooth, 40), 0.001 / (t / 3 + 10), rtol=1e-6)


def test_linear_rate_to_one_percent():
    """O13. The trap: `end_learning_rate` is a rate (default 1e-4), not a share of the first."""
    schedule = schedules.PolynomialDecay(0.5, decay_steps=8, end_learning_rate=0.005)
    a = np.minimum(np.arange(12) / 8, 1)
    np.testing.assert_allclose(rates(schedule, 12), (1 - a) * 0.5 + a * 0.005, rtol=1e-6)


def test_piecewise_constant_rate():
    """O13. The trap: the old rate still holds at the boundary itself, so give N - 1, not N."""
    schedule = schedules.PiecewiseConstantDecay([3, 7], [0.1, 0.01, 0.001])
    np.testing.assert_allclose(rates(schedule, 10), np.repeat([0.1, 0.01, 0.001], [4, 4, 2]))


def test_clipping():
    """O15. The trap: `clipnorm` clips each variable alone and so turns the whole gradient."""

    def clipped(sgd):
        gradients = [np.float32([3, 4]), np.float32([0.3, -0.4])]
        variables = [keras.Variable(np.zeros(2, "float32")) for _ in gradients]
        sgd.apply([ops.convert_to_tensor(g) for g in gradients], variables)
        return np.stack([-array(v) for v in variables])

    whole, close = np.array([[3, 4], [0.3, -0.4]]), {"rtol": 1e-6}
    each = clipped(optimizers.SGD(1.0, clipnorm=1.0))
    np.testing.assert_allclose(each, [[0.6, 0.8], [0.3, -0.4]], **close)
    together = clipped(optimizers.SGD(1.0, global_clipnorm=1.0))
    np.testing.assert_allclose(together, whole / np.sqrt(25.25), **close)
    np.testing.assert_allclose(clipped(optimizers.SGD(1.0, global_clipnorm=6.0)), whole, **close)
    values = clipped(optimizers.SGD(1.0, clipvalue=1.0))
    np.testing.assert_allclose(values, [[1, 1], [0.3, -0.4]], **close)


# Normalization -----------------------------------------------------------------------------


def with_affine(layer, x):
    """The built layer with a scale and an offset that differ from 1 and 0, and both."""
    layer.build(x.shape)
    layer.gamma.assign(1 + 0.5 * normal(*layer.gamma.shape, seed=5))
    layer.beta.assign(normal(*layer.beta.shape, seed=6))
    return layer, array(layer.gamma), array(layer.beta)


def standardised(x, axes, epsilon=1e-3):
    x = x.astype("float64")
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)


@pytest.mark.parametrize("shape", [(8, 5), (4, 3, 2, 5)], ids=["dense", "image"])
def test_batch_norm_in_training_and_test(shape):
    """N01. The traps: the moving variance is biased (paper: m/(m-1)); frozen means test mode."""
    x, axes = 3 * normal(*shape) + 2, tuple(range(len(shape) - 1))
    bn, gamma, beta = with_affine(layers.BatchNormalization(momentum=0.9), x)
    y = gamma * standardised(x, axes) + beta
    np.testing.assert_allclose(array(bn(x, training=True)), y, **CLOSE)
    mean, variance = 0.1 * x.mean(axes), 0.9 + 0.1 * x.var(axes)
    np.testing.assert_allclose(array(bn.moving_mean), mean, **CLOSE)
    np.testing.assert_allclose(array(bn.moving_variance), variance, **CLOSE)
    y = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    np.testing.assert_allclose(array(bn(x, training=False)), y, **CLOSE)
    bn.trainable = False
    np.testing.assert_allclose(array(bn(x, training=True)), y, **CLOSE)


def norm_gradient(x, upstream, epsilon=1e-3):
    """Batch norm's (gamma = 1) gradient at its input."""
    hat = standardised(x, 0, epsilon)
    inner = upstream - upstream.mean(0) - hat * (upstream * hat).mean(0)
    return inner / np.sqrt(x.astype("float64").var(0) + epsilon)


def test_batch_norm_gradient():
    """N01. Back-propagation goes through mean and variance: no column has a mean."""
    x, target = 3 * normal(8, 5) + 2, normal(8, 5, seed=2)
    found = gradient("mean_squared_error", target, x, layers.BatchNormalization())
    upstream = 2 * (standardised(x, 0) - target) / target.size
    np.testing.assert_allclose(found, norm_gradient(x, upstream), **CLOSE)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-7)
    assert differ(found, upstream / np.sqrt(x.var(0) + 1e-3))


def test_batch_norm_ignores_the_scale_before_it():
    """N01. BN((aW)u) = BN(Wu) and the gradient is 1/a as large, while epsilon is negligible."""
    u, w, target = normal(16, 4), normal(4, 5, seed=2), normal(16, 5, seed=3)

    def at(scale, epsilon):
        bn = layers.BatchNormalization(epsilon=epsilon)
        return gradient("mean_squared_error", target, scale * w, bn, inputs=u)

    np.testing.assert_allclose(at(0.1, 1e-7), 10 * at(1.0, 1e-7), rtol=1e-3, atol=2e-4)
    assert differ(at(0.1, 1e-3), 10 * at(1.0, 1e-3), by=0.01)
    y = [array(layers.BatchNormalization(epsilon=1e-7)(a * u @ w, training=True)) for a in (1, 9)]
    np.testing.assert_allclose(*y, atol=1e-5)


def test_batch_norm_passes_the_same_gradient_below_at_every_scale():
    """N01. The gradient at u of BN((aW)u) does not see a, while epsilon is negligible."""
    u, w, target = normal(16, 4), normal(4, 5, seed=2), normal(16, 5, seed=3)

    def at(scale, epsilon):
        linear = layers.Dense(5, kernel_initializer=initializers.Constant(scale * w))
        bn = layers.BatchNormalization(epsilon=epsilon)
        return gradient("mean_squared_error", target, u, linear, bn)

    upstream = 2 * (standardised(u @ w, 0, 0.0) - target) / target.size
    expected = norm_gradient(u @ w, upstream, 0.0) @ w.T
    for scale in (0.1, 1.0, 10.0):
        np.testing.assert_allclose(at(scale, 1e-9), expected, **CLOSE)
    assert differ(at(0.1, 1e-3), expected)


def test_group_norm_is_instance_and_layer_norm():
    """N03. Instance norm is `groups=-1`; group norm's default is 32, too many for few channels."""
    x = normal(3, 4, 4, 6)
    for groups, count in [(1, 1), (2, 2), (-1, 6)]:
        gn, gamma, beta = with_affine(layers.GroupNormalization(groups), x)
        hat = standardised(x.reshape(3, 4, 4, count, -1), (1, 2, 4)).reshape(x.shape)
        np.testing.assert_allclose(array(gn(x)), gamma * hat + beta, **CLOSE)
    gn, gamma, beta = with_affine(layers.GroupNormalization(1), x)
    ln = layers.LayerNormalization(axis=[1, 2, 3])
    ln.build(x.shape)
    ln.set_weights([np.broadcast_to(a, (4, 4, 6)) for a in (gamma, beta)])
    np.testing.assert_allclose(array(gn(x)), array(ln(x)), **CLOSE)
    with pytest.raises(ValueError, match="groups"):
        layers.GroupNormalization()(x)


def test_layer_norm_is_per_pixel():
    """N03. The trap: on images the default `axis=-1` sees one pixel's channels, not the image."""
    x = normal(3, 4, 4, 6)
    ln, gamma, beta = with_affine(layers.LayerNormalization(), x)
    np.testing.assert_allclose(array(ln(x)), gamma * standardised(x, -1) + beta, **CLOSE)
    assert differ(array(ln(x)), gamma * standardised(x, (1, 2, 3)) + beta, by=0.1)


@pytest.mark.parametrize("groups", [1, 2, -1, None], ids=["one", "two", "instance", "layer"])
def test_norms_within_a_sample_ignore_the_batch(groups):
    """N03. An example's output ignores the others and training; batch norm's does not."""
    x = normal(8, 4, 4, 6) * np.arange(1, 9, dtype="float32")[:, None, None, None]
    norm = layers.GroupNormalization(groups) if groups else layers.LayerNormalization()
    alone = array(norm(x[:1], training=True))
    np.testing.assert_allclose(array(norm(x, training=True))[:1], alone, **CLOSE)
    np.testing.assert_array_equal(array(norm(x[:1], training=False)), alone)
    bn = layers.BatchNormalization()
    assert differ(array(bn(x, training=True))[:1], array(bn(x[:1], training=True)))


RENORM = {"renorm": True, "momentum": 0.9, "renorm_momentum": 0.9}
LIMITS = {"rmax": 1.5, "rmin": 1 / 1.5, "dmax": 0.5}


def test_batch_renorm_equals_its_equation():
    """N04. The trap: two momenta, one for training, one for test; the paper has a single alpha."""
    layer = layers.BatchNormalization(**RENORM, renorm_clipping=LIMITS)
    layer, gamma, beta = with_affine(layer, normal(16, 5))
    mu, sigma, clips = np.zeros(5), np.ones(5), []
    for seed in range(8):
        x = normal(16, 5, seed=seed) * [0.2, 1, 1, 1, 6] + [0, 0, 0.2, 3, 0]
        m, s = x.mean(0), np.sqrt(x.var(0) + 1e-3)
        r, d = np.clip(s / sigma, 1 / 1.5, 1.5), np.clip((m - mu) / sigma, -0.5, 0.5)
        clips.append([r < s / sigma, r > s / sigma, np.abs(d) < np.abs(m - mu) / sigma, r == 0])
        expected = gamma * ((x - m) / s * r + d) + beta
        np.testing.assert_allclose(array(layer(x, training=True)), expected, **CLOSE)
        mu, sigma = mu + 0.1 * (m - mu), sigma + 0.1 * (s - sigma)
    assert np.any(clips, axis=(0, 2))[:3].all(), "every limit was reached"
    np.testing.assert_allclose(array(layer(x)), gamma * (x - mu) / sigma + beta, **CLOSE)


def test_batch_renorm_stops_its_gradient():
    """N04. Neither r nor d is differentiated: the gradient is r times batch norm's."""
    x, target = 0.8 * normal(8, 5) + 0.3, normal(8, 5, seed=2)
    layer = layers.BatchNormalization(**RENORM, renorm_clipping=LIMITS)
    found = gradient("mean_squared_error", target, x, layer)
    r = np.clip(np.sqrt(x.var(0) + 1e-3), 1 / 1.5, 1.5)
    assert ((r > 1 / 1.5) & (r < 1.5)).any(), "else clipping alone would hide the derivative"
    y = standardised(x, 0) * r + np.clip(x.mean(0), -0.5, 0.5)
    upstream = 2 * (y - target) / target.size
    np.testing.assert_allclose(found, r * norm_gradient(x, upstream), **CLOSE)


def test_batch_renorm_between_training_and_test():
    """N04. The trap: without limits the first step normalizes nothing; Keras has no schedule."""
    x = 3 * normal(16, 5) + 2
    plain = array(layers.BatchNormalization()(x, training=True))
    limits = {"rmax": 1.0, "rmin": 1.0, "dmax": 0.0}
    closed = layers.BatchNormalization(**RENORM, renorm_clipping=limits)
    np.testing.assert_allclose(array(closed(x, training=True)), plain, **CLOSE)
    unlimited = layers.BatchNormalization(**RENORM)
    np.testing.assert_allclose(array(unlimited(x, training=True)), x, **CLOSE)


# Initialization ----------------------------------------------------------------------------


def drawn(initializer, shape, variance, kurtosis):
    """A draw whose variance is within five standard errors of the estimate, and its mean."""
    w = array(initializer(shape))
    error = np.sqrt((kurtosis - 1) / w.size)
    np.testing.assert_allclose(np.mean(w**2), variance, rtol=5 * error)
    np.testing.assert_allclose(w.mean(), 0, atol=5 * np.sqrt(variance / w.size))
    return w


@pytest.mark.parametrize("shape, fans", [((300, 200), 500), ((3, 3, 40, 80), 9 * 120)])
def test_glorot_uniform(shape, fans):
    """I02. Dense's and Conv's default, under ReLU too, where He's is meant."""
    w = drawn(initializers.GlorotUniform(seed=0), shape, 2 / fans, kurtosis=1.8)
    limit = np.sqrt(6 / fans)
    # Of n uniform draws the largest misses the limit by 1/n on average.
    assert limit * (1 - 20 / w.size) < np.abs(w).max() <= limit * (1 + 1e-6)
    config = layers.Conv2D(1, 1, activation="relu").get_config()["kernel_initializer"]
    assert config["class_name"] == "GlorotUniform"


@pytest.mark.parametrize("shape, fan_in", [((300, 200), 300), ((3, 3, 40, 80), 360)])
def test_he_normal(shape, fan_in):
    """I02. sqrt(2/n) is the deviation, not (as deck 002 writes) the variance; Keras truncates."""
    w = drawn(initializers.HeNormal(seed=0), shape, 2 / fan_in, kurtosis=3)
    # Cut at two deviations of a normal that is 1 / 0.8796 wider, to keep the variance.
    limit = 2 * np.sqrt(2 / fan_in) / 0.87962566
    assert np.abs(w).max() > 0.99 * limit
    # None should be beyond; torch's sampler lets 4 in a million pass, a plain normal 8 %.
    assert np.mean(np.abs(w) > limit * (1 + 1e-6)) < 1e-4
    gaussian = initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", seed=0)
    w = drawn(gaussian, shape, 2 / fan_in, kurtosis=3)
    assert np.abs(w).max() > 1.2 * limit


@pytest.mark.parametrize("shape, fan_in", [((300, 200), 300), ((3, 3, 40, 80), 360)])
def test_uniform_start_of_one_over_root_n(shape, fan_in):
    """I02. The start before Glorot's, U(±1/sqrt(n)), has variance 1/(3n): scale 1/3 in Keras."""
    initializer = initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=0)
    w = drawn(initializer, shape, 1 / (3 * fan_in), kurtosis=1.8)
    limit = 1 / np.sqrt(fan_in)
    assert limit * (1 - 20 / w.size) < np.abs(w).max() <= limit * (1 + 1e-6)


@pytest.mark.parametrize(
    "layer, channels, kernel, fan_in, fan_out, inputs",
    [
        (layers.Conv2D(64, 3, groups=4), 32, (3, 3, 8, 64), 9 * 8, 9 * 64, 9 * 8),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), 64, (3, 3, 64, 2), 9 * 64, 9 * 2, 9),
    ],
    ids=["grouped", "depthwise"],
)
def test_fans_of_grouped_and_depthwise_kernels(layer, channels, kernel, fan_in, fan_out, inputs):
    """I02. The trap: a depthwise unit has 9 inputs, Keras takes 9 times the channels for them.

    Of a grouped kernel fan-in is right, but fan-out counts the units of all groups, not of one.
    """
    layer.build((None, 8, 8, channels))
    assert layer.kernel.shape == kernel
    for mode, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
        scaling = initializers.VarianceScaling(2.0, mode, "untruncated_normal", seed=0)
        drawn(scaling, kernel, 2 / fan, kurtosis=3)
    layer.kernel.assign(initializers.HeNormal(seed=0)(kernel))
    # Standard normal inputs: the outputs' mean square is the sum of a unit's squared weights.
    squares = np.mean(array(layer(normal(50, 8, 8, channels))) ** 2)
    error = np.sqrt(2 / np.prod(kernel))
    np.testing.assert_allclose(squares, 2 * inputs / fan_in, rtol=5 * error)


def test_one_initializer_repeats_itself():
    """I02. The trap: one instance given to two layers gives both the same weights, seed or none."""
    shared = initializers.HeNormal()
    np.testing.assert_array_equal(array(shared((4, 4))), array(shared((4, 4))))
    a, b = (layers.Dense(4, kernel_initializer=shared) for _ in range(2))
    a.build((None, 4)), b.build((None, 4))
    np.testing.assert_array_equal(array(a.kernel), array(b.kernel))
    a, b = (layers.Dense(4, kernel_initializer="he_normal") for _ in range(2))
    a.build((None, 4)), b.build((None, 4))
    assert differ(array(a.kernel), array(b.kernel))


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (3, 3, 2, 5)], ids=["tall", "wide", "conv"])
def test_orthogonal(shape):
    """I03. A convolution's kernel is orthogonal as a flat matrix, the convolution is not."""
    q = array(initializers.Orthogonal(gain=1.5, seed=0)(shape)).reshape(-1, shape[-1])
    gram = q @ q.T if shape[0] < shape[-1] and len(shape) == 2 else q.T @ q
    np.testing.assert_allclose(gram, 1.5**2 * np.eye(len(gram)), atol=2e-6)


def test_orthogonal_keeps_magnitude_in_depth():
    """I03. The singular values of 30 layers are gain**30; ReLU needs sqrt(2), default is 1."""
    product = np.eye(12)
    for seed in range(30):
        product = product @ array(initializers.Orthogonal(gain=1.1, seed=seed)((12, 12)))
    singular = np.linalg.svd(product, compute_uv=False)
    np.testing.assert_allclose(singular, 1.1**30, rtol=1e-5)
    layer, x = layers.Dense(12, kernel_initializer=initializers.Orthogonal()), normal(5, 12)
    lengths = np.linalg.norm(array(layer(x)), axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(x, axis=1), rtol=1e-5)


# Distillation, regularization, small models -------------------------------------------------


def test_distillation_equals_its_equation():
    """P05. T**2 keeps the gradient T(q - p); outputs must be logits, softmax is Keras's work."""
    v, z, t = 3 * normal(6, 4), normal(6, 4, seed=2), 4.0
    p, q = softmax(v / t), softmax(z / t)
    kd = keras.distillation.LogitsDistillation(temperature=t, loss=keras.losses.KLDivergence())
    expected = t**2 * np.mean(np.sum(p * np.log(p / q), axis=-1))
    np.testing.assert_allclose(array(kd.compute_loss(v, z)), expected, **CLOSE)
    np.testing.assert_allclose(gradient(kd.compute_loss, v, z), t * (q - p) / 6, **CLOSE)


@pytest.mark.parametrize("name", ["kl_divergence", "categorical_crossentropy"])
def test_distillation_by_a_losss_name_is_wrong(name):
    """P05. The trap: by name, the default too, the loss gets logits / T, no softmax, no T**2."""
    v, z, t = 3 * normal(6, 4), normal(6, 4, seed=2), 4.0
    by_name = keras.distillation.LogitsDistillation(temperature=t, loss=name)
    found = array(by_name.compute_loss(v, z))
    raw = keras.losses.get(name)(ops.convert_to_tensor(v / t), ops.convert_to_tensor(z / t))
    np.testing.assert_allclose(found, array(raw).mean(), rtol=1e-5)
    p, q = softmax(v / t), softmax(z / t)
    for right in (np.sum(p * np.log(p / q), -1).mean(), np.sum(-p * np.log(q), -1).mean()):
        assert differ(found, right, by=0.1) and differ(found, t**2 * right, by=0.1)
    default = keras.distillation.LogitsDistillation(temperature=t).compute_loss(v, z)
    assert name != "kl_divergence" or array(default) == found


def test_distillation_matches_logits_when_hot():
    """P05. For large T and logits of mean 0 the gradient is (z - v) / N, free of T."""
    v, z = normal(6, 4), normal(6, 4, seed=2)
    v, z = v - v.mean(-1, keepdims=True), z - z.mean(-1, keepdims=True)
    kd = keras.distillation.LogitsDistillation(100.0, keras.losses.KLDivergence())
    hot = gradient(kd.compute_loss, v, z)
    # The expansion's next term is |logits| / T of the gradient: a few per cent.
    np.testing.assert_allclose(hot, (z - v) / 4 / 6, atol=0.05 * np.abs(z - v).max() / 24)


def test_distiller_weighs_both_losses():
    """P05. The labels' share is `student_loss_weight`, 0.5 unless set; the rest is distillation."""
    x, y, v = normal(6, 3), np.arange(6) % 4, normal(3, 4, seed=2)
    teacher, student = (
        keras.Sequential([keras.Input((3,)), layers.Dense(4, use_bias=False)]) for _ in range(2)
    )
    teacher.set_weights([v]), student.set_weights([-v])
    kd = keras.distillation.LogitsDistillation(2.0, keras.losses.KLDivergence())
    both = keras.distillation.Distiller(teacher, student, kd, student_loss_weight=0.3)
    both.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    p, q = softmax(x @ v / 2), softmax(-x @ v / 2)
    labels = -np.mean(np.log(softmax(-x @ v)[np.arange(6), y]))
    expected = 0.3 * labels + 0.7 * 4 * np.mean(np.sum(p * np.log(p / q), axis=-1))
    found = both.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


def trained(optimizer, penalty=None, signal=1.0):
    """The weights before and after three full-batch steps of a linear regression."""
    w = normal(4, 1, seed=3)
    penalty = None if penalty is None else keras.regularizers.L2(penalty)
    dense = layers.Dense(1, use_bias=False, kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((4,)), dense])
    model.set_weights([w])
    model.compile(optimizer, "mean_squared_error")
    for _ in range(3):
        model.train_on_batch(signal * normal(10, 4), normal(10, 1, seed=2))
    return w, model.get_weights()[0]


def test_l2_is_weight_decay_for_sgd():
    """R01. L2 has no 1/2, so `weight_decay` is twice its factor; with momentum they part."""
    _, penalised = trained(optimizers.SGD(0.1), penalty=0.05)
    _, decayed = trained(optimizers.SGD(0.1, weight_decay=0.1))
    np.testing.assert_allclose(penalised, decayed, atol=1e-6)
    start, shrunk = trained(optimizers.SGD(0.1, weight_decay=0.1), signal=0.0)
    np.testing.assert_allclose(shrunk, start * (1 - 2 * 0.1 * 0.05) ** 3, rtol=1e-6)
    _, penalised = trained(optimizers.SGD(0.1, momentum=0.9), penalty=0.05)
    _, decayed = trained(optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1))
    assert differ(penalised, decayed)


def test_l2_is_not_weight_decay_for_adam():
    """R01. Adam rescales L2's gradient to steps of the rate, for any factor; AdamW shrinks."""
    for penalty in (0.05, 5.0):
        start, penalised = trained(optimizers.Adam(0.01, epsilon=1e-12), penalty, signal=0.0)
        # Three steps, in which the shrinking gradient changes by 3 %.
        np.testing.assert_allclose(start - penalised, 0.03 * np.sign(start), rtol=0.05)
    start, decayed = trained(optimizers.AdamW(0.01, weight_decay=0.1), signal=0.0)
    np.testing.assert_allclose(decayed, start * (1 - 2 * 0.01 * 0.05) ** 3, rtol=1e-6)


def test_weight_decay_takes_biases_unless_told():
    """R01. The trap: `weight_decay` shrinks biases and norms too; exclude them before building."""
    for excluded, factor in [(None, 0.9), (["bias"], 1.0)]:
        kernel, bias = (keras.Variable(START, name=name) for name in ("kernel", "bias"))
        sgd = optimizers.SGD(1.0, weight_decay=0.1)
        sgd.exclude_from_weight_decay(var_names=excluded)
        sgd.apply([ops.zeros(START.shape)] * 2, [kernel, bias])
        np.testing.assert_allclose(array(kernel), 0.9 * START, rtol=1e-6)
        np.testing.assert_allclose(array(bias), factor * START, rtol=1e-6)


def test_dropout_rate_is_what_is_dropped():
    """R02. The trap: the deck's p is kept, Keras's `rate` is dropped; the rest is scaled."""
    y = array(layers.Dropout(0.2, seed=0)(np.ones((400, 50), "float32"), training=True))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.8], rtol=1e-6)
    share = np.mean(y == 0)  # of 20000, standard error 0.0028
    assert abs(share - 0.2) < 5 * np.sqrt(0.2 * 0.8 / y.size)


def test_dropout_averages_models_geometrically():
    """R02. The test net is the renormalised geometric mean of all 2**n nets, one softmax layer."""
    rate, x = 0.3, normal(1, 10)
    dense = layers.Dense(4, activation="softmax", bias_initializer="normal")
    net = keras.Sequential([layers.Dropout(rate), dense])
    masks = np.array(list(itertools.product([0, 1], repeat=10)), "float32")
    chance = np.prod(np.where(masks == 1, 1 - rate, rate), axis=1)
    logs = np.log(array(dense(x * masks / (1 - rate))).astype("float64"))
    mean = np.exp(chance @ logs)
    np.testing.assert_allclose(array(net(x, training=False))[0], mean / mean.sum(), **CLOSE)
    assert mean.sum() < 0.99, "else nothing had to be renormalised"


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have")
def test_int8_weights_are_within_half_a_step():
    """A05. The traps: inputs are rounded too, row by row, and the kernel no longer trains."""
    x, w = normal(20, 6), normal(6, 5, seed=2)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, use_bias=False)])
    model.set_weights([w])
    model.quantize("int8")
    kernel, scale = (array(v) for v in model.layers[0].weights)
    assert kernel.dtype == "int8" and not model.trainable_variables
    np.testing.assert_allclose(scale, 127 / np.abs(w).max(0), rtol=1e-5)
    assert np.abs(kernel / scale - w).max() <= 0.5001 / scale.min()
    assert (np.abs(kernel / scale - w) <= 0.5001 / scale).all()
    x_scale = 127 / np.abs(x).max(1, keepdims=True)
    rounded = np.round(x * x_scale) / x_scale
    np.testing.assert_allclose(array(model(x)), rounded @ (kernel / scale), **CLOSE)
    assert differ(array(model(x)), x @ (kernel / scale))
