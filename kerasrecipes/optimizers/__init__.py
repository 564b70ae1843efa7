"""Optimizers that Keras lacks, one file a method."""

from kerasrecipes.optimizers.inject_hyperparams import inject_hyperparams
from kerasrecipes.optimizers.masked import Masked
from kerasrecipes.optimizers.parameter_blur import ParameterBlur
from kerasrecipes.optimizers.perturbed_sgd import PerturbedSGD
from kerasrecipes.optimizers.sam import SAM

__all__ = [
    "Masked",
    "ParameterBlur",
    "PerturbedSGD",
    "SAM",
    "inject_hyperparams",
]
