"""Curricula by examples, self-paced learning, batch sizes that change."""

import keras
import numpy as np

from kerasrecipes import callbacks, data
from tests.entry import Entry, Fault, faults
from tests.problems import network

N = 48  # the contracts train on 48 examples, in batches of 16
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).astype("float32")
Y = (X @ [[1.0], [-2.0], [0.5]] + RNG.normal(size=(N, 1))).astype("float32")
HARD = RNG.permutation(N) // 2  # pairs of equal difficulty


def line(rate=0.1):
    """A linear model from fixed weights, for NumPy to follow."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def descent(batches, rate=0.1, weights=None):
    """The weights of `line` after each batch `(x, y)` or `(x, y, sample weight)`."""
    w, b = (np.ones((3, 1)), np.zeros(1)) if weights is None else weights
    for x, y, *given in batches:
        v = given[0][:, None] if given else np.ones((len(x), 1))
        error = 2 * v * (x @ w + b - y) / len(x)
        w, b = w - rate * x.T @ error, b - rate * error.sum(axis=0)
        yield w, b


def followed(dataset, used, epochs):
    """The weights of a fit of `line` after each batch."""
    model, seen = line(), []
    record = keras.callbacks.LambdaCallback()
    record.on_train_batch_end = lambda batch, logs=None: seen.append(record.model.get_weights())
    model.fit(dataset, epochs=epochs, callbacks=[*used, record], shuffle=False, verbose=0)
    return seen


def drawn(weights, count, rng):
    """Systematic sampling, one point at a time."""
    order = [i for i in rng.permutation(np.flatnonzero(weights))]
    step, found, end = sum(weights) / count, [], 0.0
    first = rng.uniform() * step
    for i in order:
        end += weights[i]
        while len(found) < count and first + len(found) * step < end:
            found.append(i)
    return rng.permutation(found)


def admitted(difficulty, share):
    """1 where less than `share` of the examples is easier."""
    return np.array([float(np.mean(difficulty < d) < share - 1e-9) for d in difficulty])


def _curriculum_dataset_equality():
    for mode in ("plain", "mix", "one_pass"):
        dataset = data.CurriculumDataset(X, Y, HARD, 8, 5, mode=mode, start=0.25, seed=3)
        for epoch, level in enumerate((0.0, 0.4, 1.0)):
            previous = (None, 0.0, 0.4)[epoch]
            dataset.begin_epoch(epoch, level=level, previous=previous)
            w = admitted(HARD, 0.25 + 0.75 * level) if level < 1 else np.ones(N)
            if mode == "mix":
                w = 0.8 * w + 0.2 * w.mean()
            if mode == "one_pass" and epoch:
                w = w - admitted(HARD, 0.25 + 0.75 * previous)
            yield dataset.weights(), w, 1e-12
            order = drawn(w, 40, np.random.default_rng([3, epoch]))
            for i in range(5):
                yield dataset[i][0], X[order[8 * i : 8 * i + 8]], 0
                yield dataset[i][1], Y[order[8 * i : 8 * i + 8]], 0


def _curriculum_equality():
    settings = {"difficulty": HARD, "batch_size": 8, "start": 0.5, "seed": 1}
    dataset, twin = (data.CurriculumDataset(X, Y, **settings) for _ in range(2))
    ours = followed(dataset, [callbacks.Curriculum(dataset, "root")], 3)
    batches = []
    for epoch, level in enumerate((0.0, 0.5**0.5, 1.0)):
        twin.begin_epoch(epoch, level=level)
        batches += list(twin)
    for one, other in zip(ours, descent(batches), strict=True):
        for a, b in zip(one, other, strict=True):
            yield a, b, 1e-5


SIZES = {0: 8, 1: 16, 3: 24}


def _batch_size_equality():
    dataset, twin = (data.CurriculumDataset(X, Y, None, 8, 2, seed=2) for _ in range(2))
    ours = followed(dataset, [callbacks.BatchSizeSchedule(dataset, SIZES)], 4)
    batches = []
    for epoch, size in enumerate((8, 16, 16, 24)):
        order = drawn(np.ones(N), 2 * size, np.random.default_rng([2, epoch]))
        batches += [(X[part], Y[part]) for part in np.split(order, 2)]
    del twin
    for one, other in zip(ours, descent(batches), strict=True):
        for a, b in zip(one, other, strict=True):
            yield a, b, 1e-5


def v_of(loss, bar, weighting):
    """The weight of one example by the formula of its paper, the logarithm in units of the bar."""
    if loss >= bar:
        return 0.0
    if weighting == "hard":
        return 1.0
    if weighting == "linear":
        return 1 - loss / bar
    return np.log(0.9 * loss / bar + 0.1) / np.log(0.1)


def _self_paced_equality():
    """The whole trajectory, weights and losses found anew at each epoch."""
    for weighting in ("hard", "linear", "log"):
        dataset = data.SelfPacedDataset(X, Y, 8, 3, weighting=weighting, growth=1.5, seed=4)
        ours = followed(dataset, [callbacks.Curriculum(dataset)], 3)
        weights, theirs = (np.ones((3, 1)), np.zeros(1)), []
        for epoch in range(3):
            losses = (X @ weights[0] + weights[1] - Y)[:, 0] ** 2
            first = np.median(losses) if epoch == 0 else first  # noqa: F821
            bar = np.inf if epoch == 2 else first * 1.5**epoch
            v = np.array([v_of(loss, bar, weighting) for loss in losses])
            order = drawn((losses < bar) * 1.0, 24, np.random.default_rng([4, epoch]))
            batches = [(X[p], Y[p], v[p]) for p in np.split(order, 3)]
            theirs += list(descent(batches, weights=weights))
            weights = theirs[-1]
        for one, other in zip(ours, theirs, strict=True):
            for a, b in zip(one, other, strict=True):
                yield a, b, 1e-4


def _difficulty_equality():
    model = line()
    expected = (X @ np.ones((3, 1)) - Y)[:, 0] ** 2
    yield data.difficulty_from(model, X, Y, batch_size=20), expected, 1e-5
    yield data.difficulty_from(model, X, Y[:, 0]), expected, 1e-5
    # A function of one's own broadcasts (n,) against (n, 1), which Keras aligns before.
    model.compile("sgd", lambda y, p: keras.ops.mean(keras.ops.square(y - p), axis=-1))
    yield data.difficulty_from(model, X, Y[:, 0]), expected, 1e-5
    share = np.linspace(0, 1, N)
    yield data.difficulty_from(model, X, Y, share), expected * share, 1e-5
    labels = np.arange(N) % 3
    for loss in ("sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy()):
        classifier = network(features=3)
        classifier.compile("sgd", loss)
        kernel, bias = classifier.get_weights()
        logits = X @ kernel + bias
        expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(N), labels]
        yield data.difficulty_from(classifier, X, labels), expected, 1e-5


def _dataset(**kwargs):
    return data.CurriculumDataset(X, Y, **{"difficulty": HARD, "batch_size": 8, **kwargs})


def _paced(**kwargs):
    return data.SelfPacedDataset(X, Y, **{"batch_size": 8, **kwargs})


def _fit(make, dataset=None, **kwargs):
    """A fit of the contract's model on its data through a data set with the callback on it."""

    def run(m, x, y):
        mine = data.CurriculumDataset(x, y, np.arange(len(x)), 8) if dataset is None else dataset()
        m.fit(mine, epochs=3, callbacks=[make(mine)], verbose=0, **kwargs)

    return run


