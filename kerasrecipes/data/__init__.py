"""Data: named sets to start from, sets whose content changes from epoch to epoch."""

from kerasrecipes.data.curriculum import CurriculumDataset
from kerasrecipes.data.difficulty import difficulty_from
from kerasrecipes.data.full_batch import FullBatch
from kerasrecipes.data.load import load
from kerasrecipes.data.self_paced import SelfPacedDataset

__all__ = ["CurriculumDataset", "FullBatch", "SelfPacedDataset", "difficulty_from", "load"]
