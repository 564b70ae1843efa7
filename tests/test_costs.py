"""Costs whose coefficients move, and continuation: paths of weights, what is saved and said."""

import json
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.callbacks import Continuation
from kerasrecipes.data import difficulty_from
from kerasrecipes.layers import ConceptLoss
from kerasrecipes.losses import Scheduled
from tests import references
from tests.entries.costs import MOVING, PARTS, RATE, TARGETS, Moves, X, fitted, linear, paths, size
from tests.problems import values

BACKEND = keras.config.backend()
JIT = [True, False] if BACKEND != "torch" else [False]
CASES = {
    "one output": {"outputs": 1},
    "two outputs": {"outputs": 2},
    "concept": {"concept": True},
    "all together": {"outputs": 2, "concept": True},
}
KNOB = "term0.coefficient"


def assert_same_paths(ours, reference):
    assert len(ours) == len(reference)
    for one, other in zip(ours, reference, strict=True):
        for a, b in zip(one, other, strict=True):
            assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("per", ["batch", "epoch"])
@pytest.mark.parametrize("case", CASES)
def test_every_value_is_heard_by_the_next_batch(case, per, jit):
    settings = CASES[case]
    assert_same_paths(*paths(linear(**settings, jit=jit), per=per, **settings))


@pytest.mark.parametrize("case", CASES)
def test_also_after_a_fit_in_which_nothing_moved(case):
    model = linear(**CASES[case])
    fitted(model, validation_data=(X, TARGETS[: len(model.outputs)]))
    assert_same_paths(*paths(model, **CASES[case]))


def test_also_when_attached_before_compile():
    model, loss = linear(), Scheduled("mse", name="other")
    loss.attach(model)
    model.compile(keras.optimizers.SGD(RATE), loss)
    start = values(model.trainable_variables)
    moves = Moves(["other.coefficient"], MOVING[:, 1:2])
    fitted(model, [moves])
    rows = np.concatenate([np.zeros((6, 1)), MOVING[:, 1:2]], axis=1)
    assert_same_paths(moves.path, references.two_heads(X, TARGETS[:1], start, rows, RATE, PARTS))


def test_a_new_loss_of_the_same_name_takes_over():
    model = linear()
    fitted(model, [Moves([KNOB], [[0.5]] * 6)])
    model.compile(keras.optimizers.SGD(RATE), Scheduled("mse", 0.25, name="term0"))
    model.loss.attach(model)
    assert float(model.loss.coefficient) == 0.25
    assert [m.name for m in model.metrics].count(KNOB) == 1
    assert_same_paths(*paths(model))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, use_bias=False)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("built", [True, False])
def test_in_a_subclassed_model(built):
    model, start = Subclassed(), np.ones((3, 1), "float32")
    model.dense.kernel_initializer = keras.initializers.Ones()
    if built:
        model(X)
    model.compile(keras.optimizers.SGD(RATE), Scheduled("mse", name="term"))
    moves = Moves(["term.coefficient"], MOVING[:, :1])
    model.fit(X, TARGETS[0], batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[moves])
    rates = RATE * MOVING[:, 0]
    for step in range(6):
        expected = references.least_squares_descent(
            X, TARGETS[0], start, rates[: step + 1], PARTS[: step + 1]
        )[1]
        np.testing.assert_allclose(moves.path[step][0], expected, rtol=1e-5, atol=1e-6)