def _arrays(make):
    """A fit on plain arrays, which no data set sees."""
    return lambda m, x, y: m.fit(x, y, batch_size=8, callbacks=[make()], verbose=0)


def _stream(**kwargs):
    settings = {"difficulty": lambda x, y: x[:, 0], "batch_size": 4, "steps_per_epoch": 2, **kwargs}
    return data.CurriculumDataset(_dataset(), **settings)


def _nan():
    return np.where(np.arange(N) == 3, np.nan, 1.0)


_Curriculum, _Sizes = callbacks.Curriculum, callbacks.BatchSizeSchedule
_NO_RETRACE = {"no_retrace": "it needs its data set in fit: counted in test_curricula.py"}

ENTRIES = {
    "data.CurriculumDataset": Entry(
        kind="data",
        equality=_curriculum_dataset_equality,
        errors=[
            (ValueError, "same number of examples", lambda *_: _dataset(difficulty=HARD[:-1])),
            (ValueError, "`difficulty` has NaN", lambda *_: _dataset(difficulty=_nan())),
            (TypeError, "one number an example", lambda *_: _dataset(difficulty=X)),
            (TypeError, "must be an array", lambda *_: _dataset(difficulty=len)),
            (ValueError, "smaller than a batch: 10 of 48", lambda *_: _dataset(batch_size=16)),
            (ValueError, "Did you mean 'one_pass'", lambda *_: _dataset(mode="onepass")),
            (ValueError, "0 < start", lambda *_: _dataset(start=0)),
            (ValueError, "softness < 1", lambda *_: _dataset(softness=1.0)),
            (ValueError, "share <= 1", lambda *_: _dataset(share=1.5)),
            (TypeError, "`batch_size` must be an integer", lambda *_: _dataset(batch_size=2.5)),
            (ValueError, "argmax", lambda *_: _dataset(classes=np.eye(N))),
            (ValueError, "same number", lambda *_: _dataset(classes=HARD[:-1])),
            (ValueError, "`classes` has NaN", lambda *_: _dataset(classes=_nan())),
            (ValueError, "same number", lambda *_: data.CurriculumDataset(X, Y[:-1], HARD)),
            (TypeError, "only once", lambda *_: data.CurriculumDataset(iter([X]), None, len, 4, 2)),
            (TypeError, "must be a function", lambda *_: _stream(difficulty=HARD)),
            (ValueError, "`steps_per_epoch` must be", lambda *_: _stream(steps_per_epoch=None)),
            (ValueError, "come with them", lambda *_: _stream(y=Y)),
            (ValueError, "8 shares in", lambda *_: _stream()[0]),
        ],
    ),
    "data.SelfPacedDataset": Entry(
        kind="data",
        equality=_self_paced_equality,
        errors=[
            (ValueError, "Did you mean 'linear'", lambda *_: _paced(weighting="linea")),
            (ValueError, "1 < growth", lambda *_: _paced(growth=1)),
            (ValueError, "0 < threshold", lambda *_: _paced(threshold=0)),
            (ValueError, "0 < start", lambda *_: _paced(start=0)),
            (ValueError, "give `classes`", lambda *_: _paced(quota=0.5)),
            (ValueError, "same number", lambda *_: _paced(classes=HARD[:-1])),
            (ValueError, "argmax", lambda *_: _paced(classes=np.eye(N), quota=0.2)),
            (ValueError, "`classes` has NaN", lambda *_: _paced(classes=_nan(), quota=0.2)),
            (ValueError, "smaller than a batch", lambda *_: _paced(start=0.1)),
            (TypeError, "integer", lambda *_: _paced(seed=0.5)),
        ],
    ),
    "data.difficulty_from": Entry(
        kind="function",
        equality=_difficulty_equality,
        model=lambda: network(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)),
        call=lambda m, x, y: data.difficulty_from(m, x, y),
        errors=[
            (TypeError, "must be a keras.Model", lambda m, x, y: data.difficulty_from(0, x, y)),
            (ValueError, "NaN", lambda m, x, y: data.difficulty_from(m, x * np.nan, y)),
            (ValueError, "same number", lambda m, x, y: data.difficulty_from(m, x, y[:-1])),
            (ValueError, "at least one", lambda m, x, y: data.difficulty_from(m, x[:0], y[:0])),
            (ValueError, "at least 1", lambda m, x, y: data.difficulty_from(m, x, y, None, 0)),
            (ValueError, "One output", lambda m, x, y: data.difficulty_from(m, x, [y, y])),
            (
                ValueError,
                "not compiled",
                lambda m, x, y: data.difficulty_from(
                    keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)]), x, y
                ),
            ),
        ],
    ),
    "callbacks.Curriculum": Entry(
        kind="callback",
        equality=_curriculum_equality,
        make=lambda: _Curriculum(_dataset()),
        skip=_NO_RETRACE,
        errors=[
            (TypeError, "CurriculumDataset or a Self", lambda m, x, y: _Curriculum(x)),
            (ValueError, "Did you mean 'root'", lambda *_: _Curriculum(_dataset(), "rot")),
            (TypeError, "a name, a function", lambda *_: _Curriculum(_dataset(), 0.5)),
            (ValueError, "no stages", lambda *_: _Curriculum(_dataset(), [])),
            (ValueError, "begin at progress 0 and", lambda *_: _Curriculum(_dataset(), [(0.5, 1)])),
            (
                ValueError,
                "Sort",
                lambda *_: _Curriculum(_dataset(), [(0, 0), (0.6, 0.5), (0.3, 1)]),
            ),
            (ValueError, "at least 1", lambda *_: _Curriculum(_dataset(), epochs=0)),
            (ValueError, "paces itself", lambda *_: _Curriculum(_paced(), "linear")),
            (ValueError, "never fall", _fit(lambda d: _Curriculum(d, lambda p: 1 - p))),
            (ValueError, "returned nan", _fit(lambda d: _Curriculum(d, lambda p: np.nan))),
            (ValueError, "reach exactly 1", _fit(lambda d: _Curriculum(d, lambda p: p / 2))),
            (ValueError, "reach exactly 1", _fit(lambda d: _Curriculum(d, [(0, 0.0), (0.5, 0.9)]))),
            (ValueError, "returned nan", _fit(lambda d: _Curriculum(d, lambda p: None))),
            (ValueError, "takes 2 steps", _fit(_Curriculum, steps_per_epoch=2)),
            (ValueError, "runs other data", _arrays(lambda: _Curriculum(_dataset()))),
            (
                ValueError,
                "level 0.5 the pool",
                _fit(
                    lambda d: _Curriculum(d, [(0, 0), (0.4, 0.5), (1, 1)]),
                    lambda: _dataset(mode="one_pass", start=0.9),
                ),
            ),
        ],
    ),
    "callbacks.BatchSizeSchedule": Entry(
        kind="callback",
        equality=_batch_size_equality,
        make=lambda: _Sizes(_dataset(), SIZES),
        skip=_NO_RETRACE,
        errors=[
            (TypeError, "is a plain shuffled one", lambda m, x, y: _Sizes(x, {0: 8})),
            (TypeError, "a dict of stages", lambda *_: _Sizes(_dataset(), 32)),
            (ValueError, "begin at epoch 0", lambda *_: _Sizes(_dataset(), {})),
            (ValueError, "begin at epoch 0", lambda *_: _Sizes(_dataset(), {1: 8})),
            (ValueError, "begin at epoch 0", lambda *_: _Sizes(_dataset(), {0: 8, 3: 9, 2: 10})),
            (ValueError, "return an integer", _fit(lambda d: _Sizes(d, lambda e: 8.5))),
            (ValueError, "at least 1", _fit(lambda d: _Sizes(d, lambda e: 2 - e))),
            (ValueError, "at most 48", _fit(lambda d: _Sizes(d, {0: 49}))),
            (ValueError, "runs other data", _arrays(lambda: _Sizes(_dataset(), {0: 8}))),
        ],
    ),
}

