"""Callbacks, one file each."""

from kerasrecipes.callbacks.hyperparameter_schedule import HyperparameterSchedule

__all__ = ["HyperparameterSchedule"]
