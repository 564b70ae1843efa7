"""Data: named sets to start from."""

from kerasrecipes.data.load import load

__all__ = ["load"]
