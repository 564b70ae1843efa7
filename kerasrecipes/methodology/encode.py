"""Columns and images as arrays a network takes; the state is plain JSON, learned from train."""

from collections import Counter

import numpy as np


def fit_number(column, bins):
    """Mean, deviation and quantile edges of a column of numbers."""
    known = column[np.isfinite(column)]
    known = known if len(known) else np.zeros(1)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1))) if bins else []
    return {
        "mean": float(known.mean()),
        "deviation": float(known.std()) or 1.0,
        "edges": [float(edge) for edge in edges] if len(edges) > 2 else [],
        "missing": bool(len(known) < len(column)),
    }


def encode_number(column, mean, deviation, edges, missing):
    """The standardised number, how far it is through each bin, and whether it is missing."""
    known = np.isfinite(column)
    # Clipped, for one wild value must not drown the others; unknown is as the mean.
    features = [np.where(known, np.clip((column - mean) / deviation, -8, 8), 0)]
    if edges:
        low, high = np.array(edges[:-1]), np.array(edges[1:])
        filled = np.where(known, column, mean)[:, None]
        features += list(np.clip((filled - low) / (high - low), 0, 1).T)
    return features + ([~known] if missing else [])


def fit_category(column, most=250, least=3):
    """The values seen often enough to learn from, the commonest first."""
    counts = Counter(value for value in column if value is not None)
    often = [value for value, count in counts.items() if count >= least]
    return sorted(often, key=lambda value: (-counts[value], value))[:most]


def encode_category(column, values):
    """0 where the value is rare or unseen, 1 where it is missing, then the known values."""
    number = {value: index for index, value in enumerate(values, start=2)}
    return [1 if value is None else number.get(value, 0) for value in column]


def fit_table(columns, bins):
    """The state of a table's encoder: what it must remember of each column."""
    numbers = {n: fit_number(c, bins) for n, c in columns.items() if c.dtype != object}
    categories = {n: fit_category(c) for n, c in columns.items() if c.dtype == object}
    return {"kind": "table", "numbers": numbers, "categories": categories}


def encode_table(columns, numbers, categories, **_):
    """The network's inputs: "numbers" (rows, features), "categories" (rows, columns)."""
    inputs = {}
    if numbers:
        features = [f for n, s in numbers.items() for f in encode_number(columns[n], **s)]
        inputs["numbers"] = np.stack(features, axis=1, dtype="float32", casting="unsafe")
    if categories:
        ids = [encode_category(columns[n], values) for n, values in categories.items()]
        inputs["categories"] = np.array(ids, "int32").T
    return inputs


def plain_table(columns, numbers, categories, **_):
    """The inputs of scikit-learn's methods: numbers as they are, NaN where one is not known."""
    inputs = {}
    if numbers:
        raw = np.stack([columns[name] for name in numbers], axis=1)
        inputs["numbers"] = np.where(np.isfinite(raw), raw, np.nan)
    return inputs | encode_table(columns, {}, categories)


def fit_image(images):
    """The state of an image encoder: shape and range of the pixels."""
    shape = [*images.shape[1:], 1][:3]
    return {
        "kind": "image",
        "shape": shape,
        "low": float(images.min()),
        "high": float(images.max()),
    }


def encode_image(images, shape, low, high, **_):
    """Images with a channel axis and pixels from 0 to 1."""
    images = images.reshape(len(images), *shape).astype("float32")
    return (images - low) / ((high - low) or 1)


def encode(x, state):
    """Raw rows as the network's inputs."""
    return (encode_table if state["kind"] == "table" else encode_image)(x, **state)
