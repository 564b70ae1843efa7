"""What a network must beat: scikit-learn's simplest and its best for tables."""

import time
import warnings

import numpy as np


def matrices(inputs):
    """Numbers and categories of some inputs, None for what they lack; pixels are numbers."""
    if isinstance(inputs, dict):
        return inputs.get("numbers"), inputs.get("categories")
    return inputs.reshape(len(inputs), -1), None


def linear_features(inputs):
    """Standardised numbers, and a column for each category.

    Returns:
        A function from inputs to one matrix, fitted on these.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    if not isinstance(inputs, dict):
        return lambda x: matrices(x)[0]
    scale = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    steps = [scale, OneHotEncoder(handle_unknown="ignore")]
    fitted = [
        m is not None and step.fit(m) for step, m in zip(steps, matrices(inputs), strict=True)
    ]

    def features(x):
        pairs = zip(fitted, matrices(x), strict=True)
        blocks = [step.transform(matrix) for step, matrix in pairs if matrix is not None]
        return blocks[0] if len(blocks) == 1 else hstack(list(map(csr_matrix, blocks))).tocsr()

    return features


def tree_features(inputs):
    """Numbers beside the numbers of the categories, and which columns are categories."""
    widths = [0 if matrix is None else matrix.shape[1] for matrix in matrices(inputs)]
    mask = np.arange(sum(widths)) >= widths[0]
    return lambda x: np.hstack([m for m in matrices(x) if m is not None]), mask


def methods(task, inputs, cells, seed):
    """Name, estimator and features of each baseline, the simplest first."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge

    linear = linear_features(inputs)
    trees, mask = tree_features(inputs)
    boosting = {
        "random_state": seed,
        "early_stopping": False,
        "max_iter": 100 if cells < 5e6 else 50,
        "categorical_features": mask if mask.any() else None,
    }
    if task == "regression":
        yield "mean", DummyRegressor(), linear
        yield "ridge", Ridge(), linear
        yield "gradient_boosting", HistGradientBoostingRegressor(**boosting), trees
    else:
        yield "majority", DummyClassifier(), linear
        yield "logistic_regression", LogisticRegression(max_iter=100), linear
        yield "gradient_boosting", HistGradientBoostingClassifier(**boosting), trees


CELLS = 8e7  # rows x columns x classes that boosting gets through in half a minute
STEP = 10  # trees between two looks at the clock


def classical_baselines(task, train, test, seed, budget, score, say):
    """Fits each baseline on the training rows and scores it on the test rows.

    Args:
        task: "classification" or "regression".
        train, test: pairs of inputs (of `plain_table`, or images) and targets (class numbers, or
            values).
        seed: seed of the boosting and of the choice of rows.
        budget: minutes of the whole run; data too large for it are thinned and boosting takes a
            sixth of it at most, and the result says how many rows and rounds that were.
        score: a function from (y, prediction) to a dict of metrics.
        say: called with a line about each.

    Returns:
        A dict of name to metrics.
    """
    results, (inputs, y) = {}, train
    width = sum(m.shape[1] for m in matrices(inputs) if m is not None)
    cells = len(y) * width * (1 if task == "regression" else max(1, y.max() + 1))
    for name, estimator, features in methods(task, inputs, cells, seed):
        start, rows = time.monotonic(), np.arange(len(y))
        limit = CELLS * min(1.0, budget / 6) * (1 if name == "gradient_boosting" else 3)
        if cells > limit:
            rows = thinned(y, max(100, int(len(y) * limit / cells)), seed, task)
        with warnings.catch_warnings(), one_thread():
            # A linear model stopped after 100 iterations is still an honest baseline.
            warnings.simplefilter("ignore")
            fit(estimator, features(pick(inputs, rows)), y[rows], cells, start + 10 * budget)
            predict = "predict" if task == "regression" else "predict_proba"
            results[name] = score(test[1], getattr(estimator, predict)(features(test[0])))
        if len(rows) < len(y):
            results[name]["rows"] = len(rows)
        if name == "gradient_boosting":
            results[name]["rounds"] = int(estimator.n_iter_)
        say(name, results[name], time.monotonic() - start)
    return results


def fit(estimator, x, y, cells, deadline):
    """Fits at once, or boosts round after round until the deadline where it may take long."""
    if cells < 5e6 or not hasattr(estimator, "max_bins"):
        estimator.fit(x, y)
        return
    rounds = estimator.max_iter
    for done in range(STEP, rounds + 1, STEP):
        estimator.set_params(warm_start=True, max_iter=done).fit(x, y)
        if time.monotonic() > deadline:
            return


def one_thread():
    """On a busy machine threads wait for each other much longer than they work."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def pick(inputs, rows):
    return {n: i[rows] for n, i in inputs.items()} if isinstance(inputs, dict) else inputs[rows]


def thinned(y, count, seed, task):
    """Some of the rows at random, with at least one of each class."""
    order = np.random.default_rng(seed).permutation(len(y))
    first = np.unique(y[order], return_index=True)[1] if task == "classification" else []
    return order[np.unique([*first, *range(min(count, len(y)))]).astype(int)]
