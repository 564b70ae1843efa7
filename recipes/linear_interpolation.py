"""Straight line from the initial weights to the trained ones: the loss falls all the way.

Goodfellow, Vinyals and Saxe (2015) on Fashion-MNIST, with the negative control: between two
independent solutions there is a barrier. `main(figure="line.png")` saves the curves.

Result: mean (lowest, highest), seeds 0-2, Keras 3.15.1, TensorFlow 2.21.0, CPU; largest rise is the
        largest step from one position in [0, 1] to the next, 0.05 apart: negative is monotone.
                                       ReLU                       sigmoid
            training loss at start     3.000 (2.819, 3.271)        2.411 (2.354, 2.466)
            training loss at end       0.215 (0.206, 0.230)        0.350 (0.341, 0.362)
            its largest rise          -0.0007 (-0.0011, -0.0001) -0.0050 (-0.0062, -0.0033)
            largest rise of test loss +0.0061 (0.0058, 0.0066)   -0.0010 (-0.0019, 0.0004)
        Control: 0.242 (0.232, 0.247) at the worse end, 1.221 (1.135, 1.279) on the way.
        Seed 0 on JAX 0.10.2: ReLU 3.215 to 0.205, rise -0.0029, sigmoid 2.481 to 0.341, -0.0066,
        control 0.217 and 1.311; on torch 2.13.0: 3.204 to 0.226, -0.0003, 2.439 to 0.351, -0.0061,
        control 0.226 and 1.398.
Tune:   LEARNING_RATE (a much larger one may break monotony), then EPOCHS, then UNITS.
"""

import keras
import numpy as np

import kerasrecipes as kr

UNITS, CLASSES = 256, 10
STARTS = {"relu": "he_normal", "sigmoid": "glorot_uniform"}
LEARNING_RATE, MOMENTUM, BATCH, EPOCHS = 0.02, 0.9, 128, 6
BOUNDS, STEPS = (-0.25, 1.5), 36  # positions on the line, 0.05 apart
POINTS = 10_000  # training examples, and as many test examples, on which the loss is measured


def load():  # your arrays go here
    (x, y), (x_test, y_test) = kr.data.load("fashion_mnist")
    mean, std = x.mean(), x.std()
    x, x_test = (((a - mean) / std).astype("float32") for a in (x, x_test))
    return (x, y), (x_test, y_test)


def train(activation, x, y, epochs, seed):
    """A trained model with its weights at the start and at the end of this very run."""
    keras.utils.set_random_seed(seed)
    start = STARTS[activation]
    hidden = [keras.layers.Dense(UNITS, activation, kernel_initializer=start) for _ in range(2)]
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten(), *hidden])
    model.add(keras.layers.Dense(CLASSES, "softmax"))
    sgd = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    model.compile(sgd, "sparse_categorical_crossentropy")
    initial = model.get_weights()
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return model, initial, model.get_weights()


def within(line, losses):
    """The losses between the two ends, both included."""
    return [loss for a, loss in zip(line.alpha, losses, strict=True) if -1e-9 < a < 1 + 1e-9]


def draw(lines, path):
    from matplotlib.figure import Figure  # only where a figure is wanted

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, (title, line) in zip(figure.subplots(1, 3, sharey=True), lines.items(), strict=True):
        axes.plot(line.alpha, line.loss, label="training")
        axes.plot(line.alpha, line.val_loss, "--", label="test")
        for end in (0, 1):
            axes.axvline(end, color="0.85", zorder=0)
        axes.set(title=title, xlabel="position on the line", yscale="log")
        axes.set_yticks([0.2, 0.5, 1, 2, 5], labels=["0.2", "0.5", "1", "2", "5"])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("loss")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(data=None, epochs=EPOCHS, seed=0, figure=None):
    (x, y), (x_test, y_test) = data or load()
    settings = {
        "steps": STEPS,
        "bounds": BOUNDS,
        "validation_data": (x_test[:POINTS], y_test[:POINTS]),
        "batch_size": 2000,
    }
    measured = x[:POINTS], y[:POINTS]
    lines, result = {}, {}
    for activation in STARTS:
        model, start, end = train(activation, x, y, epochs, seed)
        line = kr.diagnostics.interpolate(model, *measured, start, end, **settings)
        lines[f"{activation}: start to solution"] = line
        for name, losses in (("", line.loss), ("test_", line.val_loss)):
            path, key = within(line, losses), f"{activation}_{name}"
            result |= {f"{key}start": path[0], f"{key}end": path[-1]}
            result[f"{key}largest_rise"] = float(np.diff(path).max())  # below 0: monotone
        if activation == "relu":
            first = end
    # Negative control: between two independent solutions there is an obstacle.
    model, _, second = train("relu", x, y, epochs, seed + 1000)
    line = kr.diagnostics.interpolate(model, *measured, first, second, **settings)
    lines["relu: solution to solution"] = line
    path = within(line, line.loss)
    result |= {"control_ends": max(path[0], path[-1]), "control_barrier": max(path)}
    if figure:
        draw(lines, figure)
    print(f"loss on the line, seed {seed}")
    for name, value in result.items():
        print(f"  {name:<26}{value:>9.4f}")
    return result


if __name__ == "__main__":
    main()
