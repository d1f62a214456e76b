"""Generated data with two classes: the rows and the split of Cloudera's AMP "MLFlow Tracking"."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TRAIN_ROWS, TEST_ROWS = 750, 250
FEATURES = tuple(f"feature_{number:02d}" for number in range(20))


def train_and_test() -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series]:
    """Return the rows to train on and the rows to test on, the same ones on every call.

    1000 rows with 20 features: 5 of them tell the two classes apart, 2 are mixtures of those 5,
    and 13 are noise. One label in a hundred is drawn at random, so only luck gets those right.
    A quarter of the rows is kept for testing, with the same share of each class.

    Returns:
        X_train, X_test, y_train, y_test, as scikit-learn orders them. X has the columns FEATURES
        (float64, no unit, none missing) and TRAIN_ROWS or TEST_ROWS rows; y is called `label`
        (int64, 0 or 1) and has the index of its X, the number of the row before the split.
    """
    import pandas as pd
    from sklearn.datasets import make_classification
    from sklearn.model_selection import train_test_split

    rows, labels = make_classification(
        n_samples=TRAIN_ROWS + TEST_ROWS,
        n_features=len(FEATURES),
        n_informative=5,
        random_state=123,
    )
    X = pd.DataFrame(rows, columns=list(FEATURES))
    y = pd.Series(labels, name="label", dtype="int64")
    return train_test_split(X, y, test_size=TEST_ROWS, stratify=y, random_state=123)
