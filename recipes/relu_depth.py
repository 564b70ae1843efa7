"""Thirty ReLU layers: He's start keeps the signal and trains, from Glorot's it dies on the way.

He et al. (2015, section 2.2) on MNIST: a ReLU layer with weights of variance 2 / n keeps the mean
square of its inputs, with Glorot's 1 / n it loses half of it. The third start takes the dying
network and sets it from data (LSUV: orthonormal, then unit variance layer by layer).

Result: mean (lowest, highest), seeds 0-2, 1,000 steps, Keras 3.15.1, JAX 0.10.2, CPU; the square is
        what the last layer has of the first one's, the gradient's what the first has of the last's:
            start               square              gradient           test accuracy
            He                  0.45 (0.08, 0.85)   0.66 (0.42, 0.91)  0.635 (0.596, 0.664)
            Glorot              8e-10 (1e-10, 2e-9) 1e-9 (7e-10, 2e-9) 0.296 (0.113, 0.476)
            Glorot, then LSUV   0.98 (0.80, 1.09)   0.77 (0.37, 1.01)  0.906 (0.896, 0.912)
        Glorot's does not stall on every seed here, as it did for He et al.: one of three is at
        chance, two have begun to learn. Orthonormal with unit variance beats both by far.
Tune:   DEPTH, then LEARNING_RATE, then UNITS.
"""

import keras

import kerasrecipes as kr

DEPTH, UNITS, CLASSES = 30, 100, 10
IMAGES, LOOKED_AT = 10_000, 500  # for training; for the signals at the start
LEARNING_RATE, MOMENTUM, BATCH, EPOCHS = 0.01, 0.9, 100, 10

STARTS = {"He": "he_normal", "Glorot": "glorot_normal", "Glorot, then LSUV": "glorot_normal"}


def load():  # your arrays go here: images and labels 0, 1, ...
    (x, y), (x_test, y_test) = kr.data.load("mnist")
    mean, std = x.mean(), x.std()
    x, x_test = (((a - mean) / std).astype("float32") for a in (x, x_test))
    return (x[:IMAGES], y[:IMAGES]), (x_test, y_test)


def build(start, x, seed):
    keras.utils.set_random_seed(seed)
    kernel = STARTS[start]
    hidden = [keras.layers.Dense(UNITS, "relu", kernel_initializer=kernel) for _ in range(DEPTH)]
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten(), *hidden])
    model.add(keras.layers.Dense(CLASSES, "softmax"))
    sgd = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    model.compile(sgd, "sparse_categorical_crossentropy", metrics=["accuracy"])
    if start.endswith("LSUV"):
        kr.initializers.initialize_from_data(model, x[:LOOKED_AT], method="lsuv")
    return model


def signals(model, x, y):
    """What is left at the last hidden layer of the first one's mean square, and of its gradient."""
    rows = kr.diagnostics.signal_report(model, x[:LOOKED_AT], y[:LOOKED_AT]).rows[1:-1]
    squares = [row["mean"] ** 2 + row["variance"] for row in rows]
    slopes = [row["gradient_mean"] ** 2 + row["gradient_variance"] for row in rows]
    return squares[-1] / squares[0], slopes[0] / slopes[-1]


def main(data=None, epochs=EPOCHS, seed=0):
    (x, y), test = data or load()
    result = {}
    print(f"{DEPTH} ReLU layers of {UNITS} units, {epochs} epochs, seed {seed}")
    print(f"  {'start':<20}{'square':>10}{'gradient':>10}{'loss':>8}{'accuracy':>10}")
    for start in STARTS:
        model = build(start, x, seed)
        forward, backward = signals(model, x, y)
        losses = model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0).history["loss"]
        accuracy = model.evaluate(*test, batch_size=1000, verbose=0)[1]
        found = {"square": forward, "gradient": backward, "loss": losses[-1], "accuracy": accuracy}
        result |= {f"{start}, {name}": value for name, value in found.items()}
        shown = f"{forward:>10.1e}{backward:>10.1e}{losses[-1]:>8.3f}{accuracy:>10.4f}"
        print(f"  {start:<20}{shown}", flush=True)
    return result


if __name__ == "__main__":
    main()
