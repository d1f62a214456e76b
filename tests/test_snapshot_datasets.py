"""A snapshot as an MLflow dataset, and what keeps it: each `python` below is a fresh process."""

import json
from types import SimpleNamespace

import pytest
from conftest import ROOT, python, runs_in, table_in

pytestmark = pytest.mark.spark
TABLE = "spark_catalog.default.parcels"
WRITE = """
import json
import mlflow
from cmlflow import snapshots, store, workarea
from cmlflow.spark import start_spark

TABLE = "spark_catalog.default.parcels"
spark = start_spark("any")


def frame(first, last):
    return spark.createDataFrame([(i, f"p{i}", i / 2) for i in range(first, last)],
                                 "id LONG, name STRING, weight_kg DOUBLE")


def expire():
    spark.sql("CALL spark_catalog.system.expire_snapshots(table => 'default.parcels', "
              "older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1)")
"""


@pytest.fixture(scope="module")
def area(module_work):
    """Two snapshots, a run on each; then the table is replaced, one is pinned, the rest expires."""
    python(
        WRITE
        + """
store.use_store("parcels")
mlflow.set_experiment("parcels")
ids = []
for first, last in ((0, 3), (3, 5)):
    writer = frame(first, last).writeTo(TABLE)
    writer.append() if first else writer.using("iceberg").createOrReplace()
    snapshot = snapshots.current(spark, TABLE, made_by="code/x.py")
    with mlflow.start_run(run_name=f"to-{last}"):
        rows = spark.table(TABLE)
        mlflow.log_input(mlflow.data.from_iceberg(rows, snapshot), context="training")
frame(10, 11).writeTo(TABLE).using("iceberg").createOrReplace()
""",
        module_work,
    )
    runs = {run.info.run_name: run for run in runs_in(module_work, "parcels")}
    return SimpleNamespace(work=module_work, runs=runs, table=table_in(module_work, "parcels"))


LOAD = """
import sys
import mlflow
from cmlflow import workarea
store.use_store()
run = mlflow.get_run(sys.argv[1])
source = mlflow.data.get_source(run.inputs.dataset_inputs[0])
try:
    print(sorted(row.id for row in source.load().collect()))
except Exception as error:
    print(type(error).__name__, error)
"""


def dataset_of(run):
    (used,) = run.inputs.dataset_inputs
    return used.dataset


def test_the_store_has_name_digest_schema_and_rows(area):
    for name, count, snapshot in zip(
        ("to-3", "to-5"), (3, 5), area.table.snapshots()[:2], strict=True
    ):
        dataset = dataset_of(area.runs[name])
        assert (dataset.name, dataset.digest) == (TABLE, str(snapshot.snapshot_id))
        assert len(dataset.digest) <= 36
        assert dataset.source_type == "iceberg"
        assert json.loads(dataset.profile) == {"num_rows": count}
        columns = json.loads(dataset.schema)["mlflow_colspec"]
        assert [(column["name"], column["type"]) for column in columns] == [
            ("id", "long"),
            ("name", "string"),
            ("weight_kg", "double"),
        ]


def test_its_source_names_table_snapshot_and_catalog_and_nothing_else(area):
    dataset = dataset_of(area.runs["to-3"])
    assert json.loads(dataset.source) == {
        "table": TABLE,
        "snapshot_id": dataset.digest,
        "catalog": (area.work / "spark-warehouse").as_uri(),
    }


def test_a_fresh_process_finds_exactly_the_rows_although_the_table_has_changed(area):
    for name, ids in (("to-3", [0, 1, 2]), ("to-5", [0, 1, 2, 3, 4])):
        assert python(LOAD, area.work, area.runs[name].info.run_id).strip() == str(ids)


def test_the_digest_finds_the_runs_of_a_snapshot(area):
    found = python(
        "import sys, mlflow\n"
        "from cmlflow import workarea\n"
        "store.use_store()\n"
        "runs = mlflow.search_runs(search_all_experiments=True,"
        " filter_string=f\"dataset.digest = '{sys.argv[1]}'\")\n"
        "print(*runs['tags.mlflow.runName'])",
        area.work,
        dataset_of(area.runs["to-5"]).digest,
    )
    assert found.split() == ["to-5"]


def recipe(heading):
    """The code block under a heading of the README, as a reader would copy it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (section,) = (part for part in readme.split("\n### ") if part.startswith(heading))
    return section.partition("```python\n")[2].partition("```")[0]


def test_the_recipe_from_a_model_to_its_data_works_as_written(area):
    run = area.runs["to-3"]
    code = recipe("Which data made this model?").replace("<run id>", run.info.run_id)
    printed = python(code, area.work).splitlines()
    assert printed == [f"{TABLE} {dataset_of(run).digest}", "3 rows"]


def test_the_recipe_from_data_to_its_models_works_as_written(area):
    run = area.runs["to-5"]
    code = recipe("Which models saw this data?")
    code = code.replace("<snapshot id>", dataset_of(run).digest)
    printed = python(code, area.work)
    assert run.info.run_id in printed
    assert area.runs["to-3"].info.run_id not in printed
    nothing = python(recipe("Which models saw this data?"), area.work)  # an id that nobody has
    assert "Empty DataFrame" in nothing


@pytest.fixture(scope="module")
def maintained(area):
    """The newer snapshot is pinned twice; everything that may expire does, twice; then unpinned."""
    pinned, lost = (dataset_of(area.runs[name]).digest for name in ("to-5", "to-3"))
    printed = python(
        WRITE
        + """
