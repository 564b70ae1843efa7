"""KerasTuner searches with the callbacks, of which it gives each trial a copy."""

import keras
import numpy as np
import pytest

from kerasrecipes.callbacks import Curriculum, HyperparameterSchedule, Unfreeze
from kerasrecipes.data import CurriculumDataset
from kerasrecipes.optimizers.masked import Masked

X = np.linspace(-1, 1, 24, dtype="float32").reshape(12, 2)
Y = X.sum(axis=1, keepdims=True)


class Record(keras.callbacks.Callback):
    """What each epoch trained with; the copies share it."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def __deepcopy__(self, memo):
        return Record(self.rows)

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        mask = keras.ops.convert_to_numpy(optimizer.mask).tolist()
        rate = float(keras.ops.convert_to_numpy(optimizer.inner_optimizer.learning_rate))
        low = self.model.get_layer("low")
        self.rows.append((low.units, mask, rate, logs["curriculum"]))


def _build(hp):
    units = hp.Choice("units", [2, 3])
    layers = [keras.layers.Dense(units, name="low"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((2,)), *layers])
    model.compile(Masked(keras.optimizers.SGD(0.5)), "mse", jit_compile=False)
    return model


def test_a_search_moves_the_knobs_of_each_trial(tmp_path):
    tuner_of = pytest.importorskip("keras_tuner")
    dataset, rows = CurriculumDataset(X, Y, difficulty=np.abs(Y[:, 0]), batch_size=4), []
    tuner = tuner_of.RandomSearch(
        _build, "val_loss", max_trials=2, seed=0, directory=tmp_path, project_name="search"
    )
    callbacks = [
        HyperparameterSchedule("learning_rate", lambda epoch: [0.2, 0.1][epoch], per="epoch"),
        Unfreeze({1: "low"}),
        Curriculum(dataset, [(0, 0.0), (0.5, 1.0)]),
        Record(rows),
    ]
    tuner.search(dataset, validation_data=(X, Y), epochs=2, callbacks=callbacks, verbose=0)
    assert sorted({units for units, *_ in rows}) == [2, 3]
    assert len(tuner.get_best_hyperparameters(2)) == 2
    assert len(rows) == 4
    for row in range(0, 4, 2):
        expected = [([0, 0, 1, 1], 0.2, 0.0), ([1, 1, 1, 1], 0.1, 1.0)]
        for (_, mask, rate, level), (frozen, given, reached) in zip(
            rows[row : row + 2], expected, strict=True
        ):
            assert mask == frozen
            assert rate == pytest.approx(given)
            assert level == reached