def test_equals_loss_weights():
    weights = np.random.default_rng(1).uniform(size=12).astype("float32")
    for outputs, coefficients in ((1, [0.3]), (2, [0.3, 1.7])):
        scheduled = linear(
            outputs, losses=[Scheduled("mae", c, name=f"t{c}") for c in coefficients]
        )
        plain = linear(outputs)
        losses = "mae" if outputs == 1 else ["mae", "mae"]
        plain.compile(keras.optimizers.SGD(RATE), losses, loss_weights=coefficients)
        given = {"sample_weight": weights if outputs == 1 else [weights, weights]}
        ours, theirs = (fitted(m, **given).history["loss"] for m in (scheduled, plain))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        for one, other in zip(scheduled.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def absolute(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


INSIDE = keras.losses.MeanAbsoluteError(reduction="mean_with_sample_weight")


@pytest.mark.parametrize(
    "loss, kwargs, reference",
    [
        ("mse", {}, keras.losses.MeanSquaredError()),
        ("mse", {"reduction": "sum"}, keras.losses.MeanSquaredError(reduction="sum")),
        (absolute, {"dtype": "float16"}, keras.losses.MeanAbsoluteError(dtype="float16")),
        (absolute, {"reduction": None}, keras.losses.MeanAbsoluteError(reduction=None)),
        ("MeanAbsoluteError", {}, keras.losses.MeanAbsoluteError()),
        (INSIDE, {}, INSIDE),
    ],
)
def test_masks_weights_reduction_and_dtype_are_those_of_the_loss(loss, kwargs, reference):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3, 1)).astype("float32")
    x[2:, 1:] = 0
    y, weight = rng.normal(size=(4, 3, 1)).astype("float32"), rng.uniform(size=(4, 3))
    ours = Scheduled(loss, 0.5, **kwargs)
    assert (ours.reduction, ours.dtype) == (reference.reduction, reference.dtype)
    half = ours.dtype == "float16"
    for sample_weight in (None, weight.astype("float32")):
        masked = keras.layers.Masking()(x)
        value, expected = (
            ops.convert_to_numpy(f(y, masked, sample_weight)) for f in (ours, reference)
        )
        assert value.dtype == expected.dtype
        np.testing.assert_allclose(value, 0.5 * expected, rtol=1e-3 if half else 1e-6)


def test_one_column_of_predictions_fits_a_row_of_labels():
    y, predicted = TARGETS[0][:, 0], X[:, :1]
    ours = float(ops.convert_to_numpy(Scheduled(absolute)(y, predicted)))
    assert ours == pytest.approx(np.abs(y - X[:, 0]).mean(), rel=1e-5)


def test_of_single_examples():
    model, y = linear(losses=[Scheduled("mse", 0.5, name="term")]), TARGETS[0]
    expected = 0.5 * (y - model.predict(X, verbose=0))[:, 0] ** 2
    found = difficulty_from(model, X, y)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.mean(), model.evaluate(X, y, verbose=0), rtol=1e-5)


def test_the_value_stands_in_the_logs_and_in_evaluate():
    model = linear(2)
    fitted(model)
    moves = Moves([KNOB], [[0.25], [0.5]], per="epoch")
    history = fitted(model, [moves], validation_data=(X, TARGETS)).history
    assert history[KNOB] == history[f"val_{KNOB}"] == [0.25, 0.5]
    assert model.evaluate(X, TARGETS, verbose=0, return_dict=True)[KNOB] == 0.5


@pytest.mark.parametrize("case", CASES)
def test_a_saved_model_holds_the_value_and_its_knobs_go_on(case, tmp_path):
    settings = CASES[case]
    model = linear(**settings)
    paths(model, **settings)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for one, other in zip(paths(loaded, **settings)[0], paths(model, **settings)[0], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_checkpoint_in_the_middle_holds_the_value_of_its_time(tmp_path):
    model = linear(concept=True)
    save = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    knobs = [KNOB, "small.weight"]
    fitted(model, [Moves(knobs, [[0.25, 4.0], [0.5, 2.0]], "epoch"), save])
    for epoch, (coefficient, weight) in enumerate([[0.25, 4.0], [0.5, 2.0]], start=1):
        loaded = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        assert loaded.loss.get_config()["coefficient"] == coefficient
        assert loaded.get_layer("small").get_config()["weight"] == weight


def test_names():
    assert Scheduled("mse").name == "mean_squared_error"
    assert Scheduled(keras.losses.Huber(name="own")).name == "own"
    assert Scheduled(lambda y, p: ops.abs(y - p)).name == "scheduled"
    assert Scheduled("mse", name="given").metric.name == "given.coefficient"


def test_config_of_a_loss_that_is_an_object():
    ours = Scheduled(keras.losses.Huber(delta=0.25, name="own"), 2.0)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(ours)))
    revived = keras.saving.deserialize_keras_object(saved)
    assert revived.loss.get_config() == ours.loss.get_config()
    assert revived.get_config() == ours.get_config()


