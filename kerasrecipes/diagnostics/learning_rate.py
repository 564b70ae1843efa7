"""Finding the learning rate: a range test, or deck 004's rule of a hundred iterations.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.diagnostics import find_learning_rate
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("adam", loss="mse")
    >>> x = np.random.default_rng(0).normal(size=(256, 4))
    >>> found = find_learning_rate(model, x, x[:, :1])
    >>> sorted(found.suggestions)
    ['minimum/10', 'steepest', 'valley']
    >>> model.optimizer.learning_rate = found.suggestion

Suggested hyperparameters
    `rule`: "range-test" costs `steps` batches, "hundred-iterations" that many for each rate of
    the grid, and is the safer of the two. `steps`: 100. `low`, `high`: 1e-6 and 10. As the
    peak of a one-cycle schedule take "minimum/10"; "valley" is cautious, and the more so the
    lower `low` is.

When not to use
    With a batch size other than the one you train with. For models with an overridden
    `train_step` that does not report "loss".

Technical details
    The model itself is trained with a fresh optimizer of the same settings by `fit`, and then
    weights, slots, metrics, seeds, compiled functions and random state come back bit for bit.
    Range test: the rate grows exponentially by batch and the test ends where the loss is not
    finite, or its mean over five batches is above four times the least such mean. Losses are
    smoothed by a centred window. "valley" is the middle member of the longest decreasing
    subsequence; "steepest" the rate of the steepest descent per log rate; "minimum/10" a tenth
    of the rate with the least loss.
    Hundred iterations: from the same start, each rate of a grid trains for `steps` batches; the
    best by the mean loss of the last tenth is suggested times 1.5, "slightly higher" as the
    deck says.

Attribution
    Smith, Cyclical Learning Rates, 2017, https://arxiv.org/abs/1506.01186; the names of the
    suggestions are fastai's; the rule of a hundred iterations: Goodfellow, Bengio, Courville,
    Deep Learning, 2016, section 8.3.1.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kerasrecipes._checks import integer, number, one_of
from kerasrecipes._model.batches import as_arrays, check_lengths, take
from kerasrecipes._model.state import check_ready, restored
from kerasrecipes._report.plots import lines

RULES = ("range-test", "hundred-iterations")
_RECENT = 5  # batches whose mean loss tells divergence from the noise of one batch


class LearningRates(NamedTuple):
    """Rates tried, their losses (smoothed ones too), and the suggestions by name."""

    rates: list
    losses: list
    smoothed: list
    suggestions: dict
    suggestion: float
    figure: Any = None


def find_learning_rate(
    model,
    x,
    y=None,
    *,
    rule="range-test",
    low=1e-6,
    high=10.0,
    steps=100,
    grid=8,
    batch_size=32,
    seed=0,
    plot=False,
    **fit_kwargs,
):
    """Suggests a learning rate for `model.fit(x, y, batch_size)`.

    Args:
        model: built and compiled `keras.Model`; left bit for bit as it was found.
        x, y: what `fit` takes. Arrays are shuffled by `seed`.
        rule: "range-test" or "hundred-iterations".
        low, high: first and last rate that is tried.
        steps: number of batches of the range test, or of training at each rate of the grid.
        grid: number of rates, evenly spaced in log rate, for "hundred-iterations".
        batch_size: examples per batch, for arrays.
        seed: seed of the order of the examples.
        plot: whether to draw losses against rates. A notebook shows the figure once
            `matplotlib.pyplot` is imported.
        **fit_kwargs: `class_weight` or `sample_weight`, passed on to `fit`.

    Returns:
        `LearningRates(rates, losses, smoothed, suggestions, suggestion, figure)`. `suggestion` is
        "valley" for the range test and "slightly higher" for the hundred iterations.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is unbuilt or uncompiled, if the data is empty or has NaN, if the
            bounds are not 0 < low < high, or if no rate gave a finite loss.

    Reference:
        Smith, 2017, section 3.3, https://arxiv.org/abs/1506.01186
    """
    one_of("rule", rule, RULES)
    check_ready(model, compiled=True)
    low = number("low", low, 0, open_low=True)
    high = number("high", high, low, open_low=True)
    steps, grid = integer("steps", steps, 10), integer("grid", grid, 2)
    data = _batches(x, y, integer("batch_size", batch_size, 1), steps, seed, fit_kwargs)
    with restored(model):
        trial = _with_rate(model.optimizer, low)
        model.optimizer, model.steps_per_execution = trial, 1
        if rule == "range-test":
            growth = (high / low) ** (1 / (steps - 1))
            trial.learning_rate = keras.optimizers.schedules.ExponentialDecay(low, 1, growth)
        # TensorFlow traces a step twice if variables are made in it.
        trial.build(model.trainable_variables)
        model.make_train_function(force=True)
        if rule == "range-test":
            return _suggest_from_range(*_run(model, data, steps, rise=4), plot)
        rates = np.geomspace(low, high, grid).tolist()
        losses = [_loss_after(model, data, steps, rate) for rate in rates]
        return _suggest_from_grid(rates, losses, plot)


def _with_rate(optimizer, rate):
    """A fresh optimizer of the same settings but for its rate, which can be set."""
    config = optimizer.get_config()
    inner = config.get("inner_optimizer", {}).get("config", config)
    if "learning_rate" not in inner:
        raise ValueError(
            f"{type(optimizer).__name__} has no single learning rate to search for. Compile with "
            "one optimizer for all layers, search, and compile again."
        )
    inner["learning_rate"] = rate
    return type(optimizer).from_config(config)


def _batches(x, y, batch_size, steps, seed, fit_kwargs):
    """The keyword arguments with which `fit` runs `steps` batches in a fixed order."""
    if hasattr(x, "__next__"):
        raise ValueError(
            "`x` is a generator, whose batches would be used up. Pass arrays, a "
            "keras.utils.PyDataset or a tf.data.Dataset."
        )
    allowed = {"class_weight", "sample_weight"}
    if not set(fit_kwargs) <= allowed:
        raise ValueError(f"Only {sorted(allowed)} are passed on. Received: {sorted(fit_kwargs)}")
    if hasattr(x, "__iter__") and not isinstance(x, (list, tuple, dict, np.ndarray)):
        if not hasattr(x, "shape"):
            return {"x": x, "epochs": steps, **fit_kwargs}
    elif isinstance(x, keras.utils.PyDataset):
        return {"x": x, "epochs": steps, "shuffle": False, **fit_kwargs}
    weight = fit_kwargs.get("sample_weight")
    arrays = {"x": as_arrays("x", x)}
    arrays["y"] = None if y is None else as_arrays("y", y)
    arrays["sample_weight"] = None if weight is None else as_arrays("sample_weight", weight)
    count = check_lengths(**arrays)
    rng, batch_size = np.random.default_rng(seed), min(batch_size, count)
    passes = math.ceil(steps * batch_size / count)
    order = np.concatenate([rng.permutation(count) for _ in range(passes)])[: steps * batch_size]
    chosen = {name: take(a, order) for name, a in arrays.items()}
    return {**fit_kwargs, **chosen, "batch_size": batch_size, "shuffle": False}


class _BatchLosses(keras.callbacks.Callback):
    """Each batch's own loss (Keras logs a running mean), for `steps` or until it diverges."""

    def __init__(self, steps, rise):
        super().__init__()
        self.steps, self.rise, self.least = steps, rise, math.inf
        self.rates, self.losses = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()
        # Not by counting batches: loss scaling skips the steps that overflow.
        self.rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        if len(self.losses) == self.steps:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            self.model.stop_training = True
            return
        self.losses.append(loss)
        self.rates.append(self.rate)
        recent = float(np.mean(self.losses[-_RECENT:]))
        self.least = min(self.least, abs(recent))
        diverged = recent > self.rise * self.least
        self.model.stop_training = diverged or len(self.losses) == self.steps


