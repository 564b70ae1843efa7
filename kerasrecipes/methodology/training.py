"""Batch size, epochs, rate and one run of the one-cycle with the best weights kept."""

import math
import time
from dataclasses import dataclass

import keras
import numpy as np

from kerasrecipes._model.state import restored
from kerasrecipes.diagnostics import find_learning_rate
from kerasrecipes.methodology import networks
from kerasrecipes.methodology.progress import Watch, first_interrupt
from kerasrecipes.methodology.split import take
from kerasrecipes.schedules import OneCycle

WEIGHT_DECAY = 0.01


@dataclass
class Plan:
    """The constants of one training run: they are all that train.py needs besides the data."""

    seed: int
    batch: int
    epochs: int
    units: int
    dropout: float
    bins: int
    rate: float = 1e-3


def plan(x, rows, seed, epochs):
    """Constants that depend on the data alone, so that a run can be repeated anywhere."""
    batch = int(np.clip(2 ** round(math.log2(max(1, rows / 400))), 32, 1024))
    chosen = int(np.clip(round(240 / math.sqrt(math.ceil(rows / batch))), 5, 40))
    units, dropout = (256, 0.3) if isinstance(x, dict) else (32, 0.3)
    return Plan(seed, batch, epochs or chosen, units, dropout, min(16, rows // 100))


def train(parts, state, plan, progress):
    """Builds, finds the rate, trains within the budget.

    Returns:
        `(model, history, ended)`: the network without an optimizer, a dict of lists, and "whole",
        "early", "budget" or "interrupted".
    """
    data, target = parts["training"], state["target"]
    with progress.phase("finding the rate"):
        model = build(data[0], state["inputs"], target, plan)
        compile(model, target, plan.rate, metrics=False)
        plan.rate = find_rate(model, data, plan)
        shorten(model, parts, plan, progress)
    progress.say(f"learning rate {plan.rate:g}, {plan.epochs} epochs of batches of {plan.batch}")
    with progress.phase("training"):
        done = fit(model, data, parts["validation"], target, plan, progress)
    # Without the optimizer: other backends do not find the class that PyTorch saves.
    return keras.Model(model.input, model.output), *done


def build(inputs, state, target, plan):
    """The seeded network for these inputs."""
    keras.utils.set_random_seed(plan.seed)
    outputs = len(target.get("classes", ()))
    if state["kind"] == "image":
        return networks.image_network(state["shape"], outputs, plan.units, plan.dropout)
    numbers = inputs["numbers"].shape[1] if "numbers" in inputs else 0
    sizes = [len(values) + 2 for values in state["categories"].values()]
    return networks.table_network(numbers, sizes, outputs, plan.units, plan.dropout)


def compile(model, target, rate, metrics=True):
    """Compiles with decoupled weight decay and the loss of the task."""
    optimizer = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY)
    metrics = ["accuracy"] if metrics and "classes" in target else None
    model.compile(optimizer, loss_of(target), metrics=metrics)


def loss_of(target):
    """The loss of the task."""
    return "sparse_categorical_crossentropy" if "classes" in target else "mse"


def patience(epochs):
    """Epochs without a better validation loss after which to stop: a third of the cycle."""
    return max(3, epochs // 3)


def find_rate(model, data, plan):
    """The valley of a range test, kept where AdamW is known to work."""
    rows = np.random.default_rng(plan.seed).permutation(len(data[1]))[: 100 * plan.batch]
    found = find_learning_rate(
        model,
        take(data[0], rows),
        data[1][rows],
        low=1e-5,
        high=1.0,
        batch_size=plan.batch,
        seed=plan.seed,
    )
    return float(np.clip(float(f"{found.suggestion:.2g}"), 1e-3, 1e-2))


def shorten(model, parts, plan, progress, cheap=2e7):
    """Takes epochs off the plan that the budget has no time for, by measuring a few batches."""
    data = parts["training"]
    arrays = data[0].values() if isinstance(data[0], dict) else [data[0]]
    if plan.epochs * sum(array.size for array in arrays) < cheap and progress.left() > 60:
        return
    batches = {name: len(part[1]) / plan.batch for name, part in parts.items()}
    step = seconds_per_batch(model, data, plan)
    # A forward pass is a third of a step: after each epoch on the validation rows, and at the
    # end on all. The rest of the margin is for a machine that others use too.
    epoch = step * (batches["training"] + batches["validation"] / 3)
    possible = max(1, int(0.8 * (progress.left() - step * sum(batches.values()) / 3) / epoch))
    if possible < plan.epochs:
        progress.say(f"{plan.epochs} epochs of {epoch:.0f} s are too many for the budget")
        plan.epochs = possible


def seconds_per_batch(model, data, plan, batches=8):
    """Measured on a few batches that leave no trace; the first one may compile."""
    rows = np.arange(plan.batch) % len(data[1])
    x, y = take(data[0], rows), data[1][rows]
    with restored(model):
        model.train_on_batch(x, y)
        start = time.monotonic()
        for _ in range(batches):
            model.train_on_batch(x, y)
        return (time.monotonic() - start) / batches


def cycle(peak, rows, batch, epochs):
    """The rate over the whole run; four steps are the fewest in which it can rise and fall."""
    return OneCycle(peak, max(4, epochs * -(-rows // batch)))


def fit(model, data, validation, target, plan, progress):
    """Trains; the history, and how it ended."""
    compile(model, target, cycle(plan.rate, len(data[1]), plan.batch, plan.epochs))
    keras.utils.set_random_seed(plan.seed)
    watch = Watch(progress, plan.epochs)
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=patience(plan.epochs), restore_best_weights=True
    )
    with first_interrupt(watch.interrupt):
        history = model.fit(
            *data,
            batch_size=plan.batch,
            epochs=plan.epochs,
            validation_data=validation,
            callbacks=[stop, watch],
            verbose=0,
        ).history
    early = len(history["loss"]) < plan.epochs
    return history, watch.cause or ("early" if early else "whole")
