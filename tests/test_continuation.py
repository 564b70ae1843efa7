"""Continuation beside other callbacks: what it refuses, what it says, what a copy turns."""

import copy
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.callbacks import Continuation, HyperparameterSchedule
from kerasrecipes.layers import AnnealedDropout
from kerasrecipes.losses import Scheduled
from tests.entries.costs import fitted, linear
from tests.problems import network, values

KNOB = "term0.coefficient"


def said(model, callbacks, **kwargs):
    """What Continuation says while `model` is trained."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted(model, callbacks, **kwargs)
    return [str(one.message) for one in caught if "Continuation" in str(one.message)]


def test_every_value_is_checked_before_training():
    model = network(AnnealedDropout(0.3, name="drop"), features=3)
    start, began = values(model.variables), []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: began.append(epoch))
    x, y = np.zeros((8, 3), "float32"), np.zeros(8, "int32")
    with pytest.raises(ValueError, match="rate <= 1"):
        run = Continuation("drop.rate", [0.5, 0.8, 1.5], advance=1)
        model.fit(x, y, epochs=3, callbacks=[watch, run], verbose=0)
    assert not began
    for before, after in zip(start, values(model.variables), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_hyperparameter_is_not_even_injected():
    model = linear()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    with pytest.raises(ValueError, match="1.5"):
        fitted(model, [Continuation("momentum", [0.5, 1.5], advance=1)])
    assert isinstance(model.optimizer.momentum, float)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("knob", ["small.weight", KNOB])
@pytest.mark.parametrize("epochs", [3, 10])
def test_says_so_when_weights_of_an_easier_objective_are_restored(first, knob, epochs):
    model = linear(concept=True)
    best = keras.callbacks.EarlyStopping("loss", patience=5, restore_best_weights=True)
    run = Continuation(knob, [0, 1, 5000], advance=1)
    lines = said(model, [best, run] if first else [run, best], epochs=epochs)
    assert best.best_epoch < 2 and len(lines) == 1
    if not first:
        assert f"EarlyStopping restores the weights of epoch {best.best_epoch + 1}" in lines[0]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("knob", ["small.weight", KNOB])
def test_early_stopping_that_begins_with_the_last_stage_is_left_alone(first, knob):
    model = linear(concept=True)
    best = keras.callbacks.EarlyStopping(
        "loss", patience=1, restore_best_weights=True, start_from_epoch=2
    )
    run = Continuation(knob, [0, 1, 5], advance=1)
    assert not said(model, [best, run] if first else [run, best], epochs=9)
    assert best.best_epoch >= 2


def test_a_fit_of_no_epochs_says_so():
    assert len(said(linear(), [Continuation(KNOB, [1, 2], 1)], epochs=0)) == 1


def _continuation(knob):
    return Continuation(knob, [1, 2], 1)


def _schedule(knob):
    return HyperparameterSchedule(knob, lambda epoch: epoch + 1.0, per="epoch")


def _schedules(knob):
    return HyperparameterSchedule([knob], [lambda epoch: epoch + 1.0], per="epoch")


@pytest.mark.parametrize("make", [_continuation, _schedule, _schedules])
@pytest.mark.parametrize("of", ["a loss", "a variable"])
def test_a_copy_turns_the_same_knob(make, of):
    loss = Scheduled("mse", name="term0")
    model = linear(concept=True, losses=[loss])
    knob = loss if of == "a loss" else model.get_layer("small").weight
    given = make(knob)
    run = copy.deepcopy(given)
    assert run is not given and vars(run).keys() == vars(given).keys()
    fitted(model, [run])
    turned = loss.coefficient if of == "a loss" else knob
    assert float(ops.convert_to_numpy(turned)) == 2.0
    if make is _continuation:
        assert run.values == given.values and run.values is not given.values
