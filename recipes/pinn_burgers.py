"""Burgers' equation by a physics-informed network: Adam begins, L-BFGS finishes.

u_t + u u_x = (0.01 / pi) u_xx for x in [-1, 1], t in [0, 1], with u = -sin(pi x) at t = 0 and
u = 0 at both ends (Raissi et al., 2019). From t = 0.3 on there is a front of width 0.01 at x = 0.
The network carries its derivatives along, so the residual is the output of an ordinary model.

Result: seeds 0 to 3, Keras 3.15.1, JAX 0.10.2, CPU; relative L2 error of u on 256 x 100 points:
                                seconds   mean square residual   error of u
            1500 steps of Adam  8         2.1e-3 to 3.0e-2       0.016 to 0.095
            then L-BFGS         39 to 40  2.9e-6 to 9.4e-6       0.0006, 0.0009, 0.0004, 0.0005
            Adam alone          39 to 40  1.2e-4 to 2.2e-4       0.004, 0.004, 0.003, 0.005
Tune:   BEGIN (fewer steps of Adam, a worse valley), STRETCH (1 is slower), EPOCHS, POINTS.
"""

import time

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr

VISCOSITY = 0.01 / np.pi
UNITS, DEPTH, STRETCH = 24, 4, 4.0  # the network sees 4 x, since the front is narrow
POINTS, RATE, BEGIN = 2000, 5e-3, 1500  # half of them near the front; Adam's; before L-BFGS
MEMORY, AT_ONCE, EPOCHS = 50, 500, 12  # of L-BFGS; gradients in an epoch


def exact(x, t, nodes=100):
    """Cole and Hopf's solution at t > 0: a quotient of two integrals, by Gauss and Hermite."""
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    at = np.pi * (x[:, None] - np.sqrt(4 * VISCOSITY * t)[:, None] * z)
    density = weights * np.exp(-(np.cos(at) + 1) / (2 * np.pi * VISCOSITY))
    return -(np.sin(at) * density).sum(axis=1) / density.sum(axis=1)


def load():  # points (x, t) with x >= 0 for the residual; other points and u there for the error
    rng = np.random.default_rng(0)
    x, t = rng.uniform(size=(2, POINTS))
    x[::2] = np.minimum(np.abs(rng.normal(scale=0.1, size=len(x[::2]))), 1)
    grid = np.meshgrid(np.linspace(-1, 1, 256), np.linspace(0.01, 1, 100))
    points, measured = (np.stack([np.ravel(a) for a in two], axis=1) for two in ((x, t), grid))
    return points.astype("float32"), (measured.astype("float32"), exact(*measured.T))


def small():
    global UNITS, DEPTH, POINTS, BEGIN, AT_ONCE
    UNITS, DEPTH, POINTS, BEGIN, AT_ONCE = 8, 2, 100, 20, 5
    return load()


class Residual(keras.layers.Layer):
    """What is left of Burgers' equation at points (x, t), for the u of a network n.

    u = -sin(pi x) + t (1 - x²) (n(x, t) - n(-x, t)) / 2 meets all conditions, odd as the solution.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stack = [keras.layers.Dense(units) for units in (UNITS,) * DEPTH + (1,)]

    def build(self, input_shape):
        for layer, inputs in zip(self.stack, (2, *(UNITS,) * DEPTH), strict=True):
            layer.build((None, inputs))

    def network(self, x, t):
        """(n(x, t) - n(-x, t)) / 2 and its derivatives by x, by t and twice by x."""
        none = ops.zeros_like(x)
        pairs = (x, 2 * t - 1), (none + 1, none), (none, none + 2), (none, none)
        jet = [
            ops.concatenate([ops.concatenate([s * a, b], axis=1) for s in (STRETCH, -STRETCH)])
            for a, b in pairs
        ]
        for depth, layer in enumerate(self.stack):
            if depth:
                n, by_x, by_t, by_xx = jet
                n = ops.tanh(n)
                slope = 1 - n * n
                jet = n, slope * by_x, slope * by_t, slope * (by_xx - 2 * n * by_x * by_x)
            jet = [ops.matmul(one, layer.kernel) for one in jet]
            jet[0] = jet[0] + layer.bias
        return [ops.subtract(*ops.split(one, 2, axis=0)) / 2 for one in jet]

    def solution(self, points):
        """u and its derivatives by x, by t and twice by x, each of shape `(points, 1)`."""
        x, t = points[:, :1], points[:, 1:]
        n, by_x, by_t, by_xx = self.network(x, t)
        sine, within = ops.sin(np.pi * x), 1 - x * x
        return (
            t * within * n - sine,
            t * (within * by_x - 2 * x * n) - np.pi * ops.cos(np.pi * x),
            within * (n + t * by_t),
            t * (within * by_xx - 4 * x * by_x - 2 * n) + np.pi**2 * sine,
        )

    def call(self, points):
        u, by_x, by_t, by_xx = self.solution(points)
        return by_t + u * by_x - VISCOSITY * by_xx


class Falling(keras.callbacks.Callback):
    """Lets the rate fall by a cosine until the time is up, and then ends the fit."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.begin = seconds, time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        share = min(1.0, (time.perf_counter() - self.begin) / self.seconds)
        self.model.optimizer.learning_rate = RATE * (1 + np.cos(np.pi * share)) / 2
        self.model.stop_training = share == 1  # after this epoch, at rate 0


def main(data=None, epochs=EPOCHS, seed=0):
    points, (measured, u) = data or load()
    zeros, result = np.zeros((len(points), 1), "float32"), {}

    def build():
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input((2,)), Residual()]), time.perf_counter()

    def fitted(model, optimizer, steps, epochs, *callbacks):
        model.compile(optimizer, "mse")
        batches = kr.data.FullBatch(points, zeros, steps)
        model.fit(batches, epochs=epochs, callbacks=callbacks, verbose=0)

    def report(name, model, seconds):
        found = ops.convert_to_numpy(model.layers[-1].solution(ops.convert_to_tensor(measured))[0])
        loss = model.evaluate(points, zeros, batch_size=len(points), verbose=0)
        error = np.linalg.norm(found[:, 0] - u) / np.linalg.norm(u)
        for key, value in (("seconds", seconds), ("loss", loss), ("error", error)):
            result[f"{name}, {key}"] = float(value)
        print(f"  {name:<20}{seconds:>9.1f}{loss:>12.1e}{error:>12.1e}", flush=True)

    print(f"seed {seed}\n  {'':<20}{'seconds':>9}{'loss':>12}{'error of u':>12}")
    model, begin = build()
    fitted(model, keras.optimizers.Adam(RATE), BEGIN, 1)
    report("Adam begins", model, time.perf_counter() - begin)
    lbfgs = kr.optimizers.LBFGS(memory_size=MEMORY, tolerance=0.0)
    fitted(model, lbfgs, AT_ONCE, epochs, kr.callbacks.SwapAcceptedWeights())
    seconds = time.perf_counter() - begin
    report("L-BFGS finishes", model, seconds)
    model, begin = build()
    fitted(model, keras.optimizers.Adam(RATE), 100, epochs * AT_ONCE, Falling(seconds))
    report("Adam alone", model, time.perf_counter() - begin)
    return result


if __name__ == "__main__":
    main()
