"""L-BFGS against its peers: gradient evaluations and seconds to the same loss, interleaved.

Run: KERAS_BACKEND=jax python -m benchmarks.second_order [ROUNDS [PART OF A NAME]]

The loss to reach is what SciPy's L-BFGS-B has after so many iterations. For each solver the least
number of its own iterations that gets there is found first, from each of some starts, since
rounding alone moves it by a tenth; then runs of that many from all starts are timed, turn by turn.
Peers of another backend, or not installed, are left out, and so is the problem whose data is not
there. Further ratios: one step of LBFGS inside `fit` to one of SGD, also at 1 M
weights, and a Hessian-vector product to a gradient. TensorFlow runs on one thread; give PyTorch
OMP_NUM_THREADS=1, since two threads are slow for it on small problems. The result is written to
benchmarks/results, and to a file of its own where glibc is told to keep freed memory
(MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000).
"""

import functools
import importlib.util
import json
import os
import sys
import time

import keras
import numpy as np
import scipy.optimize
from keras import ops

import kerasrecipes as kr
from benchmarks._result import FOLDER, keep, on_one_thread, quartiles, setting
from kerasrecipes.objective import Objective
from kerasrecipes.optimizers import LBFGS, minimize

BACKEND = keras.config.backend()
MALLOC = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
NAME = "second_order_malloc" if MALLOC else "second_order"
MEMORY, MOST = 10, 400


def digits():
    (x, y), (more, labels) = kr.data.load("digits")
    x = np.concatenate([x, more]).reshape(-1, 64).astype("float32")
    return x / x.max(), np.concatenate([y, labels]).astype("int32")


def mnist():
    try:
        (x, y), _ = kr.data.load("mnist")
    except Exception as error:
        print("left out:", error)
        return None
    return x[:10000].reshape(-1, 784).astype("float32") / 255.0, y[:10000].astype("int32")


# name -> (data, width of the hidden layer, L2, iterations of SciPy that set the loss, starts)
PROBLEMS = {
    "softmax regression on digits": (digits, None, 1e-3, 60, 5),
    "64-32-10 tanh on digits": (digits, 32, 1e-3, 100, 5),
    "784-512-10 tanh on 10,000 of MNIST": (mnist, 512, 0.0, 12, 2),
}


def network(inputs, hidden, decay, optimizer=None, seed=0):
    keras.utils.set_random_seed(seed)
    made = [keras.Input((inputs,))]
    for units in [hidden] if hidden else []:
        made.append(keras.layers.Dense(units, "tanh", kernel_regularizer=penalty(decay)))
    made.append(keras.layers.Dense(10, kernel_regularizer=penalty(decay)))
    model = keras.Sequential(made)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def penalty(decay):
    return keras.regularizers.L2(decay) if decay else None


def plain(inputs, hidden, decay, x, y):
    """The same loss of a flat vector, as peers are given it."""
    x, y = ops.convert_to_tensor(x), ops.one_hot(ops.convert_to_tensor(y), 10)
    widths = [inputs, *([hidden] if hidden else []), 10]

    def loss(w):
        state, begin, total = x, 0, 0.0
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            kernel = ops.reshape(w[begin : begin + a * b], (a, b))
            state = state @ kernel + w[begin + a * b : begin + a * b + b]
            state = state if i == len(widths) - 2 else ops.tanh(state)
            begin += a * b + b
            total = total + decay * ops.sum(kernel * kernel)
        return total - ops.mean(ops.sum(y * ops.log_softmax(state), axis=1))

    return loss


def ours(objective):
    def make(iterations):
        def run(start=None):  # None stands for the weights that the model has
            if start is not None:
                objective.set_vector(start)
            history = minimize(objective, steps=iterations, tolerance=0.0).history
            return history["loss"][-1], history["evaluations"][-1]

        return run

    return make


def scipys(objective):
    def make(iterations):
        def run(start):
            found = scipy.optimize.minimize(
                lambda w: tuple(np.asarray(v, "float64") for v in objective.value_and_gradient(w)),
                start.astype("float64"),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": iterations, "maxcor": MEMORY, "ftol": 0, "gtol": 0},
            )
            return float(found.fun), found.nfev

        return run

    return make


def optaxs(loss):
    import jax
    import optax

    solver = optax.lbfgs(memory_size=MEMORY)
    look = optax.value_and_grad_from_state(loss)

    @jax.jit
    def solve(w, iterations):
        def body(carry):
            i, w, state, evaluations = carry
            value, gradient = look(w, state=state)
            moves, state = solver.update(
                gradient, state, w, value=value, grad=gradient, value_fn=loss
            )
            used = optax.tree.get(state, "info").num_linesearch_steps
            return i + 1, optax.apply_updates(w, moves), state, evaluations + used

        carry = 0, w, solver.init(w), 1
        _, w, state, used = jax.lax.while_loop(lambda c: c[0] < iterations, body, carry)
        return optax.tree.get(state, "value"), used

    def make(iterations):
        return lambda start: tuple(map(float, jax.block_until_ready(solve(start, iterations))))

    return make


