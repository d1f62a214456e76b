import json
import sqlite3
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import CODE, STANDINS, client_of, run_script, runs_in, succeed, table_in

SCRIPT = "07_Keep_Snapshot.py"
EXPERIMENT = "keep-snapshot"
NAME = "wine-forest"
pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def lesson(module_work, warm):
    """Two passes: the second finds the table, the model and the tag of the first."""
    printed = [succeed(SCRIPT, module_work), warm.succeed(SCRIPT, module_work)]
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
    assert tags["iceberg_tag"] == f"{NAME}_run_{run.info.run_id}"
    kept = lesson.table.metadata.refs[tags["iceberg_tag"]]
    assert kept.snapshot_ref_type == "tag"
    assert str(kept.snapshot_id) == tags["iceberg_snapshot_id"]


def test_a_version_carries_the_lineage_of_its_run(lesson, run):
    (version,) = (one for one in lesson.versions if one.run_id == run.info.run_id)
    names = {name for name in run.data.tags if name.startswith("iceberg_")} | {"training_table"}
    assert len(names) == 6
    assert version.tags == {name: run.data.tags[name] for name in names}


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


@pytest.fixture(scope="module")
def halves(wines):
    """Training and test wines: each fourth wine in the order of first sight, twins as one."""
    rows = wines[:3000].astype("float64").rename(columns=lambda name: name.replace(" ", "_"))
    numbers = {}
    for wine in rows.drop(columns="quality").itertuples(index=False):
        numbers.setdefault(tuple(wine), len(numbers))
    test = [
        numbers[tuple(wine)] % 4 == 0
        for wine in rows.drop(columns="quality").itertuples(index=False)
    ]
    return rows[~np.array(test)], rows[test]


def test_the_scores_are_those_of_the_logged_model_on_every_fourth_distinct_wine(
    lesson, run, halves
):
    client_of(lesson.work)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/{run.data.tags['registered_version']}")
    train, test = halves
    error = model.predict(test.drop(columns="quality")) - test["quality"]
    logged = run.data.metrics
    assert logged["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-12)
    assert logged["mae"] == pytest.approx(error.abs().mean(), rel=1e-12)
    baseline = test["quality"] - train["quality"].mean()
    assert logged["baseline_rmse"] == pytest.approx(np.sqrt((baseline**2).mean()), rel=1e-12)
    assert logged["rmse"] < 0.85 * logged["baseline_rmse"]
    # A forest that has seen the test wines gets 0.4 or less on them: that would be a leak.
    assert logged["rmse"] > 0.65 * logged["baseline_rmse"]
    assert run.data.params == {"n_estimators": "50", "min_samples_leaf": "3", "random_state": "42"}


def test_no_test_wine_has_a_twin_among_the_training_wines(lesson, halves, wines):
    train, test = (half.drop(columns="quality").drop_duplicates() for half in halves)
    assert len(pd.concat([train, test]).drop_duplicates()) == len(train) + len(test)
    twins = wines[:3000].duplicated(list(wines.columns.drop("quality"))).sum()
    assert f"{len(wines)} wines; {twins} of the first 3000 are twins" in lesson.printed[0]


def test_two_rows_with_one_key_do_not_train_a_model(lesson, halves):
    """Their order would be arbitrary, and with it the model."""
    code = mlflow.artifacts.load_text(f"runs:/{lesson.first.info.run_id}/training.py")
    exec(compile(code, "training.py", "exec"), functions := {})
    table = halves[0][:40].assign(wine_id=range(40))
    rows = SimpleNamespace(orderBy=lambda key: SimpleNamespace(toPandas=table.copy))
    functions["fit_and_score"](rows, lesson.first.data.params)
    table.loc[table.index[1], "wine_id"] = 0
    with pytest.raises(ValueError, match="overlapping"):
        functions["fit_and_score"](rows, lesson.first.data.params)


def test_a_second_pass_gets_the_same_scores(lesson):
    assert lesson.first.data.metrics == lesson.second.data.metrics


def test_without_a_registry_the_run_keeps_its_rows(work, warm):
    """As on a workbench without AI Registry: here the database refuses each registered model."""
    with sqlite3.connect(work / "mlflow.db") as store:
        store.execute(
            "CREATE TRIGGER no_registry BEFORE INSERT ON registered_models "
            "BEGIN SELECT RAISE(ABORT, 'there is no registry'); END"
        )
    store.close()
    printed = warm.succeed(SCRIPT, work)
    (run,) = runs_in(work, EXPERIMENT)
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert printed.count("No registered model: this store refused it") == 1
    assert f"Done: the 3000 rows of run {run.info.run_id} are kept" in printed
    assert "registered_model" not in tags
    refs = table_in(work, "wines").metadata.refs
    assert str(refs[tags["iceberg_tag"]].snapshot_id) == tags["iceberg_snapshot_id"]
    assert f"snapshot {tags['iceberg_snapshot_id']} is kept: 3000 wines" in printed


def test_with_another_table_name_the_table_of_the_old_name_keeps_its_snapshots(work, warm):
    """What the lesson tells the reader to do where the name is taken: edit TABLE."""
    warm.python(
        "from cmlflow.spark import start_spark\n"
        "spark = start_spark('any')\n"
        "theirs = 'spark_catalog.default.wines'\n"
        "spark.range(3).writeTo(theirs).using('iceberg').create()\n"
        "spark.range(2).writeTo(theirs).append()\n",
        work,
    )
    before = table_in(work, "wines").metadata
    refused = warm.run_script(SCRIPT, work)
    assert "TableTaken" in refused.stderr
    assert runs_in(work, EXPERIMENT) == []
    lesson = (CODE / SCRIPT).read_text(encoding="utf-8")
    assert lesson.count("spark_catalog.default.wines") == 2  # the docstring, and TABLE
    edited = work / "edited.py"
    edited.write_text(lesson.replace("spark_catalog.default.wines", "spark_catalog.mine.white"))
    printed = warm.succeed(str(edited), work)
    assert table_in(work, "wines").metadata == before
    tags = runs_in(work, EXPERIMENT)[0].data.tags
    assert f"snapshot {tags['iceberg_parent_id']} is gone" in printed
    assert f"snapshot {tags['iceberg_snapshot_id']} is kept: 3000 wines" in printed
    own = table_in(work, "../mine/white")
    assert len(own.snapshots()) == 2


def test_without_spark_nothing_is_written(work):
    done = run_script(SCRIPT, work, PYTHONPATH=str(STANDINS / "no_pyspark"))
    assert done.returncode != 0
    assert "pyspark is not installed" in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None
    assert client_of(work).search_registered_models() == []
