"""Momentum that grows in steps from 0.5 towards 1, and is lowered for the last updates.

How to use
    >>> from kerasrecipes.schedules import SutskeverMomentum
    >>> schedule = SutskeverMomentum(maximum=0.99, interval=250)
    >>> [round(float(schedule(step)), 4) for step in (0, 249, 250, 500, 1000, 100_000)]
    [0.5, 0.5, 0.75, 0.8333, 0.9, 0.99]

Suggested hyperparameters
    `maximum`: 0.9, 0.99, 0.995 or 0.999, the larger the longer the run. `steps`, with `last` 1000
    and `final` 0.9, where the run's end is known: the lower momentum lets the weights settle.

When not to use
    In runs of a few thousand steps, where 0.9 throughout does; with Adam, whose beta_1 is no
    momentum of this kind. As a learning rate it makes no sense.

Technical details
    mu_t = min(1 - 2^(-1 - log2(floor(t / interval) + 1)), maximum), which is
    1 - 1 / (2 (floor(t / interval) + 1)), computed in that form: the floor is taken in integers.
    From step steps - last on it is at most `final`. It moves the momentum of an optimizer through
    `callbacks.HyperparameterSchedule("momentum", schedule)`. Keras's Nesterov form stores the
    looked-ahead point, which is the paper's only while the momentum stands still: each of the rare
    changes moves the two apart by that change times the velocity.

Attribution
    Sutskever, Martens, Dahl, Hinton, On the importance of initialization and momentum in deep
    learning, ICML 2013, equation 5; section 3 for the lower momentum of the last 1000 updates.
"""

import keras
from keras import ops

from kerasrecipes._checks import integer, number
from kerasrecipes.schedules._nested import count


@keras.saving.register_keras_serializable("kerasrecipes")
class SutskeverMomentum(keras.optimizers.schedules.LearningRateSchedule):
    """Momentum 1/2, 3/4, 5/6, 7/8, ... up to `maximum`, a new one in every `interval` updates.

    Args:
        maximum: the highest momentum, in [0, 1).
        interval: number of updates for which a momentum holds.
        steps: optional number of updates of the whole run.
        last: number of updates at the end of `steps` in which the momentum is at most `final`.
        final: the momentum of these, in [0, 1).
        name: optional name of the schedule.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is out of range, or `last` exceeds `steps`.

    Reference:
        Sutskever, Martens, Dahl, Hinton, 2013, equation 5
    """

    def __init__(
        self,
        maximum=0.99,
        interval=250,
        steps=None,
        last=1000,
        final=0.9,
        name="sutskever_momentum",
    ):
        super().__init__()
        self.maximum = number("maximum", maximum, 0, 1, open_high=True)
        self.interval = integer("interval", interval, 1)
        self.steps = None if steps is None else integer("steps", steps, 1)
        self.last = integer("last", last, 0)
        self.final = number("final", final, 0, 1, open_high=True)
        self.name = name
        if self.steps is not None and self.last > self.steps:
            raise ValueError(
                f"`last` must not exceed `steps`. Received: last={last!r}, steps={steps!r}. Lower "
                "`last`."
            )

    def __call__(self, step):
        step = count(step)
        stage = ops.cast(step // self.interval, "float32")
        momentum = ops.minimum(1.0 - 0.5 / (stage + 1.0), self.maximum)
        if self.steps is None:
            return momentum
        ending = step >= self.steps - self.last
        return ops.where(ending, ops.minimum(momentum, self.final), momentum)

    def get_config(self):
        return {
            "maximum": self.maximum,
            "interval": self.interval,
            "steps": self.steps,
            "last": self.last,
            "final": self.final,
            "name": self.name,
        }
