"""Interpolation and the search for a learning rate."""

import keras
import numpy as np
import pytest

from kerasrecipes.diagnostics import find_learning_rate, interpolate
from kerasrecipes.diagnostics.learning_rate import smooth, valley
from tests.problems import assert_unchanged, classes, everything, network

L = keras.layers


def factored():
    """The factored linear model, loss (w1 w2 - 1)²: on the line from (0, 0) to (1, 1) (a² - 1)²."""
    layers = [L.Dense(1, use_bias=False) for _ in range(2)]
    model = keras.Sequential([keras.Input((1,)), *layers])
    model.compile(loss="mse")
    return model


def test_the_line_through_the_factored_model_is_the_polynomial():
    one = np.ones((4, 1), "float32")
    start, end = ([np.full((1, 1), v)] * 2 for v in (0.0, 1.0))
    line = interpolate(
        factored(),
        one,
        one,
        start,
        end,
        steps=9,
        bounds=(-0.5, 1.5),
        validation_data=(one, 2 * one),
    )
    alpha = np.linspace(-0.5, 1.5, 9)
    np.testing.assert_allclose(line.alpha, alpha)
    np.testing.assert_allclose(line.loss, (alpha**2 - 1) ** 2, atol=1e-6)
    np.testing.assert_allclose(line.val_loss, (alpha**2 - 2) ** 2, atol=1e-6)


def test_both_ends_are_what_evaluate_says_there_with_statistics_of_the_data():
    """After interpolation statistics are re-estimated, so the ends equal re-estimated models."""
    from kerasrecipes.inference import reestimate_batch_normalization

    x, y = classes()
    model = network(L.Dense(8, "relu"), L.BatchNormalization())
    start = model.get_weights()
    model.fit(x, y, epochs=3, verbose=0)
    end = model.get_weights()
    line = interpolate(model, x, y, start, end, steps=3)
    for weights, loss in ((start, line.loss[0]), (end, line.loss[-1])):
        model.set_weights(weights)
        reestimate_batch_normalization(model, x)
        assert model.evaluate(x, y, verbose=0) == pytest.approx(loss, rel=1e-4)


def test_weights_come_back_after_an_error_in_the_middle(monkeypatch):
    from kerasrecipes.diagnostics import interpolation

    x, y = classes()
    model = network(L.Dense(8, "relu"), L.BatchNormalization())
    before = everything(model)
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(interpolation, "reestimate_batch_normalization", interrupted)
    with pytest.raises(KeyboardInterrupt):
        interpolate(model, x, y, model.get_weights(), [w + 1 for w in model.get_weights()])
    assert_unchanged(model, before)


def test_plots_show_each_curve():
    x, y = classes()
    model = network(L.Dense(4, "relu"))
    weights = model.get_weights()
    line = interpolate(model, x, y, weights, weights, 3, validation_data=(x, y), plot=True)
    labels = [text.get_text() for text in line.figure.axes[0].get_legend().get_texts()]
    assert labels == ["training", "validation"]
    found = find_learning_rate(model, x, y, steps=20, plot=True)
    labels = [text.get_text() for text in found.figure.axes[0].get_legend().get_texts()]
    assert labels == ["batch loss", "smoothed", *found.suggestions]
    assert interpolate(model, x, y, weights, weights, 3).figure is None


