"""Curricula: what the model received, batch by batch, and the exact properties of the weights."""

import copy
import gc
import weakref

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.callbacks import BatchSizeSchedule, Curriculum
from kerasrecipes.callbacks.curriculum import levels, stages
from kerasrecipes.data import CurriculumDataset, SelfPacedDataset, difficulty_from
from kerasrecipes.data._driven import systematic
from kerasrecipes.data.curriculum import MODES, admitted, ranks
from kerasrecipes.data.self_paced import WEIGHTINGS, bars, self_paced_weights
from kerasrecipes.optimizers import SAM
from tests.problems import network

N, STEPS, SIZE = 60, 5, 12
IDS = np.arange(N, dtype="float32")[:, None]
Y = np.sin(IDS)
HARD = np.random.default_rng(5).permutation(N)


class Recorder(keras.layers.Layer):
    """Counts which examples, named by their only feature, the model is given at each step."""

    def __init__(self, steps, **kwargs):
        super().__init__(**kwargs)
        self.steps = steps

    def build(self, input_shape):
        self.seen = self.add_weight(shape=(self.steps, N), initializer="zeros", trainable=False)
        self.step = self.add_weight(initializer="zeros", dtype="int32", trainable=False)

    def call(self, inputs, training=False):
        if training:
            ids = ops.cast(inputs[:, 0], "int32")
            counts = ops.sum(ops.one_hot(ids, N), axis=0)
            now = ops.one_hot(ops.convert_to_tensor(self.step), self.steps)
            self.seen.assign_add(now[:, None] * counts[None])
            self.step.assign_add(1)
        return inputs / N


