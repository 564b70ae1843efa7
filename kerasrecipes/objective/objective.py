"""Objective: a compiled Keras model and its data as a function of one flat vector.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.objective import Objective
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x, y = np.ones((8, 3)), np.zeros((8, 1))
    >>> objective = Objective(model, x, y)
    >>> objective.value(np.zeros(4))
    0.0
    >>> value, gradient = objective.value_and_gradient(np.full(4, 0.5))
    >>> value, gradient.shape
    (4.0, (4,))
    >>> objective.hessian(np.zeros(4))[0]
    array([2., 2., 2., 2.], dtype=float32)

Suggested hyperparameters
    `batch_size`: None while one batch of all examples fits into memory; the value is the same
    number that Keras's evaluate gives with that batch size.
    `training`: False, unless the training behaviour of dropout or batch normalization is the
    very thing to look at.

When not to use
    To train with mini-batches: `model.fit` does it. For models whose loss lives in an overridden
    `train_step`: only what `compute_loss` returns is seen here.

Technical details
    The model runs in a `keras.StatelessScope` in which its trainable variables are slices of
    the vector and everything else is a copy, so no weight, metric, seed or optimizer changes,
    and with `training=True` every call draws the same dropout masks. The value is the mean of
    the batches' compiled losses (regularization and activity losses included) weighted by their
    number of examples, Keras's own reduction. TensorFlow and JAX compile once per batch shape.
    The last batch stays on the device, so data that fits into one batch is sent there once.
    Vectors are float32 unless the model's variables are float64 (exact on TensorFlow alone).

    Products with the Hessian are exact derivatives of the gradient, at 1.3 to 2.4 times its cost
    (1 M weights, three backends, CPU; benchmarks/second_order.py). The matrix itself is for small
    networks: up to 4096 weights, unless forced.
    TensorFlow's `tf.nn.moments` has a wrong second derivative (it holds the mean inside the
    variance constant), so while these products are traced a right one stands in its place.
    Piecewise linear activations have curvature 0 within their pieces, and that is what is seen.

    The Gauss-Newton matrix is J'LJ with the Jacobian J of the model's outputs and the Hessian L
    of the compiled loss in these outputs, plus the exact Hessian of what layers add to the loss
    (regularizers). For losses that are convex in the outputs it has no negative eigenvalue. Give
    the loss logits (`from_logits=True`): on a softmax output the same formula gives the matrix
    of the gradients' second moments, which vanishes where the data is fitted.

Attribution
    The flat view is what numerical optimization assumes: Nocedal and Wright, Numerical
    Optimization, 2006. Products with the Hessian: Pearlmutter, Fast exact multiplication by the
    Hessian, 1994. Gauss-Newton products: Schraudolph, Fast curvature matrix-vector products for
    second-order gradient descent, 2002.
"""

import math

import keras
import numpy as np
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._checks import integer
from kerasrecipes._model.batches import as_arrays, as_tensors, check_lengths, slices, take
from kerasrecipes._model.state import check_ready

LARGEST_HESSIAN = 4096
_ROWS_AT_ONCE = 32


