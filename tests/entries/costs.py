"""Costs whose coefficients move, and continuation."""

import keras
import numpy as np
from keras import ops

import kerasrecipes as kr
from kerasrecipes.callbacks import Continuation
from kerasrecipes.callbacks._knobs import find_knob
from kerasrecipes.layers import ConceptLoss
from kerasrecipes.losses import Scheduled
from tests import references
from tests.entry import Entry, Fault, faults
from tests.problems import network, values

RATE, RNG = 0.1, np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype("float32")
TARGETS = [RNG.normal(size=(12, 1)).astype("float32") for _ in range(2)]
# Of the hidden states, of the first and of the second output: one row a batch.
MOVING = np.abs(RNG.normal(size=(6, 3))).astype("float32")


@keras.saving.register_keras_serializable("tests")
def size(h):
    """One value an example."""
    return ops.mean(ops.square(h), axis=-1)


def linear(outputs=1, concept=False, losses=None, jit="auto"):
    """h = x u, and `outputs` heads h a_i."""
    inputs = keras.Input((3,))
    start = keras.initializers.GlorotUniform(seed=5)
    h = keras.layers.Dense(2, use_bias=False, kernel_initializer=start)(inputs)
    h = ConceptLoss(size, 1.0, name="small")(h) if concept else h
    heads = [
        keras.layers.Dense(1, use_bias=False, kernel_initializer=start.clone(), name=f"head{i}")(h)
        for i in range(outputs)
    ]
    model = keras.Model(inputs, heads[0] if outputs == 1 else heads)
    losses = losses or [Scheduled("mse", 1.0, name=f"term{i}") for i in range(outputs)]
    losses = losses[0] if outputs == 1 else losses
    model.compile(keras.optimizers.SGD(RATE), losses, jit_compile=jit)
    return model


class Moves(keras.callbacks.Callback):
    """Writes `rows[i]` into the knobs before batch or epoch i, and notes the weights' path."""

    def __init__(self, targets, rows, per="batch"):
        super().__init__()
        self.targets, self.rows, self.per = targets, iter(rows), per
        self.path = []

    def on_train_begin(self, logs=None):
        self.knobs = [find_knob(self.model, target) for target in self.targets]

    def _write(self):
        for knob, value in zip(self.knobs, next(self.rows), strict=True):
            knob.write(value)

    def on_epoch_begin(self, epoch, logs=None):
        if self.per == "epoch":
            self._write()

    def on_train_batch_begin(self, batch, logs=None):
        if self.per == "batch":
            self._write()

    def on_train_batch_end(self, batch, logs=None):
        self.path.append(values(self.model.trainable_variables))


PARTS = [slice(a, a + 4) for a in (0, 4, 8)] * 2


