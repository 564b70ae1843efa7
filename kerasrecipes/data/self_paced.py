"""Self-paced learning: the model itself says what is easy, and the bar rises.

How to use
    >>> import keras, numpy as np
    >>> from kerasrecipes.callbacks import Curriculum
    >>> from kerasrecipes.data import SelfPacedDataset
    >>> x, y = np.random.uniform(size=(640, 3)), np.random.uniform(size=(640, 1))
    >>> dataset = SelfPacedDataset(x, y, batch_size=32)
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(dataset, epochs=3, callbacks=[Curriculum(dataset)], verbose=0)
    >>> history.history["curriculum"][-1]
    1.0

Suggested hyperparameters
    `growth`: 1.3 as in the paper. `start`: 0.5. `weighting`: "hard" is the paper's; "linear"
    where labels are noisy, since an example near the bar then counts little. `classes` with
    `quota` 0.2 wherever a class could stay out because it is hard.

When not to use
    Without a reason to distrust the hard examples: at equal updates they are seen less often.
    On data whose losses are of one size the bar lets all in at once. It costs a forward pass
    over all data an epoch.

Technical details
    Alternate minimization of sum v_i f_i + regularizer(v; 1/K) in the weights v (exactly, at the
    begin of each epoch, from the losses f_i in inference mode) and in the network (one epoch).
    With the bar λ = 1/K: hard v = 1[f < λ]; linear v = max(0, 1 - f/λ); log
    v = log((1 - ζ) f/λ + ζ) / log ζ for f < λ, with ζ = 0.1. (Jiang's log has ζ = 1 - λ. That
    needs losses below 1, and its weights fall again as λ nears 1; here its shape is fixed and
    losses are measured in units of the bar.) The bar of epoch e is threshold * growth^e;
    `threshold` is at first the quantile `start` of the losses. In the last epoch of the move all
    are in with weight 1. Examples that are in are drawn evenly, v is their sample weight. A
    quota lifts the bar of a class until its easiest share is in, and the common bar is lifted
    until a batch is in.
    A fit that begins at epoch 0 finds its threshold anew, one that begins later keeps the one
    found before. To resume in another process give the data set that `found_threshold` as its
    `threshold`.

Attribution
    Kumar, Packer, Koller, Self-Paced Learning for Latent Variable Models, NIPS 2010; Jiang et
    al., Easy Samples First, 2014 (linear, log); Jiang et al., Self-Paced Learning with
    Diversity, NIPS 2014 (why classes need quotas).
"""

import numpy as np

from kerasrecipes._checks import number, one_of
from kerasrecipes.data._driven import Driven, check_classes
from kerasrecipes.data.difficulty import difficulty_from

WEIGHTINGS = ("hard", "linear", "log")
_ZETA = 0.1


def self_paced_weights(losses, threshold, weighting="hard"):
    """The v in [0, 1] that minimize the objective at fixed losses; none falls with `threshold`.

    Args:
        losses: array of losses, not negative.
        threshold: the bar λ = 1/K, a positive number, infinity, or an array of one an example.
        weighting: "hard", "linear" or "log".

    Returns:
        float array of the shape of `losses`.
    """
    relative = np.asarray(losses, "float64") / threshold
    if weighting == "hard":
        return (relative < 1).astype("float64")
    if weighting == "linear":
        return np.maximum(0.0, 1.0 - relative)
    inside = np.minimum(relative, 1.0)
    return np.log((1 - _ZETA) * inside + _ZETA) / np.log(_ZETA)


def bars(losses, threshold, least=1, classes=None, quota=0.0):
    """The bar of each example: `threshold`, lifted where too few examples would be in.

    Args:
        losses: array of shape `(n,)`.
        threshold: the common bar.
        least: number of examples that are in at least.
        classes: optional labels of shape `(n,)`.
        quota: share of each class that is in at least.

    Returns:
        float array of shape `(n,)`.
    """
    losses = np.asarray(losses, "float64")
    found = np.full(losses.shape, max(threshold, _just_above(losses, least)))
    for one in [] if classes is None else np.unique(classes):
        members = losses[classes == one]
        lowest = _just_above(members, int(np.ceil(quota * len(members))))
        found[classes == one] = np.maximum(found[classes == one], lowest)
    return found


def _just_above(losses, count):
    """The lowest bar under which `count` losses lie."""
    if count == 0:
        return 0.0
    return np.nextafter(np.partition(losses, count - 1)[count - 1], np.inf)