def jaxopts(loss):
    import jax
    import jaxopt

    solver = jaxopt.LBFGS(loss, history_size=MEMORY)

    @jax.jit
    def solve(w, iterations):
        def body(carry):
            i, w, state = carry
            return i + 1, *solver.update(w, state)

        carry = 0, w, solver.init_state(w)
        _, _, state = jax.lax.while_loop(lambda c: c[0] < iterations, body, carry)
        return state.value, state.num_fun_eval

    def make(iterations):
        return lambda start: tuple(map(float, jax.block_until_ready(solve(start, iterations))))

    return make


def optimistixs(loss):
    import jax
    import optimistix

    # Its steps are trials: each one is an evaluation.
    solver = optimistix.LBFGS(rtol=0.0, atol=0.0, history_length=MEMORY)

    def make(iterations):
        @jax.jit
        def solve(w):
            found = optimistix.minimise(
                lambda w, args: loss(w), solver, w, max_steps=iterations, throw=False
            )
            return loss(found.value), found.stats["num_steps"]

        return lambda start: tuple(map(float, jax.block_until_ready(solve(start))))

    return make


def torchs(loss):
    import torch

    def make(iterations):
        def run(start):
            w = torch.tensor(start, requires_grad=True)
            solver = torch.optim.LBFGS(
                [w],
                max_iter=iterations,
                max_eval=10 * iterations,
                history_size=MEMORY,
                tolerance_grad=0.0,
                tolerance_change=0.0,
                line_search_fn="strong_wolfe",
            )

            def closure():
                solver.zero_grad()
                value = loss(w)
                value.backward()
                return value

            solver.step(closure)
            with torch.no_grad():
                return float(loss(w)), solver.state[w]["func_evals"]

        return run

    return make


def tfps(loss):
    import tensorflow as tf
    import tensorflow_probability as tfp

    @tf.function
    def solve(w, iterations):
        found = tfp.optimizer.lbfgs_minimize(
            lambda w: tfp.math.value_and_gradient(loss, w),
            w,
            num_correction_pairs=MEMORY,
            tolerance=0.0,
            max_iterations=iterations,
        )
        return found.objective_value, found.num_objective_evaluations

    def make(iterations):
        return lambda start: tuple(map(float, solve(tf.constant(start), tf.constant(iterations))))

    return make


PEERS = {
    "jax": {"optax": optaxs, "jaxopt": jaxopts, "optimistix": optimistixs},
    "torch": {"torch": torchs},
    "tensorflow": {"tensorflow_probability": tfps},
}


def least(make, start, target, guess):
    """The least number of iterations that reaches `target`, near `guess`; None if none does."""

    def reached(iterations):
        return make(iterations)(start)[0] <= target

    low, high = 0, guess
    while high <= MOST and not reached(high):
        low, high = high, high + 1 + high // 4
    if high > MOST:
        return None
    while high - low > 1:
        # The first look below is not far: optimistix compiles for each number.
        middle = (low + high) // 2 if low else high - 1 - high // 8
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def in_fit(x, y, hidden, decay, starts, evaluations):
    """Optimizer -> pairs of functions, one a start: one makes ready, one fits full batches."""

    def make(optimizer):
        model = network(x.shape[1], hidden, decay, optimizer)
        vector = Objective(model, x, y)

        def ready(start):
            vector.set_vector(start)
            model.optimizer.build(model.trainable_variables)
            for variable in model.optimizer.variables:
                if variable is not model.optimizer._learning_rate:
                    variable.assign(ops.zeros(variable.shape, variable.dtype))

        def fit(steps):
            # Made once, as peers are given tensors.
            return functools.partial(model.fit, kr.data.FullBatch(x, y, steps), verbose=0)

        return [
            (functools.partial(ready, start), fit(steps))
            for start, steps in zip(starts, evaluations, strict=True)
        ]

    return {
        "LBFGS in fit": make(LBFGS(memory_size=MEMORY, tolerance=0.0)),
        "SGD in the same fit": make(keras.optimizers.SGD(0.01)),
    }


def timed(runs, rounds):
    """name -> seconds of its pairs together, turn by turn after one turn that compiles."""
    seconds = {name: [] for name in runs}
    for turn in range(rounds + 1):
        # To and fro: the first fit after other solvers finds nothing in the caches.
        for name, pairs in list(runs.items())[:: -1 if turn % 2 else 1]:
            total = 0.0
            for ready, run in pairs:
                ready()
                begin = time.perf_counter()
                run()
                total += time.perf_counter() - begin
            if turn:
                seconds[name].append(total)
    return seconds