import sys
pinned, lost = sys.argv[1:]
said = {"lost": lost}
said["names"] = [snapshots.pin(spark, TABLE, pinned, "Parcel model", 7) for _ in range(2)]
expire()
expire()
said["kept"] = snapshots.known_ids(spark, TABLE)
for name, call in (
    ("taken", lambda: snapshots.pin(spark, TABLE, said["kept"][-1], "Parcel model", 7)),
    ("gone", lambda: snapshots.pin(spark, TABLE, lost, "Parcel model", 8)),
):
    try:
        call()
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"
said["refs"] = [[row.name, str(row.snapshot_id)] for row in
                spark.sql(f"SELECT name, snapshot_id FROM {TABLE}.refs").collect()]
print("SAID", json.dumps(said))
""",
        area.work,
        pinned,
        lost,
    )
    said = json.loads(printed.partition("SAID ")[2])
    loaded = {name: python(LOAD, area.work, run.info.run_id) for name, run in area.runs.items()}
    unpinned = python(
        WRITE
        + """
for _ in range(2):
    snapshots.unpin(spark, TABLE, "Parcel model", 7)
expire()
print("SAID", json.dumps(snapshots.known_ids(spark, TABLE)))
""",
        area.work,
    )
    return SimpleNamespace(
        pinned=pinned,
        lost=lost,
        said=said,
        loaded=loaded,
        after=json.loads(unpinned.partition("SAID ")[2]),
    )


def test_a_pinned_snapshot_outlives_maintenance_and_still_loads(maintained):
    assert maintained.said["names"] == ["Parcel_20_model-v7"] * 2
    assert ["Parcel_20_model-v7", maintained.pinned] in maintained.said["refs"]
    assert maintained.pinned in maintained.said["kept"]
    assert maintained.loaded["to-5"].strip() == "[0, 1, 2, 3, 4]"


def test_an_expired_snapshot_is_an_error_that_lists_those_that_exist(maintained):
    assert maintained.lost not in maintained.said["kept"]
    message = maintained.loaded["to-3"]
    assert message.startswith(f"SnapshotNotFound {TABLE} has no snapshot {maintained.lost}: ")
    assert "expired" in message.splitlines()[0]
    for kept in maintained.said["kept"]:
        assert kept in message.splitlines()[1]
    assert maintained.said["gone"].startswith("SnapshotNotFound: ")


def test_a_name_that_keeps_another_snapshot_is_not_moved(maintained):
    assert maintained.said["taken"].startswith("PinTaken: ")
    assert f"keeps snapshot {maintained.pinned}" in maintained.said["taken"]
    assert "DROP TAG `Parcel_20_model-v7`" in maintained.said["taken"]


def test_after_unpinning_it_may_expire(maintained):
    assert len(maintained.after) == 1 and maintained.pinned not in maintained.after


@pytest.mark.parametrize(
    ("first", "second"),
    [("a b", "a_b"), ("a b", "a_20_b"), ("é", "e"), ("x", "X"), ("a`b", "a'b")],
)
def test_two_models_never_share_the_name_of_a_tag(first, second):
    from cmlflow.snapshots import pin_name

    assert pin_name(first, 1) != pin_name(second, 1)
    assert pin_name(first, 1) != pin_name(first, 2)
    assert pin_name(first, 1).replace("_", "").replace("-", "").isalnum()
    assert pin_name(first, 1).isascii()


def test_a_source_that_is_no_name_and_number_is_refused_before_it_reaches_sql():
    import mlflow.data  # noqa: F401  (first: it imports the package's entry points)

    from cmlflow.snapshots.dataset import IcebergSource

    for table, snapshot_id in (
        ("t; DROP TABLE x", "1"),
        ("a.b", "1 OR 1"),
        ("a.b", ""),
        ("a.`b`", "1"),
        ("training", "1"),
    ):
        described = {"table": table, "snapshot_id": snapshot_id, "catalog": "c"}
        with pytest.raises(ValueError, match="is no Iceberg source"):
            IcebergSource.from_dict(described)


def test_another_catalog_is_told_apart_from_an_expired_snapshot(tmp_path, area):
    described = dataset_of(area.runs["to-3"]).source
    printed = python(
        "import sys, json, mlflow.data\n"
        "from cmlflow.snapshots.dataset import IcebergSource\n"
        "try:\n"
        "    IcebergSource.from_json(sys.argv[1]).load()\n"
        "except LookupError as error:\n"
        "    print(error)",
        tmp_path,
        described,
    )
    problem, expected, cure = printed.splitlines()
    here, there = ((folder / "spark-warehouse").as_uri() for folder in (tmp_path, area.work))
    digest = dataset_of(area.runs["to-3"]).digest
    assert problem == f"Snapshot {digest} of {TABLE} is not in {here}."
    assert expected == f"Expected: the catalog in which it was written, {there}."
    assert "CMLFLOW_WORKAREA=<folder>" in cure
    assert list((tmp_path / "spark-warehouse").glob("*")) == []