class SelfPacedDataset(Driven):
    """A `keras.utils.PyDataset` of fixed length that draws what the model finds easy by now.

    `callbacks.Curriculum` moves it; until then it draws from everything, and after a fit from
    what was in last. So do `evaluate`, `predict` and `validation_data`. A fit of more than one
    epoch needs the callback.

    Args:
        x: array, or a list or dict of arrays, of shape `(examples, ...)`.
        y: targets of shape `(examples, ...)`.
        batch_size: examples a batch.
        steps_per_epoch: batches an epoch. None takes as many as all examples fill.
        sample_weight: optional weights of shape `(examples,)`; they multiply v.
        weighting: "hard", "linear" or "log".
        start: share of the examples that is in at first, in (0, 1].
        growth: factor of the bar from epoch to epoch, above 1.
        threshold: the bar of epoch 0, in units of the loss; None finds it.
        classes: optional labels of shape `(examples,)`, for `quota`.
        quota: share of each class that is always in, in [0, 1].
        seed: optional int. With None each data set draws another sequence.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if lengths differ, an argument is out of range, or the pool is smaller than a
            batch.

    Reference:
        Kumar et al., 2010, Self-Paced Learning for Latent Variable Models
    """

    def __init__(
        self,
        x,
        y,
        batch_size=32,
        steps_per_epoch=None,
        sample_weight=None,
        weighting="hard",
        start=0.5,
        growth=1.3,
        threshold=None,
        classes=None,
        quota=0.0,
        seed=None,
    ):
        super().__init__(x, y, sample_weight, batch_size, steps_per_epoch, seed)
        self.weighting = one_of("weighting", weighting, WEIGHTINGS)
        self.start = number("start", start, 0, 1, open_low=True)
        self.growth = number("growth", growth, 1, open_low=True)
        if threshold is not None:
            threshold = number("threshold", threshold, 0, open_low=True)
        self.threshold = threshold
        self.quota = number("quota", quota, 0, 1)
        if self.quota and classes is None:
            raise ValueError("`quota` is a share of each class: give `classes`, the labels.")
        self.classes = check_classes(classes, self.count)
        if self.start * self.count < self.batch_size:
            raise ValueError(
                f"The pool is smaller than a batch: start={self.start} of {self.count} examples, "
                f"batch_size={self.batch_size}. Raise `start` or lower `batch_size`."
            )
        self.v = self._inside = np.ones(self.count)
        self._losses = self.found_threshold = None

    def begin_epoch(self, epoch, batch_size=None, losses=None, everything=False):
        """Moves to an epoch: from now on batches are those of this epoch.

        Args:
            epoch: index of the epoch.
            batch_size: examples a batch from now on; None leaves it.
            losses: the model's losses of shape `(examples,)`; None leaves the weights.
            everything: whether all examples are in, with weight 1.

        Raises:
            ValueError: if there are fewer examples than a batch.
        """
        if losses is not None:
            self._losses = np.asarray(losses, "float64")
            if epoch == 0:
                self.found_threshold = None
        if everything:
            self._losses, self.v, self._inside = None, np.ones(self.count), np.ones(self.count)
        if self._losses is not None:
            # Anew also where only the batch size changes: a batch must be in.
            bar = self._bars(epoch, self.batch_size if batch_size is None else batch_size)
            self.v = self_paced_weights(self._losses, bar, self.weighting)
            self._inside = (self._losses < bar).astype("float64")
        super().begin_epoch(epoch, batch_size)

    def _bars(self, epoch, least):
        if self.found_threshold is None:
            middle = float(np.quantile(self._losses, self.start))
            found = max(middle, np.finfo("float32").tiny) / self.growth**epoch
            self.found_threshold = found if self.threshold is None else self.threshold
        threshold = self.found_threshold * self.growth**epoch
        return bars(self._losses, threshold, min(least, self.count), self.classes, self.quota)

    def losses(self, model):
        """The losses of `model` on each example, in inference mode, without sample weights."""
        return difficulty_from(model, self.x, self.y, batch_size=max(256, self.batch_size))

    def _weights(self):
        return self._inside

    def _weight_of(self, part):
        weight = (
            self.v[part] if self.sample_weight is None else self.v[part] * self.sample_weight[part]
        )
        return weight.astype("float32")
