"""What the schedules made of other schedules share."""

import keras
from keras import ops

from kerasrecipes._checks import number


def rate_or_schedule(argument, value):
    """Returns a rate as a float or a Keras schedule as it is, else raises a TypeError."""
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return value
    if callable(value) or isinstance(value, (str, dict)):
        raise TypeError(
            f"`{argument}` must be a number or a keras.optimizers.schedules.LearningRateSchedule, "
            f"which can be saved with the model. Received: {argument}={value!r}. Write a function "
            "as a subclass of LearningRateSchedule with a `get_config`."
        )
    return number(argument, value, 0)


def rate_at(schedule, step):
    """The rate of a float or a schedule at `step`, a float32 tensor."""
    return ops.cast(schedule(step) if callable(schedule) else schedule, "float32")


def count(step):
    """`step` as a tensor that keeps its integer dtype, in which differences are exact."""
    return ops.convert_to_tensor(step)


def since(step, begin):
    """Steps since `begin`, 0 before it: a schedule need not be defined at negative steps."""
    return ops.maximum(step - begin, 0)
