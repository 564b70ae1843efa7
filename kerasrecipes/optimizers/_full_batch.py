"""Keras optimizers around the line search: what LBFGS and NonlinearCG share."""

import math
import typing
import warnings

import keras
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._checks import integer, number, unconstrained
from kerasrecipes.optimizers._line_search import (
    CONVERGED,
    NOT_FINITE,
    NUMBERS,
    RUNNING,
    STALLED,
    UNEQUAL,
    Limits,
    advance,
    shapes,
)
from kerasrecipes.optimizers._trial import TrialPoints, tensor

_advance = _backend.eager(advance, static=("rule", "limits"))
_SPOILS = {
    "weight_decay": "put it into the loss, such as `kernel_regularizer=keras.regularizers.L2()`",
    "clipnorm": "the line search keeps steps short",
    "global_clipnorm": "the line search keeps steps short",
    "clipvalue": "the line search keeps steps short",
    "use_ema": "trial points are no weights to average",
    "ema_overwrite_frequency": "trial points are no weights to average",
    "loss_scale_factor": "gradients must be those of the loss",
}
_WHY = {
    RUNNING: "The search goes on.",
    CONVERGED: "The largest entry of the gradient is at most `tolerance`.",
    STALLED: (
        "No step along the negative gradient meets the Wolfe conditions, twice: the loss is as low "
        "as its rounding lets one see, or it is not smooth here. Weights in float64 see further."
    ),
    UNEQUAL: (
        "The gradient at one and the same point changed from one batch to the next, so batches "
        "are unequal, or the model draws random numbers (dropout). Give each step all the data: "
        "`batch_size=len(x)`, `data.FullBatch`, or gradient accumulation over whole epochs."
    ),
    NOT_FINITE: "The loss or its gradient is not finite at the accepted weights.",
}


class Status(typing.NamedTuple):
    """`state` is "running", "converged" or "stalled"; `why` says it in a sentence."""

    state: str
    why: str


