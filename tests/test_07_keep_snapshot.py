import json
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from conftest import STANDINS, client_of, run_script, runs_in, succeed, table_in

SCRIPT = "07_Keep_Snapshot.py"
EXPERIMENT = "keep-snapshot"
NAME = "wine-forest"
pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def lesson(module_work):
    """Two passes: the second finds the table, the model and the tag of the first."""
    printed = [succeed(SCRIPT, module_work) for _ in range(2)]
    runs = runs_in(module_work, EXPERIMENT)
    return SimpleNamespace(
        work=module_work,
        printed=printed,
        first=runs[1],
        second=runs[0],
        table=table_in(module_work, "wines"),
        versions=client_of(module_work).search_model_versions(f"name = '{NAME}'"),
    )


@pytest.fixture(params=["first", "second"])
def run(request, lesson):
    return getattr(lesson, request.param)


def test_each_pass_adds_a_version_with_an_iceberg_tag_on_the_snapshot_of_its_run(lesson, run):
    (version,) = (one for one in lesson.versions if one.run_id == run.info.run_id)
    assert int(version.version) == (1 if run is lesson.first else 2)
    tags = run.data.tags
    assert tags["registered_model"] == NAME
    assert tags["registered_version"] == str(version.version)
    assert tags["iceberg_tag"] == f"{NAME}-v{version.version}"
    kept = lesson.table.metadata.refs[tags["iceberg_tag"]]
    assert kept.snapshot_ref_type == "tag"
    assert str(kept.snapshot_id) == tags["iceberg_snapshot_id"]


def test_maintenance_left_the_current_snapshot_and_those_with_a_tag(lesson):
    left = {snapshot.snapshot_id for snapshot in lesson.table.snapshots()}
    assert left == {ref.snapshot_id for ref in lesson.table.metadata.refs.values()}
    assert len(left) == 3  # a pass each, and the table itself
    for printed, run in zip(lesson.printed, (lesson.first, lesson.second), strict=True):
        assert f"snapshot {run.data.tags['iceberg_snapshot_id']} is kept: 3000 wines" in printed
        gone = run.data.tags["iceberg_parent_id"]
        assert f"snapshot {gone} is gone" in printed
        assert int(gone) not in left


def test_the_kept_rows_are_those_the_model_was_trained_on(lesson, run, wines):
    tags = run.data.tags
    rows = lesson.table.scan(snapshot_id=int(tags["iceberg_snapshot_id"])).to_pandas()
    rows = rows.sort_values("wine_id", ignore_index=True)
    assert len(rows) == int(tags["row_count"]) == 3000
    expected = wines[:3000].astype("float64")
    assert np.array_equal(rows.drop(columns="wine_id").to_numpy(), expected.to_numpy())
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.digest == tags["iceberg_snapshot_id"]
    assert json.loads(used.dataset.profile) == {"num_rows": 3000}
    assert len(lesson.table.scan().to_arrow()) == len(wines)


def test_the_scores_are_those_of_the_logged_model_on_every_fourth_wine(lesson, run, wines):
    client_of(lesson.work)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/{run.data.tags['registered_version']}")
    rows = wines[:3000].astype("float64").rename(columns=lambda name: name.replace(" ", "_"))
    test, train = rows[::4], rows.drop(rows.index[::4])
    error = model.predict(test.drop(columns="quality")) - test["quality"]
    logged = run.data.metrics
    assert logged["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-12)
    assert logged["mae"] == pytest.approx(error.abs().mean(), rel=1e-12)
    constant = test["quality"] - train["quality"].mean()
    assert logged["baseline_rmse"] == pytest.approx(np.sqrt((constant**2).mean()), rel=1e-12)
    assert logged["rmse"] < 0.8 * logged["baseline_rmse"]
    assert run.data.params == {"n_estimators": "50", "min_samples_leaf": "3", "random_state": "42"}


def test_a_second_pass_gets_the_same_scores(lesson):
    assert lesson.first.data.metrics == lesson.second.data.metrics


def test_without_spark_nothing_is_written(work):
    done = run_script(SCRIPT, work, PYTHONPATH=str(STANDINS / "no_pyspark"))
    assert done.returncode != 0
    assert "pyspark is not installed" in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None
    assert client_of(work).search_registered_models() == []
