"""Named data sets."""

import keras
import numpy as np
import pytest

from kerasrecipes.data import load


def test_digits_are_split_once_and_for_all_and_stratified():
    (x, y), (x_test, y_test) = load("digits")
    assert x.shape == (1437, 8, 8) and x_test.shape == (360, 8, 8)
    assert x.dtype == y.dtype == np.uint8 and x.max() == 16
    shares = np.bincount(y_test) / np.bincount(np.concatenate([y, y_test]))
    np.testing.assert_allclose(shares, 360 / 1797, atol=0.005)
    np.testing.assert_array_equal(x_test, load("digits")[1][0])


def test_offline_the_error_says_where_to_put_the_file(monkeypatch, tmp_path):
    def refuse():
        raise Exception("URL fetch failure on https://example.org: None -- no route\nmore")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(OSError, match="no route") as caught:
        load("mnist")
    assert str(tmp_path / "datasets") in str(caught.value)
    assert "digits" in str(caught.value) and "more" not in str(caught.value)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_the_others_are_those_of_keras(monkeypatch, name):
    marker = object()
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: marker)
    assert load(name) is marker
