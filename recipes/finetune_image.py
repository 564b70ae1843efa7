"""Fine-tuning a network of keras.applications: first a new head, then its top layers.

Result: 0.389 test accuracy of a MobileNetV2 of RANDOM weights on digits of 32 x 32 pixels, 0.156
        with the head alone: without a network to download from, nothing is transferred and this
        shows the mechanics only (logistic regression on the 8 x 8 pixels has 0.967). One run,
        seed 0, Keras 3.15.1, TensorFlow 2.21.0, CPU. ImageNet weights have not been measured.
Tune:   TUNED (how many top layers), then TUNE_RATE, then the share of epochs for the head.
"""

import inspect
import warnings

import keras
import numpy as np

import kerasrecipes as kr

# Any name in keras.applications and its own settings; weights may also be None or a file.
NETWORK = {"name": "MobileNetV2", "weights": "imagenet", "alpha": 0.35}
SIZE = 32  # pixels a side: quick, and the least most networks take; ImageNet's want 96 to 224
HEAD_RATE, TUNE_RATE, BATCH, EPOCHS = 1e-2, 1e-3, 32, 10  # epochs of each phase
TUNED = 0.5  # share of the layers, from the top, that the second phase trains


def load():  # your images go here, grey or RGB, 0 to 255, and labels 0, 1, ...
    (x, y), (x_test, y_test) = kr.data.load("digits")
    return (x * (255 / 16), y), (x_test * (255 / 16), y_test)


def small():
    """A few images for a network of few layers, without a download."""
    NETWORK.update(name="MobileNet", alpha=0.25, weights=None)
    (x, y), (x_test, y_test) = load()
    return (x[:32], y[:32]), (x_test[:32], y_test[:32])


def pretrained(shape):
    """The network without its head, its own preprocessing, and whether its weights are random."""
    settings = {**NETWORK, "include_top": False, "input_shape": shape}
    name = settings.pop("name")
    network = getattr(keras.applications, name)
    home = (m for m in vars(keras.applications).values() if inspect.ismodule(m))
    prepare = next(m.preprocess_input for m in home if hasattr(m, name))
    random = settings["weights"] is None
    if not random:
        try:
            with warnings.catch_warnings():  # that the weights were learned at another size
                warnings.simplefilter("ignore")
                return network(**settings), prepare, False
        except Exception as error:  # what a failed download raises depends on the failure
            if settings["weights"] != "imagenet":
                raise
            print(f"No ImageNet weights ({str(error).splitlines()[0][:80]}).")
            settings["weights"] = None
    print("RANDOM WEIGHTS: nothing is transferred, the figures show the mechanics only.")
    return network(**settings), prepare, True


def as_rgb(x, prepare):
    """Images as the network wants them: three channels, its size, its scale."""
    x = np.asarray(x, "float32")
    x = x[..., None] if x.ndim == 3 else x
    x = np.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else x
    x = keras.ops.image.resize(x, (SIZE, SIZE), data_format="channels_last")
    return prepare(keras.ops.convert_to_numpy(x).clip(0, 255).copy())


def unfreeze(base, share):
    """Sets the top `share` of the layers free, but no batch normalization."""
    base.trainable = True
    first = round(len(base.layers) * (1 - share))
    for i, layer in enumerate(base.layers):
        layer.trainable = i >= first and not isinstance(layer, keras.layers.BatchNormalization)


def fit(model, x, y, rate, epochs, seed):
    """Compiles, for that is when Keras takes note of what is frozen, and trains."""
    steps = max(4, epochs * -(-len(x) // BATCH))
    optimizer = keras.optimizers.Adam(kr.schedules.OneCycle(rate, steps))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    keras.utils.set_random_seed(seed)
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)


def accuracy(model, x, y):
    return model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]


def main(data=None, epochs=EPOCHS, seed=0):
    (x, y), (x_test, y_test) = data or load()
    keras.utils.set_random_seed(seed)
    base, prepare, random = pretrained((SIZE, SIZE, 3))
    x, x_test = as_rgb(x, prepare), as_rgb(x_test, prepare)
    norms = [one for one in base.layers if isinstance(one, keras.layers.BatchNormalization)]
    if random and norms:  # without statistics of the data hardly a signal gets through
        kr.inference.reestimate_batch_normalization(base, x[:256], batch_size=64)

    inputs = keras.Input(x.shape[1:])
    h = base(inputs, training=False)  # batch norm stays in inference mode, unfrozen or not
    h = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(h))
    model = keras.Model(inputs, keras.layers.Dense(int(y.max()) + 1, "softmax")(h))

    base.trainable = False
    fit(model, x, y, HEAD_RATE, epochs, seed)
    result = {"random weights": float(random), "head alone": accuracy(model, x_test, y_test)}
    unfreeze(base, TUNED)
    fit(model, x, y, TUNE_RATE, epochs, seed)
    result["fine-tuned"] = accuracy(model, x_test, y_test)

    print(f"{NETWORK['name']}, {epochs} + {epochs} epochs, seed {seed}: test accuracy")
    for name in ("head alone", "fine-tuned"):
        print(f"  {name:<12}{result[name]:>8.4f}")
    return result


if __name__ == "__main__":
    main()
