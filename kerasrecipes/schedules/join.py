"""Schedules one after another, each with a count of its own.

How to use
    >>> import keras
    >>> from kerasrecipes.schedules import Join
    >>> decay = keras.optimizers.schedules.InverseTimeDecay(0.1, decay_steps=10, decay_rate=1.0)
    >>> schedule = Join([0.1, decay], boundaries=[100])
    >>> optimizer = keras.optimizers.SGD(schedule)
    >>> [round(float(schedule(step)), 6) for step in (0, 99, 100, 110, 190)]
    [0.1, 0.1, 0.1, 0.05, 0.01]

Suggested hyperparameters
    `boundaries`: multiples of the batches per epoch, so that a change falls between two epochs.
    `schedules`: begin each where the one before ends, unless a jump is meant.

When not to use
    For constants alone: Keras's PiecewiseConstantDecay says that shorter.

Technical details
    At step `boundaries[i]` schedule i + 1 takes over and sees its own step 0, as in optax's
    join_schedules. (PiecewiseConstantDecay still holds the old value at the boundary itself and
    changes one step later.) All schedules are evaluated at each step, those that have not begun
    at 0, and one is chosen.

Attribution
    optax's join_schedules, https://optax.readthedocs.io
"""

import keras
from keras import ops

from kerasrecipes._checks import integer
from kerasrecipes.schedules._nested import count, rate_at, rate_or_schedule, since


def _sequence(argument, value):
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"`{argument}` must be a list. Received: {argument}={value!r}")
    return list(value)


@keras.saving.register_keras_serializable("kerasrecipes")
class Join(keras.optimizers.schedules.LearningRateSchedule):
    """Follows each schedule in turn; at its boundary the next begins with its step 0.

    Args:
        schedules: list of two or more rates or `LearningRateSchedule`s.
        boundaries: list of the steps at which the second, third, ... schedule begins: positive
            integers that increase, one fewer than schedules.
        name: optional name of the schedule.

    Raises:
        TypeError: if an argument is no list, or an element of the wrong kind.
        ValueError: if `boundaries` is empty, not increasing, or of the wrong length.
    """

    def __init__(self, schedules, boundaries, name="join"):
        super().__init__()
        self.schedules = [
            rate_or_schedule(f"schedules[{i}]", schedule)
            for i, schedule in enumerate(_sequence("schedules", schedules))
        ]
        self.boundaries = [
            integer(f"boundaries[{i}]", boundary, 1)
            for i, boundary in enumerate(_sequence("boundaries", boundaries))
        ]
        self.name = name
        if not self.boundaries:
            raise ValueError(
                "`boundaries` must not be empty. Received: boundaries=[]. A single schedule "
                "needs no Join."
            )
        if len(self.schedules) != len(self.boundaries) + 1:
            raise ValueError(
                "There must be one boundary fewer than schedules. Received: "
                f"{len(self.schedules)} schedules and boundaries={boundaries!r}."
            )
        if any(a >= b for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ValueError(
                "`boundaries` must increase. Received: "
                f"boundaries={boundaries!r}. Give steps counted from the start of training, not "
                "the length of each part."
            )

    def __call__(self, step):
        step = count(step)
        rate = rate_at(self.schedules[0], step)
        for begin, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            rate = ops.where(step < begin, rate, rate_at(schedule, since(step, begin)))
        return rate

    def get_config(self):
        return {
            "schedules": keras.saving.serialize_keras_object(self.schedules),
            "boundaries": self.boundaries,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        schedules = keras.saving.deserialize_keras_object(config["schedules"])
        return cls(**{**config, "schedules": schedules})
