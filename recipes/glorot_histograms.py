"""Glorot and Bengio's look at activations and gradients: tanh, softsign, sigmoid, two starts.

Five hidden layers on MNIST (2010, sections 3 and 4). The old start U(-1/sqrt(n), 1/sqrt(n)) makes
activations and gradients smaller from layer to layer, the normalized one much less.
`main(figure="signals.png")` saves the histograms of the activations after training.

Result: mean (lowest, highest), seeds 0-2, Keras 3.15.1, JAX 0.10.2, CPU; deviation of layer 5's
        activations over layer 1's and of layer 1's gradients over layer 5's, both at the start,
        then after 3,000 steps of 20 the 98th percentiles in layers 1 and 5, and the test error:
                                  activ.  grad.   percentiles    test error
            tanh, old             0.10    0.11    1.00 0.93      0.054 (0.048, 0.059)
            tanh, normalized      0.49    0.54    1.00 0.95      0.048 (0.047, 0.049)
            softsign, old         0.07    0.07    0.82 0.55      0.063 (0.061, 0.065)
            softsign, normalized  0.27    0.30    0.82 0.54      0.054 (0.053, 0.056)
            sigmoid, old          0.55    0.0004  0.77 0.26      0.890 (0.887, 0.897), chance
            sigmoid, normalized   0.53    0.003   0.93 0.30      0.890 (0.887, 0.897), chance
        Over the seeds the first four columns stay within 0.035. As in 2010, tanh saturates from
        layer 1 on, softsign does not, and sigmoid's top layer falls towards 0, where it stays here.
Tune:   LEARNING_RATE of each activation, then EPOCHS, then UNITS.
"""

import keras
import numpy as np

import kerasrecipes as kr

DEPTH, UNITS, CLASSES = 5, 300, 10
IMAGES, LOOKED_AT = 10_000, 300
LEARNING_RATE, BATCH, EPOCHS = 0.05, 20, 6

ACTIVATIONS = ("tanh", "softsign", "sigmoid")
STARTS = {  # scale and mode of a uniform VarianceScaling
    "old": (1 / 3, "fan_in"),  # U(-1/sqrt(n), 1/sqrt(n)) for n inputs
    "normalized": (1.0, "fan_avg"),  # Glorot's, Keras's default
}


def load():  # your arrays go here: images and labels 0, 1, ...
    (x, y), (x_test, y_test) = kr.data.load("mnist")
    mean, std = x.mean(), x.std()
    x, x_test = (((a - mean) / std).astype("float32") for a in (x, x_test))
    return (x[:IMAGES], y[:IMAGES]), (x_test, y_test)


def build(activation, start, shape, seed):
    keras.utils.set_random_seed(seed)

    def dense(units, activation):
        scale, mode = STARTS[start]
        kernel = keras.initializers.VarianceScaling(scale, mode, "uniform")
        return keras.layers.Dense(units, activation, kernel_initializer=kernel)

    hidden = [dense(UNITS, activation) for _ in range(DEPTH)]
    head = dense(CLASSES, "softmax")
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), *hidden, head])
    sgd = keras.optimizers.SGD(LEARNING_RATE)
    model.compile(sgd, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def deviations(model, x, y):
    """Standard deviation of activations and of gradients, hidden layer by hidden layer."""
    rows = kr.diagnostics.signal_report(model, x[:LOOKED_AT], y[:LOOKED_AT]).rows[1:-1]
    return [[row[name] ** 0.5 for row in rows] for name in ("variance", "gradient_variance")]


def activations(model, x):
    """Arrays of the hidden layers' activations, from the lowest to the highest."""
    look = keras.Model(model.inputs[0], [layer.output for layer in model.layers[1:-1]])
    return [keras.ops.convert_to_numpy(a) for a in look(x[:LOOKED_AT])]


def draw(seen, figure):
    import matplotlib.pyplot as plt

    drawn, panels = plt.subplots(
        len(STARTS), len(ACTIVATIONS), figsize=(9.6, 4.8), sharex="col", layout="constrained"
    )
    for row, start in enumerate(STARTS):
        for column, activation in enumerate(ACTIVATIONS):
            axes = panels[row, column]
            for depth, values in enumerate(seen[activation, start], 1):
                heights, edges = np.histogram(values, bins=60, density=True)
                met = heights > 0
                middles = (edges[1:] + edges[:-1]) / 2
                axes.plot(middles[met], heights[met], label=f"layer {depth}")
            axes.set(title=f"{activation}, {start} start", yscale="log")
    panels[0, 0].legend(frameon=False, fontsize=7)
    drawn.supxlabel("activation after training")
    drawn.supylabel("density")
    drawn.savefig(figure)
    plt.close(drawn)


def main(data=None, epochs=EPOCHS, seed=0, figure=None):
    (x, y), test = data or load()
    result, seen = {}, {}
    print(f"layer 1 to {DEPTH}: deviations at the start, 98th percentiles after training")
    for activation in ACTIVATIONS:
        for start in STARTS:
            model = build(activation, start, x.shape[1:], seed)
            forward, backward = deviations(model, x, y)
            model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
            seen[activation, start] = activations(model, x)
            high = [float(np.percentile(np.abs(a), 98)) for a in seen[activation, start]]
            name = f"{activation}, {start}"
            result[f"{name}, activation"] = forward[-1] / forward[0]
            result[f"{name}, gradient"] = backward[0] / backward[-1]
            result[f"{name}, percentile 1"], result[f"{name}, percentile 5"] = high[0], high[-1]
            result[f"{name}, error"] = 1 - model.evaluate(*test, batch_size=1000, verbose=0)[1]
            print(f"{name}: test error {result[f'{name}, error']:.4f}")
            rows = {"activations": forward, "gradients": backward, "percentiles": high}
            for word, values in rows.items():
                print(f"  {word:<12}" + "".join(f"{v:>10.2g}" for v in values), flush=True)
    if figure:
        draw(seen, figure)
    return result


if __name__ == "__main__":
    main()
