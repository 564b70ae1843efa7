"""Curriculum by length: a GRU reads sums such as 7-2+9+4 and names their last digit.

Short sums first (`data.CurriculumDataset`), against the same sums in random order, at equal
updates; "mix" keeps a fifth of all draws from every length, as Zaremba and Sutskever (2014) do.

Result: accuracy after 1,884 updates, mean (lowest, highest), seeds 0-4, Keras 3.15.1, JAX 0.10.2,
        CPU; a seed draws sums and weights anew.
                         all test sums           sums of 5 terms
            shuffled     0.535 (0.494, 0.576)    0.224 (0.200, 0.248)
            short first  0.849 (0.510, 1.000)    0.694 (0.255, 1.000)
            mix          0.630 (0.556, 0.808)    0.311 (0.211, 0.554)
            one pass     0.203 (0.096, 0.309)    0.166 (0.103, 0.213)
        Short first is ahead on all five, by 0.02 to 0.47; it can also find nothing (seed 2).
Tune:   MOVE (the part of the fit that the pool takes to grow), then PACING, then START.
"""

import keras
import numpy as np

import kerasrecipes as kr

TERMS = 5  # the longest sums have as many
EXAMPLES, TEST = 10_000, 2_000
UNITS, RATE, BATCH, EPOCHS = 64, 5e-3, 64, 12
MOVE, PACING, START = 0.67, "linear", 0.2
ALPHABET = "_0123456789+-"


def load(count=EXAMPLES, seed=0):  # your texts go here: codes (n, length), labels, difficulty
    """Sums of 1 to TERMS digits as codes, padded on the left; the label is the sum modulo 10."""
    return sums(count, seed), sums(TEST, seed + 1000)


def small():
    return sums(200, 0), sums(100, 1)


def sums(count, seed):
    rng = np.random.default_rng(seed)
    terms = rng.integers(1, TERMS + 1, size=count)
    digits, signs = rng.integers(0, 10, (count, TERMS)), rng.choice([-1, 1], (count, TERMS))
    texts = []
    for n, digit, sign in zip(terms, digits, signs, strict=True):
        parts = ["+-"[int(s < 0)] + str(d) for d, s in zip(digit[:n], sign[:n], strict=True)]
        texts.append("".join(parts).rjust(2 * TERMS, "_"))
    codes = np.array([[ALPHABET.index(letter) for letter in text] for text in texts], "int32")
    inside = np.arange(TERMS) < terms[:, None]
    return codes, (digits * signs * inside).sum(axis=1) % 10, terms


def build(seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((2 * TERMS,), dtype="int32"),
            keras.layers.Embedding(len(ALPHABET), 16),
            keras.layers.GRU(UNITS),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    adam = keras.optimizers.Adam(RATE, global_clipnorm=1.0)
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(data=None, epochs=EPOCHS, seed=0):
    (x, y, terms), (x_test, y_test, terms_test) = data or load(seed=seed)
    # A curriculum of level 1 throughout is shuffled training, from the same draws.
    runs = {
        "shuffled": ("plain", [(0, 1)]),
        "short first": ("plain", PACING),
        "mix": ("mix", PACING),
        "one pass": ("one_pass", PACING),
    }
    result = {}
    print(f"accuracy on all test sums and on those of {TERMS} terms, {epochs} epochs, seed {seed}")
    for name, (mode, pacing) in runs.items():
        model = build(seed)
        dataset = kr.data.CurriculumDataset(x, y, terms, BATCH, mode=mode, start=START, seed=seed)
        curriculum = kr.callbacks.Curriculum(dataset, pacing, epochs=max(1, int(MOVE * epochs)))
        model.fit(dataset, epochs=epochs, callbacks=[curriculum], verbose=0)
        for part, chosen in {"all": terms_test > 0, "longest": terms_test == TERMS}.items():
            scores = model.evaluate(x_test[chosen], y_test[chosen], BATCH, verbose=0)
            result[f"{name}, {part}"] = scores[1]
        print(f"  {name:<14}{result[f'{name}, all']:>8.4f}{result[f'{name}, longest']:>9.4f}")
    return result


if __name__ == "__main__":
    main()
