"""Masked, Unfreeze, Freeze: what is frozen stays bit for bit, wherever one looks."""

import keras
import numpy as np
import pytest

from kerasrecipes.callbacks.freezing import Freeze, Unfreeze
from kerasrecipes.optimizers.masked import Masked
from kerasrecipes.optimizers.sam import SAM
from tests.problems import classes, images, network, values

K = keras.optimizers
X, Y = classes()
TORCH = keras.config.backend() == "torch"
OPTIMIZERS = {
    "nesterov, decay": lambda: K.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "AdamW, ema": lambda: K.AdamW(0.01, use_ema=True, ema_momentum=0.5),
    "AdamW, ema overwrites": lambda: K.AdamW(
        0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "Adam, accumulation": lambda: K.Adam(0.01, use_ema=True, gradient_accumulation_steps=2),
    "Muon": lambda: K.Muon(0.01, weight_decay=0.1),
    "Adafactor": lambda: K.Adafactor(0.01),
    "ScheduleFreeAdamW": lambda: K.ScheduleFreeAdamW(0.01),
    "several": lambda: K.MultiOptimizer(
        K.OptimizerMap(K.Adam(0.01), {".*kernel": K.SGD(0.1, momentum=0.9)})
    ),
    "SAM": lambda: SAM(K.SGD(0.1, momentum=0.9), rho=0.1),
}
each = pytest.mark.parametrize("name", OPTIMIZERS)
some = pytest.mark.parametrize("name", ["AdamW, ema overwrites", "Adam, accumulation", "SAM"])


def deep(inner="sgd", **kwargs):
    keras.utils.set_random_seed(0)
    hidden = [
        keras.layers.Dense(5, "tanh", name="low"),
        keras.layers.BatchNormalization(name="bn"),
        keras.layers.Dense(4, "tanh", name="middle"),
    ]
    model = network(*hidden, optimizer=Masked(inner), **kwargs)
    if keras.config.backend() == "tensorflow":
        model.jit_compile = False  # XLA takes seconds a model; the contracts run both
    return model


def masked_of(model):
    optimizer = model.optimizer
    return optimizer if isinstance(optimizer, Masked) else optimizer.inner_optimizer


def state(model, *names):
    """Copies of the weights of these layers, statistics too, and of all their slots."""
    masked = masked_of(model)
    weights = [w for name in names for w in model.get_layer(name).weights]
    trained = [w for w in weights if w.trainable]
    slots = [slot for i in masked.indices(trained) for slot, _ in masked.slots[i]]
    # And by their names, so that none is forgotten.
    prefixes = tuple(w.path.replace("/", "_") + "_" for w in trained)
    slots += [v for v in masked.variables if v.name.startswith(prefixes)]
    return values(weights + slots)


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def recorder(seen, look, hooks=("on_train_batch_end",)):
    record = keras.callbacks.LambdaCallback()
    for hook in hooks:
        setattr(record, hook, lambda *args, logs=None: seen.append(look(record.model)))
    return record


def fit(model, *callbacks, **kwargs):
    settings = {"batch_size": 16, "epochs": 3, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(X, Y, callbacks=list(callbacks), **settings)


@each
def test_frozen_weights_and_slots_stand_still_and_then_train(name):
    model, seen = deep(OPTIMIZERS[name]()), []
    start = values(model.get_layer("low").weights)
    look = lambda m: (state(m, "low", "bn"), m.get_layer("head").get_weights())  # noqa: E731
    fit(model, Unfreeze({2: ["low", "bn"]}), recorder(seen, look))
    frozen, head = zip(*seen, strict=True)
    assert all(equal(frozen[0], other) for other in frozen[1:6])
    assert equal(frozen[0][:2], start)
    assert not equal(head[0], head[3])
    weights = slice(6)  # some slots of Adafactor are empty
    moved = zip(frozen[5][weights], frozen[8][weights], strict=True)
    assert not any(np.array_equal(a, b) for a, b in moved)


@some
def test_what_is_frozen_late_stands_still_to_the_end_of_fit(name):
    model, seen = deep(OPTIMIZERS[name]()), []
    look = lambda m: state(m, "low", "bn")  # noqa: E731
    fit(model, Freeze({1: ["low", "bn"]}), recorder(seen, look))
    # The average becomes the weight and the accumulator zero in the first frozen step.
    assert all(equal(seen[3], other) for other in [*seen[4:], look(model)])
    assert not equal(seen[1][:2], seen[2][:2]) or not equal(seen[0][:2], seen[1][:2])
    if name != "SAM" and "overwrites" not in name:
        assert equal(seen[2][:6], seen[3][:6])


@some
def test_without_anything_frozen_it_is_the_inner_optimizer(name):
    ours, bare = deep(OPTIMIZERS[name]()), deep()
    bare.compile(OPTIMIZERS[name](), bare.loss)
    for model in (ours, bare):
        fit(model)
    for one, other in zip(ours.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_the_rest_trains_as_if_the_frozen_layers_were_not_trainable():
    settings = {"momentum": 0.9, "weight_decay": 0.1, "global_clipnorm": 0.1}
    ours, plain = deep(K.SGD(0.5, **settings)), deep()
    for name in ("low", "middle"):
        plain.get_layer(name).trainable = False
    plain.compile(K.SGD(0.5, **settings), plain.loss)
    fit(ours, Freeze({0: ["low", "middle"]}), epochs=2)
    fit(plain, epochs=2)
    for one, other in zip(ours.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_under_mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    model, seen = deep(K.AdamW(0.01)), []
    model.compile(K.LossScaleOptimizer(masked_of(model), initial_scale=64.0), model.loss)
    fit(model, Unfreeze({2: ["low", "bn"]}), recorder(seen, lambda m: state(m, "low", "bn")))
    keras.config.set_dtype_policy("float32")
    assert all(equal(seen[0], other) for other in seen[1:6])
    assert not any(np.array_equal(a, b) for a, b in zip(seen[5], seen[8], strict=True))


def test_sparse_gradients():
    """TensorFlow's gradient of an embedding is sparse, and the step must stay what it was."""
    words = np.random.default_rng(0).integers(0, 9, (48, 4))

    def model(optimizer):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Embedding(10, 3, name="table"), keras.layers.Flatten()]
        made = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3, "softmax")])
        made.compile(optimizer, "sparse_categorical_crossentropy")
        return made

    settings = {"verbose": 0, "shuffle": False, "epochs": 2}
    bare, free, frozen = model(K.Adam(0.1)), model(Masked(K.Adam(0.1))), model(Masked("adam"))
    start = frozen.layers[0].get_weights()
    for one in (bare, free):
        one.fit(words, Y, **settings)
    frozen.fit(words, Y, callbacks=[Freeze({0: "table"})], **settings)
    assert equal(start, frozen.layers[0].get_weights())
    for one, other in zip(bare.get_weights(), free.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_gradient_that_is_not_finite_does_not_leave_a_frozen_weight(bad):
    """In a global norm its NaN would reach all."""
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])]
    optimizer = Masked(K.SGD(0.5, momentum=0.9, global_clipnorm=1.0))
    optimizer.build(variables)
    optimizer.freeze(variables[:1])
    gradients = [[bad, 1.0], [0.0, 2.0]]
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    np.testing.assert_allclose(values(variables), [[1.0, 2.0], [1.0, 1.5]], rtol=1e-6)


