"""Callbacks, one file each."""

from kerasrecipes.callbacks.batch_size_schedule import BatchSizeSchedule
from kerasrecipes.callbacks.continuation import Continuation
from kerasrecipes.callbacks.curriculum import Curriculum
from kerasrecipes.callbacks.freeze_batch_statistics import FreezeBatchStatistics
from kerasrecipes.callbacks.freezing import Freeze, Unfreeze
from kerasrecipes.callbacks.hyperparameter_monitor import HyperparameterMonitor
from kerasrecipes.callbacks.hyperparameter_schedule import HyperparameterSchedule
from kerasrecipes.callbacks.newton_steps import NewtonSteps
from kerasrecipes.callbacks.swap_accepted_weights import SwapAcceptedWeights

__all__ = [
    "BatchSizeSchedule",
    "Continuation",
    "Curriculum",
    "Freeze",
    "FreezeBatchStatistics",
    "HyperparameterMonitor",
    "HyperparameterSchedule",
    "NewtonSteps",
    "SwapAcceptedWeights",
    "Unfreeze",
]