def test_moving_compiles_nothing():
    if BACKEND == "torch":
        pytest.skip("PyTorch runs eagerly: there is nothing to trace")
    calls = []

    @keras.saving.register_keras_serializable("tests")
    def counted(y_true, y_pred):
        calls.append(1)
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    model = linear(losses=[Scheduled(counted, name="term0")])
    fitted(model, [Moves([KNOB], [[0.5]], "batch")], epochs=1, batch_size=12)
    first = len(calls)
    fitted(model, [Moves([KNOB], MOVING[:, :1], "batch")], epochs=6, batch_size=12)
    assert len(calls) == first


def test_concept_passes_every_nest_of_inputs_on():
    nest = {"a": X, "b": [X[:, :1], X * 2]}
    layer = ConceptLoss(lambda inputs: inputs["a"], 0.5)
    outputs = layer(nest)
    for one, other in zip(keras.tree.flatten(outputs), keras.tree.flatten(nest), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), other)
    (loss,) = layer.losses
    assert float(ops.convert_to_numpy(loss)) == pytest.approx(0.5 * X.mean(), rel=1e-5)


def test_concept_is_the_mean_over_examples_in_float32():
    layer = ConceptLoss(size, 3.0, dtype="mixed_float16")
    few = np.zeros((3000, 3), "float32")
    few[0] = 1
    layer(few)
    (loss,) = layer.losses
    # In float16 a three-thousandth is off by 1e-4 of itself.
    assert float(ops.convert_to_numpy(loss)) == pytest.approx(1e-3, rel=1e-5)
    assert keras.backend.standardize_dtype(layer.weight.dtype) == "float32"


def test_concept_counts_in_evaluate_and_lets_masks_pass():
    model = linear(concept=True)
    h = X @ model.get_weights()[0]
    error = np.mean((h @ model.get_weights()[-1] - TARGETS[0]) ** 2)
    value = model.evaluate(X, TARGETS[0], verbose=0)
    assert value == pytest.approx(error + np.mean(h**2), rel=1e-5)
    assert ConceptLoss(size).supports_masking


def softplus(h):
    return h


def test_a_function_that_another_name_hides_is_no_saved_function():
    with pytest.raises(ValueError, match="not registered"):
        ConceptLoss(softplus).get_config()


# Continuation


def stages(history, knob=KNOB):
    return history.history[f"{knob}_stage"]


def test_stages_of_unequal_length():
    run = Continuation(KNOB, [4.0, 2.0, 1.0], advance=[1, 3, 2])
    history = fitted(linear(), [run], epochs=7)
    assert stages(history) == [0, 1, 1, 1, 2, 2, 2]
    assert history.history[KNOB] == [4.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0]
    assert run.moves == [(0, 4.0), (1, 2.0), (4, 1.0)]


class Losses(keras.callbacks.Callback):
    """Puts a given "loss" into the logs."""

    def __init__(self, values):
        super().__init__()
        self.given = iter(values)

    def on_epoch_end(self, epoch, logs=None):
        logs["given"] = next(self.given)


def test_a_plateau_is_patience_epochs_without_a_fall_within_the_stage():
    given = [5, 4, 3.95, 3.95, 9, 8, 7, 6.8, 6.9, 1, 1, 1, 1]
    run = Continuation(KNOB, [1, 2, 3], monitor="given", min_delta=0.1, patience=2)
    history = fitted(linear(), [Losses(given), run], epochs=13)
    # 3.95 twice is no fall by 0.1; 9 begins the second stage; 6.8 falls, 6.9 and 1 are no pair.
    assert stages(history) == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2]


def test_what_is_not_finite_ends_no_stage():
    given = [5, np.nan, np.inf, np.nan, 5, 5, 5]
    run = Continuation(KNOB, [1, 2], monitor="given", min_delta=0, patience=2)
    history = fitted(linear(), [Losses(given), run], epochs=7)
    assert stages(history) == [0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "advance, epochs, said",
    [
        ("plateau", 3, r"fit ended at 1.0, stage 0 of 0\.\.1"),
        (3, 3, r"stage 0 of 0\.\.1"),
        (2, 3, "1 of 2 epochs"),
        ([2, 3], 4, "2 of 3 epochs"),
    ],
)
def test_says_so_when_the_true_objective_was_not_trained(advance, epochs, said):
    with pytest.warns(UserWarning, match=said):
        fitted(linear(), [Continuation(KNOB, [1, 2], advance)], epochs=epochs)


