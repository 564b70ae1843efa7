"""What happens to a model between training and use."""

from kerasrecipes.inference.batch_statistics import reestimate_batch_normalization

__all__ = ["reestimate_batch_normalization"]
