"""Greedy supervised pretraining."""

import itertools
from contextlib import nullcontext

import keras
import numpy as np
import pytest

from kerasrecipes.pretraining import greedy_supervised
from kerasrecipes.pretraining.greedy import _collected, split_into_blocks
from tests.problems import assert_unchanged, classes, everything, images, network

L = keras.layers
X, Y = classes()


def deep(kind="sequential", **settings):
    layers = [
        *[L.Dense(8, name="one"), L.BatchNormalization(name="norm"), L.ReLU()],
        *[L.Dense(7, "tanh", name="two"), L.Dropout(0.2, seed=1)],
        *[L.Dense(3, name="head"), L.Softmax()],
    ]
    if kind == "sequential":
        model = keras.Sequential([keras.Input((6,)), *layers])
    else:
        entry = h = keras.Input((6,))
        for layer in layers:
            h = layer(h)
        model = keras.Model(entry, h)
    settings = {"metrics": ["accuracy"], **settings}
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", **settings)
    return model


def names(blocks):
    return [[layer.name.split("_")[0] for layer in block] for block in blocks]


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_blocks_begin_at_kernels_and_the_last_is_the_head(kind):
    blocks = split_into_blocks(deep(kind))
    expected = [["one", "norm", "re"], ["two", "dropout"], ["head", "softmax"]]
    assert names(blocks) == expected


