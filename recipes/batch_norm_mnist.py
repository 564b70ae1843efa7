"""Batch normalization's first figure: accuracy and one unit's input over 50,000 steps on MNIST.

Ioffe and Szegedy (2015, section 4.1): binary images, three layers of 100 sigmoid units from small
Gaussian weights, 50,000 steps of 60 images. The paper gives neither rate nor deviation; here both
networks have the same. `main(figure="figure.png")` draws the three panels.

Result: mean (lowest, highest), seeds 0-2, Keras 3.15.1, JAX 0.10.2, CPU; a width is from the 15th
        to the 85th percentile, wandering the range of the median over the run in mean widths:
            test accuracy after        plain                    batch norm
                1,000 steps            0.252 (0.174, 0.304)     0.917 (0.916, 0.919)
                5,000 steps            0.946 (0.940, 0.953)     0.958 (0.956, 0.960)
                10,000 steps           0.963 (0.960, 0.966)     0.966 (0.961, 0.970)
                50,000 steps           0.9708 (0.9705, 0.9711)  0.9764 (0.9759, 0.9772)
            median of 100 units
                wandering              0.62 (0.55, 0.69)        0.109 (0.108, 0.111)
                widest / narrowest     374 (340, 401)           2.59 (2.56, 2.61)
        As in the paper: faster, better in the end (on each seed), its units' inputs far steadier.
        The plain units' widths change so much because all images look alike to them at the start.
Tune:   LEARNING_RATE, then DEVIATION (of the start), then EPOCHS.
"""

import keras
import numpy as np

import kerasrecipes as kr

DEPTH, UNITS, CLASSES = 3, 100, 10
LEARNING_RATE, DEVIATION = 0.5, 0.05
BATCH, EPOCHS = 60, 50  # 1,000 steps an epoch
UNIT, LOOKED_AT = 0, 1000  # the unit of the last hidden layer, the images that it is shown
PERCENTILES = (15, 50, 85)
SHOWN = (1, 2, 5, 10, 20, 50)  # epochs in the table

NETWORKS = {"plain": False, "batch norm": True}


def load():  # your arrays go here: images of two values, labels 0, 1, ...
    (x, y), (x_test, y_test) = kr.data.load("mnist")
    x, x_test = ((a > a.max() / 2).astype("float32") for a in (x, x_test))
    return (x, y), (x_test, y_test)


def build(normalized, shape, seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten()])
    kernel = keras.initializers.RandomNormal(stddev=DEVIATION)
    for _ in range(DEPTH):
        model.add(keras.layers.Dense(UNITS, use_bias=not normalized, kernel_initializer=kernel))
        if normalized:
            model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.Activation("sigmoid"))
    model.add(keras.layers.Dense(CLASSES, "softmax", kernel_initializer=kernel))
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=1 if keras.config.backend() == "torch" else 50,
    )
    return model


class Inputs(keras.callbacks.Callback):
    """Percentiles of what the last hidden layer's units receive, at the start and each epoch."""

    def __init__(self, model, normalized, x):
        super().__init__()
        # As in training: normalized by the batch, not by averages that lag behind.
        self.twin = kr.inference.with_batch_statistics(model) if normalized else model
        self.look = keras.Model(self.twin.inputs[0], self.twin.layers[-2].input)
        self.x, self.seen = x[:LOOKED_AT], []

    def on_train_begin(self, logs=None):
        self.on_epoch_end(None)

    def on_epoch_end(self, epoch, logs=None):
        self.twin.set_weights(self.model.get_weights())
        received = self.look.predict(self.x, batch_size=len(self.x), verbose=0)
        self.seen.append(np.percentile(received, PERCENTILES, axis=0))


def train(normalized, data, epochs, seed):
    """Test accuracy after each epoch; percentiles of shape (epochs + 1, 3, UNITS)."""
    (x, y), test = data
    model = build(normalized, x.shape[1:], seed)
    inputs = Inputs(model, normalized, test[0])
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        validation_data=test,
        validation_batch_size=1000,
        callbacks=[inputs],
        verbose=0,
    ).history
    return history["val_accuracy"], np.array(inputs.seen)


def instability(seen):
    """How far a unit's median wanders, in widths, and how much its width (15 to 85) changes."""
    low, middle, high = np.moveaxis(seen, 1, 0)
    width = high - low
    return np.ptp(middle, axis=0) / width.mean(axis=0), width.max(axis=0) / width.min(axis=0)


def draw(curves, figure):
    import matplotlib.pyplot as plt

    drawn, panels = plt.subplots(1, 3, figsize=(9.6, 3.2), layout="constrained")
    for panel, (name, (accuracy, seen)) in zip(panels[1:], curves.items(), strict=True):
        panels[0].plot(range(1, len(accuracy) + 1), accuracy, label=name)
        panel.plot(seen[:, :, UNIT], color="C0")
        panel.set(title=f"input of a unit, {name}", xlabel="epochs")
    panels[0].set(title="test accuracy", xlabel="epochs")
    panels[0].legend(frameon=False)
    drawn.savefig(figure)
    plt.close(drawn)


def main(data=None, epochs=EPOCHS, seed=0, figure=None):
    data = data or load()
    steps = -(-len(data[0][0]) // BATCH)
    shown = [epoch for epoch in SHOWN if epoch <= epochs]
    curves, result = {}, {}
    print("test accuracy after steps" + "".join(f"{epoch * steps:>8}" for epoch in shown))
    for name, normalized in NETWORKS.items():
        accuracy, seen = curves[name] = train(normalized, data, epochs, seed)
        print(f"  {name:<23}" + "".join(f"{accuracy[e - 1]:>8.4f}" for e in shown), flush=True)
        for rank, values in zip(PERCENTILES, seen[:, :, UNIT].T, strict=True):
            print(f"    unit's {rank}th percent." + "".join(f"{values[e]:>8.2f}" for e in shown))
        result |= {f"{name}, {epoch}": accuracy[epoch - 1] for epoch in shown}
        result[f"{name}, best"] = max(accuracy)
        for word, values in zip(("wandering", "change of width"), instability(seen), strict=True):
            result[f"{name}, {word}"] = float(np.median(values))
            result[f"{name}, {word} of the unit"] = float(values[UNIT])
            print(f"    {word}: unit {values[UNIT]:.2f}, median of {UNITS} {np.median(values):.2f}")
    if figure:
        draw(curves, figure)
    return result


if __name__ == "__main__":
    main()
