"""Losses that Keras lacks, one file each."""

from kerasrecipes.losses.scheduled import Scheduled

__all__ = ["Scheduled"]
