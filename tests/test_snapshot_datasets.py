"""A snapshot as an MLflow dataset, and what keeps it."""

import json
from types import SimpleNamespace

import mlflow.data  # noqa: F401  (first: it imports the package's entry points)
import pytest
from conftest import ROOT, client_of, python, runs_in, table_in

from cmlflow import errors, snapshots
from cmlflow.dataset import IcebergSource

pytestmark = pytest.mark.spark
TABLE = "spark_catalog.default.parcels"
WRITE = """
import json
import mlflow
from cmlflow import increments, snapshots, store, workarea
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
def area(module_work, warm):
    """Two snapshots, a run on each and one on what came between; then the table is replaced."""
    warm.python(
        WRITE
        + """
store.use_store("parcels")
mlflow.set_experiment("parcels")
before = None
for first, last in ((0, 3), (3, 5)):
    writer = frame(first, last).writeTo(TABLE)
    writer.append() if first else writer.using("iceberg").createOrReplace()
    snapshot = snapshots.current(spark, TABLE, made_by="code/x.py")
    with mlflow.start_run(run_name=f"to-{last}"):
        rows = spark.table(TABLE)
        mlflow.set_tags(snapshot.tags)
        mlflow.log_input(mlflow.data.from_iceberg(rows, snapshot), context="training")
    if before:
        start = before.snapshot_id
        rows = increments.read(spark, TABLE, start, snapshot.snapshot_id)
        given = {"start_snapshot_id": start, "row_count": rows.count()}
        with mlflow.start_run(run_name="3-to-5"):
            mlflow.set_tags(snapshot.tags | {"iceberg_start_snapshot_id": start})
            mlflow.log_input(mlflow.data.from_iceberg(rows, snapshot, **given), context="training")
    before = snapshot
frame(10, 11).writeTo(TABLE).using("iceberg").createOrReplace()
""",
        module_work,
    )
    runs = {run.info.run_name: run for run in runs_in(module_work, "parcels")}
    return SimpleNamespace(work=module_work, runs=runs, table=table_in(module_work, "parcels"))


LOAD = """
import sys
import mlflow.data
from cmlflow import store
store.use_store()
for run_id in sys.argv[1:]:
    run = mlflow.get_run(run_id)
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
    names = ("to-3", "to-5", "3-to-5")
    printed = python(LOAD, area.work, *(area.runs[name].info.run_id for name in names))
    assert printed == "[0, 1, 2]\n[0, 1, 2, 3, 4]\n[3, 4]\n"


def test_an_increment_names_both_ends_and_its_own_rows(area):
    """In an experiment that has a run on the whole of the same snapshot, too."""
    dataset = dataset_of(area.runs["3-to-5"])
    start, end = (dataset_of(area.runs[name]).digest for name in ("to-3", "to-5"))
    assert json.loads(dataset.source) == {
        "table": TABLE,
        "snapshot_id": end,
        "catalog": (area.work / "spark-warehouse").as_uri(),
        "start_snapshot_id": start,
    }
    assert dataset.digest == f"{end}-{int(start):x}"
    assert len(f"{2**63 - 1}-{2**63 - 1:x}") <= 36  # as much as MLflow keeps
    assert json.loads(dataset.profile) == {"num_rows": 2}


def test_the_digest_finds_the_runs_of_a_snapshot(area):
    client = client_of(area.work)
    found = client.search_runs(
        [area.runs["to-5"].info.experiment_id],
        filter_string=f"dataset.digest = '{dataset_of(area.runs['to-5']).digest}'",
    )
    assert [run.info.run_name for run in found] == ["to-5"]


def test_the_tags_lead_to_the_same_snapshot_as_the_dataset(area):
    for run in area.runs.values():
        assert IcebergSource.from_tags(run.data.tags).to_json() == dataset_of(run).source


def recipe(heading):
    """The code block under a heading of the README, as a reader would copy it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (section,) = (part for part in readme.split("\n### ") if part.startswith(heading))
    return section.partition("```python\n")[2].partition("```")[0]


def test_the_recipe_from_a_model_to_its_data_works_as_written(area, warm):
    run = area.runs["to-3"]
    code = recipe("Which data made this model?").replace("<run id>", run.info.run_id)
    printed = warm.python(code, area.work).splitlines()
    assert printed == [f"{TABLE} {dataset_of(run).digest}", "3 rows"]


def test_the_recipe_from_data_to_its_models_works_as_written(area, warm):
    run = area.runs["to-5"]
    code = recipe("Which models saw this data?")
    code = code.replace("<snapshot id>", dataset_of(run).digest)
    printed = warm.python(code, area.work)
    assert run.info.run_id in printed
    assert area.runs["to-3"].info.run_id not in printed
    nothing = warm.python(recipe("Which models saw this data?"), area.work)  # an id that nobody has
    assert "Empty DataFrame" in nothing


@pytest.fixture(scope="module")
def maintained(area, warm):
    """The newer snapshot is pinned twice; everything that may expire does, twice; then unpinned."""
    pinned, lost = (dataset_of(area.runs[name]).digest for name in ("to-5", "to-3"))
    printed = warm.python(
        WRITE
        + """
