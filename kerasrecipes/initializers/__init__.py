"""Starts that Keras lacks: sparse connections, and a network scaled by its data."""

from kerasrecipes.initializers.from_data import initialize_from_data
from kerasrecipes.initializers.sparse import Sparse

__all__ = ["Sparse", "initialize_from_data"]