def test_a_layer_before_the_first_kernel_joins_the_first_block():
    model = network(L.Rescaling(2.0), L.Dense(3), L.ReLU())
    assert names(split_into_blocks(model)) == [["rescaling", "dense", "re"], ["head"]]


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_each_stage_trains_its_block_alone(kind):
    model = deep(kind)
    watched = {"one": [], "two": [], "norm": []}

    class Record(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            for name, seen in watched.items():
                seen.append([w.copy() for w in model.get_layer(name).get_weights()])

    start = model.get_layer("two").get_weights()[0]
    histories = greedy_supervised(model, X, Y, epochs=2, verbose=0, callbacks=[Record()])
    assert [len(h.history["accuracy"]) for h in histories] == [2, 2]

    def moves(name, index=0):
        seen = [weights[index] for weights in watched[name]]
        return [not np.array_equal(a, b) for a, b in itertools.pairwise(seen)]

    # Epochs 1, 2 belong to the first block, 3, 4 to the second.
    assert moves("one") == [True, False, False]
    assert moves("norm", 2) == [True, False, False], "frozen batch norm keeps its statistics"
    assert np.array_equal(watched["two"][1][0], start)
    assert moves("two") == [False, True, True]


def test_the_last_head_stays_and_training_goes_on_from_there():
    model = deep()
    histories = greedy_supervised(model, X, Y, epochs=3, verbose=0, validation_data=(X, Y))
    last = histories[-1].history
    loss, accuracy = model.evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(last["val_loss"][-1], rel=1e-4)
    assert accuracy == pytest.approx(last["val_accuracy"][-1])
    assert model.optimizer.iterations.numpy() == 0
    model.fit(X, Y, verbose=0)


def test_frozen_blocks_run_forward_once():
    """Three more epochs a stage cost each block its own batches, and the lower one no more."""
    counts = {}
    for epochs in (1, 4):
        model = deep(run_eagerly=True)
        for name in ("one", "two"):
            layer = model.get_layer(name)

            def counted(inputs, *args, _call=layer.call, _key=(name, epochs), **kwargs):
                counts[_key] = counts.get(_key, 0) + 1
                return _call(inputs, *args, **kwargs)

            object.__setattr__(layer, "call", counted)
        greedy_supervised(model, X, Y, epochs=epochs, batch_size=16, verbose=0)
    for name in ("one", "two"):
        assert counts[name, 4] - counts[name, 1] == 3 * 3


def test_compile_state_callbacks_and_flags_come_out_as_they_went_in():
    model = deep()
    model.get_layer("two").trainable = True
    stop = keras.callbacks.EarlyStopping("loss", patience=5)
    before, found = (model.optimizer, model.loss, model.metrics), dict(vars(stop))
    greedy_supervised(model, X, Y, epochs=2, verbose=0, callbacks=[stop])
    assert (model.optimizer, model.loss, model.metrics) == before
    assert vars(stop) == found
    assert all(layer.trainable for layer in model.layers)


@pytest.mark.parametrize("at", [1, 5])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_after_an_error_in_any_stage_everything_is_as_before(at, error):
    model = deep()
    model.fit(X, Y, verbose=0)
    before = everything(model)

    class Fails(keras.callbacks.Callback):
        count = 0

        def on_train_batch_end(self, batch, logs=None):
            self.count += 1
            if self.count == at:
                raise error

    fails = Fails()
    with pytest.raises(error):
        greedy_supervised(model, X, Y, epochs=1, batch_size=16, verbose=0, callbacks=[fails])
    assert_unchanged(model, before)
    assert fails.count == 0, "the callback too"
    model.fit(X, Y, verbose=0)


def test_images_get_a_flatten_before_a_fresh_head():
    x = images(count=32)
    y = np.arange(32) % 2
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(4, 3), L.Conv2D(3, 3), L.Flatten(), L.Dense(2, "softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert len(greedy_supervised(model, x, y, verbose=0)) == 2


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return X[part], Y[part]


def generator():
    while True:
        for index in range(3):
            yield Batches()[index]


def test_a_data_set_gives_what_its_arrays_give():
    results = []
    for data in ({"x": Batches()}, {"x": X, "y": Y, "batch_size": 16}):
        keras.utils.set_random_seed(0)
        model = deep()
        greedy_supervised(model, **data, epochs=2, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_a_generator_is_cached_batch_by_batch():
    """Keras may take a batch more from a generator than it trains on, so order is no matter."""
    model = deep()
    block = keras.Sequential(split_into_blocks(model)[0])
    data = _collected(block, generator(), 3)
    np.testing.assert_allclose(data["x"], block.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(data["y"], Y)
    assert data["batch_size"] == 16 and data["sample_weight"] is None
    histories = greedy_supervised(
        model, generator(), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0
    )
    assert [len(h.history["loss"]) for h in histories] == [2, 2]


def test_metrics_that_no_config_carries_are_left_out_and_loss_weights_kept():
    def own(y_true, y_pred):
        return y_pred[:, 0]

    losses = []
    for settings in ({}, {"metrics": [own], "loss_weights": [10.0]}):
        keras.utils.set_random_seed(0)
        model = deep(**settings)
        ready = pytest.warns(UserWarning, match="metrics") if settings else nullcontext()
        with ready:
            (history, _) = greedy_supervised(model, X, Y, shuffle=False, verbose=0, batch_size=48)
        losses.append(history.history["loss"][0])
    assert losses[1] == pytest.approx(10 * losses[0], rel=1e-4)


def test_a_stage_that_diverges_brings_everything_back():
    model = deep()
    model.compile(keras.optimizers.SGD(1e38), "sparse_categorical_crossentropy")
    before = everything(model)
    with pytest.raises(ValueError, match="not finite"):
        greedy_supervised(model, X, Y, epochs=3, verbose=0)
    assert_unchanged(model, before)


def test_tf_data_and_nests_of_one_are_taken():
    model = deep()
    greedy_supervised(model, [X], Y, verbose=0)
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    assert len(greedy_supervised(model, dataset, shuffle=False, verbose=0)) == 2


def test_prelu_belongs_to_the_layer_before_it():
    layers = [L.Conv2D(3, 3), L.PReLU(), L.Conv2D(2, 3), L.LayerNormalization(axis=[1, 2, 3])]
    model = keras.Sequential([keras.Input((6, 6, 2)), *layers, L.Flatten(), L.Dense(2)])
    model.compile(loss="mse")
    assert [len(block) for block in split_into_blocks(model)] == [2, 3, 1]


def test_what_is_no_chain_is_refused_with_the_place():
    entry = keras.Input((6,))
    h = L.Dense(6, name="first")(entry)
    model = keras.Model(entry, L.Dense(2)(L.Add(name="sum")([h, entry])))
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="must be a chain"):
        greedy_supervised(model, X, Y)
    masked = keras.Sequential([keras.Input((5,)), L.Embedding(4, 3, mask_zero=True), L.LSTM(2)])
    masked.compile(loss="mse")
    with pytest.raises(ValueError, match="mask"):
        greedy_supervised(masked, X, Y)


def test_a_head_may_hold_a_function():
    layers = [L.Dense(8, "tanh"), L.Dense(3), L.Lambda(lambda z: 2 * z), L.Softmax()]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert len(greedy_supervised(model, X, Y, epochs=1, verbose=0)) == 1
