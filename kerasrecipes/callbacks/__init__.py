"""Callbacks, one file each."""

from kerasrecipes.callbacks.continuation import Continuation
from kerasrecipes.callbacks.hyperparameter_monitor import HyperparameterMonitor
from kerasrecipes.callbacks.hyperparameter_schedule import HyperparameterSchedule

__all__ = ["Continuation", "HyperparameterMonitor", "HyperparameterSchedule"]
