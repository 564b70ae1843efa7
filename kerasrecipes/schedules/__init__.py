"""Schedules that Keras lacks, and what theory says of rate and momentum."""

from kerasrecipes.schedules import theory
from kerasrecipes.schedules.join import Join
from kerasrecipes.schedules.one_cycle import OneCycle, one_cycle
from kerasrecipes.schedules.robbins_monro import is_robbins_monro
from kerasrecipes.schedules.staircase import Staircase
from kerasrecipes.schedules.sutskever_momentum import SutskeverMomentum
from kerasrecipes.schedules.warm_up import WarmUp
from kerasrecipes.schedules.warmup_stable_decay import WarmupStableDecay

__all__ = [
    "Join",
    "OneCycle",
    "Staircase",
    "SutskeverMomentum",
    "WarmUp",
    "WarmupStableDecay",
    "is_robbins_monro",
    "one_cycle",
    "theory",
]
