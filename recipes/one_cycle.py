"""One cycle of rate and momentum against a constant, a stepped and a cosine rate, equal epochs.

Result: Fashion-MNIST, 784-128-128-10 ReLU, 5 epochs, mean (lowest, highest), seeds 0-4,
        Keras 3.15.1, JAX 0.10.2, CPU; the peak is the best of GRID by `tune` on seed 0.
                        peak   validation accuracy        test accuracy
            constant    0.01   0.8791 (0.8735, 0.8822)    0.8709 (0.8685, 0.8722)
            stepped     0.03   0.8862 (0.8834, 0.8899)    0.8802 (0.8781, 0.8826)
            cosine      0.03   0.8870 (0.8862, 0.8877)    0.8796 (0.8777, 0.8812)
            one cycle   0.1    0.8896 (0.8885, 0.8905)    0.8832 (0.8827, 0.8841)
        Any decay brings most of it, one point. One cycle adds 0.3 points (seed by seed 0.0 to 0.5
        over the stepped rate, 0.2 to 0.5 over the cosine): no super-convergence here.
Tune:   PEAKS by `tune` (the best must not lie at an end of GRID), then EPOCHS.
"""

import keras

import kerasrecipes as kr

UNITS, CLASSES = 128, 10
PEAKS = {"constant": 0.01, "stepped": 0.03, "cosine": 0.03, "one cycle": 0.1}  # by `tune`
GRID = (0.003, 0.01, 0.03, 0.1, 0.3)
MOMENTUM, BATCH, EPOCHS = 0.9, 128, 5
HELD_OUT = 10_000  # the last training images


def load():  # your arrays go here
    (x, y), (x_test, y_test) = kr.data.load("fashion_mnist")
    mean, std = x.mean(), x.std()
    x, x_test = (((a - mean) / std).astype("float32") for a in (x, x_test))
    return (x, y), (x_test, y_test)


def constant(peak, steps):
    return peak, None


def stepped(peak, steps):
    """A tenth after three fifths of the run, a hundredth after four fifths."""
    parts = [round(0.6 * steps), round(0.8 * steps)]
    return kr.schedules.Join([peak, peak / 10, peak / 100], parts), None


def cosine(peak, steps):
    return keras.optimizers.schedules.CosineDecay(peak, steps), None


def one_cycle(peak, steps):
    return kr.schedules.one_cycle(peak, steps)


SCHEDULES = {"constant": constant, "stepped": stepped, "cosine": cosine, "one cycle": one_cycle}


def train(schedule, peak, x, y, epochs, seed):
    """A model trained for `epochs`: the same start and the same batches for every schedule."""
    keras.utils.set_random_seed(seed)
    hidden = [
        keras.layers.Dense(UNITS, "relu", kernel_initializer=keras.initializers.HeNormal(seed + i))
        for i in range(2)
    ]
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten(), *hidden])
    model.add(keras.layers.Dense(CLASSES, "softmax"))
    rate, momentum = SCHEDULES[schedule](peak, max(4, epochs * -(-len(x) // BATCH)))
    sgd = keras.optimizers.SGD(rate, momentum=MOMENTUM)
    model.compile(sgd, "sparse_categorical_crossentropy", metrics=["accuracy"])
    moving = [] if momentum is None else [kr.callbacks.HyperparameterSchedule("momentum", momentum)]
    model.fit(x, y, batch_size=BATCH, epochs=epochs, callbacks=moving, verbose=0)
    return model


def accuracy(model, x, y):
    return model.evaluate(x, y, batch_size=1000, verbose=0, return_dict=True)["accuracy"]


def split(data):
    (x, y), test = data or load()
    held = min(HELD_OUT, len(x) // 5)
    return (x[:-held], y[:-held]), (x[-held:], y[-held:]), test


def tune(data=None, epochs=EPOCHS, seed=0):
    """The peak of the grid that is best by validation accuracy, for each schedule."""
    fit, validation, _ = split(data)
    found = {}
    for name in SCHEDULES:
        scores = {p: accuracy(train(name, p, *fit, epochs, seed), *validation) for p in GRID}
        found[name] = max(scores, key=scores.get)
        print(f"{name:<12}" + "".join(f"  {p:g}: {score:.4f}" for p, score in scores.items()))
    return found


def main(data=None, epochs=EPOCHS, seed=0):
    fit, validation, test = split(data)
    result = {}
    print(f"accuracy after {epochs} epochs, seed {seed}\n{'':<14}{'validation':>12}{'test':>8}")
    for name, peak in PEAKS.items():
        model = train(name, peak, *fit, epochs, seed)
        scores = accuracy(model, *validation), accuracy(model, *test)
        result |= {f"{name}, validation": scores[0], f"{name}, test": scores[1]}
        print(f"  {name:<12}{scores[0]:>12.4f}{scores[1]:>8.4f}")
    return result


if __name__ == "__main__":
    main()