def test_a_sparse_gradient_that_is_not_finite_does_not_leave_a_frozen_table():
    keras.utils.set_random_seed(0)
    table, scale = keras.layers.Embedding(10, 3, name="table"), keras.layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input((4,)), table, scale])
    masked = Masked(K.SGD(0.1, global_clipnorm=1.0))
    model.compile(masked, lambda y_true, y_pred: keras.ops.mean(y_pred), jit_compile=False)
    start = table.get_weights()
    scale.set_weights([np.full((3, 1), np.inf, "float32"), np.zeros(1, "float32")])
    masked.build(model.trainable_variables)
    masked.freeze([*table.weights, scale.kernel])
    model.train_on_batch(np.zeros((2, 4)), np.zeros((2, 4, 1)))
    assert equal(start, table.get_weights())
    np.testing.assert_allclose(values([scale.bias])[0], [-0.1], rtol=1e-5)


HOOKS = [
    *(f"on_{part}_{end}" for part in ("train_batch", "epoch", "test") for end in ("begin", "end")),
    "on_train_end",
]


def statistics(model):
    bn = model.get_layer("bn")
    return [np.array(keras.ops.convert_to_numpy(v)) for v in (bn.moving_mean, bn.moving_variance)]


def test_statistics_of_frozen_layers_stand_still_at_every_hook(tmp_path):
    model, seen = deep(), []
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{batch}.keras", save_freq=1)
    record = recorder(seen, statistics, HOOKS)
    fit(model, save, record, Freeze({0: ["bn"]}), validation_data=(X, Y), epochs=2)
    assert len(seen) == 2 * (6 + 2 + 2) + 1
    assert all(equal(seen[0], other) for other in [*seen, statistics(model)])
    np.testing.assert_array_equal(seen[0], np.stack([np.zeros(5), np.ones(5)]))
    saved = sorted(tmp_path.glob("*.keras"))
    assert len(saved) == 3
    for path in saved:
        assert equal(seen[0], statistics(keras.saving.load_model(path)))


