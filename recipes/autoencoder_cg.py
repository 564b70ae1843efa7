"""A deep autoencoder by batch conjugate gradients in `fit`, against SGD with momentum.

Le et al. (2011) trained autoencoders by conjugate gradients and L-BFGS on large batches, with a
line search and no rate to tune, in the setting of Hinton and Salakhutdinov (2006). Here 784-128-
64-12 and back, tanh, MNIST's first 3,000 images; each way sees all of them equally often. One
batch of NonlinearCG is one evaluation of its line search.

Result: seeds 0, 1, 2, Keras 3.15.1, JAX 0.10.2, 2 CPU cores, 200 passes, SGD at its best rate of
        three by the training loss; squared error of an image, mean of 1,000 test images; the
        seconds are those of seed 0 with nothing else running:
                                   training loss   half way        end             seconds
            conjugate gradients    191.4 to 193.2  48.43 to 50.15  46.87 to 47.48  12.1
            momentum, all images   199.5 to 205.1  51.18           49.28 to 51.18  5.9
            momentum, batches      98.9 to 102.3   24.34 to 31.79  19.14 to 19.81  11.5
        Not what Le et al. found: the gradient of all images keeps both full-batch ways for most of
        the time on the plateau where every output is the mean image (51.2). Conjugate gradients
        come off it first, and without a rate; in the same passes and seconds SGD on batches of
        100 is far ahead.
Tune:   the rates of SGD; for conjugate gradients the number of evaluations alone.
"""

import time

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr

UNITS, CODE = (128, 64), 12
EVALUATIONS, EPOCHS = 25, 8  # an "epoch": so many evaluations of all images, then a look
RATES, MOMENTUM, BATCH = (1e-4, 1e-3, 1e-2), 0.9, 100
IMAGES, TEST = 3000, 1000

WAYS = ("conjugate gradients", "momentum, all images", "momentum, batches")


def load():  # your arrays go here: images with values in [0, 1]
    (x, _), (x_test, _) = kr.data.load("mnist")
    return tuple(np.float32(a.reshape(len(a), -1) / 255) for a in (x[:IMAGES], x_test[:TEST]))


def small():
    global EVALUATIONS
    EVALUATIONS = 10
    (x, _), (x_test, _) = kr.data.load("digits")
    return tuple(np.float32(a.reshape(len(a), -1) / 16) for a in (x[:300], x_test[:100]))


def cross_entropy(x, outputs):
    """Summed over the pixels of an image, from logits."""
    return ops.sum(ops.softplus(outputs) - x * outputs, axis=-1)


def squared_error(x, outputs):
    """Summed over the pixels of an image, as both papers give it."""
    return ops.sum(ops.square(ops.sigmoid(outputs) - x), axis=-1)


def build(pixels, optimizer, seed):
    keras.utils.set_random_seed(seed)
    down, up = ([(width, "tanh") for width in way] for way in (UNITS, reversed(UNITS)))
    model = keras.Sequential([keras.Input((pixels,))])
    for width, activation in (*down, (CODE, None), *up, (pixels, None)):
        model.add(keras.layers.Dense(width, activation))
    model.compile(optimizer, cross_entropy, metrics=[squared_error])
    return model


def train(way, rate, data, epochs, seed):
    """Loss at the end, squared error of test images at each look, seconds with compilation."""
    x, x_test = data
    began = time.perf_counter()
    whole = kr.data.FullBatch(x, x, steps=EVALUATIONS)
    settings = {"validation_data": (x_test, x_test), "validation_batch_size": 1000, "verbose": 0}
    if way == "conjugate gradients":
        model = build(x.shape[1], kr.optimizers.NonlinearCG(tolerance=0.0), seed)
        accepted = kr.callbacks.SwapAcceptedWeights()  # or `val_loss` would be that of trials
        found = model.fit(whole, epochs=epochs, callbacks=[accepted], **settings)
        print("  search:", *model.optimizer.status)
    else:
        model = build(x.shape[1], keras.optimizers.SGD(rate, momentum=MOMENTUM), seed)
        if way == "momentum, all images":
            found = model.fit(whole, epochs=epochs, **settings)
        else:
            often = {"epochs": epochs * EVALUATIONS, "validation_freq": EVALUATIONS}
            found = model.fit(x, x, batch_size=BATCH, **often, **settings)
    seconds = time.perf_counter() - began
    loss = model.evaluate(x, x, batch_size=1000, verbose=0)[0]
    loss = loss if np.isfinite(loss) else np.inf
    return loss, found.history["val_squared_error"], seconds


def main(data=None, epochs=EPOCHS, seed=0):
    data = data or load()
    result = {}
    print(f"{epochs * EVALUATIONS} times all {len(data[0])} images, seed {seed}")
    print(
        f"  {'':<22}{'rate':>7}{'training loss':>15}{'test error, half way':>22}{'end':>8}{'s':>7}"
    )
    for way in WAYS:
        rates = (1.0,) if way == "conjugate gradients" else RATES
        runs = [(*train(way, rate, data, epochs, seed), rate) for rate in rates]
        loss, errors, seconds, rate = min(runs)
        half = errors[(len(errors) - 1) // 2]
        result |= {way: errors[-1], f"{way}, half way": half, f"{way}, loss": loss}
        result |= {f"{way}, rate": rate, f"{way}, seconds": seconds}
        row = f"{rate:>7g}{loss:>15.2f}{half:>22.3f}{errors[-1]:>8.3f}{seconds:>7.1f}"
        print(f"  {way:<22}{row}", flush=True)
    return result


if __name__ == "__main__":
    main()
