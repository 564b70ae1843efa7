"""Many evaluations an epoch of all the data, made of tensors once.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.data import FullBatch
    >>> from kerasrecipes.optimizers import LBFGS
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(LBFGS(), loss="mse")
    >>> x = np.ones((32, 2), "float32")
    >>> history = model.fit(FullBatch(x, x[:, :1], steps=20), epochs=1, verbose=0)

Suggested hyperparameters
    `steps`: evaluations between two looks at validation data, from 10 to 100. Each
    epoch of Keras has a cost of its own, which small models feel.

When not to use
    Where the data does not fit onto the device at once: `fit(x, y)` with
    `gradient_accumulation_steps=batches` in the optimizer and `shuffle=False`.

Technical details
    Each of the `steps` batches of an epoch is the same one. On JAX and PyTorch it stays on the
    device; on TensorFlow Keras passes each batch through tf.data, which copies it by way of the
    host: `minimize` does not. `validation_data` works as ever. With `LBFGS` or `NonlinearCG` each
    batch is one evaluation of their searches.

Attribution
    After the full-batch loops of numerical optimization.
"""

import keras

from kerasrecipes._checks import integer
from kerasrecipes._model.batches import as_arrays, as_tensors, check_lengths


class FullBatch(keras.utils.PyDataset):
    """All examples, `steps` times an epoch.

    Args:
        x: array, or a list or dict of arrays, of shape `(examples, ...)`.
        y: targets, likewise, or None if the model's loss needs none.
        steps: batches an epoch.
        sample_weight: weights of the examples, as for `fit`.

    Raises:
        TypeError: if `steps` is no integer.
        ValueError: if `steps` is less than 1, if the data is empty, of unequal lengths or has NaN.
    """

    def __init__(self, x, y=None, steps=1, sample_weight=None):
        super().__init__()
        self.steps = integer("steps", steps, 1)
        parts = {"x": x, "y": y, "sample_weight": sample_weight}
        parts = {k: None if v is None else as_arrays(k, v) for k, v in parts.items()}
        check_lengths(**parts)
        batch = [as_tensors(v) for v in parts.values()]
        while len(batch) > 1 and batch[-1] is None:
            batch.pop()
        # Keras takes a list for one leaf on TensorFlow.
        self.batch = keras.tree.lists_to_tuples(batch)

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        if not 0 <= index < self.steps:
            raise IndexError(f"There are {self.steps} batches an epoch. Received: {index}")
        return self.batch
