"""A loss times a coefficient that can move during `fit`: `loss_weights` that training reads.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import Continuation
    >>> from kerasrecipes.losses import Scheduled
    >>> inputs = keras.Input((2,))
    >>> outputs = [keras.layers.Dense(1, name=name)(inputs) for name in ("main", "side")]
    >>> model = keras.Model(inputs, outputs)
    >>> model.compile("sgd", loss=["mse", Scheduled("mse", 1.0, name="hint")])
    >>> fade = Continuation("hint.coefficient", [1.0, 0.5, 0.0], advance=1)
    >>> x, y = np.zeros((8, 2)), np.zeros((8, 1))
    >>> history = model.fit(x, [y, y], epochs=3, callbacks=[fade], verbose=0)
    >>> history.history["hint.coefficient"]
    [1.0, 0.5, 0.0]

Suggested hyperparameters
    `coefficient`: what the term weighs until a callback says otherwise. `name`: one for each
    such loss of a model; callbacks and logs say `name.coefficient`.

When not to use
    For a coefficient that stays: `loss_weights` of `compile` says it in plain Keras. For a cost
    on hidden states, or one without labels: `layers.ConceptLoss`.

Technical details
    The value is `coefficient * loss(y_true, y_pred, sample_weight)`; mask, sample weight,
    reduction and dtype are those of the loss inside. The coefficient is a variable of a Metric,
    because a metric hung on the model is what a compiled loss can read on every backend.
    Callbacks of this library hang it there by `attach` when `fit` begins; in a loop of your own
    call `attach(model)` once. Until then the coefficient is to be taken as a constant: on
    TensorFlow and PyTorch an assignment is heard all the same, on JAX the compiled step has
    taken the value in. Attached after an earlier `fit`, the step is traced once more.

    Once attached, the value stands in the logs; in those of a subclassed model that was built
    before, only callbacks put it there. With several outputs Keras logs each output's
    loss before `loss_weights`; here that entry is the term with its coefficient. A saved model
    holds the value reached, as part of its loss, and goes on from there.

Attribution
    Curricula by terms of the cost, from simple concepts to complex ones: lecture 004, weighted
    cost terms; annealed terms in Bowman et al., Generating Sentences from a Continuous Space,
    2015, https://arxiv.org/abs/1511.06349.
"""

import re

import keras
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._checks import number
from kerasrecipes._model.batches import same_rank


class _Coefficient(keras.metrics.Metric):
    """Owns the variable, and shows it in the logs."""

    def __init__(self, value, name):
        super().__init__(name=name)
        self.value = self.add_variable((), keras.initializers.Constant(value), name="value")

    def update_state(self, *args, **kwargs):
        pass

    def reset_state(self):
        pass

    def result(self):
        # On JAX the variable's own array is given away at the next step, before logs are read.
        return 1.0 * ops.convert_to_tensor(self.value)

    # Keras leaves metrics out of weight files; a backup of a run must bring this one back.
    def save_own_variables(self, store):
        store["0"] = ops.convert_to_numpy(self.value)

    def load_own_variables(self, store):
        if len(store.keys()):
            self.value.assign(store["0"])


class _Function(keras.losses.Loss):
    """A loss given as a function."""

    def __init__(self, fn, **kwargs):
        super().__init__(**kwargs)
        self.fn = fn

    def call(self, y_true, y_pred):
        return self.fn(*same_rank(y_true, y_pred))


