"""Looking at training from outside: nothing here changes the model."""

from kerasrecipes.diagnostics.interpolation import interpolate
from kerasrecipes.diagnostics.learning_rate import find_learning_rate

__all__ = ["find_learning_rate", "interpolate"]
