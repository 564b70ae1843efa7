"""Annealing the KL term of a small variational autoencoder, in one fit, against weight 1.

The first 5,000 images of MNIST, black and white; `annealed` raises the weight of the KL term from
0 to 1 over the first half of the epochs by `ConceptLoss` and `HyperparameterSchedule`, `fixed`
has it at 1 from the start. All figures are measured with weight 1.

Result: test images, nats; mean (lowest, highest), seeds 0-4, 30 epochs, Keras 3.15.1,
        TensorFlow 2.21.0, CPU. Annealing wins in each seed, by 0.7 to 4.6 nats.
                        ELBO                        KL                      active units of 20
            fixed      -111.5 (-112.6, -109.9)      20.8 (20.1, 21.4)       20 in each
            annealed   -108.9 (-110.0, -108.0)      24.3 (23.7, 25.0)       20 in each
        It cures no collapse here: after 30 epochs all units are active either way. After 90
        epochs (seed 0) 14 are with weight 1 and 20 with annealing, ELBO -108.1 and -106.4.
        Seed 0 on JAX 0.10.2, 30 epochs: ELBO -110.3 and -107.6.
Tune:   EPOCHS, then RISE, then LATENT. Compare the ELBO at weight 1, never the training losses.
"""

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr

UNITS, LATENT = (200, 200), 20
LEARNING_RATE, BATCH, EPOCHS = 1e-3, 100, 30
RISE = 0.5  # the share of the epochs in which the weight of the KL term goes from 0 to 1
TRAIN, TEST = 5000, 2000  # images
SAMPLES, ACTIVE = 5, 0.01  # of z for each test image; variance of the mean over images


def load():  # your arrays go here: grey images in [0, 1] or 0 to 255, labels are not used
    return kr.data.load("mnist")


@keras.saving.register_keras_serializable("vae_kl_annealing")
def divergence(statistics):
    """KL(q(z|x) || N(0, 1)) in nats, one value an image."""
    mean, log_variance = statistics
    terms = ops.square(mean) + ops.exp(log_variance) - log_variance - 1
    return ops.sum(terms, axis=-1) / 2


@keras.saving.register_keras_serializable("vae_kl_annealing")
class Sample(keras.layers.Layer):
    """z = mean + deviation * noise, in training and test."""

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, statistics):
        mean, log_variance = statistics
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(log_variance / 2) * noise

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def nats(y_true, y_pred):
    """-log p(x|z), summed over the pixels; `y_pred` are logits."""
    return ops.sum(ops.softplus(y_pred) - y_true * y_pred, axis=-1)


def build(pixels, seed):
    """The model from pixels to logits, and its encoder from pixels to (mean, log variance)."""
    inputs = keras.Input((pixels,))
    x = inputs
    for units in UNITS:
        x = keras.layers.Dense(units, "relu")(x)
    statistics = [keras.layers.Dense(LATENT, name=name)(x) for name in ("mean", "log_variance")]
    encoder = keras.Model(inputs, statistics)
    x = Sample(seed)(kr.layers.ConceptLoss(divergence, 1.0, name="kl")(statistics))
    for units in reversed(UNITS):
        x = keras.layers.Dense(units, "relu")(x)
    return keras.Model(inputs, keras.layers.Dense(pixels, name="logits")(x)), encoder


def measure(model, encoder, x):
    """Mean over images, in nats; the weight of the KL term is 1 here."""
    mean, log_variance = encoder.predict(x, batch_size=500, verbose=0)
    kl = float(np.mean(ops.convert_to_numpy(divergence([mean, log_variance]))))
    logits = (model.predict(x, batch_size=500, verbose=0) for _ in range(SAMPLES))
    lost = float(np.mean([np.mean(ops.convert_to_numpy(nats(x, z))) for z in logits]))
    active = float(np.sum(mean.var(axis=0) > ACTIVE))
    return {"elbo": -lost - kl, "kl": kl, "active": active}


def main(data=None, epochs=EPOCHS, seed=0):
    (x, _), (x_test, _) = data or load()
    x, x_test = x[:TRAIN], x_test[:TEST]
    top = max(1.0, float(x.max()))
    x, x_test = ((a.reshape(len(a), -1) / top > 0.5).astype("float32") for a in (x, x_test))
    rise = max(1.0, RISE * epochs)
    schedules = {"fixed": lambda epoch: 1.0, "annealed": lambda epoch: min(1.0, epoch / rise)}
    result = {}
    print(f"{len(x)} images, {epochs} epochs, seed {seed}      ELBO       KL  active units")
    for name, schedule in schedules.items():
        keras.utils.set_random_seed(seed)
        model, encoder = build(x.shape[1], seed)
        model.compile(keras.optimizers.Adam(LEARNING_RATE), nats)
        move = kr.callbacks.HyperparameterSchedule("kl.weight", schedule, per="epoch")
        model.fit(x, x, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[move])
        for split, images in (("training", x[: len(x_test)]), ("test", x_test)):
            found = measure(model, encoder, images)
            row = f"{found['elbo']:>9.2f}{found['kl']:>9.2f}{found['active']:>9.0f}"
            print(f"  {name:<12}{split:<20}{row}")
            result |= {f"{name} {split} {key}": value for key, value in found.items()}
    return result


if __name__ == "__main__":
    main()
