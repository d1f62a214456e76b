import pytest
from conftest import STANDINS, client_of, files_of, run_script

SCRIPT = "15_XGBoost_Distributed.py"
EXPERIMENT = "xgboost-fraud"
pytestmark = pytest.mark.spark
# What its run keeps is tested beside the runs of one machine, in test_14_xgboost_iceberg.py.


def test_both_ways_of_training_reach_comparable_scores(fraud_pass):
    one, spark = fraud_pass.second.data.metrics, fraud_pass.distributed.data.metrics
    # Chance moves the scores of so few test rows by 0.01 and 0.03 from sample to sample.
    assert spark["roc_auc"] == pytest.approx(one["roc_auc"], abs=0.01)
    assert spark["average_precision"] == pytest.approx(one["average_precision"], abs=0.03)
    assert spark["log_loss"] == pytest.approx(one["log_loss"], abs=0.003)
    assert fraud_pass.distributed.data.params["num_workers"] in ("1", "2")
    tags = fraud_pass.distributed.data.tags
    assert tags["iceberg_snapshot_id"] == fraud_pass.second.data.tags["iceberg_snapshot_id"]


def test_its_trees_are_grown_with_the_params_of_lesson_14(fraud_pass):
    one, spark = fraud_pass.second.data.params, fraud_pass.distributed.data.params
    assert set(spark) == set(one) - {"n_jobs"} | {"num_workers"}
    assert {name: one[name] for name in one if name != "n_jobs"} == {
        name: spark[name] for name in spark if name != "num_workers"
    }


def test_it_prints_both_scores_of_the_same_snapshot_side_by_side(fraud_pass):
    one, spark = fraud_pass.second.data.metrics, fraud_pass.distributed.data.metrics
    for name in ("average_precision", "roc_auc", "log_loss"):
        line = f"{name}: {spark[name]:.3f}; one machine: {one[name]:.3f}\n"
        assert line in fraud_pass.printed["distributed"]
    both = (fraud_pass.distributed.info.run_id, fraud_pass.second.info.run_id)
    assert "compare-runs?runs=%5B%22" + "%22%2C%22".join(both) in fraud_pass.printed["distributed"]


def test_its_metrics_have_the_names_of_lesson_14(fraud_pass):
    assert set(fraud_pass.distributed.data.metrics) == set(fraud_pass.second.data.metrics)


def test_only_what_can_be_repeated_logs_its_training_code(fraud_pass):
    assert "training.py" in files_of(fraud_pass.work, fraud_pass.first)
    assert "training.py" not in files_of(fraud_pass.work, fraud_pass.distributed)


def test_without_pyarrow_it_stops_before_spark_and_before_any_run(work):
    done = run_script(SCRIPT, work, PYTHONPATH=str(STANDINS / "no_pyarrow"))
    assert done.returncode != 0
    assert "pyarrow is not installed for " in done.stderr
    assert "To install it, run:  pip install pyarrow" in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None
    assert not (work / "spark-warehouse.lock").exists()
