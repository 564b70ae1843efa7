"""Starting from weights that were trained before, layer by layer."""

from kerasrecipes.pretraining.greedy import greedy_supervised

__all__ = ["greedy_supervised"]
