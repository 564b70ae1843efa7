"""Layers that Keras lacks, one file a method."""

from kerasrecipes.layers.weight_normalization import WeightNormalization

__all__ = ["WeightNormalization"]
