"""Any schedule in stairs: the rate changes once in so many batches and holds between.

How to use
    >>> import keras
    >>> from kerasrecipes.schedules import Staircase
    >>> cosine = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=400)
    >>> schedule = Staircase(cosine, every=100)
    >>> optimizer = keras.optimizers.SGD(schedule)
    >>> [round(float(schedule(step)), 4) for step in (0, 99, 100, 199, 200)]
    [0.1, 0.1, 0.0854, 0.0854, 0.05]

Suggested hyperparameters
    `every`: the batches of an epoch, which turns a schedule per batch into one per epoch.

When not to use
    For Keras's ExponentialDecay and InverseTimeDecay, which have `staircase=True` themselves.

Technical details
    The rate is that of `schedule` at floor(step / every) * every. The floor is taken in integers,
    so no stair begins a batch early or late in a long run.

Attribution
    The `staircase` argument of Keras's ExponentialDecay, for every schedule.
"""

import keras

from kerasrecipes._checks import integer
from kerasrecipes.schedules._nested import count, rate_at, rate_or_schedule


@keras.saving.register_keras_serializable("kerasrecipes")
class Staircase(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of `schedule` at the last multiple of `every`.

    Args:
        schedule: a rate, or a `keras.optimizers.schedules.LearningRateSchedule`.
        every: number of batches for which a rate holds, at least 1.
        name: optional name of the schedule.

    Raises:
        TypeError: if `schedule` is neither, or `every` is no integer.
        ValueError: if `every` is below 1.
    """

    def __init__(self, schedule, every, name="staircase"):
        super().__init__()
        self.schedule = rate_or_schedule("schedule", schedule)
        self.every = integer("every", every, 1)
        self.name = name

    def __call__(self, step):
        step = count(step)
        return rate_at(self.schedule, step - step % self.every)

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "every": self.every,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(**{**config, "schedule": schedule})
