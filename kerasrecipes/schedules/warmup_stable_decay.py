"""Warm-up, a long constant rate, a short decay: a run that can be prolonged.

How to use
    >>> import keras
    >>> from kerasrecipes.schedules import WarmupStableDecay
    >>> schedule = WarmupStableDecay(peak=0.1, steps=1000, warmup=0.1, decay=0.2)
    >>> optimizer = keras.optimizers.AdamW(schedule)
    >>> [round(float(schedule(step)), 6) for step in (0, 50, 100, 800, 900, 1000)]
    [0.0, 0.05, 0.1, 0.1, 0.05, 0.0]

Suggested hyperparameters
    `peak`: search for it anew, since it need not be the best peak of a cosine. `decay`: 0.1 to
    0.2 of the steps. `shape`: "sqrt", which Hägele et al. measured ahead of "linear". `warmup`:
    0.01 to 0.05.

When not to use
    Where the length of the run is fixed and one run is all there is: a cosine or `OneCycle` does
    as well with one choice fewer.

Technical details
    With W = round(warmup * steps) and D = round(decay * steps): on a line from `start` at step 0
    to `peak` at step W, `peak` up to step steps - D, then end + (peak - end) * f(x) with
    x = (step - (steps - D)) / D and f(x) = 1 - x ("linear"), (1 + cos(pi x)) / 2 ("cosine") or
    1 - sqrt(x) ("sqrt"); `end` from step `steps` on. To prolong a run, load a checkpoint of its
    constant part and compile it with a larger `steps`: the rate goes on at `peak`. The decay of
    Hu et al. is exponential; it is not here.

Attribution
    Hu et al., MiniCPM, 2024, https://arxiv.org/abs/2404.06395; the shape "sqrt": Hägele et al.,
    Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, 2024,
    https://arxiv.org/abs/2405.18392.
"""

import math

import keras
from keras import ops

from kerasrecipes._checks import integer, number, one_of
from kerasrecipes.schedules._nested import count

SHAPES = {
    "linear": lambda x: 1.0 - x,
    "cosine": lambda x: 0.5 * (1.0 + ops.cos(math.pi * x)),
    "sqrt": lambda x: 1.0 - ops.sqrt(x),
}


@keras.saving.register_keras_serializable("kerasrecipes")
class WarmupStableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rate that rises to `peak`, stays there, and falls to `end` in the last steps.

    Args:
        peak: the rate of the constant part.
        steps: number of batches of the whole run.
        warmup: share of the steps in which the rate rises, in [0, 1).
        decay: share of the steps in which it falls, in (0, 1].
        shape: "linear", "cosine" or "sqrt".
        start: the rate at step 0, if there is a warm-up.
        end: the rate from step `steps` on.
        name: optional name of the schedule.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is out of range, `warmup + decay` exceeds 1, one of the two
            shares is less than a step, or `shape` is unknown.

    Reference:
        Hu et al., 2024, https://arxiv.org/abs/2404.06395; Hägele et al., 2024,
        https://arxiv.org/abs/2405.18392
    """

    def __init__(
        self,
        peak,
        steps,
        warmup=0.05,
        decay=0.2,
        shape="linear",
        start=0.0,
        end=0.0,
        name="warmup_stable_decay",
    ):
        super().__init__()
        self.peak = number("peak", peak, 0, open_low=True)
        self.steps = integer("steps", steps, 1)
        self.warmup = number("warmup", warmup, 0, 1, open_high=True)
        self.decay = number("decay", decay, 0, 1, open_low=True)
        self.shape = one_of("shape", shape, tuple(SHAPES))
        self.start = number("start", start, 0, self.peak)
        self.end = number("end", end, 0, self.peak)
        self.name = name
        if self.warmup + self.decay > 1:
            raise ValueError(
                "`warmup + decay` must be at most 1. Received: "
                f"warmup={warmup!r}, decay={decay!r}. Lower one of them."
            )
        rising, falling = self._lengths()
        if falling < 1 or (self.warmup and rising < 1):
            raise ValueError(
                "`warmup` (unless 0) and `decay` must be a step or more. Received: "
                f"warmup={warmup!r}, decay={decay!r} of steps={steps!r}. Raise them."
            )

    def _lengths(self):
        rising = round(self.warmup * self.steps)
        return rising, min(round(self.decay * self.steps), self.steps - rising)

    def __call__(self, step):
        step = count(step)
        rising, falling = self._lengths()
        risen = ops.cast(ops.minimum(step, rising), "float32") / max(rising, 1)
        fallen = ops.clip(step - (self.steps - falling), 0, falling)
        share = SHAPES[self.shape](ops.cast(fallen, "float32") / falling)
        up = self.start + (self.peak - self.start) * risen
        down = self.end + (self.peak - self.end) * share
        return ops.where(step < rising, up, down)

    def get_config(self):
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warmup": self.warmup,
            "decay": self.decay,
            "shape": self.shape,
            "start": self.start,
            "end": self.end,
            "name": self.name,
        }
