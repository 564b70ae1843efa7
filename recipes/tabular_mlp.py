"""Plain table: numbers standardised, categories embedded, beside logistic regression.

`python tabular_mlp.py table.csv` takes any CSV with a header whose last column is the class.

Result: 0.9719 accuracy (0.9684-0.9736) on breast cancer, logistic regression 0.9789: prefer the
        latter here. Five-fold cross-validation of 569 rows, mean (lowest-highest), seeds 0-2,
        Keras 3.15.1, TensorFlow 2.21.0, CPU; the majority is 0.6274.
            loss of the network     0.0820 (0.0675-0.0954)
            loss of the regression  0.0746 (0.0738-0.0755)
        Seed 0 on JAX 0.10.2: the network 0.9772, loss 0.0701.
        Each accuracy has a standard error of 0.007; this set has no categories to embed.
Tune:   WEIGHT_DECAY and DROPOUT on small tables, UNITS and EPOCHS on large ones, RATE on both.
"""

import sys

import keras
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import kerasrecipes as kr

UNITS, DROPOUT, WEIGHT_DECAY = 128, 0.3, 0.01
RATE, BATCH, EPOCHS = 3e-3, 64, 40
FOLDS = 5  # every row is tested once, by a network that has not seen it
CSV = sys.argv[1] if __name__ == "__main__" and sys.argv[1:] else None


def load(path=CSV):  # your table goes here: a dict of columns, and the classes
    if path:
        import pandas

        frame = pandas.read_csv(path, skipinitialspace=True)
        columns = {name: column.to_numpy() for name, column in frame.items()}
        return columns, columns.pop(frame.columns[-1])
    table = load_breast_cancer()
    return dict(zip(table.feature_names, table.data.T, strict=True)), table.target


def small():
    """A table whose class is an exclusive or of a number's sign and a category."""
    global FOLDS
    FOLDS, rng = 2, np.random.default_rng(0)
    number, category = rng.normal(size=200), rng.choice(["low", "high"], size=200)
    number[:3] = np.nan
    return {"number": number, "category": category}, (number > 0) ^ (category == "low")


class Encoder:
    """Two matrices of a table: numbers, their gaps filled, and categories counted from 1.

    Whatever it knows is from the training rows; 0 stands for a category they did not have.
    """

    def __init__(self, columns):
        text = [name for name, column in columns.items() if column.dtype.kind not in "iufb"]
        self.values = {name: np.unique(columns[name].astype(str)) for name in text}
        self.medians = {
            name: np.nanmedian(column.astype("float64"))
            for name, column in columns.items()
            if name not in self.values
        }
        self.sizes = [len(values) + 1 for values in self.values.values()]

    def __call__(self, columns):
        rows = len(next(iter(columns.values())))
        numbers = np.zeros((rows, len(self.medians)), "float32")
        codes = np.zeros((rows, len(self.sizes)), "int32")
        for i, (name, median) in enumerate(self.medians.items()):
            column = columns[name].astype("float64")
            numbers[:, i] = np.where(np.isnan(column), median, column)
        for i, (name, values) in enumerate(self.values.items()):
            cells = columns[name].astype(str)
            place = np.minimum(np.searchsorted(values, cells), len(values) - 1)
            codes[:, i] = np.where(values[place] == cells, place + 1, 0)
        both = {"numbers": numbers, "categories": codes}
        return {name: a for name, a in both.items() if a.shape[1]}


def build(x, sizes, classes, steps):
    inputs = {name: keras.Input(a.shape[1:], dtype=a.dtype, name=name) for name, a in x.items()}
    features = []
    if "numbers" in x:  # mean and variance are constants of the model: it takes raw numbers
        mean, variance = x["numbers"].mean(axis=0), x["numbers"].var(axis=0)
        standard = keras.layers.Normalization(mean=mean, variance=variance)
        features.append(standard(inputs["numbers"]))
    for i, size in enumerate(sizes):
        embed = keras.layers.Embedding(size, min(16, 1 + size // 2))
        features.append(embed(inputs["categories"][:, i]))
    h = keras.layers.Concatenate()(features) if len(features) > 1 else features[0]
    for _ in range(2):
        h = keras.layers.BatchNormalization(momentum=0.9)(keras.layers.Dense(UNITS)(h))
        h = keras.layers.Dropout(DROPOUT)(keras.layers.Activation("relu")(h))
    model = keras.Model(inputs, keras.layers.Dense(classes, "softmax")(h))
    rate = kr.schedules.OneCycle(RATE, max(4, steps))
    optimizer = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def logistic_regression(x, y):
    numbers = np.arange(matrix(x).shape[1]) < (x["numbers"].shape[1] if "numbers" in x else 0)
    encode = make_column_transformer(
        (StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), ~numbers)
    )
    return make_pipeline(encode, LogisticRegression(max_iter=2000)).fit(matrix(x), y)


def matrix(x):
    return np.hstack(list(x.values()))


def main(data=None, epochs=EPOCHS, seed=0):
    columns, y = data or load()
    classes, y = np.unique(y, return_inverse=True)
    answers = {name: np.zeros((len(y), len(classes))) for name in ("network", "logistic")}
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(y, y):
        encoder = Encoder({name: column[train] for name, column in columns.items()})
        x = encoder(columns)
        x, x_test = ({name: a[rows] for name, a in x.items()} for rows in (train, test))
        keras.utils.set_random_seed(seed)
        model = build(x, encoder.sizes, len(classes), epochs * -(-len(train) // BATCH))
        model.fit(x, y[train], batch_size=BATCH, epochs=epochs, verbose=0)
        answers["network"][test] = model.predict(x_test, batch_size=1000, verbose=0)
        logistic = logistic_regression(x, y[train])
        answers["logistic"][test] = logistic.predict_proba(matrix(x_test))
    result = {"majority accuracy": float(np.bincount(y).max() / len(y))}
    for name, p in answers.items():
        result[f"{name} accuracy"] = float((p.argmax(axis=1) == y).mean())
        likely = p[np.arange(len(y)), y].clip(1e-7)
        result[f"{name} loss"] = float(-np.log(likely).mean())
    print(f"{len(y)} rows, each tested in one of {FOLDS} folds, seed {seed}")
    for name, value in result.items():
        print(f"  {name:<20}{value:>8.4f}")
    return result


if __name__ == "__main__":
    main()
