"""Schedules that Keras lacks, and what theory says of rate and momentum."""

from kerasrecipes.schedules import theory
from kerasrecipes.schedules.one_cycle import OneCycle, one_cycle

__all__ = ["OneCycle", "one_cycle", "theory"]
