"""HyperparameterSchedule: honoured at the very next batch, counted as documented, logged."""

import keras
import numpy as np
import pytest

import kerasrecipes as kr
from kerasrecipes.callbacks import HyperparameterSchedule
from tests.problems import classes, network, values

X, Y = classes()


def fit(model, schedule, per="batch", **kwargs):
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0, **kwargs}
    callback = HyperparameterSchedule("learning_rate", schedule, per)
    return model.fit(X, Y, callbacks=[callback], **settings)


def test_a_rate_of_zero_at_one_batch_leaves_the_weights_there():
    model, seen = network(optimizer=keras.optimizers.SGD(0.5)), []
    record = keras.callbacks.LambdaCallback()
    record.on_train_batch_end = lambda batch, logs=None: seen.append(
        values(record.model.trainable_variables)[0]
    )
    stop = HyperparameterSchedule("learning_rate", lambda step: 0.0 if step in (2, 4) else 0.5)
    start = values(model.trainable_variables)[0]
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[stop, record])
    moved = [not np.array_equal(a, b) for a, b in zip([start, *seen], seen, strict=False)]
    assert moved == [True, True, False, True, False, True]


def test_the_count_goes_on_over_a_second_fit_and_a_resumed_run(tmp_path):
    steps = []
    schedule = lambda step: steps.append(step) or 0.1  # noqa: E731
    model = network()
    fit(model, schedule)
    fit(model, schedule)
    model.save(tmp_path / "m.keras")
    fit(keras.saving.load_model(tmp_path / "m.keras"), schedule)
    # Each fit asks once more at its begin, to refuse a bad schedule before training.
    assert steps == [0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8]


def test_under_accumulation_updates_are_counted():
    steps = []
    model = network(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
    fit(model, lambda step: steps.append(step) or 0.1, epochs=2)
    assert steps == [0, 0, 0, 0, 1, 1, 1]


def test_epochs_begin_at_initial_epoch():
    epochs = []
    history = fit(
        network(),
        lambda epoch: epochs.append(epoch) or 0.1 / (epoch + 1),
        "epoch",
        initial_epoch=2,
        epochs=4,
    )
    assert sorted(set(epochs)) == [2, 3], "no epoch before the first is asked for"
    np.testing.assert_allclose(history.history["learning_rate"], [0.1 / 3, 0.1 / 4])


def test_a_keras_schedule_moves_the_weights_as_it_does_inside_the_optimizer():
    schedule = kr.schedules.OneCycle(0.5, 6)
    keras.utils.set_random_seed(0)
    inside = network(optimizer=keras.optimizers.SGD(schedule))
    keras.utils.set_random_seed(0)
    outside = network(optimizer=keras.optimizers.SGD(0.1))
    inside.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    history = fit(outside, schedule, epochs=2)
    for one, other in zip(inside.get_weights(), outside.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        history.history["learning_rate"], [float(schedule(s)) for s in (2, 5)], rtol=1e-6
    )


def test_several_steps_an_execution_are_refused_before_training():
    model = network()
    before = model.get_weights()
    if keras.config.backend() == "torch":
        pytest.skip("Keras itself refuses steps_per_execution > 1 on torch")
    model.steps_per_execution = 3
    with pytest.raises(ValueError, match="steps_per_execution=1"):
        fit(model, lambda step: 0.1)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
