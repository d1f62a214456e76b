"""Part 4 where a day does not fit into one machine: the same numbers, made by Spark."""

import mlflow
import pytest
from conftest import client_of, runs_in, table_in

TOWERS = "telco_cell_towers"
COUNTED_TWICE = """
import numpy as np
from cmlflow import drift, towers
from cmlflow.spark import start_spark

then = towers.messages(towers.Story(), range(1, 3))
now = towers.messages(towers.Story(drift="firmware", drift_from=1), [8])
now.loc[3, "iot_signal_1"] = np.nan
now.loc[4, "signal_score"] = np.nan
now.loc[5, "iot_signal_3"] = 77.0
reference = drift.reference(then, towers.FEATURES, 0.2, 0.85, 0.23)
now.loc[6, "signal_score"] = reference["features"]["signal_score"]["edges"][2]
here = drift.bin_counts(reference, now)
spark = start_spark("")
there = drift.bin_counts_in_spark(reference, spark.createDataFrame(now[towers.FEATURES]))
for name, counts in here.items():
    assert counts.tolist() == there[name].tolist(), name
print(sum(int(counts.sum()) for counts in here.values()))
"""

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def scaled(module_work, warm):
    """A challenger that two executors trained, and one that was trained here, on the same day."""
    warm.succeed("telco/00_datagen.py", module_work, "--days", "1")
    for _ in range(2):
        warm.succeed("telco/03_newbatch.py", module_work, "--drift", "none")
    warm.succeed("telco/04_train_xgboost.py", module_work)
    warm.succeed("telco/04_train_xgboost.py", module_work, "--num-workers", "2")
    there, here = runs_in(module_work, "xgb-telco")
    return module_work, there, here


def test_executors_train_nearly_the_same_model(scaled):
    work, there, here = scaled
    assert there.data.params["num_workers"] == "2" and "num_workers" not in here.data.params
    assert there.data.tags["row_count"] == here.data.tags["row_count"] == "1440"
    for name in ("roc_auc", "log_loss", "accuracy"):
        assert there.data.metrics[name] == pytest.approx(here.data.metrics[name], abs=0.03)
    client_of(work)
    rows = table_in(work, TOWERS).scan(row_filter="batch_id = 2").to_pandas()
    inputs = rows.sort_values("message_id").filter(regex="^(iot_|signal_|event_severity)")
    one, two = (mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model") for run in (there, here))
    columns = one.metadata.get_input_schema().input_names()
    apart = abs(one.predict(inputs[columns]) - two.predict(inputs[columns]))
    assert apart.mean() < 0.02 and ((one.predict(inputs[columns]) > 0).all())


def test_spark_counts_the_bins_that_are_counted_here(warm, tmp_path):
    printed = warm.python(COUNTED_TWICE, tmp_path)
    assert printed.split()[-1] == str(6 * 1440)
