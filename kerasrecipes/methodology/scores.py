"""How good a prediction is, and where it is worst."""

import numpy as np


def score(y, prediction):
    """Metrics of probabilities (rows, classes) against class numbers, or of values."""
    from sklearn import metrics

    if prediction.ndim == 1:
        return {
            "rmse": float(metrics.root_mean_squared_error(y, prediction)),
            "mae": float(metrics.mean_absolute_error(y, prediction)),
            "r2": float(metrics.r2_score(y, prediction)) if len(y) > 1 else 0.0,
        }
    chosen, labels = prediction.argmax(axis=1), np.arange(prediction.shape[1])
    recall = metrics.recall_score(y, chosen, labels=np.unique(y), average="macro", zero_division=0)
    loss = metrics.log_loss(y, np.asarray(prediction, "float64"), labels=labels)
    return {
        "accuracy": float(metrics.accuracy_score(y, chosen)),
        "balanced_accuracy": float(recall),
        "log_loss": float(loss),
    }


def row_losses(y, prediction):
    """The loss of each row: surprise at the true class, or the distance."""
    if prediction.ndim == 1:
        return np.abs(prediction - y)
    return -np.log(np.maximum(prediction[np.arange(len(y)), y], 1e-12))


def confusion(y, prediction):
    """How many rows of class i were taken for class j."""
    classes = prediction.shape[1]
    pairs = y.astype("int64") * classes + prediction.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
