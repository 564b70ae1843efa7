"""Looking at training from outside: nothing here changes the model."""

from kerasrecipes.diagnostics.gauge import rescale_units
from kerasrecipes.diagnostics.interpolation import interpolate
from kerasrecipes.diagnostics.learning_rate import find_learning_rate
from kerasrecipes.diagnostics.signals import signal_report

__all__ = ["find_learning_rate", "interpolate", "rescale_units", "signal_report"]