def quadratic(curvature):
    """Least squares whose Hessian is `curvature`: plain descent diverges above 2 / curvature."""
    model = keras.Sequential([keras.Input((1,)), L.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.full((64, 1), (curvature / 2) ** 0.5, "float32")
    # Noise in the targets, so that batches still push once the minimum is reached.
    return model, x, 3 * x + np.random.default_rng(0).normal(size=(64, 1))


@pytest.mark.parametrize("curvature", [0.5, 20.0])
def test_range_test_ends_at_the_edge_of_stability(curvature):
    model, x, y = quadratic(curvature)
    found = find_learning_rate(model, x, y, low=1e-4 / curvature, high=100 / curvature)
    assert len(found.losses) < 100
    assert 2 / curvature < found.rates[-1] < 40 / curvature
    for name in ("valley", "steepest"):
        assert 0.01 / curvature < found.suggestions[name] < 2 / curvature
    assert found.suggestion == found.suggestions["valley"]
    least = found.rates[int(np.argmin(found.smoothed))]
    assert found.suggestions["minimum/10"] == pytest.approx(least / 10)


@pytest.mark.parametrize("curvature", [0.5, 20.0])
def test_hundred_iterations_find_a_rate_between_one_and_two_over_the_curvature(curvature):
    rng = np.random.default_rng(0)
    scale = np.array([(curvature / 2) ** 0.5, (curvature / 200) ** 0.5])
    x = (rng.choice([-1.0, 1.0], size=(256, 2)) * scale).astype("float32")
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    y = x @ np.array([[1.0], [30.0]])
    low, high = 1e-3 / curvature, 30 / curvature
    found = find_learning_rate(
        model, x, y, rule="hundred-iterations", low=low, high=high, grid=24, batch_size=256
    )
    # On a quadratic the best rate lies in [1 / l, 2 / l) for the largest eigenvalue l.
    assert 1 / curvature < found.suggestions["best"] < 2.2 / curvature
    assert found.suggestion == pytest.approx(1.5 * found.suggestions["best"])
    assert np.isinf(found.losses[-1])


def test_training_after_the_search_is_as_if_it_had_not_been():
    x, y = classes()
    results = []
    for search in (False, True):
        keras.utils.set_random_seed(0)
        model = network(
            L.Dense(8, "relu"), L.BatchNormalization(), L.Dropout(0.3, seed=1), metrics=["accuracy"]
        )
        # Until its metrics exist Keras looks at one batch more, which moves PyTorch's shuffling.
        model.evaluate(x, y, verbose=0)
        if search:
            before = everything(model)
            for rule in ("range-test", "hundred-iterations"):
                find_learning_rate(model, x, y, rule=rule, steps=12, grid=3)
            assert_unchanged(model, before)
            assert not hasattr(model, "history")
        results.append(model.fit(x, y, epochs=2, verbose=0).history)
    assert results[0] == results[1]


def test_it_takes_what_fit_takes_and_any_optimizer():
    x, y = classes()

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            part = slice(16 * index, 16 * index + 16)
            return x[part], y[part]

    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    for optimizer in (keras.optimizers.Adam(schedule), keras.optimizers.SGD(0.1, use_ema=True)):
        model = network(L.Dense(8, "relu"), optimizer=optimizer)
        found = find_learning_rate(model, Batches(), steps=15, high=0.1)
        assert len(found.losses) == 15
        assert model.optimizer is optimizer
        weighted = find_learning_rate(
            model, x, y, steps=15, high=0.1, class_weight={0: 1, 1: 2, 2: 3}
        )
        assert len(weighted.losses) == 15


def test_smoothing_is_centred_and_valley_is_the_middle_of_the_fall():
    flat, fall = np.ones(40), np.linspace(1, 0, 40)
    losses = np.concatenate([flat, fall[1:], np.linspace(0, 3, 20)[1:]])
    assert 50 <= valley(losses) <= 66
    ramp = np.arange(60.0)
    np.testing.assert_allclose(smooth(ramp)[6:-6], ramp[6:-6])


@pytest.mark.parametrize("rule", ["range-test", "hundred-iterations"])
def test_ctrl_c_in_the_search_changes_nothing(rule, monkeypatch):
    from kerasrecipes.diagnostics import learning_rate

    x, y = classes()
    model = network(L.Dense(4, "relu"), L.Dropout(0.5, seed=1))
    model.fit(x, y, verbose=0)
    before = everything(model)

    def interrupted(self, batch, logs=None):
        if batch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(learning_rate._BatchLosses, "on_train_batch_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_learning_rate(model, x, y, rule=rule)
    assert_unchanged(model, before)
    model.fit(x, y, verbose=0)


def test_a_schedule_in_the_optimizer_is_no_hindrance_and_skipped_steps_do_not_count():
    x, y = classes()
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    model = network(optimizer=keras.optimizers.Adam(schedule))
    find_learning_rate(model, x, y, rule="hundred-iterations", steps=10, grid=2)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**24)
    keras.config.set_dtype_policy("mixed_float16")
    model = network(L.Dense(4, "relu"), optimizer=scaled)
    found = find_learning_rate(model, x, y, steps=20, low=1e-3, high=1.0)
    assert len(found.rates) < 20, "the first steps overflow and are skipped"
    np.testing.assert_allclose(found.rates, np.geomspace(1e-3, 1.0, 20)[: len(found.rates)], 1e-4)