@keras.saving.register_keras_serializable("kerasrecipes")
class Scheduled(keras.losses.Loss):
    """A loss times a coefficient that callbacks can move within one `fit`.

    Args:
        loss: any loss of Keras: its name, a function of (y_true, y_pred), or a
            `keras.losses.Loss`.
        coefficient: what the loss is multiplied with, until it is moved. Defaults to 1.
        name: optional name; that of `loss` if not given. Each `Scheduled` of a model needs
            its own.
        **kwargs: `reduction` and `dtype`, where `loss` is a name in snake case or a function;
            a `keras.losses.Loss` has its own.

    Raises:
        TypeError: if `loss` is no loss or `coefficient` no number.
        ValueError: if `loss` is unknown or scheduled already, if `coefficient` is not finite, or
            if base arguments are given beside a `keras.losses.Loss`; before training, if two
            scheduled losses of the model have one name.

    Reference:
        Lecture 004, weighted cost terms; Bowman et al., 2015, https://arxiv.org/abs/1511.06349
    """

    def __init__(self, loss, coefficient=1.0, name=None, **kwargs):
        coefficient = number("coefficient", coefficient)
        if loss is None or not (isinstance(loss, (str, dict)) or callable(loss)):
            raise TypeError(
                "`loss` must be a loss of Keras: a name, a function or a keras.losses.Loss. "
                f"Received: loss={loss!r}"
            )
        loss = keras.losses.get(loss)
        if isinstance(loss, Scheduled):
            raise ValueError(f"The loss {loss.name!r} is scheduled already: wrap it once.")
        if isinstance(loss, keras.losses.Loss):
            if kwargs:
                raise ValueError(
                    f"{', '.join(map(repr, sorted(kwargs)))}: give it to the loss inside, "
                    f"{type(loss).__name__}({next(iter(kwargs))}=...)."
                )
            inner, default = loss, loss.name
        else:
            default = getattr(loss, "__name__", "")
            default = default if default.isidentifier() else "scheduled"  # a lambda has no name
            inner = _Function(loss, **kwargs)
        super().__init__(name=name or default, reduction=inner.reduction, dtype=inner.dtype)
        self.loss = loss
        self._inner = inner
        self.metric = _Coefficient(coefficient, f"{self.name}.coefficient")

    @property
    def coefficient(self):
        """The `keras.Variable` that callbacks move."""
        return self.metric.value

    def attach(self, model):
        """Hangs the coefficient on `model`, so that its compiled step reads it and logs it.

        Args:
            model: the `keras.Model` that is, or will be, compiled with this loss.

        Raises:
            ValueError: if another scheduled loss of the model has this name, or if the model
                hides its metrics.
        """
        losses = keras.tree.flatten(getattr(model, "loss", None))
        if any(isinstance(o, Scheduled) and o.name == self.name for o in losses if o is not self):
            raise ValueError(
                f"Two scheduled losses of {model.name!r} are called {self.name!r}: give each a "
                f"name of its own, Scheduled(..., name={self.name + '_2'!r})."
            )
        if self._read_by(model):
            return
        # Private, so that files hold it below the loss, whether it hung here when they were written
        # or not: Keras visits private attributes last, and each object once.
        attribute = re.sub(r"\W", "_", f"_{self.name}_coefficient")
        held = getattr(model, attribute, None)
        if isinstance(held, _Coefficient):
            # A model keeps every metric it was given: a new loss takes its forerunner's over.
            _backend.sync(model)
            held.value.assign(float(self.coefficient))
            self.metric = held
        elif held is not None:
            raise ValueError(
                f"{model.name!r} has an attribute {attribute!r}: give the loss another name."
            )
        else:
            self._hang_on(model, attribute)
        if not self._read_by(model):
            raise ValueError(
                f"{type(model).__name__} overrides `metrics` and hides those hung on it. Return "
                f"[*super().metrics, ...] there, so that training reads {self.name!r}."
            )
        # TensorFlow's step has the list of what it logs compiled in.
        for made, make in (
            (model.train_function, model.make_train_function),
            (model.test_function, model.make_test_function),
        ):
            if made is not None:
                make(force=True)

    def _read_by(self, model):
        return any(v is self.coefficient for v in model.metrics_variables)

    def _hang_on(self, model, attribute):
        try:
            setattr(model, attribute, self.metric)
        except ValueError:
            # A subclassed model takes nothing in once it is built; the mean of its loss still
            # does, and sets none but its own variables to zero.
            for metric in model.metrics:
                if isinstance(metric, keras.metrics.Mean) and metric.name == "loss":
                    return setattr(metric, attribute, self.metric)

    def __call__(self, y_true, y_pred, sample_weight=None):
        value = self._inner(y_true, y_pred, sample_weight)
        return self._times(value)

    def call(self, y_true, y_pred):
        # Training calls the loss as a whole; this is for what asks for one loss an example.
        return self._times(self._inner.call(y_true, y_pred))

    def _times(self, value):
        return ops.cast(ops.convert_to_tensor(self.coefficient), value.dtype) * value

    def get_config(self):
        config = {
            "loss": keras.losses.serialize(self.loss),
            "coefficient": float(ops.convert_to_numpy(self.coefficient)),
            "name": self.name,
        }
        if self._inner is not self.loss:
            config |= {"reduction": self.reduction, "dtype": self.dtype}
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "loss": keras.losses.deserialize(config["loss"])})
