"""Optimizers that Keras lacks, one file a method."""

from kerasrecipes.optimizers.perturbed_sgd import PerturbedSGD

__all__ = ["PerturbedSGD"]