class FullBatchOptimizer(TrialPoints, keras.optimizers.Optimizer):
    """One `apply` is one gradient evaluation; the `rule` that a subclass has gives directions."""

    fixed_hyperparameters = ("curvature", "sufficient_decrease", "tolerance")

    def __init__(
        self, learning_rate, curvature, sufficient_decrease, tolerance, max_trials, name, **kwargs
    ):
        own = type(self).__name__
        if not isinstance(learning_rate, (int, float)):
            raise TypeError(
                f"`learning_rate` of {own} must be a number: the line search finds the step, and a "
                f"schedule would only move its first trial. Received: {learning_rate!r}"
            )
        for argument, why in _SPOILS.items():
            if kwargs.get(argument):
                raise ValueError(
                    f"{own} does not take `{argument}`, which spoils the curvature it measures: "
                    f"{why}. Received: {argument}={kwargs[argument]!r}"
                )
        learning_rate = number("learning_rate", learning_rate, 0, open_low=True)
        curvature = number("curvature", curvature, 0, 1, open_low=True, open_high=True)
        sufficient_decrease = number("sufficient_decrease", sufficient_decrease, 0, 0.5)
        if sufficient_decrease >= curvature:
            raise ValueError(
                "`sufficient_decrease` must be less than `curvature`, else no step may meet both. "
                f"Received: sufficient_decrease={sufficient_decrease}, curvature={curvature}"
            )
        tolerance = number("tolerance", tolerance, 0)
        max_trials = integer("max_trials", max_trials, 3)
        super().__init__(learning_rate, name=name, **kwargs)
        self.curvature, self.sufficient_decrease = curvature, sufficient_decrease
        self.tolerance, self.max_trials = tolerance, max_trials
        self._loss = self._now = None
        self._evaluations = 0  # at the end of the last fit
        self._made = True

    @property
    def loss_scale_factor(self):
        # Keras skips the assignment of what is there already on TensorFlow, so this must not be
        # the None that LossScaleOptimizer assigns, except in `apply`, which would divide by it.
        return None if getattr(self, "_now", None) is not None else 1.0

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor):
        # LossScaleOptimizer takes the factor away from what it wraps, which tells of it.
        if getattr(self, "_made", False):
            raise ValueError(
                f"{type(self).__name__} cannot go inside LossScaleOptimizer, which Keras puts "
                "around optimizers under mixed_float16: rounded gradients have no curvature. Use "
                "the dtype policy float32 or float64."
            )

    def build(self, variables):
        if self.built:
            return
        self._check(variables)
        super().build(variables)
        dtype = variables[0].dtype
        parts = shapes(sum(math.prod(v.shape) for v in variables), self.rule)
        self._parts = list(parts)
        self._state = [
            self.add_variable(shape, dtype=kind or dtype, name=part)
            for part, (shape, kind) in parts.items()
        ]
        self.build_flags(self._part("stage"))
        if self.gradient_accumulation_steps:
            self._loss_sum = self.add_variable((), dtype=dtype, name="loss_sum")

    def _check(self, variables):
        own = type(self).__name__
        dtypes = {keras.backend.standardize_dtype(v.dtype) for v in variables}
        if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
            raise ValueError(
                f"{own} needs weights of one dtype, float32 or float64. "
                f"Received: {', '.join(sorted(dtypes))}"
            )
        unconstrained(own, variables)

    def _part(self, name):
        return self._state[self._parts.index(name)]

    def scale_loss(self, loss):
        """Looks at the loss as it passes: the line search refuses steps that go uphill."""
        # A function hides the tensor from Keras, which tracks what attributes hold.
        loss, self._loss = _backend.passing(loss)
        return loss

    def apply(self, grads, trainable_variables=None):
        seen, self._loss = self._loss, None
        loss = None if seen is None else seen()
        if self.gradient_accumulation_steps:
            if not self.built:
                self.build(list(trainable_variables))
            held = ops.convert_to_tensor(self._loss_sum)
            # NaN is the sum of losses of which one is unknown.
            known = held * float("nan") if loss is None else held + ops.cast(loss, held.dtype)
            self._loss_sum.assign(known)
        self._now = lambda: loss
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._now = None

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # The one place that sees all gradients together, after accumulation.
        value = self._now()
        if self.gradient_accumulation_steps:
            if value is not None:
                value = ops.convert_to_tensor(self._loss_sum) / self.gradient_accumulation_steps
            self._loss_sum.assign(ops.zeros((), self._loss_sum.dtype))
        held = self._flat(self._trainable_variables)
        given = {
            self._get_variable_index(v): g for v, g in zip(trainable_variables, grads, strict=True)
        }
        every = enumerate(self._trainable_variables)
        # Where there is no gradient nothing moves.
        fed = self._flat(
            [given[i] if i in given else ops.zeros(v.shape, v.dtype) for i, v in every]
        )
        state = {
            name: ops.convert_to_tensor(v) for name, v in zip(self._parts, self._state, strict=True)
        }
        swapped = _backend.numbers(ops.convert_to_tensor(self.swapped))
        rate = _backend.numbers(ops.cast(ops.convert_to_tensor(learning_rate), held.dtype))
        limits = Limits(self.curvature, self.sufficient_decrease, self.tolerance, self.max_trials)
        after, trial = _advance(
            state, held, value, fed, rate, rule=self.rule, limits=limits, fresh=swapped
        )
        for name, variable in zip(self._parts, self._state, strict=True):
            if after[name] is not state[name]:
                variable.assign(after[name])
        self.swapped.assign(ops.zeros((), "bool"))
        for variable, part in zip(self._trainable_variables, self._split(trial), strict=True):
            if self._get_variable_index(variable) in given:
                variable.assign(part)

    def _flat(self, tensors):
        return ops.stop_gradient(_backend.flat([ops.convert_to_tensor(t) for t in tensors]))

    def _split(self, flat):
        return _backend.parts(flat, tuple(v.shape for v in self._trainable_variables))

    def _exchange(self):
        point = self._part("point")
        held, kept = ops.copy(self._flat(self._trainable_variables)), tensor(point)
        point.assign(held)
        for variable, part in zip(self._trainable_variables, self._split(kept), strict=True):
            variable.assign(ops.copy(part))

    def finalize_variable_values(self, var_list):
        trial_was_in = self.end_fit()
        if trial_was_in is None or not self.built:
            return
        before, whole = self._evaluations, self.gradient_accumulation_steps or 1
        self._evaluations = int(ops.convert_to_numpy(self.iterations)) // whole
        if trial_was_in and self._evaluations == before + 1:
            warnings.warn(
                f"This `fit` made one evaluation, with which {type(self).__name__} cannot move: "
                "the accepted weights are in again, and the trial point that it asked for is "
                "dropped. Give `epochs`, or `data.FullBatch` with steps; or go on from `fit` to "
                "`fit` with callbacks.SwapAcceptedWeights.",
                stacklevel=3,
            )

    @property
    def status(self):
        """How the search stands: a pair of "running", "converged" or "stalled", and why."""
        code = RUNNING
        if self.built:
            code = int(ops.convert_to_numpy(self._part("numbers"))[NUMBERS.index("status")])
        name = {RUNNING: "running", CONVERGED: "converged"}.get(code, "stalled")
        return Status(name, _WHY[code])

    @property
    def accepted_steps(self):
        """How many steps the line search has accepted so far."""
        if not self.built:
            return 0
        return int(ops.convert_to_numpy(self._part("numbers"))[NUMBERS.index("accepted")])

    def get_config(self):
        return {
            **super().get_config(),
            "loss_scale_factor": None,
            "curvature": self.curvature,
            "sufficient_decrease": self.sufficient_decrease,
            "tolerance": self.tolerance,
            "max_trials": self.max_trials,
        }
