"""One-cycle policy: the rate rises to a peak and falls far below its start, in one run.

How to use
    >>> import keras
    >>> from kerasrecipes.schedules import OneCycle, one_cycle
    >>> schedule = OneCycle(peak=0.1, steps=100)
    >>> optimizer = keras.optimizers.SGD(schedule, momentum=0.9)
    >>> [round(float(schedule(step)), 6) for step in (0, 29, 99)]
    [0.004, 0.1, 0.0]
    >>> rate, momentum = one_cycle(peak=0.1, steps=100)
    >>> [round(float(momentum(step)), 3) for step in (0, 29, 99)]
    [0.95, 0.85, 0.95]

Suggested hyperparameters
    `peak`: the suggestion of `diagnostics.find_learning_rate`; `steps`: batches per epoch times
    epochs; `warmup`: 0.3, as in PyTorch, or 0.25, as in fastai. Keep `momentum_range` at its
    default unless the optimizer is Adam, where (0.85, 0.95) is beta_1.

When not to use
    When the number of steps is not known before, or training is to go on after the cycle: the
    last rates are too small to learn anything new.

Technical details
    Half a cosine from peak / initial_divisor up to the peak at step warmup * steps - 1, half a
    cosine down to peak / initial_divisor / final_divisor at step steps - 1, and constant after
    that. The momentum goes the other way. Equal to torch.optim.lr_scheduler.OneCycleLR with
    two phases.

Attribution
    Smith and Topin, Super-Convergence, 2017, https://arxiv.org/abs/1708.07120; the two cosine
    phases are fastai's.
"""

import math

import keras
from keras import ops

from kerasrecipes._checks import integer, number, pair


def cosine_cycle(step, steps, warmup, start, peak, end):
    """Rises from `start` to `peak` and falls to `end`, each on half a cosine.

    Args:
        step: scalar tensor, counted from 0.
        steps: length of the cycle; the last step is `steps - 1`.
        warmup: share of the steps that rise.
        start, peak, end: values at step 0, `warmup * steps - 1` and `steps - 1`.

    Returns:
        A scalar float tensor.
    """
    step = ops.minimum(ops.cast(step, "float32"), float(steps - 1))
    top = warmup * steps - 1.0
    rise = step / max(top, 1.0)
    fall = (step - top) / max(steps - 1.0 - top, 1.0)

    def half_cosine(begin, finish, share):
        return finish + (begin - finish) * 0.5 * (1.0 + ops.cos(math.pi * share))

    return ops.where(step <= top, half_cosine(start, peak, rise), half_cosine(peak, end, fall))


@keras.saving.register_keras_serializable("kerasrecipes")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Rate that rises to `peak` and falls far below its start within `steps` batches.

    Args:
        peak: the highest rate.
        steps: number of batches of the whole run.
        warmup: share of the steps in which the rate rises, strictly between 0 and 1.
        initial_divisor: the first rate is `peak / initial_divisor`.
        final_divisor: the last rate is the first one over `final_divisor`.
        name: optional name of the schedule.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is out of range, or if less than one step is left to rise.

    Reference:
        Smith and Topin, 2017, https://arxiv.org/abs/1708.07120
    """

    def __init__(
        self, peak, steps, warmup=0.3, initial_divisor=25.0, final_divisor=1e4, name="one_cycle"
    ):
        super().__init__()
        self.peak = number("peak", peak, 0, open_low=True)
        self.steps = integer("steps", steps, 2)
        self.warmup = number("warmup", warmup, 0, 1, open_low=True, open_high=True)
        self.initial_divisor = number("initial_divisor", initial_divisor, 0, open_low=True)
        self.final_divisor = number("final_divisor", final_divisor, 0, open_low=True)
        self.name = name
        if self.warmup * self.steps < 1:
            raise ValueError(
                "`warmup * steps` must be at least 1, so that the rate can rise. Received: "
                f"warmup={warmup!r}, steps={steps!r}. Raise one of them."
            )

    def __call__(self, step):
        start = self.peak / self.initial_divisor
        return cosine_cycle(
            step, self.steps, self.warmup, start, self.peak, start / self.final_divisor
        )

    def get_config(self):
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warmup": self.warmup,
            "initial_divisor": self.initial_divisor,
            "final_divisor": self.final_divisor,
            "name": self.name,
        }


def one_cycle(
    peak, steps, warmup=0.3, initial_divisor=25.0, final_divisor=1e4, momentum_range=(0.85, 0.95)
):
    """The two schedules of the one-cycle policy: rate, and momentum that goes the other way.

    Args:
        peak, steps, warmup, initial_divisor, final_divisor: see `OneCycle`.
        momentum_range: lowest momentum (at the peak rate) and highest (at both ends).

    Returns:
        A pair of `OneCycle` schedules `(rate, momentum)`.

    Raises:
        ValueError: if `momentum_range` is not two numbers with 0 < lowest <= highest < 1.
    """
    low, high = pair("momentum_range", momentum_range)
    low = number("momentum_range[0]", low, 0, 1, open_low=True, open_high=True)
    high = number("momentum_range[1]", high, low, 1, open_high=True)
    rate = OneCycle(peak, steps, warmup, initial_divisor, final_divisor)
    momentum = OneCycle(low, steps, warmup, low / high, 1.0, name="one_cycle_momentum")
    return rate, momentum