def ratio(found, one, other):
    """Of the same turns: median and quartiles."""
    return quartiles([a / b for a, b in zip(found[one], found[other], strict=True)], 3)


def measure(name, rounds):
    data, hidden, decay, iterations, count = PROBLEMS[name]
    if (arrays := data()) is None:
        return None
    x, y = arrays
    starts = [
        Objective(network(x.shape[1], hidden, decay, seed=seed), x, y).get_vector()
        for seed in range(count)
    ]
    objective = Objective(network(x.shape[1], hidden, decay), x, y)
    solvers = {"minimize": ours(objective), "scipy": scipys(objective)}
    # What rounding may hide must not cost the others an iteration.
    targets = [solvers["scipy"](iterations)(start)[0] * (1 + 1e-5) for start in starts]
    loss = plain(x.shape[1], hidden, decay, x, y)
    for peer, solver in PEERS[BACKEND].items():
        if importlib.util.find_spec(peer):
            solvers[peer] = solver(loss)
    runs, evaluations, missed = {}, {}, []
    for solver, make in solvers.items():
        needed = [least(make, *pair, iterations) for pair in zip(starts, targets, strict=True)]
        if None in needed:
            missed.append(solver)
            continue
        # Made once: some compile for their number of iterations.
        calls = [functools.partial(make(n), w) for n, w in zip(needed, starts, strict=True)]
        evaluations[solver] = [int(call()[1]) for call in calls]
        runs[solver] = [(list, call) for call in calls]
        if solver == "minimize":
            sets = [functools.partial(objective.set_vector, start) for start in starts]
            runs[solver] = list(zip(sets, map(make, needed), strict=True))
    fits = in_fit(x, y, hidden, decay, starts, evaluations["minimize"])
    found = timed(runs | fits, rounds)
    reached = []
    for (ready, fit), target in zip(fits["LBFGS in fit"], targets, strict=True):
        ready()
        fitted = Objective(fit().model, x, y)
        reached.append(fitted.value(fitted.get_vector()) / target)
    logs = {solver: np.log(n).mean() for solver, n in evaluations.items()}
    return {
        "loss to reach": [round(target, 6) for target in targets],
        "evaluations": evaluations,
        "evaluations / scipy's, geometric mean": {
            solver: round(float(np.exp(log - logs["scipy"])), 3) for solver, log in logs.items()
        },
        "not reached": missed,
        "loss in fit / loss to reach, at most": round(max(reached), 6),
        "seconds, all starts": {n: quartiles(s) for n, s in found.items()},
        "LBFGS step / SGD step in fit": ratio(found, "LBFGS in fit", "SGD in the same fit"),
    }


def large(examples, rounds, steps=5):
    """On 1 M weights: a step of LBFGS to one of SGD, a product with the Hessian to a gradient."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, 784)).astype("float32")
    y = rng.integers(0, 10, len(x))
    objective = Objective(network(784, 1258, 0.0), x, y)
    w = objective.get_vector()
    runs = {
        **in_fit(x, y, 1258, 0.0, [w], [steps]),
        "gradient": [(list, lambda: objective.value_and_gradient(w))],
        "product": [(list, lambda: objective.hessian_vector_product(w, w))],
    }
    found = timed(runs, rounds)
    return {
        "LBFGS step / SGD step in fit": ratio(found, "LBFGS in fit", "SGD in the same fit"),
        "Hessian-vector product / gradient": ratio(found, "product", "gradient"),
    }


def main(rounds=7, part=""):
    """All parts whose name has `part` in it, beside what was measured of the others before."""
    parts = {name: functools.partial(measure, name) for name in PROBLEMS}
    for examples in (256, 2000, 10000):
        parts[f"1 M weights, {examples} examples"] = functools.partial(large, examples)
    path = FOLDER / f"{NAME}_{BACKEND}.json"
    kept = json.loads(path.read_text())["problems"] if path.exists() else {}
    found = {name: run(rounds) for name, run in parts.items() if part in name}
    return {
        "benchmark": NAME,
        "problems": kept | {name: {"rounds": rounds, **one} for name, one in found.items() if one},
        "threads": os.environ.get("OMP_NUM_THREADS"),
        **({"malloc": MALLOC} if MALLOC else {}),
        **setting("scipy", *PEERS[BACKEND]),
    }


if __name__ == "__main__":
    on_one_thread()
    keep(main(*map(int, sys.argv[1:2]), *sys.argv[2:3]))
