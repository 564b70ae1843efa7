"""A compiled model and its data as a function of one flat vector."""

from kerasrecipes.objective.objective import Objective

__all__ = ["Objective"]
