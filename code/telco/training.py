"""How probable is a failure? The training code of Part 4, which every run logs as training.py.

01 and 04 train with it, and 08_Reproduce_Run.py repeats a run by its two functions
`fit_and_score(rows, params)` and `predict(model, rows)`. A message with a key that five divides is
for the test, in every batch: so champion and challenger meet on messages that neither has seen.
"""

import numpy as np
from xgboost import Booster, DMatrix, XGBClassifier

from cmlflow import scores

FEATURES = [
    "iot_signal_1",
    "iot_signal_2",
    "iot_signal_3",
    "iot_signal_4",
    "signal_score",
    "event_severity",
]
LABEL, KEY, FOLDS = "cell_tower_failure", "message_id", 5
KINDS = {"learning_rate": float, "tree_method": str}  # 08_Reproduce_Run.py brings text


def in_order(rows):
    """Return rows of Spark as a pandas DataFrame, ordered by the key: trees depend on the order."""
    table = rows.select(KEY, "batch_id", *FEATURES, LABEL).toPandas()
    return table.sort_values(KEY, ignore_index=True)


def fit(table, params):
    """Return a booster: it answers a probability, where the classifier itself answers 0 or 1."""
    params = {name: KINDS.get(name, int)(value) for name, value in params.items()}
    model = XGBClassifier(**params, objective="binary:logistic")
    return model.fit(table[FEATURES], table[LABEL]).get_booster()


def probability(model, table):
    """Return how probable a failure is, for each row in its order."""
    return model.predict(DMatrix(table[FEATURES]))


def fit_in_spark(rows, params):
    """Do the same on Spark's executors, for rows that one machine cannot hold."""
    from xgboost.spark import SparkXGBClassifier

    params = {name: KINDS.get(name, int)(value) for name, value in params.items()}
    params = {name: value for name, value in params.items() if name != "n_jobs"}
    places = {"features_col": FEATURES, "label_col": LABEL, "verbose": False}
    fitted = SparkXGBClassifier(**params, **places).fit(rows)
    return Booster(model_file=bytearray(fitted.get_booster().save_raw("ubj")))


def sample(rows, at_most=200_000):
    """Return about so many rows, or all if there are fewer; always the same ones."""
    parts = -(-rows.count() // at_most)
    return in_order(rows.where(f"pmod(xxhash64({KEY}), {parts}) = 0") if parts > 1 else rows)


def measure(model, table, out_of_fold):
    """Return the metrics on the last fifth, each with what a trivial rule gets beside it."""
    train, test = table[table[KEY] % FOLDS != 0], table[table[KEY] % FOLDS == 0]
    share = float(train[LABEL].mean())
    threshold, _ = scores.best_threshold(train[LABEL], probability(model, train))
    found = scores.of(test[LABEL], probability(model, test), threshold)
    found["baseline_roc_auc"] = 0.5
    found["baseline_average_precision"] = found["failure_share"]
    found["baseline_log_loss"] = scores.log_loss(test[LABEL], np.full(len(test), share))
    found["train_failure_share"] = share
    found["out_of_fold_roc_auc"] = found["roc_auc"] if out_of_fold is None else out_of_fold
    return found


def fit_and_score(rows, params):
    """Train on four fifths of the rows; return the model, and its metrics on the last fifth."""
    if "num_workers" in params:
        model = fit_in_spark(rows.where(f"{KEY} % {FOLDS} != 0"), params)
        return model, measure(model, sample(rows), None)
    table = in_order(rows)
    fold = table[KEY] % FOLDS
    answers, models = np.empty(len(table)), []
    for held_out in range(FOLDS):
        models.append(fit(table[fold != held_out], params))
        answers[fold == held_out] = probability(models[-1], table[fold == held_out])
    return models[0], measure(models[0], table, scores.roc_auc(table[LABEL], answers))


def predict(model, rows):
    """Return the probability of a failure for each row, in the order of the key."""
    return probability(model, in_order(rows))
