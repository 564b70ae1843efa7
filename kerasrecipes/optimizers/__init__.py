"""Optimizers that Keras lacks, one file a method."""

from kerasrecipes.optimizers.gauss_newton import GaussNewton
from kerasrecipes.optimizers.inject_hyperparams import inject_hyperparams
from kerasrecipes.optimizers.lbfgs import LBFGS
from kerasrecipes.optimizers.masked import Masked
from kerasrecipes.optimizers.minimize import minimize
from kerasrecipes.optimizers.newton import Newton
from kerasrecipes.optimizers.nonlinear_cg import NonlinearCG
from kerasrecipes.optimizers.parameter_blur import ParameterBlur
from kerasrecipes.optimizers.path_sgd import PathSGD, path_scaling
from kerasrecipes.optimizers.perturbed_sgd import PerturbedSGD
from kerasrecipes.optimizers.saddle_free_newton import SaddleFreeNewton
from kerasrecipes.optimizers.sam import SAM

__all__ = [
    "LBFGS",
    "GaussNewton",
    "Masked",
    "NonlinearCG",
    "Newton",
    "ParameterBlur",
    "PathSGD",
    "PerturbedSGD",
    "SAM",
    "SaddleFreeNewton",
    "inject_hyperparams",
    "minimize",
    "path_scaling",
]
