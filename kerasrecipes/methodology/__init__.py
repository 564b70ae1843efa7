"""From data to a figure one can trust."""

from kerasrecipes.methodology.baseline import baseline
from kerasrecipes.methodology.result import Baseline, load

__all__ = ["Baseline", "baseline", "load"]