FAULTS = [
    *faults(
        "data.CurriculumDataset",
        "data/curriculum.py",
        "test_curricula.py",
        ("np.asarray(rank) < share - 1e-9", "np.asarray(rank) <= share"),
        ("share = start * (1 - level) + level", "share = start * (1 - level)"),
        ('difficulty, side="left")', 'difficulty, side="right")'),
        ("ranks(difficulty[classes == one])", "ranks(difficulty)[classes == one]"),
        ("share - (1 - softness) * np", "share - np"),
        ("self.share * np.mean(", "self.share * np.max("),
        ("if pools[j] < pools[i])", "if levels[j] < levels[i])"),
    ),
    *faults(
        "data.CurriculumDataset",
        "data/_driven.py",
        "test_curricula.py",
        ("default_rng([self.seed, self.epoch])", "default_rng(self.epoch)"),
        ("self._order, self._state = None", "self._order, self._state = self._order"),
        ("rng.permutation(np.flatnonzero(weights))", "np.flatnonzero(weights)"),
        ('self._state, self._plan = "new", {}', "pass"),
        ("if not self._planned:", "if True:"),
    ),
    *faults(
        "data.CurriculumDataset",
        "data/_stream.py",
        "test_curricula.py",
        ("del batch\n", "self._kept = [*getattr(self, '_kept', []), batch]\n"),
        ("rng.uniform(size=size) < chance", "rng.uniform(size=size) / 2 < chance"),
        ("a[count:].copy()", "a[:0].copy()"),
    ),
    *faults(
        "data.SelfPacedDataset",
        "data/self_paced.py",
        "test_curricula.py",
        ("np.maximum(0.0, 1.0 - relative)", "np.maximum(0.0, 1.0 - relative**2)"),
        ("np.log((1 - _ZETA) * inside + _ZETA)", "np.log(inside + _ZETA)"),
        ("found_threshold * self.growth**epoch", "found_threshold * self.growth * (epoch + 1)"),
        ("found[classes == one] = np.maximum", "found[classes == one] = np.minimum"),
        ("float(np.quantile(self._losses, self.start))", "float(np.mean(self._losses))"),
    ),
    *faults(
        "data.difficulty_from",
        "data/difficulty.py",
        "test_curricula.py",
        ("reshape(len(y), -1).mean(axis=1)", "reshape(len(y), -1)[:, 0]"),
        ("predicted[part]) for", "predicted[: part.stop - part.start]) for"),
    ),
    *faults(
        "data.difficulty_from",
        "data/difficulty.py",
        "test_contracts.py::test_contract[numpy-data.difficulty_from]",
        ("function(*same_rank(*pair))", "function(*pair)"),
        ("losses * np.asarray(sample_weight, losses.dtype)", "losses"),
    ),
    *faults(
        "callbacks.Curriculum",
        "callbacks/curriculum.py",
        "test_curricula.py",
        ("1.0 if epoch >= epochs - 1 else epoch / (epochs - 1)", "min(1.0, epoch / epochs)"),
        ("if epoch >= self._move - 1:", "if epoch >= self._move:"),
        ("if begin <= progress][-1]", "if begin < progress or not begin][-1]"),
        ('logs["curriculum"] = self._value', "pass"),
    ),
    *faults(
        "callbacks.BatchSizeSchedule",
        "callbacks/batch_size_schedule.py",
        "test_curricula.py",
        ('logs["batch_size"] = self.dataset.batch_size', "pass"),
        ("batch_size=self._size(epoch))", "batch_size=None)"),
        ("if begin <= epoch][-1]", "if begin <= epoch][0]"),
    ),
    Fault(
        ("data.difficulty_from",),
        "data/difficulty.py",
        "convert_to_tensor(v, dtype=dtype)",
        "convert_to_tensor(v)",
        "tests/test_curricula.py",
        backend="tensorflow",
    ),
]
