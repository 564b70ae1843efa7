"""Warm-up before any schedule: the rate rises on a line, then the schedule begins.

How to use
    >>> import keras
    >>> from kerasrecipes.schedules import WarmUp
    >>> cosine = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=1000)
    >>> schedule = WarmUp(cosine, steps=100)
    >>> optimizer = keras.optimizers.Adam(schedule)
    >>> [round(float(schedule(step)), 6) for step in (0, 50, 100, 600, 1100)]
    [0.0, 0.05, 0.1, 0.05, 0.0]

Suggested hyperparameters
    `steps`: for Adam 2 / (1 - beta_2), which is 2000 at Keras's default; for large batches the
    batches of 5 epochs. `start`: 0; the very first batch then changes nothing.

When not to use
    For `OneCycle` and `WarmupStableDecay`, which warm up by themselves, and for Keras's
    CosineDecay where its own `warmup_target` will do.

Technical details
    From `start` at step 0 to the schedule's first value at step `steps`, where the schedule
    begins with its own step 0: its count is shifted, not cut, as in Keras's CosineDecay and
    optax's join_schedules. A decay over 1000 steps ends at step `steps + 1000`. The difference
    of steps is taken in integers, so long runs lose no precision to it.

Attribution
    Goyal et al., Accurate, Large Minibatch SGD, 2017, https://arxiv.org/abs/1706.02677,
    section 2.2; the length for Adam: Ma and Yarats, 2019, https://arxiv.org/abs/1910.04209.
"""

import keras
from keras import ops

from kerasrecipes._checks import integer, number
from kerasrecipes.schedules._nested import count, rate_at, rate_or_schedule, since


@keras.saving.register_keras_serializable("kerasrecipes")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rate that rises linearly from `start` to the first value of `schedule`, then follows it.

    Args:
        schedule: a rate, or a `keras.optimizers.schedules.LearningRateSchedule` that counts its
            steps from the end of the warm-up.
        steps: number of batches of the warm-up, at least 1.
        start: the rate at step 0.
        name: optional name of the schedule.

    Raises:
        TypeError: if `schedule` is neither, or another argument is not a number.
        ValueError: if an argument is out of range.

    Reference:
        Goyal et al., 2017, section 2.2, https://arxiv.org/abs/1706.02677
    """

    def __init__(self, schedule, steps, start=0.0, name="warm_up"):
        super().__init__()
        self.schedule = rate_or_schedule("schedule", schedule)
        self.steps = integer("steps", steps, 1)
        self.start = number("start", start, 0)
        self.name = name

    def __call__(self, step):
        step = count(step)
        share = ops.cast(ops.minimum(step, self.steps), "float32") / self.steps
        # One evaluation serves both: before the end of the warm-up this is the first value.
        rate = rate_at(self.schedule, since(step, self.steps))
        return ops.where(step < self.steps, self.start + (rate - self.start) * share, rate)

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "steps": self.steps,
            "start": self.start,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(**{**config, "schedule": schedule})