def test_statistics_train_on_where_that_is_wanted():
    model = deep()
    start = statistics(model)
    fit(model, Freeze({0: ["bn"]}), epochs=1)
    assert equal(start, statistics(model))
    fit(model, Freeze({0: ["bn"]}, freeze_statistics=False), epochs=1)
    assert not equal(start, statistics(model))


def _square(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_pred - 1.0), axis=-1)


def test_a_model_that_is_compiled_again_trains_on_its_new_loss():
    """Frozen statistics change the train step, and what is compiled must follow all the same."""
    ours, plain = deep(), deep()
    fit(ours, Freeze({0: ["bn"]}), epochs=1)
    plain.set_weights(ours.get_weights())
    for model in (ours, plain):
        model.compile(Masked("sgd"), _square, jit_compile=model.jit_compile)
        fit(model)
    for one, other in zip(ours.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_statistics_move_as_ever_once_they_are_free():
    ours, plain = deep(), deep()
    fit(ours, Unfreeze({0: ["low", "bn"]}))
    fit(plain)
    for one, other in zip(ours.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_statistics_without_weights_of_their_own_go_with_their_stage():
    keras.utils.set_random_seed(0)
    bn = keras.layers.BatchNormalization(center=False, scale=False, name="bn")
    hidden = [keras.layers.Dense(5, name="low"), bn, keras.layers.Dense(4, name="middle")]
    model, seen = network(*hidden, optimizer=Masked("sgd")), []
    fit(model, Unfreeze({1: ["low"], 2: [bn, "middle"]}), recorder(seen, statistics))
    assert all(equal(seen[0], other) for other in seen[1:6])
    assert not equal(seen[5], seen[6])


@pytest.mark.parametrize("kind", ["renorm", "spectral"])
def test_statistics_that_training_reads_stand_still(kind):
    keras.utils.set_random_seed(0)
    if kind == "renorm":
        one = keras.layers.BatchNormalization(renorm=True, name="one")
    else:
        one = keras.layers.SpectralNormalization(keras.layers.Dense(6), name="one")
    model, seen = network(one, optimizer=Masked("sgd")), []
    start = values(one.weights)
    fit(model, Unfreeze({2: "one"}), recorder(seen, lambda m: values(one.weights)))
    assert all(equal(start, other) for other in seen[:6])
    assert not equal(seen[5], seen[8])


def test_seeds_and_states_go_on():
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(16, 6, 1))
    hidden = keras.layers.Dropout(0.5, seed=1)(inputs)
    rnn = keras.layers.SimpleRNN(3, stateful=True, name="rnn")
    block = keras.Model(inputs, rnn(hidden), name="block")
    outputs = keras.layers.Dense(3, "softmax")(block(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(Masked("sgd"), "sparse_categorical_crossentropy")
    seed = block.layers[1].seed_generator.state
    before = values([seed, *rnn.states])
    model.fit(X[..., None], Y, batch_size=16, verbose=0, callbacks=[Freeze({0: "block"})])
    after = values([seed, *rnn.states])
    assert not np.array_equal(before[0], after[0])
    if keras.config.backend() != "jax":  # there Keras itself loses the state of a nested RNN
        assert not np.array_equal(before[1], after[1])


def test_a_subclassed_model_with_its_own_train_step():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = keras.Sequential([keras.layers.Dense(4, name="low")], name="body")
            self.bn = keras.layers.BatchNormalization(name="bn")
            self.head = [keras.layers.Dense(3, "softmax", name="head")]

        def call(self, x, training=None):
            return self.head[0](self.bn(self.body(x), training=training))

        def train_step(self, *arguments):
            return super().train_step(*arguments)

    model = Own()
    model.compile(Masked(K.Adam(0.01)), "sparse_categorical_crossentropy")
    model(X[:1])
    frozen, head = [*model.body.weights, *model.bn.weights], model.head[0].weights
    before = values(frozen), values(head)
    fit(model, Freeze({0: [model.body, model.bn]}), epochs=1)
    assert equal(before[0], values(frozen))
    assert not equal(before[1], values(head))


def test_nested_and_shared_layers_count_once():
    keras.utils.set_random_seed(0)
    shared = keras.layers.Dense(4, "tanh", name="shared")
    inner = keras.Sequential([keras.Input((6,)), shared], name="inner")
    block = keras.Sequential([keras.Input((6,)), inner], name="block")
    inputs = keras.Input((6,))
    hidden = keras.layers.concatenate([block(inputs), shared(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="head")(hidden))
    model.compile(Masked(K.SGD(0.1)), "sparse_categorical_crossentropy")
    seen = []
    stages = Unfreeze({1: [[model.layers[:2], shared]], 2: ["shared", "head"]})
    fit(model, stages, recorder(seen, lambda m: values([shared.kernel, m.layers[-1].kernel])))
    assert len(block.trainable_variables) == 2
    same = [equal([a[i]], [b[i]]) for i in (0, 1) for a, b in zip(seen, seen[1:], strict=False)]
    assert same == [True] * 2 + [False] * 6 + [True] * 5 + [False] * 3


def test_both_callbacks_together():
    model, seen = deep(), []
    both = [Freeze({2: ["low"], 3: ["head"]}), Unfreeze({1: ["low"], 3: ["middle"]})]
    look = lambda m: [m.get_layer(n).get_weights()[0] for n in ("low", "middle", "head")]  # noqa: E731
    start = look(model)
    fit(model, *both, recorder(seen, look, ["on_epoch_end"]), epochs=4)
    moved = [
        [not np.array_equal(a, b) for a, b in zip(*pair, strict=True)]
        for pair in zip([start, *seen], seen, strict=False)
    ]
    assert moved == [
        [False, False, True],
        [True, False, True],
        [False, False, True],
        [False, True, False],
    ]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    stages = lambda: Unfreeze({1: ["middle"], 3: ["low", "bn"]})  # noqa: E731
    whole = deep(K.AdamW(0.05))
    fit(whole, stages(), epochs=4)
    parts = deep(K.AdamW(0.05))

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyError("stop")

    backup = lambda: keras.callbacks.BackupAndRestore(tmp_path / "backup")  # noqa: E731
    with pytest.raises(KeyError, match="stop"):
        fit(parts, stages(), Stop(), backup(), epochs=4)
    again = deep(K.AdamW(0.05))
    fit(again, stages(), backup(), epochs=4)
    parts.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert values([masked_of(loaded).mask])[0].tolist() == [0.0] * 4 + [1.0] * 4
    fit(loaded, stages(), epochs=4, initial_epoch=2)
    for model in (again, loaded):
        for one, other in zip(whole.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_an_earlier_fit_left_frozen_is_set_by_the_first_epoch():
    model = deep()
    fit(model, Freeze({2: ["low"]}))
    assert values([masked_of(model).mask])[0][:2].tolist() == [0, 0]
    before = model.get_layer("low").get_weights()
    fit(model, epochs=1)
    assert equal(before, model.get_layer("low").get_weights())
    fit(model, Freeze({2: ["low"]}), epochs=3)
    assert not equal(before, model.get_layer("low").get_weights())
    masked_of(model).unfreeze()
    assert values([masked_of(model).mask])[0].all()


def test_nothing_is_traced_again_when_the_stage_changes():
    if TORCH:
        pytest.skip("PyTorch runs eagerly: there is nothing to trace")
    model, counts, traced = deep(), [], []
    layer = model.get_layer("low")
    call = layer.call
    object.__setattr__(layer, "call", lambda x, **_: traced.append(1) or call(x))
    count = recorder(counts, lambda m: len(traced), ["on_train_batch_end"])
    stages = lambda: Unfreeze({1: ["middle"], 2: ["low", "bn"]})  # noqa: E731
    fit(model, stages(), count)
    fit(model, stages(), count)
    assert len(set(counts)) == 1 and counts[0] > 0


@pytest.mark.skipif(TORCH, reason="Keras refuses steps_per_execution > 1 on torch")
def test_several_steps_an_execution():
    one, three = deep(K.AdamW(0.01)), deep(K.AdamW(0.01))
    three.steps_per_execution = 3
    for model in (one, three):
        fit(model, Unfreeze({2: ["low", "bn"]}))
    for a, b in zip(one.get_weights(), three.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_average_of_a_weight_starts_from_the_weight_when_it_is_freed():
    model, seen = deep(K.SGD(0.1, use_ema=True, ema_momentum=0.75)), []
    kernel = model.get_layer("low").kernel
    fit(model, Unfreeze({1: ["low"]}), recorder(seen, lambda m: values([kernel])[0]), epochs=2)
    average = seen[2]
    for weights in seen[3:]:
        average = 0.75 * average + 0.25 * weights
    np.testing.assert_allclose(values([kernel])[0], average, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_swapping_averages_leaves_frozen_weights_alone(scaled):
    model, seen = deep(K.SGD(0.1, use_ema=True, ema_momentum=0.75)), []
    if scaled:
        model.compile(K.LossScaleOptimizer(masked_of(model), initial_scale=2.0), model.loss)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    look = lambda m: [m.get_layer(n).get_weights()[0] for n in ("low", "head")]  # noqa: E731
    record = recorder(seen, look, ["on_test_begin", "on_train_batch_end", "on_epoch_end"])
    fit(model, swap, record, Freeze({1: ["low"]}), validation_data=(X, Y))
    low, head = zip(*seen, look(model), strict=True)
    assert equal([low[5]] * (len(low) - 5), low[5:])
    assert not np.array_equal(head[7], head[8]), "the head's average is swapped in"


def test_an_average_can_be_fitted_twice():
    model = deep(K.SGD(0.1, use_ema=True))
    for _ in range(2):
        fit(model, Freeze({0: ["low"]}), epochs=1)


def test_a_half_accumulated_gradient_does_not_act_after_unfreezing():
    """Three batches an epoch, two an update: what epoch 0 leaves over is dropped."""
    model, seen = deep(K.SGD(0.5, gradient_accumulation_steps=2)), []
    kernel = model.get_layer("low").kernel
    masked = masked_of(model)
    masked.build(model.trainable_variables)
    (at,) = [s for s, n in masked.slots[masked.indices([kernel])[0]] if "accumulated" in n]
    fit(model, Freeze({1: ["low"]}), recorder(seen, lambda m: values([at])[0]), epochs=2)
    assert np.abs(seen[2]).max() > 0
    assert not any(np.any(value) for value in seen[3:])


@pytest.mark.parametrize("swap", [False, True])
def test_freezing_between_the_two_steps_of_sam_keeps_the_accepted_weights(swap):
    """Three batches an epoch leave a pair half done: the weight must not stay looked ahead."""
    from kerasrecipes.callbacks.swap_accepted_weights import SwapAcceptedWeights

    model, plain = deep(SAM(K.SGD(0.1), rho=0.5)), deep(SAM(K.SGD(0.1), rho=0.5))
    first = [SwapAcceptedWeights()] if swap else []
    fit(model, *first, Freeze({1: ["low"]}), epochs=2)
    fit(plain, *first, epochs=1)
    for one, other in zip(
        model.get_layer("low").get_weights(), plain.get_layer("low").get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_the_end_of_training_gives_frozen_weights_no_average():
    variable = keras.Variable([1.0, 2.0])
    optimizer = Masked(K.SGD(0.1, use_ema=True))
    for _ in range(3):
        optimizer.apply([keras.ops.ones(2)], [variable])
    before = values([variable])
    optimizer.freeze([variable])
    optimizer.finalize_variable_values([variable])
    assert equal(before, values([variable]))
    optimizer.unfreeze()
    optimizer.finalize_variable_values([variable])
    assert not equal(before, values([variable]))


@pytest.mark.parametrize("use_ema", [False, True])
def test_an_error_leaves_frozen_weights_and_comes_through(use_ema):
    model = deep(K.AdamW(0.01, use_ema=use_ema))
    before = model.get_layer("low").get_weights()

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fit(model, Freeze({0: ["low", "bn"]}), Stop())
    assert equal(before, model.get_layer("low").get_weights())
    assert equal(statistics(model), [np.zeros(5), np.ones(5)])

    def batches():
        yield X[:16], Y[:16]
        yield X[:16, :5], Y[:16]

    with pytest.raises(Exception, match="(?i)shape|incompatible"):
        model.fit(
            batches(), steps_per_epoch=9, verbose=0, shuffle=False, callbacks=[Freeze({0: ["low"]})]
        )


def test_a_model_that_is_not_built_is_refused():
    model = keras.Sequential([keras.layers.Dense(3, name="low")])
    model.compile(Masked("sgd"), "sparse_categorical_crossentropy")
    if keras.config.backend() == "tensorflow":
        with pytest.raises(ValueError, match="Build it first"):
            fit(model, Freeze({0: ["low"]}))
    else:  # these two build it before the first callback
        fit(model, Freeze({0: ["low"]}))


def test_frozen_convolutions_keep_their_statistics():
    keras.utils.set_random_seed(0)
    x = images()
    inputs = keras.Input(x.shape[1:])
    h = keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(3, 3, name="low")(inputs))
    outputs = keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(h))
    model = keras.Model(inputs, outputs)
    model.compile(Masked(K.Adam()), "sparse_categorical_crossentropy")
    before = values(model.layers[1].weights + model.layers[2].weights)
    model.fit(x, Y[: len(x)], verbose=0, callbacks=[Freeze({0: model.layers[:3]})])
    assert equal(before, values(model.layers[1].weights + model.layers[2].weights))
