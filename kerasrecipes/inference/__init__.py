"""What happens to a model between training and use."""

from kerasrecipes.inference.batch_statistics import reestimate_batch_normalization
from kerasrecipes.inference.fold import fold_batch_normalization
from kerasrecipes.inference.with_batch_statistics import with_batch_statistics

__all__ = ["fold_batch_normalization", "reestimate_batch_normalization", "with_batch_statistics"]
