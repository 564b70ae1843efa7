"""Named data sets in one form: `(x_train, y_train), (x_test, y_test)` as NumPy arrays.

How to use
    >>> from kerasrecipes.data import load
    >>> (x_train, y_train), (x_test, y_test) = load("digits")
    >>> x_train.shape, x_test.shape
    ((1437, 8, 8), (360, 8, 8))

Suggested hyperparameters
    `name`: "digits" to try things out: it needs no download and trains in seconds; then
    "fashion_mnist", which is harder than "mnist".

When not to use
    For your own data: every function here takes plain arrays.

Technical details
    "digits" is scikit-learn's set of 1,797 images of 8 x 8 pixels with values 0..16, split once
    and for all, stratified, into 1,437 and 360. Everything else is what the module of that name
    in `keras.datasets` gives, unchanged.

Attribution
    Digits: Alpaydin and Kaynak, 1998, UCI, through scikit-learn (CC BY 4.0). The others: see
    https://keras.io/api/datasets
"""

import os

import keras

from kerasrecipes._checks import nearest

_KERAS = (
    "boston_housing",
    "california_housing",
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "imdb",
    "mnist",
    "reuters",
)


def load(name):
    """Loads a data set by name.

    Args:
        name: "digits" or the name of a module of `keras.datasets`, such as "mnist".

    Returns:
        `(x_train, y_train), (x_test, y_test)`, NumPy arrays.

    Raises:
        ValueError: if the name is unknown.
        ImportError: for "digits" without scikit-learn.
        OSError: if the files are not here and cannot be downloaded.
    """
    if name == "digits":
        return _digits()
    if name not in _KERAS:
        raise ValueError(
            f"No data set is called {name!r}: choose one of digits, {', '.join(_KERAS)}."
            f"{nearest(name, ('digits', *_KERAS))}"
        )
    try:
        return getattr(keras.datasets, name).load_data()
    except Exception as error:
        home = os.path.expanduser(os.environ.get("KERAS_HOME", os.path.join("~", ".keras")))
        raise OSError(
            f"The data set {name!r} could not be downloaded ({_first_line(error)}). Without a "
            f"network put its files, as keras.datasets.{name} names them, into "
            f"{os.path.join(home, 'datasets')}, or set KERAS_HOME to the folder that holds "
            "`datasets`; 'digits' needs no download."
        ) from error


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


def _digits():
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("The digits come with scikit-learn: pip install scikit-learn.") from error
    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images.astype("uint8"),
        digits.target.astype("uint8"),
        test_size=360,
        stratify=digits.target,
        random_state=0,
    )
    return (x_train, y_train), (x_test, y_test)