def fitted(model, callbacks=(), epochs=2, **kwargs):
    y = TARGETS[0] if len(model.outputs) == 1 else TARGETS
    settings = {"batch_size": 4, "epochs": epochs, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(X, y, callbacks=list(callbacks), **settings)


def paths(model, outputs=1, concept=False, per="batch"):
    """The weights after each batch while every knob moves, and the same by the reference."""
    columns = [*([0] if concept else []), *range(1, outputs + 1)]
    names = ["small.weight", "term0.coefficient", "term1.coefficient"]
    rows = MOVING if per == "batch" else MOVING[:2]
    start = values(model.trainable_variables)
    moves = Moves([names[i] for i in columns], rows[:, columns], per)
    fitted(model, [moves])
    used = rows.copy() if per == "batch" else np.repeat(rows, 3, axis=0)
    used[:, 0] *= concept
    y = TARGETS[:outputs]
    return moves.path, references.two_heads(X, y, start, used[:, : outputs + 1], RATE, PARTS)


def _path_equality(**settings):
    for per in ("batch", "epoch"):
        ours, reference = paths(linear(**settings), per=per, **settings)
        for one, other in zip(ours, reference, strict=True):
            for a, b in zip(one, other, strict=True):
                yield a, b, 1e-5


def _continuation_equality():
    """Two stages of one epoch are three batches with each value."""
    model = linear()
    start = values(model.trainable_variables)
    history = fitted(model, [Continuation("term0.coefficient", [0.25, 2.0], advance=1)])
    rows = np.repeat([[0, 0.25], [0, 2.0]], 3, axis=0)
    path = references.two_heads(X, TARGETS[:1], start, rows, RATE, PARTS)
    for one, other in zip(values(model.trainable_variables), path[-1], strict=True):
        yield one, other, 1e-5
    yield history.history["term0.coefficient"], [0.25, 2.0], 0
    yield history.history["term0.coefficient_stage"], [0, 1], 0


def _sgd(**kwargs):
    """Momentum SGD of ours: Keras's own, saved under PyTorch, cannot train on elsewhere."""
    settings = {"learning_rate": 0.1, "momentum": 0.9, "threshold": 0.0, "seed": 0, **kwargs}
    return kr.optimizers.PerturbedSGD(**settings)


def _scheduled_model(**kwargs):
    """Made with one coefficient and trained with another."""
    keras.utils.set_random_seed(0)
    model = network(keras.layers.Dense(5, "tanh"), optimizer=_sgd(**kwargs))
    loss = Scheduled("sparse_categorical_crossentropy", 0.3, name="term")
    model.compile(model.optimizer, loss)
    loss.attach(model)
    loss.coefficient.assign(0.7)
    return model


def _concept_model(**kwargs):
    keras.utils.set_random_seed(0)
    concept = ConceptLoss(keras.activations.softplus, 0.3, name="small")
    model = network(keras.layers.Dense(5, "tanh"), concept, optimizer=_sgd(**kwargs))
    concept.weight.assign(0.7)
    return model


def _two_of_one_name(m, x, y):
    losses = [Scheduled("mse"), Scheduled("mse", 2.0)]
    fitted(linear(2, losses=losses), [Continuation(losses[0], [0, 1], 1)])


class _Hides(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)

    @property
    def metrics(self):
        return []


def _hidden(m, x, y):
    model = _Hides()
    model.compile("sgd", Scheduled("mse"))
    model.fit(X, TARGETS[0], verbose=0, callbacks=[Continuation(model.loss, [0, 1], 1)])


def _attribute_taken(m, x, y):
    model = linear()
    model._term0_coefficient = "mine"
    fitted(model, [Continuation("term0.coefficient", [0, 1], 1)])


def _saved(m, x, y):
    def fn(h):
        return ops.mean(h)

    network(ConceptLoss(fn)).get_config()


def _fit_with(*args, **kwargs):
    return lambda m, x, y: fitted(linear(), [Continuation(*args, **kwargs)])


_KNOB = "term0.coefficient"

ENTRIES = {
    "losses.Scheduled": Entry(
        kind="loss",
        equality=lambda: _path_equality(outputs=2),
        make=lambda: Scheduled("mse", 0.3, name="term", reduction="sum"),
        model=_scheduled_model,
        errors=[
            (TypeError, "must be a loss", lambda *_: Scheduled(3)),
            (TypeError, "must be a loss", lambda *_: Scheduled(None)),
            (ValueError, "Could not interpret", lambda *_: Scheduled("msee")),
            (TypeError, "`coefficient` must be a number", lambda *_: Scheduled("mse", "1")),
            (ValueError, "finite", lambda *_: Scheduled("mse", float("nan"))),
            (ValueError, "wrap it once", lambda *_: Scheduled(Scheduled("mse"))),
            (
                ValueError,
                "'reduction': give it to the loss inside",
                lambda *_: Scheduled(keras.losses.MeanSquaredError(), reduction="sum"),
            ),
            (ValueError, "Two scheduled losses.*'mean_squared_error_2'", _two_of_one_name),
            (ValueError, "hides those hung on it", _hidden),
            (ValueError, "has an attribute", _attribute_taken),
        ],
    ),
    "layers.ConceptLoss": Entry(
        kind="layer",
        equality=lambda: _path_equality(concept=True),
        make=lambda: ConceptLoss(size, 0.3, name="small"),
        model=_concept_model,
        errors=[
            (TypeError, "must be a function", lambda *_: ConceptLoss(3)),
            (TypeError, "`weight` must be a number", lambda *_: ConceptLoss(size, "1")),
            (ValueError, "finite", lambda *_: ConceptLoss(size, float("inf"))),
            (ValueError, "register_keras_serializable", _saved),
            (
                ValueError,
                "register_keras_serializable",
                lambda *_: ConceptLoss(lambda h: h).get_config(),
            ),
        ],
    ),
    "callbacks.Continuation": Entry(
        kind="callback",
        equality=_continuation_equality,
        make=lambda: Continuation("term.coefficient", [0.5], 1),
        model=_scheduled_model,
        errors=[
            (ValueError, "at least one value", lambda *_: Continuation(_KNOB, [])),
            (ValueError, "only rise or only fall", lambda *_: Continuation(_KNOB, [0, 1, 0.5])),
            (ValueError, "only rise or only fall", lambda *_: Continuation(_KNOB, [1, 1])),
            (ValueError, "finite", lambda *_: Continuation(_KNOB, [0, float("nan")])),
            (TypeError, "sequence of numbers", lambda *_: Continuation(_KNOB, 1.0)),
            (TypeError, "must be a number", lambda *_: Continuation(_KNOB, ["a"])),
            (
                ValueError,
                "Did you mean 'plateau'",
                lambda *_: Continuation(_KNOB, [0, 1], "plateu"),
            ),
            (ValueError, "at least 1", lambda *_: Continuation(_KNOB, [0, 1], 0)),
            (TypeError, "integer", lambda *_: Continuation(_KNOB, [0, 1], 1.5)),
            (ValueError, "each of the 2 values", lambda *_: Continuation(_KNOB, [0, 1], [1])),
            (ValueError, "at least 1", lambda *_: Continuation(_KNOB, [0, 1], patience=0)),
            (ValueError, "0 <= min_delta", lambda *_: Continuation(_KNOB, [0, 1], min_delta=-1)),
            (ValueError, "Did you mean 'term0.coeff", _fit_with("term.coefficient", [0, 1])),
            (ValueError, "Did you mean 'loss'", _fit_with(_KNOB, [0, 1], monitor="los")),
            (ValueError, "Received: monitor='val_loss'", _fit_with(_KNOB, [0], monitor="val_loss")),
        ],
    ),
}

FAULTS = [
    *faults(
        "losses.Scheduled",
        "losses/scheduled.py",
        "test_costs.py",
        ("self.coefficient), value.dtype) * value", "self.coefficient), value.dtype) * 0 + value"),
        ("self._inner(y_true, y_pred, sample_weight)", "self._inner(y_true, y_pred)"),
        ("float(ops.convert_to_numpy(self.coefficient)),", "1.0,"),
        ("            self.metric = held", "            pass"),
        ('metric.name == "loss":', 'metric.name == "lost":'),
        ('self.value.assign(store["0"])', "pass"),
        ("self.fn(*same_rank(y_true, y_pred))", "self.fn(y_true, y_pred)"),
        (
            "**kwargs)\n        super().__init__(name=name or default",
            ")\n        super().__init__(name=name or default",
        ),
    ),
    Fault(
        ("losses.Scheduled",),
        "losses/scheduled.py",
        "return 1.0 * ops.convert_to_tensor(self.value)",
        "return ops.convert_to_tensor(self.value)",
        "tests/test_costs.py::test_the_value_stands_in_the_logs_and_in_evaluate",
        backend="jax",
    ),
    Fault(
        ("losses.Scheduled",),
        "losses/scheduled.py",
        "                make(force=True)",
        "                pass",
        "tests/test_costs.py::test_the_value_stands_in_the_logs_and_in_evaluate",
        backend="tensorflow",
    ),
    *faults(
        "layers.ConceptLoss",
        "layers/concept_loss.py",
        "test_costs.py",
        ("self.add_loss(ops.convert_to_tensor(self.weight) * cost)", "self.add_loss(cost)"),
        ('ops.cast(self.fn(inputs), "float32")', "self.fn(inputs)"),
        ("cost = ops.mean(", "cost = ops.sum("),
        ("self.supports_masking = True", "self.supports_masking = False"),
        ("deserialize_keras_object(saved) is fn", "deserialize_keras_object(saved) is not None"),
        ("float(ops.convert_to_numpy(self.weight)),", "1.0,"),
    ),
    *faults(
        "callbacks.Continuation",
        "callbacks/continuation.py",
        "test_costs.py",
        ("self._found.write(self.values[stage])", "pass"),
        ('epoch, side="right"))', "epoch))"),
        ("(self._waited >= self.patience)", "(self._waited > self.patience)"),
        ("self._best - self.min_delta", "self._best"),
        ("elif math.isfinite(value):", "else:"),
        ("self.stage, self._best, self._waited = stage, math.inf, 0", "self.stage = stage"),
        (
            "self.stage, self.moves, self._trained = None, [], 0",
            "self.moves, self._trained = [], 0",
        ),
        ("self._stage_now() if epoch else 0", "0"),
        ("elif self._trained < asked:", "elif False:"),
        ("elif not math.isclose(", "elif False and math.isclose("),
        ("self._trained = epoch - sum(self.epochs[:stage])", "self._trained = self.epochs[stage]"),
    ),
    *faults(
        "losses.Scheduled",
        "losses/scheduled.py",
        "test_costs.py",
        ('f"_{self.name}_coefficient"', 'f"{self.name}_coefficient"'),
    ),
]