def received(dataset, used, epochs, steps_per_execution=1, **kwargs):
    """Array `(epochs, steps, examples)`: how often the model received each."""
    recorder = Recorder(epochs * len(dataset))
    model = keras.Sequential([keras.Input((1,)), recorder, keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    model.fit(dataset, epochs=epochs, callbacks=used, verbose=0, **kwargs)
    seen = ops.convert_to_numpy(recorder.seen)
    return np.round(seen).astype(int).reshape(epochs, len(dataset), N)


def curriculum(**kwargs):
    settings = {"difficulty": HARD, "batch_size": SIZE, "steps_per_epoch": STEPS, "seed": 0}
    return CurriculumDataset(IDS, Y, **{**settings, **kwargs})


def entropy(weights):
    share = weights[weights > 0] / weights.sum()
    return -(share * np.log(share)).sum()


@pytest.mark.parametrize("mode", ["plain", "mix"])
@pytest.mark.parametrize("softness", [0.0, 0.3])
@pytest.mark.parametrize("ties", [1, 7])
def test_no_weight_falls_entropy_grows_and_the_last_is_the_data(mode, softness, ties):
    dataset = curriculum(mode=mode, softness=softness, difficulty=HARD // ties)
    found = [dataset.weights(level=level) for level in np.linspace(0, 1, 41)]
    for before, after in zip(found, found[1:], strict=False):
        assert (after >= before).all()
        assert entropy(after) >= entropy(before) - 1e-12
    np.testing.assert_array_equal(found[-1], np.ones(N))
    assert entropy(found[0]) < entropy(found[-1]) - 0.1
    inside = found[0] > found[0].min()
    assert dataset.rank[inside].max() < dataset.rank[~inside].min()


def test_mixed_in_is_the_given_share_of_all_draws():
    dataset = curriculum(mode="mix", share=0.3, start=0.2)
    drawn = dataset.weights(level=0.0) / dataset.weights(level=0.0).sum()
    np.testing.assert_allclose(drawn[HARD >= 12], 0.3 / N)
    np.testing.assert_allclose(drawn[HARD < 12], 0.3 / N + 0.7 / 12)


def test_ranks_are_shares_of_strictly_easier_examples_within_a_class():
    hard = np.array([5.0, 1.0, 5.0, 3.0, 9.0, 7.0])
    np.testing.assert_allclose(ranks(hard), np.array([2, 0, 2, 1, 5, 4]) / 6)
    within = ranks(hard, np.array([0, 0, 0, 1, 1, 1]))
    np.testing.assert_allclose(within, np.array([1, 0, 1, 0, 2, 1]) / 3)


def test_each_class_has_the_same_share_in_the_pool():
    classes = (HARD >= 40).astype(int)  # all the hardest are of one class
    inside = curriculum(classes=classes, start=0.5).weights(level=0.0)
    assert inside[classes == 0].sum() == 20 and inside[classes == 1].sum() == 10
    assert curriculum(start=0.5).weights(level=0.0)[classes == 1].sum() == 0


def test_softness_makes_a_ramp_of_its_width():
    rank = np.linspace(0, 1, 5)
    np.testing.assert_allclose(admitted(rank, 0.0, 0.5, 0.5), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(admitted(rank, 0.5, 0.5, 0.5), [1, 1, 1, 0.75, 0.5])


def test_a_draw_holds_each_as_often_as_its_weight_asks_give_or_take_one():
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=50) * (rng.uniform(size=50) < 0.7)
    sums = np.zeros(50)
    for _ in range(400):
        counts = np.bincount(systematic(weights, 70, rng), minlength=50)
        expected = 70 * weights / weights.sum()
        assert (np.abs(counts - expected) < 1 + 1e-9).all()
        sums += counts
    np.testing.assert_allclose(sums / 400, expected, atol=0.12)
    np.testing.assert_array_equal(np.sort(systematic(np.ones(50), 50, rng)), np.arange(50))
    halves = {tuple(np.sort(systematic(np.ones(20), 10, rng))) for _ in range(50)}
    assert len(halves) > 40  # any half, not every other one


@pytest.mark.parametrize("mode", ["plain", "mix"])
def test_received_entropy_grows_no_example_leaves_and_the_last_epoch_is_everything(mode):
    dataset = curriculum(mode=mode)
    seen = received(dataset, [Curriculum(dataset)], 5).sum(axis=1)
    assert (seen.sum(axis=1) == STEPS * SIZE).all()
    np.testing.assert_array_equal(seen[-1], np.ones(N))  # as many draws as examples: all, once
    for epoch, share in enumerate((0.2, 0.4, 0.6, 0.8, 1.0)):
        pool = share * N
        if mode == "plain":
            assert set(np.flatnonzero(seen[epoch])) == set(np.flatnonzero(pool > HARD))
            expected = (pool > HARD) / pool
        else:
            expected = 0.8 * (pool > HARD) / pool + 0.2 / N
        assert (np.abs(seen[epoch] - STEPS * SIZE * expected) < 1 + 1e-9).all()
    # Of mix, single epochs add chance: the share of the first pool must fall.
    first = seen[:, HARD < 12].sum(axis=1)
    assert (np.diff(first) < 0).all()
    if mode == "plain":
        grown = [entropy(counts) for counts in seen]
        assert (np.diff(grown) > 0).all()
        assert all(
            (before > 0) <= (after > 0)
            for b, a in zip(seen, seen[1:], strict=False)
            for before, after in zip(b, a, strict=True)
        )


@pytest.mark.parametrize("steps", [None, STEPS])
def test_each_epoch_receives_what_its_own_level_says(steps):
    """Also where fit is told the same number of steps: no batch is fetched for a level ahead."""
    dataset = curriculum()
    jump = Curriculum(dataset, [(0, 0.0), (0.5, 1.0)])
    seen = received(dataset, [jump], 5, steps_per_epoch=steps, shuffle=True)
    inside = seen[:, :, HARD >= 12].sum(axis=2)
    assert (inside[:2] == 0).all() and (inside[2:].sum(axis=1) == 48).all()


def test_several_steps_an_execution_receive_the_same(backend):
    if backend == "torch":
        pytest.skip("Keras raises for steps_per_execution > 1 on torch")
    one, five = curriculum(), curriculum()
    np.testing.assert_array_equal(
        received(one, [Curriculum(one)], 3, shuffle=False),
        received(five, [Curriculum(five)], 3, steps_per_execution=5, shuffle=False),
    )


def test_one_pass_gives_each_example_once_in_order_of_difficulty():
    dataset = curriculum(mode="one_pass", start=0.2, batch_size=12, steps_per_epoch=1)
    seen = received(dataset, [Curriculum(dataset)], 5).sum(axis=1)
    for epoch in range(5):
        np.testing.assert_array_equal(seen[epoch], epoch == HARD // 12)


def test_one_pass_stays_with_its_bucket_as_long_as_the_stage():
    dataset = curriculum(mode="one_pass", start=0.2)
    seen = received(dataset, [Curriculum(dataset, [(0, 0), (0.5, 0.5), (0.9, 1)])], 5).sum(axis=1)
    for epoch, (low, high) in enumerate([(0, 12), (0, 12), (12, 36), (12, 36), (36, 60)]):
        inside = (low <= HARD) & (high > HARD)
        assert (seen[epoch, inside] > 0).all() and seen[epoch, ~inside].sum() == 0


def test_one_pass_stays_with_its_bucket_until_the_next_one_enters():
    """Levels may rise within a group of equal difficulty: the window must not be empty."""
    dataset = curriculum(mode="one_pass", difficulty=HARD // 30, start=0.3)
    seen = received(dataset, [Curriculum(dataset)], 6).sum(axis=1)
    for epoch, half in enumerate([0, 0, 1, 1, 1, 1]):
        assert set(np.flatnonzero(seen[epoch])) == set(np.flatnonzero(half == HARD // 30))


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_fit_receives_the_batches_of_an_uninterrupted_one(mode):
    through = curriculum(mode=mode)
    whole = received(through, [Curriculum(through)], 4, shuffle=False)
    again = curriculum(mode=mode)
    late = received(again, [Curriculum(again)], 4, initial_epoch=2, shuffle=False)
    np.testing.assert_array_equal(late[:2], whole[2:])
    other = curriculum(mode=mode, seed=1)
    assert (received(other, [Curriculum(other)], 4, shuffle=False) != whole).any()


def test_a_second_fit_and_a_hand_written_loop_start_again():
    dataset, twin = curriculum(), curriculum()
    first = received(dataset, [Curriculum(dataset)], 3, shuffle=False)
    np.testing.assert_array_equal(received(dataset, [Curriculum(dataset)], 3, shuffle=False), first)
    for epoch, level in enumerate((0.0, 0.5, 1.0)):
        twin.begin_epoch(epoch, level=level)
        for step, (x, y) in enumerate(twin):
            counts = np.bincount(x[:, 0].astype(int), minlength=N)
            np.testing.assert_array_equal(counts, first[epoch, step])
            np.testing.assert_allclose(y, np.sin(x), rtol=1e-6)
    with pytest.raises(IndexError, match="5 batches"):
        twin[STEPS]


def test_progress_is_0_in_the_first_and_1_in_the_last_epoch_of_the_move():
    asked = []
    levels(lambda p: asked.append(p) or p, 5)
    assert asked == [0, 0.25, 0.5, 0.75, 1]
    assert levels(float, 3, total=5) == [0, 0.5, 1, 1, 1]
    assert levels(float, 1) == [1]
    assert levels(float, 5, total=2) == [0, 0.25]
    assert levels(stages([(0, 0.1), (0.5, 1)]), 5) == [0.1, 0.1, 1, 1, 1]
    dataset = curriculum()
    fitted = network(features=1)
    fitted.compile("sgd", "mse")
    used = [Curriculum(dataset, epochs=3), BatchSizeSchedule(dataset, {0: 4, 2: 8})]
    history = fitted.fit(dataset, epochs=4, callbacks=used, verbose=0)
    assert history.history["curriculum"] == [0, 0.5, 1, 1]
    assert history.history["batch_size"] == [4, 4, 8, 8]


def test_nests_and_sample_weights_go_through():
    data = {"a": IDS, "b": [np.repeat(IDS, 2, axis=1)]}
    dataset = CurriculumDataset(data, (Y, -Y), HARD, SIZE, sample_weight=IDS[:, 0], seed=0)
    assert len(dataset) == STEPS
    x, (y, negative), weight = dataset[0]
    np.testing.assert_array_equal(x["b"][0][:, 1], x["a"][:, 0])
    np.testing.assert_array_equal(weight, x["a"][:, 0])
    np.testing.assert_array_equal(y, -negative)
    assert len(CurriculumDataset(IDS, None, HARD, SIZE)[0]) == 1


class Source(keras.utils.PyDataset):
    """Batches of 9 examples that count how many of them are in memory."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = weakref.WeakValueDictionary(), 0

    def __len__(self):
        return -(-N // 9)

    def __getitem__(self, index):
        part = slice(9 * index, 9 * index + 9)
        x = IDS[part].copy()
        self.alive[id(x)] = x
        self.most = max(self.most, len(self.alive))
        return x, Y[part].copy()


class Again:
    """An iterable that is no PyDataset, as tf.data.Dataset is one."""

    def __iter__(self):
        source = Source()
        return (tuple(map(ops.convert_to_tensor, source[i])) for i in range(len(source)))


def tf_data():
    if keras.config.backend() != "tensorflow":
        pytest.skip("tf.data is taken where TensorFlow runs")
    import tensorflow

    return tensorflow.data.Dataset.from_tensor_slices((IDS, Y)).batch(9)


def _share(x, y):
    return HARD[np.asarray(x)[:, 0].astype(int)] / N


@pytest.mark.parametrize("make", [Source, Again, tf_data])
def test_a_source_of_batches_is_filtered_with_at_most_two_of_its_batches_alive(make):
    source = make()
    dataset = CurriculumDataset(source, None, _share, SIZE, 8, seed=0)
    gc.disable()
    try:
        seen = received(dataset, [Curriculum(dataset)], 5).sum(axis=1)
    finally:
        gc.enable()
    assert (seen.sum(axis=1) == 8 * SIZE).all()
    for epoch, share in enumerate((0.2, 0.4, 0.6, 0.8, 1.0)):
        pool = share * N
        # The source is read in order: in each pass every example of the pool comes once.
        assert seen[epoch, pool <= HARD].sum() == 0
        inside = seen[epoch, pool > HARD]
        assert inside.min() >= 8 * SIZE // pool - 1 and inside.max() <= 8 * SIZE / pool + 2
    if make is Source:
        assert 1 <= source.most <= 2


def test_a_source_is_accepted_with_the_chance_of_its_weight():
    dataset = CurriculumDataset(Source(), None, _share, SIZE, 1000, softness=0.5, start=0.5, seed=0)
    dataset.begin_epoch(0, level=0.0)
    counts = sum(np.bincount(x[:, 0].astype(int), minlength=N) for x, _ in dataset)
    chance = admitted(HARD / N, 0.0, 0.5, 0.5)
    np.testing.assert_allclose(counts / counts.sum(), chance / chance.sum(), atol=0.004)


def test_a_source_without_one_easy_example_raises_after_a_pass():
    dataset = CurriculumDataset(Source(), None, lambda x, y: np.full(len(x), 0.9), SIZE, 2)
    dataset.begin_epoch(0, level=0.0)
    with pytest.raises(ValueError, match="no example that is in the pool"):
        dataset[0]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_self_paced_weights_minimize_their_objective_and_none_falls(weighting):
    losses = np.random.default_rng(0).exponential(size=40)
    grid = np.linspace(0, 1, 2001)
    sums = []
    for bar in (0.3, 0.7, 1.5, 4.0):
        # Each regularizer is the one of its paper, the logarithmic one in units of the bar.
        scale, zeta = bar / 0.9, 0.1
        regularizer = {
            "hard": -bar * grid,
            "linear": bar * (grid**2 / 2 - grid),
            "log": scale * (zeta * grid - zeta**grid / np.log(zeta)),
        }[weighting]
        v = self_paced_weights(losses, bar, weighting)
        best = grid[np.argmin(grid[None] * losses[:, None] + regularizer[None], axis=1)]
        np.testing.assert_allclose(v, best, atol=1e-3)
        sums.append(v)
    assert (np.diff(sums, axis=0) >= 0).all()
    np.testing.assert_array_equal(self_paced_weights(losses, np.inf, weighting), np.ones(40))


def test_for_a_fixed_bar_alternate_minimization_never_raises_the_objective():
    """Least squares, minimized exactly in w and in v in turn."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3))
    y = x @ [1.0, -1.0, 2.0] + rng.normal(size=50) * np.where(np.arange(50) < 10, 6, 0.3)
    w, bar, objective = np.zeros(3), 2.0, []
    for _ in range(8):
        losses = (x @ w - y) ** 2
        v = self_paced_weights(losses, bar)
        objective.append(v @ losses - bar * v.sum())
        w = np.linalg.solve((x.T * v) @ x, (x.T * v) @ y)
        objective.append(v @ (x @ w - y) ** 2 - bar * v.sum())
    assert (np.diff(objective) <= 1e-9).all() and objective[-1] < objective[0] - 1
    assert v[:10].mean() < v[10:].mean() == 1


def test_bars_are_lifted_for_a_batch_and_for_the_quota_of_a_class():
    losses, classes = np.arange(10.0), np.arange(10) // 5
    assert (losses < bars(losses, 0.5)).sum() == 1
    assert (losses < bars(losses, 0.5, least=4)).sum() == 4
    inside = losses < bars(losses, 2.5, classes=classes, quota=0.4)
    np.testing.assert_array_equal(np.flatnonzero(inside), [0, 1, 2, 5, 6])


def test_self_paced_begins_with_half_grows_by_its_factor_and_ends_with_all():
    dataset = SelfPacedDataset(IDS, Y, SIZE, STEPS, growth=1.5, seed=0)
    losses, shares = np.random.default_rng(0).exponential(size=N), []
    for epoch in range(4):
        dataset.begin_epoch(epoch, losses=losses)
        bar = np.median(losses) * 1.5**epoch
        np.testing.assert_array_equal(dataset.v, losses < bar)
        shares.append(dataset.v.mean())
        ids = np.concatenate([x[:, 0] for x, _, _ in dataset]).astype(int)
        assert set(ids) <= set(np.flatnonzero(losses < bar))
    assert shares[0] == 0.5 and (np.diff(shares) > 0).all() and shares[-1] < 1
    dataset.begin_epoch(4, everything=True)
    assert dataset.v.sum() == N
    found = dataset.found_threshold
    resumed = SelfPacedDataset(IDS, Y, SIZE, STEPS, growth=1.5, seed=0, threshold=found)
    dataset.begin_epoch(3, losses=losses)
    resumed.begin_epoch(3, losses=losses)
    for one, other in zip(dataset, resumed, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_self_paced_asks_the_model_each_epoch_and_the_last_receives_everything():
    dataset = SelfPacedDataset(IDS, Y, SIZE, STEPS, sample_weight=np.full(N, 2.0), seed=0)
    watch = keras.callbacks.LambdaCallback()
    asked = []
    watch.on_epoch_begin = lambda epoch, logs=None: asked.append(
        (difficulty_from(watch.model, IDS, Y), dataset.v.copy())
    )
    seen = received(dataset, [Curriculum(dataset), watch], 4).sum(axis=1)
    first = np.median(asked[0][0])
    for epoch, (losses, v) in enumerate(asked[:-1]):
        inside = losses < first * 1.3**epoch
        np.testing.assert_array_equal(v, inside)
        assert seen[epoch, ~inside].sum() == 0 and (seen[epoch, inside] > 0).all()
    np.testing.assert_array_equal(seen[-1], np.ones(N))
    np.testing.assert_array_equal(dataset[0][2], np.full(SIZE, 2.0))


def test_a_hard_class_keeps_its_quota():
    hard_class = (np.arange(N) >= 40).astype(int)
    losses = np.random.default_rng(0).uniform(size=N) + 5 * hard_class
    for quota, share in ((0.0, 0.0), (0.25, 0.25)):
        dataset = SelfPacedDataset(IDS, Y, SIZE, classes=hard_class, quota=quota)
        dataset.begin_epoch(0, losses=losses)
        assert dataset.v[hard_class == 1].mean() == share


def test_difficulty_averages_over_all_axes_but_the_first_and_means_the_loss_of_evaluate():
    x = np.random.default_rng(0).normal(size=(20, 4, 3)).astype("float32")
    y = np.random.default_rng(1).normal(size=(20, 4, 2)).astype("float32")
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.MeanAbsoluteError())
    found = difficulty_from(model, x, y, batch_size=7)
    expected = np.abs(model.predict(x, verbose=0) - y).mean(axis=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.mean(), model.evaluate(x, y, verbose=0), rtol=1e-5)


def _squares(y_true, y_pred):
    return ops.mean(ops.square(y_pred - y_true), -1)


class Squares(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return _squares(y_true, y_pred)


@pytest.mark.parametrize("loss", [_squares, Squares()])
@pytest.mark.parametrize("column", [True, False])
def test_difficulty_takes_integer_targets_as_fit_does(loss, column):
    x, y = np.eye(4, dtype="float32"), np.arange(4)
    head = [] if column else [keras.layers.Flatten(), keras.layers.Reshape(())]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1), *head])
    model.compile("sgd", loss)
    predicted = model.predict(x, verbose=0).reshape(-1)
    for target in (y, y[:, None]):
        if column or target is not y:
            found = difficulty_from(model, x, target)
            np.testing.assert_allclose(found, (predicted - y) ** 2, rtol=1e-5)


def test_one_compilation_and_one_more_for_each_further_batch_shape(backend):
    if backend == "torch":
        pytest.skip("PyTorch runs eagerly: there is nothing to trace")
    calls = []

    class Counted(keras.layers.Dense):
        def call(self, inputs, training=None):
            calls.append(inputs.shape)
            return super().call(inputs)

    def traces(sizes):
        dataset = CurriculumDataset(IDS, Y, HARD, 8, 3, start=0.5)
        model = keras.Sequential([keras.Input((1,)), Counted(1)])
        model.compile("sgd", "mse")
        calls.clear()
        used = [Curriculum(dataset), BatchSizeSchedule(dataset, sizes)]
        history = model.fit(dataset, epochs=6, callbacks=used, verbose=0)
        assert history.history["batch_size"] == [
            sizes[max(k for k in sizes if k <= e)] for e in range(6)
        ]
        return len(calls)

    fixed = traces({0: 8})  # the level moves at each epoch: one compilation all the same
    assert fixed <= 2  # JAX looks once at the shapes, then compiles
    moving = traces({0: 8, 2: 16, 3: 8, 4: 24})
    assert moving <= fixed + 2


def test_batch_sizes_are_those_the_model_received_and_compose_with_a_curriculum():
    dataset = curriculum(start=0.5)
    used = [Curriculum(dataset), BatchSizeSchedule(dataset, lambda epoch: 4 * (epoch + 1))]
    seen = received(dataset, used, 3)
    for epoch, pool in enumerate((30, 45, 60)):
        assert (seen[epoch].sum(axis=1) == 4 * (epoch + 1)).all()
        assert seen[epoch][:, pool <= HARD].sum() == 0
    assert seen[1][:, HARD >= 30].sum() > 0


def test_a_batch_that_outgrows_the_pool_is_refused():
    dataset = curriculum()
    dataset.begin_epoch(0, level=0.0)
    with pytest.raises(ValueError, match="epoch 1 is smaller than a batch: 12 of 60"):
        dataset.begin_epoch(1, batch_size=13)


def test_there_are_no_workers_to_carry_batches_over():
    dataset = curriculum()
    assert dataset.workers == 1
    with pytest.raises(AttributeError):
        dataset.workers = 4


def compiled(optimizer="sgd"):
    model = network(features=1)
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("make", [curriculum, lambda: SelfPacedDataset(IDS, Y, SIZE, STEPS)])
def test_without_its_callback_it_can_be_evaluated_and_fitted_for_one_epoch(make):
    dataset = make()
    for model in (compiled(), compiled()):
        for _ in range(2):
            # As many draws as examples: each stands in the epoch once.
            expected = model.evaluate(IDS, Y, verbose=0)
            np.testing.assert_allclose(model.evaluate(dataset, verbose=0), expected, rtol=1e-4)
        assert model.predict(dataset, verbose=0).shape == (N, 3)
        model.fit(dataset, verbose=0)
        history = model.fit(IDS, Y, epochs=2, validation_data=dataset, verbose=0).history
        assert len(history["val_loss"]) == 2
    callback = Curriculum(dataset)
    for _ in range(2):
        model.fit(dataset, epochs=3, validation_data=dataset, callbacks=[callback], verbose=0)
        model.evaluate(dataset, verbose=0)


@pytest.mark.parametrize("built", [False, True])
def test_a_second_epoch_without_the_callback_raises_after_the_first(built):
    dataset, model, ended = curriculum(), compiled(), []
    if built:
        model.evaluate(dataset, verbose=0)
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ended.append(epoch))
    with pytest.raises(RuntimeError, match="Nothing moved"):
        model.fit(dataset, epochs=3, callbacks=[watch], verbose=0)
    assert ended == [0]


def test_self_paced_finds_its_bar_anew_in_each_fit_and_keeps_it_in_a_resumed_one():
    dataset = SelfPacedDataset(IDS, Y, SIZE, STEPS)
    losses = np.random.default_rng(0).exponential(size=N)
    dataset.begin_epoch(0, losses=losses)
    dataset.begin_epoch(0, losses=100 * losses)
    assert dataset.threshold is None and dataset.found_threshold == 100 * np.median(losses)
    dataset.begin_epoch(2, losses=losses)
    assert dataset.found_threshold == 100 * np.median(losses)


@pytest.mark.parametrize("order", [1, -1])
def test_sizes_and_pools_of_all_epochs_are_compared_before_the_first_batch(order):
    dataset, steps = curriculum(start=0.5), []
    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda step, logs: steps.append(1))

    def fit(sizes):
        used = [Curriculum(dataset), BatchSizeSchedule(dataset, sizes)][::order]
        compiled().fit(dataset, epochs=2, callbacks=[*used, watch], verbose=0)

    with pytest.raises(ValueError, match="level 0 the pool is smaller than a batch: 30 of 60"):
        fit({0: 40, 1: 50})
    assert not steps
    fit({0: 8, 1: 40})
    fit({0: 8, 1: 40})  # begins with the size and the level at which the last fit ended
    dataset = curriculum(start=0.5, mode="one_pass")
    steps.clear()
    with pytest.raises(ValueError, match="level 1 the pool is smaller than a batch: 30 of 60"):
        fit({0: 8, 1: 40})
    assert not steps


def test_says_so_when_the_fit_ends_within_the_curriculum(recwarn):
    for dataset in (curriculum(), SelfPacedDataset(IDS, Y, SIZE, STEPS, growth=1.001)):
        with pytest.warns(UserWarning, match="ended within the curriculum"):
            compiled().fit(dataset, epochs=3, callbacks=[Curriculum(dataset, epochs=20)], verbose=0)
        recwarn.clear()
        compiled().fit(dataset, epochs=3, callbacks=[Curriculum(dataset, epochs=2)], verbose=0)
        assert not [one for one in recwarn if "curriculum" in str(one.message)]


def test_a_deep_copy_moves_the_same_data_set():
    dataset = curriculum(start=0.5)
    used = [Curriculum(dataset), BatchSizeSchedule(dataset, {0: 4, 1: 8})]
    copies = copy.deepcopy(used)
    assert all(a is not b and a.dataset is b.dataset for a, b in zip(used, copies, strict=True))
    history = compiled().fit(dataset, epochs=2, callbacks=copies, verbose=0).history
    assert history["curriculum"] == [0, 1] and history["batch_size"] == [4, 8]


def test_self_paced_losses_are_those_of_the_accepted_point():
    sam = SAM(keras.optimizers.SGD(0.01), rho=0.5)
    model, dataset = compiled(sam), SelfPacedDataset(IDS / N, Y, SIZE, STEPS)
    asked, plain = [], dataset.losses

    def ask(model):
        inside = sam.built and bool(ops.convert_to_numpy(sam.swapped))
        asked.append((inside, plain(model)))
        return asked[-1][1]

    dataset.losses = ask
    held, accepted = keras.callbacks.LambdaCallback(), []
    held.on_epoch_end = lambda epoch, logs=None: (
        accepted.append(held.model.optimizer.hold_accepted()),
        accepted.append(plain(held.model)),
        held.model.optimizer.hold_trial(),
    )
    model.fit(dataset, epochs=3, callbacks=[Curriculum(dataset), held], verbose=0)
    assert accepted[0] and asked[1][0]
    np.testing.assert_array_equal(asked[1][1], accepted[1])


def test_a_source_that_starts_again_is_told_so():
    source, told = Source(), []
    source.on_epoch_end = lambda: told.append(1)
    dataset = CurriculumDataset(source, None, _share, SIZE, 2 * STEPS)
    dataset.begin_epoch(0, level=1.0)
    for step in range(2 * STEPS):
        assert len(told) == (step * SIZE - 1) // N if step else not told
        dataset[step]
