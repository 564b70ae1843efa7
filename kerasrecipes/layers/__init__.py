"""Layers that Keras lacks, one file a method."""

from kerasrecipes.layers.annealed_dropout import AnnealedDropout
from kerasrecipes.layers.annealed_gaussian_noise import AnnealedGaussianNoise
from kerasrecipes.layers.batch_renormalization import BatchRenormalization
from kerasrecipes.layers.concept_loss import ConceptLoss
from kerasrecipes.layers.gaussian_blur_2d import GaussianBlur2D
from kerasrecipes.layers.maxout import Maxout
from kerasrecipes.layers.mean_only_batch_normalization import MeanOnlyBatchNormalization
from kerasrecipes.layers.mollified_activation import MollifiedActivation
from kerasrecipes.layers.weight_normalization import WeightNormalization

__all__ = [
    "AnnealedDropout",
    "AnnealedGaussianNoise",
    "BatchRenormalization",
    "ConceptLoss",
    "GaussianBlur2D",
    "Maxout",
    "MeanOnlyBatchNormalization",
    "MollifiedActivation",
    "WeightNormalization",
]
