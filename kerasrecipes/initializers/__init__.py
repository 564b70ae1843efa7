"""Starts that Keras lacks: sparse, identity, orthogonal, residual, and scaled by the data."""

from kerasrecipes.initializers.delta_orthogonal import DeltaOrthogonal
from kerasrecipes.initializers.dirac import Dirac
from kerasrecipes.initializers.fixup import fixup
from kerasrecipes.initializers.from_data import initialize_from_data
from kerasrecipes.initializers.sparse import Sparse

__all__ = ["DeltaOrthogonal", "Dirac", "Sparse", "fixup", "initialize_from_data"]