class Objective:
    """The compiled loss of `model` on `(x, y)` as a function of one vector of all weights.

    Args:
        model: built and compiled `keras.Model`.
        x: array, or a list or dict of arrays, of shape `(examples, ...)`.
        y: targets, likewise, or None if the model's loss needs none.
        sample_weight: weights of the examples, as for `fit`.
        batch_size: examples per evaluation of the model; None takes all at once.
        training: whether layers run in training mode.

    Raises:
        ValueError: if the model is unbuilt, uncompiled or has nothing to train, if the data is
            empty, of unequal lengths, or has NaN.
        TypeError: if `model` is no Keras model.
    """

    def __init__(self, model, x, y=None, sample_weight=None, batch_size=None, training=False):
        check_ready(model, compiled=True)
        if not model.trainable_variables:
            raise ValueError(f"`model` {model.name!r} has no trainable variables.")
        self.x = as_arrays("x", x)
        self.y = None if y is None else as_arrays("y", y)
        self.sample_weight = (
            None if sample_weight is None else as_arrays("sample_weight", sample_weight)
        )
        self._count = check_lengths(x=self.x, y=self.y, sample_weight=self.sample_weight)
        self.batch_size = None if batch_size is None else integer("batch_size", batch_size, 1)
        self.model, self.training = model, bool(training)
        self._variables = model.trainable_variables
        self._shapes = tuple(v.shape for v in self._variables)
        self._dtype = self._variables[0].dtype
        self._held = None, None  # the last batch as tensors: often it is the next one too
        self._prepare_metrics()
        self._value = _backend.compiled(self._loss)
        self._value_and_gradient = _backend.value_and_gradient(self._loss)
        self._product = _backend.hessian_vector_product(self._loss)
        self._rows = _backend.hessian_rows(self._loss)
        self._added_product = _backend.hessian_vector_product(self._added)
        self._outer_product = _backend.gauss_newton_vector_product(self._outputs, self._outer)
        self._structure, self._loops = None, {}

    @property
    def size(self):
        """Number of trainable weights: the length of every vector here."""
        return sum(math.prod(shape) for shape in self._shapes)

    def get_vector(self):
        """The model's trainable weights, flattened in the order of `trainable_variables`.

        Returns:
            NumPy array of shape `(size,)`.
        """
        _backend.sync(self.model)
        flat = [np.ravel(ops.convert_to_numpy(v)) for v in self._variables]
        return np.concatenate(flat).astype(self._dtype)

    def set_vector(self, w):
        """Writes a vector of shape `(size,)` into the model's trainable weights."""
        w = self._checked(w)
        if not np.isfinite(ops.convert_to_numpy(w)).all():
            raise ValueError("`w` has NaN or infinite entries: the model keeps its weights.")
        _backend.sync(self.model)
        for variable, part in zip(self._variables, _backend.parts(w, self._shapes), strict=True):
            variable.assign(part)

    def value(self, w):
        """The loss at `w`, a vector of shape `(size,)`, as a Python float."""
        w = self._checked(w)
        return sum(share * float(self._value(w, *data)) for share, data in self._batches())

    def value_and_gradient(self, w):
        """The loss at `w` and its gradient.

        Args:
            w: vector of shape `(size,)`.

        Returns:
            A Python float and a NumPy array of shape `(size,)`.
        """
        w = self._checked(w)
        value, gradient = 0.0, np.zeros(self.size, self._dtype)
        for share, data in self._batches():
            part, slope = self._value_and_gradient(w, *data)
            value += share * float(part)
            gradient += np.asarray(share * ops.convert_to_numpy(slope), self._dtype)
        return value, gradient

    def hessian_vector_product(self, w, v):
        """The Hessian of the loss at `w`, times `v`.

        Args:
            w, v: vectors of shape `(size,)`.

        Returns:
            NumPy array of shape `(size,)`.
        """
        return self._sum(self._product, self._checked(w), self._checked(v, "v"))

    def gauss_newton_vector_product(self, w, v):
        """The Gauss-Newton matrix of the loss at `w`, times `v`.

        Args:
            w, v: vectors of shape `(size,)`.

        Returns:
            NumPy array of shape `(size,)`.

        Raises:
            ValueError: if the loss is not a function of the model's outputs and of what its
                layers add to the loss.
        """
        w, v = self._checked(w), self._checked(v, "v")
        self._learn_structure(w)
        product = self._sum(self._outer_product, w, v)
        return product + self._sum(self._added_product, w, v) if self._adds else product

    def hessian(self, w, force=False):
        """The Hessian of the loss at `w`, symmetric to the last bit.

        Args:
            w: vector of shape `(size,)`.
            force: whether to allow more than 4096 weights.

        Returns:
            NumPy array of shape `(size, size)`.

        Raises:
            ValueError: if the model has more than 4096 trainable weights, unless `force`.
        """
        w = self._checked(w)
        if self.size > LARGEST_HESSIAN and not force:
            raise ValueError(
                f"The Hessian of {self.size} weights has {self.size**2:,} entries; up to "
                f"{LARGEST_HESSIAN} weights are allowed. Use `hessian_vector_product`, or "
                "`force=True`."
            )
        rows = [
            self._sum(self._rows, w, ops.convert_to_tensor(part))
            for part in np.split(
                np.eye(self.size, dtype=self._dtype), range(_ROWS_AT_ONCE, self.size, _ROWS_AT_ONCE)
            )
        ]
        whole = np.concatenate(rows)
        return (whole + whole.T) / 2

    def loop(self, key, begin, going_on, body):
        """A loop over evaluations of this objective, compiled once for each `key`.

        Args:
            key: hashable; stands for the three functions.
            begin: function of a vector that returns the first state, a dictionary of nests of
                tensors, whose entry "trial" is the vector that is due next.
            going_on: function of the state: whether to go on, a scalar.
            body: function of the state, and of value and gradient at its "trial", that returns
                the next state.

        Returns:
            A function from a vector, a tensor, to the last state. With `batch_size` below the
            number of examples the loop runs in Python, its evaluations compiled.
        """
        in_batches = self.batch_size is not None and self.batch_size < self._count
        if key not in self._loops:
            self._loops[key] = (
                _backend.eager(body, static=())
                if in_batches
                else _backend.loop(begin, going_on, body, self._loss)
            )
        run = self._loops[key]
        if in_batches:
            return lambda w: self._run(going_on, run, begin(w))
        return lambda w: run(w, *next(self._batches())[1])

    def _run(self, going_on, body, state):
        while bool(going_on(state)):
            found = self.value_and_gradient(state["trial"])
            state = body(state, *(ops.convert_to_tensor(v, self._dtype) for v in found))
        return state

    def _sum(self, product, w, v):
        """A product over all batches."""
        total = np.zeros(v.shape, self._dtype)
        for share, data in self._batches():
            total += np.asarray(share * ops.convert_to_numpy(product(w, v, *data)), self._dtype)
        return total

    def _checked(self, w, name="w"):
        if tuple(np.shape(w)) != (self.size,):
            raise ValueError(
                f"`{name}` must be a vector of shape ({self.size},), one entry per trainable "
                f"weight of {self.model.name!r}. Received shape {tuple(np.shape(w))}"
            )
        return ops.convert_to_tensor(w, dtype=self._dtype)

    def _others(self):
        """Everything the model may read or write beside its trainable variables."""
        trained = {id(v) for v in self._variables}
        others = [*self.model.variables, *self.model.metrics_variables]
        return [v for v in {id(v): v for v in others}.values() if id(v) not in trained]

    def _tensors(self, part):
        """What `_loss` takes after `w`: the other variables' values, x, y, sample weights."""
        if self._held[0] != part:
            arrays = self.x, self.y, self.sample_weight
            self._held = part, [as_tensors(take(d, part)) for d in arrays]
        return [ops.convert_to_tensor(v) for v in self._others()], *self._held[1]

    def _batches(self):
        _backend.sync(self.model)
        for part in slices(self._count, self.batch_size):
            yield (part.stop - part.start) / self._count, self._tensors(part)

    def _scope(self, w, others):
        parts = _backend.parts(w, self._shapes)
        state = list(zip(self._variables, parts, strict=True))
        state += list(zip(self._others(), others, strict=True))
        return keras.StatelessScope(state, collect_losses=True)

    def _loss(self, w, others, x, y, sample_weight):
        with self._scope(w, others):
            outputs = self.model(x, training=self.training)
            return self.model.compute_loss(x, y, outputs, sample_weight, training=self.training)

    def _outputs(self, w, others, x, y, sample_weight):
        with self._scope(w, others):
            return keras.tree.flatten(self.model(x, training=self.training))

    def _outer(self, outputs, w, others, x, y, sample_weight):
        """The loss of given outputs, regularization of the weights included."""
        with self._scope(w, others):
            outputs = keras.tree.pack_sequence_as(self._structure, outputs)
            return self.model.compute_loss(x, y, outputs, sample_weight, training=self.training)

    def _added(self, w, others, x, y, sample_weight):
        """What layers add to the loss: regularization of weights and of activations."""
        with self._scope(w, others):
            self.model(x, training=self.training)
            return sum(ops.sum(loss) for loss in self.model.losses)

    def _learn_structure(self, w):
        """Once: how the outputs are nested, whether layers add to the loss, and a check."""
        if self._structure is not None:
            return
        # Each batch, since a mask shows only where one hides something.
        for _, data in self._batches():
            self._learn_from(w, data)

    def _learn_from(self, w, data):
        with self._scope(w, data[0]) as scope:
            outputs = self.model(data[1], training=self.training)
            self._adds, added = bool(self.model.losses), sum(ops.sum(a) for a in scope.losses)
        self._structure = keras.tree.map_structure(lambda output: 0, outputs)
        # Without what Keras hangs on tensors, such as a mask.
        fresh = [
            ops.convert_to_tensor(ops.convert_to_numpy(o)) for o in keras.tree.flatten(outputs)
        ]
        seen, whole = float(self._outer(fresh, w, *data) + added), float(self._loss(w, *data))
        own = type(self.model).compute_loss is not keras.Model.compute_loss
        if own or abs(seen - whole) > 1e-4 * abs(whole) + 1e-6:
            self._structure = None
            raise ValueError(
                f"The loss of {self.model.name!r} depends on more than its outputs, their targets "
                "and weights: `compute_loss` is overridden, or outputs carry a mask. There is no "
                "Gauss-Newton matrix then; use `hessian_vector_product`."
            )

    def _prepare_metrics(self):
        # Keras makes some metrics at the first loss: inside a trace that would be too late.
        self._loss(ops.convert_to_tensor(self.get_vector()), *self._tensors(slice(0, 1)))