@pytest.mark.parametrize("first", [True, False])
def test_says_so_when_stopped_early(first):
    stop = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=100)
    run = Continuation(KNOB, [1, 2], advance=5)
    with pytest.warns(UserWarning, match="did not train the true objective"):
        fitted(linear(), [stop, run] if first else [run, stop], epochs=10)


def test_says_so_when_the_last_value_no_longer_holds():
    model = linear(concept=True)
    best = keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)
    best.on_train_end = lambda logs=None: model.set_weights(best.best_weights)
    run = Continuation("small.weight", [0, 50], advance=1)
    with pytest.warns(UserWarning, match="set to 0.0 afterwards"):
        fitted(model, [best, run], epochs=2)


def test_says_nothing_when_all_went_well():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fitted(linear(), [Continuation(KNOB, [1, 2], [1, 2])], epochs=3)
    assert not [one for one in said if issubclass(one.category, UserWarning)]


def test_a_second_fit_begins_anew():
    model, run = linear(), Continuation(KNOB, [1, 2], 1)
    assert [stages(fitted(model, [run])) for _ in range(2)] == [[0, 1], [0, 1]]


def test_goes_on_at_initial_epoch():
    run = Continuation(KNOB, [1, 2, 3], [1, 2, 2])
    history = fitted(linear(), [run], initial_epoch=2, epochs=5)
    assert stages(history) == [1, 2, 2]


def test_a_plateau_goes_on_where_the_saved_knob_stands(tmp_path):
    model = linear()
    run = Continuation(KNOB, [1, 2, 3], monitor="given", patience=1)
    with pytest.warns(UserWarning):
        fitted(model, [Losses([1, 1, 1]), run], epochs=3)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    run = Continuation(KNOB, [1, 2, 3], monitor="given", patience=1)
    history = fitted(loaded, [Losses([1, 1, 1]), run], initial_epoch=3, epochs=6)
    assert stages(history) == [1, 1, 2]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "case, knob",
    [("two outputs", KNOB), ("named", "cost.coefficient"), ("concept", "small.weight")],
)
def test_after_an_interruption_backup_puts_the_stage_back(case, knob, first, tmp_path):
    # "cost_..." comes before "loss" in the order in which Keras writes files.
    make = {
        "two outputs": lambda: linear(outputs=2),
        "named": lambda: linear(losses=[Scheduled("mse", name="cost")]),
        "concept": lambda: linear(concept=True),
    }[case]

    def callbacks(given):
        run = Continuation(knob, [1, 2, 3], monitor="given", patience=1)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        return [Losses(given), *([backup, run] if first else [run, backup])]

    broken = keras.callbacks.LambdaCallback()

    def interrupt(epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt

    broken.on_epoch_begin = interrupt
    with pytest.raises(KeyboardInterrupt):
        fitted(make(), [*callbacks([1, 1, 1]), broken], epochs=6)
    history = fitted(make(), callbacks([1, 1, 1]), epochs=6)
    assert history.epoch == [3, 4, 5]
    assert stages(history, knob) == [1, 1, 2]


def test_weight_files_go_to_and_from_a_model_with_plain_losses(tmp_path):
    plain, model = linear(losses=["mse"]), linear()
    model.loss.attach(model)
    model.loss.coefficient.assign(0.25)
    model.save_weights(tmp_path / "moved.weights.h5")
    plain.load_weights(tmp_path / "moved.weights.h5")
    plain.save_weights(tmp_path / "plain.weights.h5")
    model.loss.coefficient.assign(0.5)
    model.load_weights(tmp_path / "plain.weights.h5")
    assert float(model.loss.coefficient) == 0.5
    model.load_weights(tmp_path / "moved.weights.h5")
    assert float(model.loss.coefficient) == 0.25


def test_prints_its_moves(capsys):
    fitted(linear(), [Continuation(KNOB, [1, 2], 1, verbose=1)])
    out = capsys.readouterr().out.splitlines()
    assert out == [f"Epoch 1: {KNOB} = 1.0", f"Epoch 2: {KNOB} = 2.0"]