import sys
pinned, lost = sys.argv[1:]
said = {"lost": lost}
said["names"] = [snapshots.pin(spark, TABLE, pinned, "Parcel model", "a-7") for _ in range(2)]
expire()
expire()
said["kept"] = snapshots.known_ids(spark, TABLE)
for name, call in (
    ("taken", lambda: snapshots.pin(spark, TABLE, said["kept"][-1], "Parcel model", "a-7")),
    ("gone", lambda: snapshots.pin(spark, TABLE, lost, "Parcel model", "a-8")),
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
    loaded = {
        name: warm.python(LOAD, area.work, run.info.run_id) for name, run in area.runs.items()
    }
    unpinned = warm.python(
        WRITE
        + """
for _ in range(2):
    snapshots.unpin(spark, TABLE, "Parcel model", "a-7")
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
    assert maintained.said["names"] == ["Parcel_20_model_run_a-7"] * 2
    assert ["Parcel_20_model_run_a-7", maintained.pinned] in maintained.said["refs"]
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


def test_an_increment_whose_start_has_expired_is_an_error_that_names_the_start(maintained):
    message = maintained.loaded["3-to-5"]
    assert message.startswith(
        f"SnapshotNotFound {TABLE} has no snapshot {maintained.lost} any more: it has expired"
    )


def test_a_name_that_keeps_another_snapshot_is_not_moved(maintained):
    assert maintained.said["taken"].startswith("PinTaken: ")
    assert f"keeps snapshot {maintained.pinned}" in maintained.said["taken"]
    assert "DROP" not in maintained.said["taken"]  # another model may need these rows


def test_after_unpinning_it_may_expire(maintained):
    assert len(maintained.after) == 1 and maintained.pinned not in maintained.after


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a b", "1"), ("a_b", "1")),
        (("a b", "1"), ("a_20_b", "1")),
        (("é", "1"), ("e", "1")),
        (("x", "1"), ("X", "1")),
        (("a`b", "1"), ("a'b", "1")),
        (("a", "1"), ("a", "2")),
        (("a_run_b", "1"), ("a", "b_run_1")),
        (("érun", "1"), ("é", "run1")),
    ],
)
def test_two_models_or_two_runs_never_share_the_name_of_a_tag(first, second):
    assert snapshots.pin_name(*first) != snapshots.pin_name(*second)
    assert snapshots.pin_name(*first).replace("_", "").replace("-", "").isalnum()
    assert snapshots.pin_name(*first).isascii()


SOURCE = {"table": "c.n.t", "snapshot_id": "1", "catalog": "c"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"table": "t; DROP TABLE x"},
        {"table": "a.b.`c`"},
        {"table": "training"},
        {"table": "default.training"},
        {"table": None},
        {"snapshot_id": "1 OR 1"},
        {"snapshot_id": ""},
        {"snapshot_id": "abc"},
        {"snapshot_id": 42},  # a number of 19 digits may have been rounded on its way
        {"catalog": None},
        {"start_snapshot_id": "1 OR 1"},
        {"start_snapshot_id": 42},
    ],
)
def test_a_source_that_is_no_name_and_number_is_refused_before_it_reaches_sql(wrong):
    IcebergSource.from_dict(SOURCE)
    with pytest.raises(errors.BadInput) as caught:
        IcebergSource.from_dict(SOURCE | wrong)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("missing", ["training_table", "iceberg_snapshot_id", "iceberg_catalog"])
def test_a_run_whose_tags_say_only_half_is_refused(missing):
    tags = {"training_table": "c.n.t", "iceberg_snapshot_id": "1", "iceberg_catalog": "c"}
    del tags[missing]
    with pytest.raises(errors.BadInput, match="does not describe an Iceberg snapshot"):
        IcebergSource.from_tags(tags)


def test_an_increment_comes_back_from_its_own_description():
    whole, part = SOURCE, SOURCE | {"start_snapshot_id": "7"}
    for one in (whole, part):
        assert IcebergSource.from_dict(one).to_dict() == one
    tags = {
        "training_table": "c.n.t",
        "iceberg_snapshot_id": "1",
        "iceberg_catalog": "c",
        "iceberg_start_snapshot_id": "7",
    }
    assert IcebergSource.from_tags(tags).to_dict() == part


def test_another_catalog_is_told_apart_from_an_expired_snapshot(tmp_path, area, warm):
    described = dataset_of(area.runs["to-3"]).source
    printed = warm.python(
        "import sys, mlflow.data\n"
        "from cmlflow import errors\n"
        "from cmlflow.dataset import IcebergSource\n"
        "try:\n"
        "    IcebergSource.from_json(sys.argv[1]).load()\n"
        "except errors.WrongCatalog as error:\n"
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
