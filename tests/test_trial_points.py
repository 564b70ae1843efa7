"""SAM, ParameterBlur and the callback that hides their trial points."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.callbacks import FreezeBatchStatistics, SwapAcceptedWeights
from kerasrecipes.optimizers import SAM, ParameterBlur
from kerasrecipes.optimizers._trial import trial_optimizers
from kerasrecipes.optimizers.masked import Masked
from tests.entries.trial_points import fitted, least_squares, linear, sam_loop, slope
from tests.problems import values

X, Y = least_squares()
BACKEND = keras.config.backend()


def sgd(**kwargs):
    return keras.optimizers.SGD(**{"learning_rate": 0.05, "momentum": 0.9, **kwargs})


def sam(rho=0.3, **kwargs):
    return SAM(sgd(**kwargs), rho=rho)


def blur(sigma=0.2, seed=1, **kwargs):
    return ParameterBlur(sgd(**kwargs), sigma=sigma, seed=seed)


BOTH = pytest.mark.parametrize("make", [sam, blur], ids=["sam", "blur"])


def start():
    return np.full((3, 1), 0.2)


def kernel(model):
    return values(model.trainable_variables)[0]


class Record(keras.callbacks.Callback):
    """What the model holds after each batch and at the end of each epoch."""

    def on_train_begin(self, logs=None):
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(kernel(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(kernel(self.model))


def path(model, epochs=2, callbacks=(), **kwargs):
    record = Record()
    fitted(model, X, Y, epochs=epochs, callbacks=[*callbacks, record], **kwargs)
    return np.array(record.batches)


def slopes(order):
    return [slope(X, Y, i) for i in order]


def pairs(order):
    found = slopes(order)
    return list(zip(found[0::2], found[1::2], strict=False))


TWICE = (*range(5), *range(5))


def close(ours, reference, tolerance=1e-5):
    np.testing.assert_allclose(ours, reference, rtol=tolerance, atol=tolerance / 10)


def test_sam_fed_each_batch_twice_is_the_papers_algorithm():
    twice = np.concatenate([np.arange(4 * i, 4 * i + 4) for i in (0, 0, 1, 1, 2, 2)])
    model, record = linear(sam()), Record()
    fitted(model, X[twice], Y[twice], epochs=2, callbacks=[record])
    reference = sam_loop(start(), pairs((0, 0, 1, 1, 2, 2) * 2), 0.05, 0.9, 0.3)
    close(record.batches, reference)


def test_sam_in_fit_takes_ascent_and_descent_from_successive_batches():
    close(path(linear(sam())), sam_loop(start(), pairs(TWICE), 0.05, 0.9, 0.3))


def test_the_ascent_has_one_norm_over_all_variables():
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([[3.0]])]
    sam(rho=0.5).apply([ops.array([3.0, 0.0]), ops.array([[4.0]])], variables)
    close(values(variables)[0], [1.3, 2.0])
    close(values(variables)[1], [[3.4]])


def test_a_zero_gradient_moves_nothing():
    variables = [keras.Variable([1.0, 2.0])]
    optimizer = sam()
    for _ in range(4):
        optimizer.apply([ops.zeros((2,))], variables)
    np.testing.assert_array_equal(values(variables)[0], [1.0, 2.0])


def test_sam_without_ascent_is_the_inner_optimizer_on_every_second_batch():
    model, plain = linear(sam(rho=0.0)), linear(sgd())
    path(model)
    rows = np.concatenate([np.arange(4 * i, 4 * i + 4) for i in TWICE[1::2]])
    fitted(plain, X[rows], Y[rows])
    np.testing.assert_allclose(kernel(model), kernel(plain), rtol=1e-6)


def test_blur_without_noise_is_the_inner_optimizer_on_averaged_pairs_after_the_first_batch():
    model = linear(blur(sigma=0.0))
    path(model)
    w, velocity = start(), 0.0
    for plus, minus in pairs(TWICE[1:]):
        velocity = 0.9 * velocity - 0.05 * (plus(w) + minus(w)) / 2
        w = w + velocity
    close(kernel(model), w)


def test_blur_of_a_cosine_has_its_closed_form():
    """cos(a w) blurred is exp(-(a sigma)^2 / 2) cos(a w): many weights are as many draws."""
    a, sigma, at, count = 2.0, 0.7, 0.4, 20_000
    variable = keras.Variable(np.full(count, at, "float32"))
    optimizer = ParameterBlur(keras.optimizers.SGD(1.0), sigma=sigma, seed=5)
    for _ in range(3):
        gradient = -a * np.sin(a * values([variable])[0].astype("float64"))
        optimizer.apply([ops.convert_to_tensor(gradient.astype("float32"))], [variable])
    optimizer.hold_accepted()
    step = at - values([variable])[0].astype("float64")
    shrink = np.exp(-((a * sigma) ** 2) / 2)
    slope_here = -a * np.sin(a * at)
    # The pair's mean is the slope times cos(a sigma e), whose variance is known.
    deviation = abs(slope_here) * np.sqrt((1 + shrink**4) / 2 - shrink**2)
    assert abs(step.mean() - shrink * slope_here) < 4 * deviation / np.sqrt(count)
    assert abs(step.std() / deviation - 1) < 0.05


def test_each_pair_of_blur_has_noise_of_its_own_which_the_seed_repeats():
    one, same, other = (path(linear(blur(seed=s))) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.isclose(one, other).any()
    noise = (one[0:9:2] - one[1:10:2]) / 2
    assert np.unique(noise.round(6)).size == noise.size
    assert 0.05 < noise.std() < 0.5


@BOTH
def test_a_knob_moved_within_fit_is_heard_at_the_next_trial_point(make):
    model, record = linear(make()), Record()
    knob = model.optimizer.rho if make is sam else model.optimizer.sigma
    off = keras.callbacks.LambdaCallback()
    off.on_epoch_begin = lambda epoch, logs=None: off.model and knob.assign([0.3, 0.0][epoch])
    fitted(model, X[:16], Y[:16], epochs=2, callbacks=[off, record])
    seen = np.array(record.batches)
    if make is sam:
        moves = np.diff(np.concatenate([start()[None], seen]), axis=0)[0::2]
        close(np.linalg.norm(moves, axis=(1, 2)), [0.3, 0.3, 0, 0])
    else:
        # The pair that the first epoch began is finished with the noise it was begun with.
        assert not np.isclose(seen[2], seen[3]).any()
        np.testing.assert_array_equal(seen[4], seen[5])


def test_a_knob_set_by_name_stays_the_variable_that_compiled_code_reads():
    for optimizer, name in ((sam(), "rho"), (blur(), "sigma")):
        before = getattr(optimizer, name)
        setattr(optimizer, name, 0.125)
        assert getattr(optimizer, name) is before
        assert optimizer.get_config()[name] == 0.125
        with pytest.raises(ValueError, match=f"0 <= {name}"):
            setattr(optimizer, name, -1.0)


def test_accumulation_inside_averages_descent_gradients_at_one_accepted_point():
    model = linear(sam(gradient_accumulation_steps=2))
    path(model, epochs=4)
    w, velocity, order = start(), 0.0, pairs(TWICE * 2)
    for i in range(0, 10, 2):
        descents = []
        for first, second in order[i : i + 2]:
            g = first(w)
            descents.append(second(w + 0.3 * g / np.linalg.norm(g)))
        velocity = 0.9 * velocity - 0.05 * sum(descents) / 2
        w = w + velocity
    close(kernel(model), w)


@pytest.mark.parametrize("callbacks", [[], [SwapAcceptedWeights()]], ids=["alone", "callback"])
def test_a_moving_average_inside_is_that_of_accepted_weights(callbacks):
    model = linear(sam(use_ema=True, ema_momentum=0.5))
    path(model, callbacks=callbacks)
    accepted = sam_loop(start(), pairs(TWICE), 0.05, 0.9, 0.3)[1::2]
    average = accepted[0]
    for w in accepted[1:]:
        average = (average + w) / 2
    close(kernel(model), average)
    path(model, callbacks=callbacks)  # a next fit starts there


def test_the_inner_schedule_and_count_go_by_updates():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.05, 0.0])
    model = linear(sam(learning_rate=schedule, momentum=0.0))
    seen = path(model)
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 5
    close(seen[5], sam_loop(start(), pairs(TWICE), 0.05, 0.0, 0.3)[5])
    np.testing.assert_array_equal(seen[[7, 9]], seen[[5, 5]])


@BOTH
def test_masked_outside_keeps_frozen_weights_at_the_accepted_point(make):
    rng = np.random.default_rng(1)
    variables = [keras.Variable(rng.normal(size=3).astype("float32")) for _ in range(2)]
    optimizer = Masked(make())
    optimizer.build(variables)
    before = values(variables)
    optimizer.freeze(variables[:1])
    for _ in range(5):
        optimizer.apply([ops.convert_to_tensor(v) for v in values(variables)], variables)
        np.testing.assert_array_equal(values(variables)[0], before[0])
        assert (values(variables)[1] != before[1]).all()
    (found,) = trial_optimizers(optimizer)
    found.hold_accepted()
    np.testing.assert_array_equal(values(variables)[0], before[0])


@BOTH
@pytest.mark.parametrize("swapped", [False, True])
def test_saved_in_the_middle_of_a_pair_it_goes_on_bit_for_bit(make, swapped, tmp_path):
    model = linear(make())
    for i in range(3):
        model.train_on_batch(X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4])
    trial = kernel(model)
    if swapped:
        assert model.optimizer.hold_accepted() and not model.optimizer.hold_accepted()
        assert (kernel(model) != trial).all()
    model.save(tmp_path / "middle.keras")
    resumed = keras.saving.load_model(tmp_path / "middle.keras")
    if swapped:
        assert model.optimizer.hold_trial() and not model.optimizer.hold_trial()
        np.testing.assert_array_equal(kernel(model), trial)
    callbacks = [[SwapAcceptedWeights()] if swapped else [] for _ in range(2)]
    paths = [path(m, 1, c) for m, c in zip((model, resumed), callbacks, strict=True)]
    np.testing.assert_array_equal(*paths)


@BOTH
def test_fed_at_the_accepted_point_it_starts_the_pair_anew(make):
    """So it is in a second `fit` without the callback, whose first ended within a pair."""
    model = linear(make())
    path(model, 1)
    w = kernel(model)
    seen = path(model, 1)
    if make is sam:
        g = slope(X, Y, 0)(w.astype("float64"))
        close(seen[0], w + 0.3 * g / np.linalg.norm(g))
        assert (seen[1] != w).all()
    else:
        assert (seen[0] != w).all()
        close((seen[0] + seen[1]) / 2, w)


@BOTH
@pytest.mark.parametrize("every_batch", [None, True, False])
def test_the_trajectory_is_bit_equal_with_and_without_the_callback(make, every_batch):
    results = []
    for callbacks in ([], [SwapAcceptedWeights(every_batch)]):
        model = linear(make())
        fitted(model, X, Y, epochs=3, callbacks=callbacks, validation_data=(X, Y))
        results.append([kernel(model), *values(model.optimizer.variables)])
    assert len(results[0]) == len(results[1]) > 5
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_validation_epoch_ends_and_checkpoints_see_accepted_weights(tmp_path):
    model, record = linear(sam()), Record()
    by_batch = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}-{batch}.weights.h5", save_freq=1, save_weights_only=True
    )
    history = fitted(
        model,
        X,
        Y,
        epochs=2,
        validation_data=(X[:8], Y[:8]),
        callbacks=[SwapAcceptedWeights(), by_batch, record],
    )
    expected = [start(), *sam_loop(start(), pairs(TWICE), 0.05, 0.9, 0.3)[1::2]]
    accepted = [expected[(i + 1) // 2] for i in range(10)]
    close(record.batches, accepted)
    close(record.epochs, [accepted[4], accepted[9]])
    errors = [((X[:8] @ w - Y[:8]) ** 2).mean() for w in record.epochs]
    close(history.history["val_loss"], errors)
    twin = linear(sam())
    twin.optimizer.build(twin.trainable_variables)
    twin.load_weights(tmp_path / "1-3.weights.h5")
    close(kernel(twin), accepted[2])


def test_accepted_weights_stay_in_from_validation_to_the_next_epoch():
    model, seen = linear(sam()), []
    look = keras.callbacks.LambdaCallback()
    look.on_test_end = look.on_epoch_end = lambda *_: seen.append(kernel(look.model))
    callbacks = [SwapAcceptedWeights(every_batch=False), look]
    fitted(model, X, Y, validation_data=(X, Y), callbacks=callbacks)
    close(seen, [sam_loop(start(), pairs(TWICE), 0.05, 0.9, 0.3)[3]] * 2)


def test_epochs_alone_are_swapped_where_no_callback_looks_at_batches():
    swap, quiet = SwapAcceptedWeights(), keras.callbacks.ModelCheckpoint("never.keras", 1.0)
    quiet.on_epoch_end = lambda *_: None
    fitted(linear(sam()), X, Y, callbacks=[swap, quiet])
    assert ("on_train_batch_end" in vars(swap)) == (BACKEND == "torch")
    fitted(linear(sam()), X, Y, callbacks=[swap, Record()])
    assert "on_train_batch_end" in vars(swap)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise KeyboardInterrupt


@BOTH
@pytest.mark.parametrize("where", ["callback", "data"])
def test_after_an_exception_the_model_holds_the_accepted_weights(make, where):
    def batches():
        for i in range(3):
            yield X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]
        raise ZeroDivisionError("no more")

    # TensorFlow reports an error of the data as one of its own.
    expected = KeyboardInterrupt if where == "callback" else Exception
    data = (X, Y) if where == "callback" else (batches(),)
    model, reference = linear(make()), linear(make())
    callbacks = [SwapAcceptedWeights(), *([Interrupt()] if where == "callback" else [])]
    settings = {"verbose": 0, "shuffle": False, "steps_per_epoch": 5, "callbacks": callbacks}
    settings |= {"batch_size": 4} if where == "callback" else {}
    with pytest.raises(expected) as raised:
        model.fit(*data, **settings)
    if where == "data":
        assert "no more" in str(raised.value)
    fitted(reference, X[:12], Y[:12])
    np.testing.assert_array_equal(kernel(model), kernel(reference))
    fitted(model, X, Y)
    assert (kernel(model) != kernel(reference)).all()


@BOTH
@pytest.mark.parametrize("every_batch", [None, True, False])
@pytest.mark.parametrize("where", ["on_train_batch_begin", "on_epoch_begin"])
def test_after_an_error_of_a_hook_for_the_begin_the_accepted_weights_are_in(
    make, every_batch, where
):
    """Knobs check their values there: HyperparameterSchedule raises on a NaN."""
    if where == "on_train_batch_begin" and every_batch is False and BACKEND == "jax":
        every_batch = None
    model, reference, look = linear(make()), linear(make()), keras.callbacks.Callback()
    calls = []

    def hook(index, logs=None):
        calls.append(index)
        if len(calls) == 4 or (where == "on_epoch_begin" and index):
            raise ZeroDivisionError("in the hook")

    setattr(look, where, hook)
    with pytest.raises(ZeroDivisionError, match="in the hook"):
        fitted(model, X, Y, epochs=2, callbacks=[SwapAcceptedWeights(every_batch), look])
    steps = 12 if where == "on_train_batch_begin" else 20
    fitted(reference, X[:steps], Y[:steps])
    np.testing.assert_array_equal(kernel(model), kernel(reference))
    assert not hasattr(model.train_function, "unguarded")


@BOTH
def test_hooks_for_the_begin_of_a_batch_see_the_accepted_weights(make):
    seen, before = [], keras.callbacks.LambdaCallback()
    before.on_train_batch_begin = lambda batch, logs=None: seen.append(kernel(before.model))
    model, record = linear(make()), Record()
    fitted(model, X, Y, epochs=2, callbacks=[SwapAcceptedWeights(True), before, record])
    np.testing.assert_array_equal(seen[0], start().astype("float32"))
    np.testing.assert_array_equal(seen[1:], record.batches[:-1])


class Sub(SwapAcceptedWeights):
    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)


def test_a_subclass_finds_the_list_that_calls_it():
    with pytest.raises(ValueError, match="must come first"):
        fitted(linear(sam()), X, Y, callbacks=[keras.callbacks.TerminateOnNaN(), Sub()])
    swap = Sub()
    fitted(linear(sam()), X, Y, callbacks=[swap])
    assert ("on_train_batch_end" in vars(swap)) == (BACKEND == "torch")
    record = Record()
    fitted(linear(sam()), X, Y, callbacks=[swap, record])
    expected = [start(), *sam_loop(start(), pairs(TWICE), 0.05, 0.9, 0.3)[1::2]]
    close(record.batches, [expected[(i + 1) // 2] for i in range(5)])


def test_called_by_no_list_it_swaps_around_each_batch():
    model, swap = linear(sam()), SwapAcceptedWeights()
    swap.set_model(model)
    swap.on_train_begin()
    assert "on_train_batch_begin" in vars(swap) and "on_train_batch_end" in vars(swap)


@pytest.mark.parametrize("callbacks", [[], [SwapAcceptedWeights()]], ids=["alone", "callback"])
def test_an_error_in_the_step_is_not_hidden(callbacks):
    """On JAX the variables are empty by then, and Keras finalizes them all the same."""

    def short_batch(y_true, y_pred):
        if y_pred.shape[0] != 4:
            raise ZeroDivisionError("in the step")
        return keras.losses.mean_squared_error(y_true, y_pred)

    model = linear(sam(use_ema=True))
    model.compile(model.optimizer, short_batch, run_eagerly=True)
    with pytest.raises(ZeroDivisionError, match="in the step"):
        fitted(model, X[:6], Y[:6], callbacks=callbacks)
    if callbacks and BACKEND != "jax":
        np.testing.assert_array_equal(kernel(model), start().astype("float32"))


@BOTH
def test_two_fits_with_the_callback_are_one(make):
    twice, once = linear(make()), linear(make())
    for _ in range(2):
        path(twice, 1, [SwapAcceptedWeights()])
    path(once, 2)
    np.testing.assert_array_equal(kernel(twice), kernel(once))


@BOTH
def test_weights_set_between_two_fits_start_a_pair_of_their_own(make):
    model = linear(make(momentum=0.0))
    path(model, 1, [SwapAcceptedWeights()])
    model.set_weights([start()])
    seen = path(model, 1, [SwapAcceptedWeights(every_batch=False)])
    if make is sam:
        np.testing.assert_array_equal(seen, path(linear(make(momentum=0.0)), 1))
    else:
        close((seen[0] + seen[1]) / 2, start())


def test_backup_and_restore_goes_on_in_the_middle_of_a_pair(tmp_path):
    once = linear(sam())
    path(once, 2, [SwapAcceptedWeights()])
    for stop in (Interrupt(), None):
        model = linear(sam())
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [SwapAcceptedWeights(), backup]
        if stop:
            stop.on_train_batch_end = lambda batch, logs=None: None
            stop.on_epoch_begin = lambda epoch, logs=None: 1 / (1 - epoch)
            with pytest.raises(ZeroDivisionError):
                fitted(model, X, Y, epochs=2, callbacks=[*callbacks, stop])
        else:
            fitted(model, X, Y, epochs=2, callbacks=callbacks)
    np.testing.assert_array_equal(kernel(model), kernel(once))


def test_evaluate_outside_of_fit_looks_at_accepted_weights_and_puts_the_trial_point_back():
    model = linear(sam())
    model.train_on_batch(X[:4], Y[:4])
    trial = kernel(model)
    swap = [SwapAcceptedWeights()]
    loss = model.evaluate(X, Y, verbose=0, callbacks=swap)
    close(loss, ((X @ start() - Y) ** 2).mean())
    np.testing.assert_array_equal(kernel(model), trial)
    predicted = model.predict(X, verbose=0, callbacks=swap)
    close(predicted, X @ start())
    np.testing.assert_array_equal(kernel(model), trial)


def test_it_is_found_inside_other_wrappers():
    inner = sam()
    scaled = keras.optimizers.LossScaleOptimizer(Masked(inner))
    assert trial_optimizers(scaled) == [inner]
    assert trial_optimizers(sgd()) == []


def test_an_embedding_trains():
    """TensorFlow hands over its gradient in sparse form."""
    for make in (sam, blur):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Embedding(5, 3)])
        model.compile(make(), "mse")
        before = model.get_weights()[0]
        x = np.array([[0, 1], [1, 2]] * 3)
        model.fit(x, np.ones((6, 2, 3)), batch_size=2, shuffle=False, verbose=0)
        moved = np.abs(model.get_weights()[0] - before).max(axis=1)
        assert (moved[:3] > 0).all() and (moved[3:] == 0).all()


def test_the_ascent_counts_a_token_that_stands_twice_as_one():
    """TensorFlow names its row twice, each time with a part of the gradient."""
    x, y = np.array([[0, 1], [1, 2]]), np.arange(12.0).reshape(2, 2, 3)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Embedding(5, 3)])
    model.compile(SAM("sgd", rho=0.5), "mse")
    before = model.get_weights()[0]
    gradient = np.zeros((5, 3))
    np.add.at(gradient, x, 2 * (before[x] - y) / y.size)
    look = Record()
    model.fit(x, y, batch_size=2, callbacks=[look], verbose=0)
    moved = look.batches[0] - before
    close(moved, 0.5 * gradient / np.linalg.norm(gradient))


@BOTH
@pytest.mark.parametrize("callbacks", [[], [SwapAcceptedWeights]])
def test_weights_in_bfloat16_train(make, callbacks):
    layer = keras.layers.Dense(1, use_bias=False, dtype="bfloat16")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(make(), "mse")
    before = model.get_weights()[0].astype("float32")
    history = fitted(model, X, Y, epochs=3, callbacks=[one() for one in callbacks])
    assert len(history.epoch) == 3 and model.variables[0].dtype == "bfloat16"
    assert (model.get_weights()[0].astype("float32") != before).any()


@pytest.mark.skipif(BACKEND == "jax", reason="on JAX fit itself ends with the accepted weights")
def test_an_error_in_a_step_that_another_callback_made_finds_the_accepted_weights():
    class Breaks(keras.layers.Layer):
        broken = False

        def call(self, inputs):
            if self.broken:
                raise ZeroDivisionError("in the step")
            return inputs

    breaks = Breaks()
    start = keras.initializers.Constant(0.2)
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer=start)
    norm = keras.layers.BatchNormalization(scale=False, center=False)
    model = keras.Sequential([keras.Input((3,)), dense, norm, breaks])
    model.compile(sam(), "mse", run_eagerly=True)
    seen, look = [], keras.callbacks.LambdaCallback()
    look.on_epoch_end = lambda epoch, logs=None: (
        seen.append(kernel(model)),
        setattr(breaks, "broken", True),
    )
    callbacks = [SwapAcceptedWeights(every_batch=False), FreezeBatchStatistics(1), look]
    with pytest.raises(ZeroDivisionError):
        fitted(model, X[:12], Y[:12], epochs=4, callbacks=callbacks)
    assert len(seen) == 1
    np.testing.assert_array_equal(kernel(model), seen[0])
    assert model.optimizer.hold_trial() and (kernel(model) != seen[0]).all()
    assert not hasattr(model.train_function, "unguarded")


@pytest.mark.parametrize("make", [sam, blur, lambda: Masked(sgd())], ids=["sam", "blur", "masked"])
def test_the_state_goes_over_by_weights_too(make):
    one, other = linear(make()), linear(make())
    fitted(one, X, Y)
    other.set_weights(one.get_weights())
    other.optimizer.build(other.trainable_variables)
    other.optimizer.set_weights(values(one.optimizer.variables))
    for model in (one, other):
        fitted(model, X, Y, epochs=2)
    np.testing.assert_array_equal(kernel(one), kernel(other))
