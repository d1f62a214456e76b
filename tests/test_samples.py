import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split

from cmlflow import samples


@pytest.fixture(scope="module")
def parts():
    return samples.train_and_test()


def test_rows_and_split_are_those_of_the_amp(parts):
    """The call that the AMP's scripts/data.py makes, on arrays."""
    X, y = make_classification(n_features=20, n_informative=5, n_samples=1000, random_state=123)
    for part, expected in zip(
        parts, train_test_split(X, y, stratify=y, random_state=123), strict=True
    ):
        np.testing.assert_array_equal(part.to_numpy(), expected)


def test_shapes_columns_and_types_are_those_of_the_docstring(parts):
    X_train, X_test, y_train, y_test = parts
    assert X_train.shape == (samples.TRAIN_ROWS, 20)
    assert X_test.shape == (samples.TEST_ROWS, 20)
    for X, y in ((X_train, y_train), (X_test, y_test)):
        assert list(X.columns) == list(samples.FEATURES)
        assert (X.columns[0], X.columns[-1]) == ("feature_00", "feature_19")
        assert set(X.dtypes) == {np.dtype("float64")}
        assert (y.name, y.dtype, set(y)) == ("label", np.dtype("int64"), {0, 1})
        assert X.index.equals(y.index)
        assert X.notna().all(axis=None)


def test_no_row_is_in_both_parts(parts):
    X_train, X_test, *_ = parts
    assert sorted([*X_train.index, *X_test.index]) == list(range(1000))
    assert not pd.concat([X_train, X_test]).duplicated().any()


def test_both_classes_have_equal_shares_in_both_parts(parts):
    *_, y_train, y_test = parts
    assert abs(y_train.mean() - y_test.mean()) < 1 / samples.TEST_ROWS


def test_changing_the_rows_changes_no_later_call(parts):
    mine = samples.train_and_test()
    mine[0].iloc[:] = 0.0
    pd.testing.assert_frame_equal(samples.train_and_test()[0], parts[0])
