"""Optimizers that Keras lacks, one file a method."""

from kerasrecipes.optimizers.inject_hyperparams import inject_hyperparams
from kerasrecipes.optimizers.perturbed_sgd import PerturbedSGD

__all__ = ["PerturbedSGD", "inject_hyperparams"]