def _run(model, data, steps, rise=math.inf):
    """Rates and losses of each batch."""
    collect = _BatchLosses(steps, rise)
    model.fit(**data, verbose=0, callbacks=[collect])
    return collect.rates, collect.losses


def _loss_after(model, data, steps, rate):
    with restored(model):
        model.optimizer.learning_rate = rate
        _, losses = _run(model, data, steps)
    return float(np.mean(losses[-(steps // 10) :])) if len(losses) == steps else math.inf


def smooth(losses):
    """A centred triangular mean over a tenth of the curve: it moves no feature sideways."""
    half = max(len(losses) // 20, 1)
    window = np.concatenate([np.arange(1, half + 2), np.arange(half, 0, -1)]).astype("float64")
    padded = np.pad(np.asarray(losses, "float64"), half, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def valley(losses):
    """The middle member of the longest decreasing subsequence of `losses`, as an index."""
    length, parent = [1] * len(losses), [-1] * len(losses)
    for i in range(len(losses)):
        for j in range(i):
            if losses[j] > losses[i] and length[j] >= length[i]:
                length[i], parent[i] = length[j] + 1, j
    members = [int(np.argmax(length))]
    while parent[members[-1]] >= 0:
        members.append(parent[members[-1]])
    return members[len(members) // 2]


def _suggest_from_range(rates, losses, plot):
    if len(set(rates)) < 5:
        raise ValueError(
            f"The loss was not finite or rose fourfold within {len(losses) + 1} batches from "
            f"rate {rates[0] if rates else 'low'} on: lower `low`, and check the data."
        )
    # A step that loss scaling skipped repeats its rate.
    rates, first = (found.tolist() for found in np.unique(rates, return_index=True))
    losses = [losses[index] for index in first]
    smoothed = smooth(losses)
    slopes = np.gradient(smoothed, np.log(rates))
    edge = max(len(losses) // 20, 1)  # one-sided slopes there
    steepest = edge + int(np.argmin(slopes[edge:-edge]))
    suggestions = {
        "valley": rates[valley(smoothed)],
        "steepest": rates[steepest],
        "minimum/10": rates[int(np.argmin(smoothed))] / 10,
    }
    curves = {"batch loss": losses, "smoothed": smoothed}
    figure = _draw(rates, curves, suggestions) if plot else None
    return LearningRates(
        rates, losses, smoothed.tolist(), suggestions, suggestions["valley"], figure
    )


def _suggest_from_grid(rates, losses, plot):
    if not np.isfinite(losses).any():
        raise ValueError(f"No rate from {rates[0]} to {rates[-1]} gave a finite loss: lower `low`.")
    best = rates[int(np.argmin(losses))]
    suggestions = {"best": best, "slightly higher": 1.5 * best}
    figure = _draw(rates, {"loss": losses}, suggestions) if plot else None
    return LearningRates(rates, losses, losses, suggestions, 1.5 * best, figure)


def _draw(rates, curves, suggestions):
    return lines(
        rates,
        curves,
        xlabel="learning rate",
        ylabel="loss",
        title="Learning rate search",
        log_x=True,
        marks=suggestions,
    )
