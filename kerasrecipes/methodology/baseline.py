"""The first hour of a project in one call: honest baselines, a default network, a report.

How to use
    >>> import numpy as np
    >>> import kerasrecipes as kr
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> result = kr.baseline(x, x[:, 0] > x[:, 1], epochs=10, quiet=True)
    >>> result.metrics["test"]["accuracy"] > 0.9
    True
    >>> result.predict([[2.0, -2.0]]).tolist()
    [True]

    On the command line: `kerasrecipes baseline table.csv --target price`. With `out` the folder
    holds the rows `x` and `y` too (data.npz), so that its train.py runs: mind who may read them.

Suggested hyperparameters
    `budget`: 10 minutes; `epochs`: None, that is by the size of the data. Change `seed` to learn
    how far a figure depends on chance before you believe a small difference.

When not to use
    For text, sound and time series; for rows that belong together (several of one patient, days
    in a row), for they are split at random and the test score is then too good.

Technical details
    20 % of the rows are for the test and 15 % for validation, at most 10,000 each and each class
    in its proportion, unless the data has a test part; everything is fitted on the rest. First
    scikit-learn: majority or mean, logistic or ridge regression, gradient boosting (on a part of
    the rows where the data is large). A table goes to two hidden layers; its numbers are
    standardised and, from 200 rows on, encoded piecewise linearly in quantile bins, its
    categories embedded. Images go to a small convnet. Batch normalization, dropout, AdamW with
    decay 0.01; one cycle with the peak that `diagnostics.find_learning_rate` found; the weights
    with the least validation loss are kept. Batch size and epochs follow from the number of rows,
    so that a run can be repeated on any machine; only a budget too small takes epochs away.

Attribution
    The methodology is that of Goodfellow, Bengio, Courville, Deep Learning, 2016, chapter 11. The
    encoding of numbers: Gorishniy et al., 2022, https://arxiv.org/abs/2203.05556; embedded
    categories: Guo, Berkhahn, 2016, https://arxiv.org/abs/1604.06737.
"""

from kerasrecipes._checks import integer, number, one_of
from kerasrecipes.data.read import BadInput
from kerasrecipes.methodology.folder import check_free
from kerasrecipes.methodology.progress import Progress
from kerasrecipes.methodology.report import report
from kerasrecipes.methodology.run import run
from kerasrecipes.methodology.source import from_arrays
from kerasrecipes.methodology.writing import write


def baseline(
    x,
    y,
    *,
    test_data=None,
    task=None,
    out=None,
    seed=0,
    epochs=None,
    budget=10.0,
    quiet=False,
    name="data",
):
    """Trains the default network beside the classical baselines.

    Args:
        x: a matrix, a pandas DataFrame or a dict of columns for a table; an array of 3 or 4 axes
            for images.
        y: one target a row: numbers or labels.
        test_data: pair of rows and targets for the test; None to take some of `x` and `y`.
        task: "classification" or "regression"; None to recognise it.
        out: folder to write to, which must not exist or be empty; None to write nothing.
        seed: seed of everything random.
        epochs: number of epochs; None to choose by the size of the data.
        budget: minutes that the run may take.
        quiet: whether to say nothing while it works.
        name: what to call the data.

    Returns:
        A `Baseline` with `model`, `preprocessing`, `metrics`, `history`, `predict` and, printed,
        the table of results.

    Raises:
        TypeError: if a number is none.
        ValueError: if the data cannot be used, an argument is out of range or `out` is taken.
    """
    source = from_arrays(x, y, test_data, name)
    return baseline_of(
        source, task=task, out=out, seed=seed, epochs=epochs, budget=budget, quiet=quiet
    )


def baseline_of(source, *, task, out, seed, epochs, budget, quiet, command="kr.baseline"):
    """Runs the baseline of a source and writes it, if `out` is given."""
    check_settings(task, seed, epochs, budget)
    if out is not None:
        check_free(out)
    progress = Progress(quiet, budget)
    result, *shown = run(source, task, seed, epochs, progress)
    result.metrics |= {"command": command, "seconds": progress.seconds}
    if out is not None:
        with progress.phase("writing"):
            write(result, source, report(result, *shown), out)
    return result


def check_settings(task, seed, epochs, budget):
    """Raises BadInput, or a TypeError, before anything was done."""
    try:
        one_of("task", task, (None, "classification", "regression"))
        number("budget", budget, 0, open_low=True)
        integer("seed", seed, 0)
        if epochs is not None:
            integer("epochs", epochs, 1)
    except ValueError as error:
        raise BadInput(str(error)) from error
    if seed >= 2**32:
        raise BadInput(f"`seed` must be less than 2**32. Received: seed={seed}")
