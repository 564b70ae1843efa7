"""The methods once more, each in about ten lines of NumPy written from the paper's equation.

Nothing of kerasrecipes is imported here. Random numbers come from `keras.random`, so that both
sides see the same ones.
"""

import keras
import numpy as np
from keras import ops


def perturbed_sgd(starts, steps, learning_rate, momentum, threshold, interval, radius, seed):
    """Jin et al. 2017, Algorithm 2, with the fed gradient; `steps` is a list of gradient lists."""
    draws = keras.random.SeedGenerator(seed)
    w, v = [s.astype("float64") for s in starts], [np.zeros(s.shape) for s in starts]
    last = -interval - 1
    for t, gradients in enumerate(steps):
        norm = np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in gradients))
        if norm <= threshold and t - last > interval:
            z = [ops.convert_to_numpy(keras.random.normal(x.shape, seed=draws)) for x in w]
            u = float(keras.random.uniform((), seed=draws))
            length = np.sqrt(sum(np.sum(a**2) for a in z))
            depth = radius * u ** (1 / sum(a.size for a in z))
            w, last = [x + depth * a / length for x, a in zip(w, z, strict=True)], t
        v = [momentum * a - learning_rate * g for a, g in zip(v, gradients, strict=True)]
        w = [x + a for x, a in zip(w, v, strict=True)]
    return w


def weight_normalized_dense(x, g, v, b):
    """Salimans & Kingma 2016, equation 2: w = g v / ||v||, one norm per output unit."""
    return x @ (v * (g / np.sqrt((v**2).sum(axis=0)))) + b


def sparse(shape, connections, stddev, seed):
    """Martens 2010: the `connections` inputs of smallest random rank keep a normal weight."""
    values, order = ops.convert_to_numpy(keras.random.normal((2, *shape), seed=seed))
    order, kernel = order.reshape(-1, shape[-1]), np.zeros_like(values).reshape(-1, shape[-1])
    for unit in range(shape[-1]):
        kept = np.argsort(order[:, unit])[:connections]
        kernel[kept, unit] = stddev * values.reshape(-1, shape[-1])[kept, unit]
    return kernel.reshape(shape)


def one_cycle(step, peak, steps, warmup, initial_divisor, final_divisor):
    """Two half cosines, as torch.optim.lr_scheduler.OneCycleLR documents them."""
    low, last = peak / initial_divisor, peak / initial_divisor / final_divisor
    top, step = warmup * steps - 1, min(step, steps - 1)
    if step <= top:
        return low + (peak - low) * (1 - np.cos(np.pi * step / top)) / 2
    return last + (peak - last) * (1 + np.cos(np.pi * (step - top) / (steps - 1 - top))) / 2


def momentum_matrix(learning_rate, momentum, eigenvalue):
    """Goh 2017: one step of the heavy ball on an eigendirection, acting on (z, w)."""
    return np.array(
        [[momentum, eigenvalue], [-learning_rate * momentum, 1 - learning_rate * eigenvalue]]
    )


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_regression(w, x, y, kinds):
    """Loss and gradient of one Dense softmax layer, kernel before bias in `w`."""
    kernel, bias = w[:-kinds].reshape(-1, kinds), w[-kinds:]
    p = softmax(x @ kernel + bias)
    loss = -np.log(p[np.arange(len(x)), y]).mean()
    error = (p - np.eye(kinds)[y]) / len(x)
    return loss, np.concatenate([(x.T @ error).ravel(), error.sum(axis=0)])


def least_squares_descent(x, y, w, rates, order):
    """Losses of single-batch gradient descent on mean (xw - y)², a new rate at each batch."""
    losses = []
    for rate, batch in zip(rates, order, strict=True):
        error = x[batch] @ w - y[batch]
        losses.append((error**2).mean())
        w = w - rate * 2 * x[batch].T @ error / error.size
    return np.array(losses), w


def batch_norm_inference(z, gamma, beta, mean, variance, epsilon):
    return gamma * (z - mean) / np.sqrt(variance + epsilon) + beta


def two_heads(x, targets, weights, coefficients, rate, order):
    """Paths of descent on sum c_i mean((h a_i - y_i)²) + c_0 mean(h²), h = x u, one c a batch."""
    (u, *heads), path = weights, []
    for (first, *others), batch in zip(coefficients, order, strict=True):
        h = x[batch] @ u
        errors = [
            2 * c * (h @ a - y[batch]) / len(h)
            for c, a, y in zip(others, heads, targets, strict=True)
        ]
        slope = 2 * first * h / h.size + sum(e @ a.T for e, a in zip(errors, heads, strict=True))
        heads = [a - rate * h.T @ e for a, e in zip(heads, errors, strict=True)]
        u = u - rate * x[batch].T @ slope
        path.append([u, *heads])
    return path


def newton_step(hessian, gradient, damping):
    """Deck 004's regularised Newton step."""
    return -np.linalg.solve(hessian + damping * np.eye(len(gradient)), gradient)


def saddle_free_step(hessian, gradient, damping):
    """Dauphin et al. 2014; |H| is the root of H², found by Newton's iteration for the sign of H."""
    sign = hessian.astype("float64") / np.linalg.norm(hessian, 2)
    for _ in range(60):
        sign = (sign + np.linalg.pinv(sign)) / 2
    return newton_step(sign @ hessian, gradient, damping)


def path_scaling(kernels, biases):
    """Neyshabur et al. 2015, by one forward and one backward sum over squared weights."""
    entering, leaving = [np.ones(kernels[0].shape[0])], [np.ones(kernels[-1].shape[1])]
    for kernel, bias in zip(kernels, biases, strict=True):
        entering.append(entering[-1] @ kernel**2 + bias**2)
    for kernel in kernels[:0:-1]:
        leaving.insert(0, kernel**2 @ leaving[0])
    return [np.outer(a, b) for a, b in zip(entering, leaving, strict=False)], leaving
