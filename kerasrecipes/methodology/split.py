"""Training, validation and test rows, each class in its proportion."""

import numpy as np


def take(x, rows):
    """The chosen rows of an array or of a table (a dict of columns)."""
    return {name: column[rows] for name, column in x.items()} if isinstance(x, dict) else x[rows]


def split(y, seed, classes, has_test, test=0.2, validation=0.15, most=10_000):
    """Row numbers of the training, validation and test part; no test part if there is one."""
    from sklearn.model_selection import train_test_split

    rest, parts = np.arange(len(y)), []
    for share in (0.0 if has_test else test, validation):
        rows = np.arange(0)
        if share:
            # A stratified part needs a row of each class, however small the share.
            size = max(min(round(share * len(y)), most), classes, 1)
            strata = y[rest] if classes else None
            rest, rows = train_test_split(rest, test_size=size, random_state=seed, stratify=strata)
        parts.append(rows)
    return rest, parts[1], parts[0]
