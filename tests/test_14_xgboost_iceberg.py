import json
import re
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import CODE, client_of, files_of, run_sql, runs_in, table_in
from sklearn import metrics
from xgboost import XGBClassifier

SCRIPT = "14_XGBoost_Iceberg.py"
EXPERIMENT = "xgboost-fraud"
TABLE = "spark_catalog.default.transactions"
pytestmark = pytest.mark.spark


@pytest.fixture(scope="session")
def lesson(fraud_pass):
    return fraud_pass


def parts_of(lesson, run):
    """Features, label and part of the rows that a run was trained on, read without Spark."""
    snapshot_id = int(run.data.tags["iceberg_snapshot_id"])
    rows = lesson.table.scan(snapshot_id=snapshot_id).to_pandas().sort_values("transaction_id")
    others = ["transaction_id", "transaction_time", "fraud_label"]
    return rows.drop(columns=others), rows["fraud_label"], rows["transaction_id"] % 5


def model_of(lesson, run):
    client_of(lesson.work)
    return mlflow.xgboost.load_model(f"runs:/{run.info.run_id}/model")


@pytest.fixture(params=["first", "second", "distributed"])
def run(request, lesson):
    return getattr(lesson, request.param)


def test_it_leaves_two_runs_a_pass_whose_names_tell_the_rows(lesson):
    assert [run.info.run_name for run in lesson.runs] == [
        "autolog, 100000 rows",
        "one-machine, 100000 rows",
        "distributed, 20000 rows",
        "autolog, 20000 rows",
        "one-machine, 20000 rows",
        "autolog, 10000 rows",
        "one-machine, 10000 rows",
    ]
    assert {run.info.status for run in lesson.runs} == {"FINISHED"}


def test_params_are_those_of_the_lesson_and_scores_are_no_params(lesson):
    for run in (lesson.first, lesson.second):
        assert run.data.params == {
            "n_estimators": "100",
            "max_depth": "2",
            "learning_rate": "0.1",
            "tree_method": "hist",
            "n_jobs": "1",
            "random_state": "42",
        }


def test_the_scores_are_those_of_the_logged_model_on_the_test_rows(lesson, run):
    X, y, part = parts_of(lesson, run)
    probability = model_of(lesson, run).predict_proba(X[part == 0])[:, 1]
    yes, truth = probability >= 0.5, y[part == 0]
    expected = {
        "accuracy": (yes == truth).mean(),
        "precision": (yes & (truth == 1)).sum() / yes.sum(),
        "recall": (yes & (truth == 1)).sum() / truth.sum(),
        "roc_auc": metrics.roc_auc_score(truth, probability),
        "average_precision": metrics.average_precision_score(truth, probability),
        "log_loss": -np.log(np.where(truth == 1, probability, 1 - probability)).mean(),
    }
    logged = run.data.metrics
    # Spark's workers answer in 32 bits and their rows came back rounded alike.
    assert {name: logged[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_beside_each_score_stands_that_of_the_baseline(lesson, run):
    _, y, part = parts_of(lesson, run)
    share, truth = y[part >= 2].mean(), y[part == 0]
    logged = run.data.metrics
    assert logged["baseline_accuracy"] == pytest.approx(1 - truth.mean())
    assert logged["baseline_precision"] == logged["baseline_recall"] == 0
    assert logged["baseline_roc_auc"] == 0.5
    assert logged["baseline_average_precision"] == pytest.approx(truth.mean())
    baseline_loss = -np.log(np.where(truth == 1, share, 1 - share)).mean()
    # The shares of fraud differ little from part to part, and the loss by the square of that.
    assert logged["baseline_log_loss"] == pytest.approx(baseline_loss, rel=1e-10)


def oracle(X):
    """The true probability of fraud, by the formula of 00_datagen.py."""
    risk = (
        -4.0
        + (np.log(X["amount_usd"]) - 3.5)
        + 0.8 * (np.log(X["distance_from_home_km"]) - 1.5)
        + 1.5 * (X["hour_of_day"] < 5)
        + 1.2 * (X["account_age_days"] < 365)
        + 0.3 * X["transactions_last_day"]
        - X["card_present"]
    )
    return 1 / (1 + np.exp(-risk))


def test_it_learns_but_not_more_than_the_true_probability(lesson, run):
    X, y, part = parts_of(lesson, run)
    best = oracle(X[part == 0])
    logged = run.data.metrics
    assert 0.8 < logged["roc_auc"] < metrics.roc_auc_score(y[part == 0], best)
    assert 4 * logged["baseline_average_precision"] < logged["average_precision"]
    assert logged["average_precision"] < metrics.average_precision_score(y[part == 0], best)


def test_the_learning_curve_is_a_metric_per_tree_on_the_validation_rows(lesson, run):
    history = client_of(lesson.work).get_metric_history(run.info.run_id, "validation_log_loss")
    assert sorted(metric.step for metric in history) == list(range(1, 101))
    X, y, part = parts_of(lesson, run)
    model = model_of(lesson, run)
    for step in (1, 10, 100):
        answers = model.predict_proba(X[part == 1], iteration_range=(0, step))
        (value,) = (metric.value for metric in history if metric.step == step)
        assert value == pytest.approx(metrics.log_loss(y[part == 1], answers), rel=1e-4)


def test_the_model_is_the_one_that_the_params_make(lesson):
    X, y, part = parts_of(lesson, lesson.first)
    made = XGBClassifier(
        n_estimators=100, max_depth=2, learning_rate=0.1, tree_method="hist", n_jobs=1
    ).fit(X[part >= 2], y[part >= 2])
    logged = model_of(lesson, lesson.first)
    assert np.array_equal(logged.predict_proba(X), made.predict_proba(X))


def test_signature_example_and_requirements_are_logged(lesson, run):
    client_of(lesson.work)
    uri = f"runs:/{run.info.run_id}/model"
    info = mlflow.models.get_model_info(uri)
    X, _, part = parts_of(lesson, run)
    assert info.signature.inputs.input_names() == list(X.columns)
    assert {str(kind) for kind in info.signature.inputs.input_types()} == {"DataType.double"}
    example = getattr(mlflow.pyfunc.load_model(uri), "input_example", None)
    if example is None:  # MLflow 2.19 knows where it is and does not load it
        path = mlflow.artifacts.download_artifacts(f"{uri}/input_example.json")
        with open(path, encoding="utf-8") as file:
            example = pd.DataFrame(**json.load(file))
    assert np.allclose(example, X[part == 0][:3])
    requirements = mlflow.artifacts.load_text(f"{uri}/requirements.txt").splitlines()
    named = {line.partition("==")[0] for line in requirements}
    # What MLflow would guess is more than that, and takes a second process.
    assert named - {"mlflow"} == {"xgboost", "scikit-learn", "pandas", "numpy"}


def test_importances_are_a_table_and_a_figure(lesson, run):
    client_of(lesson.work)
    table = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/feature_importances.json")
    table = pd.DataFrame(table["data"], columns=table["columns"]).set_index("feature")["gain"]
    model = model_of(lesson, run)
    expected = dict(zip(model.feature_names_in_, model.feature_importances_, strict=True))
    assert table.to_dict() == pytest.approx(expected, rel=1e-5)
    assert table.is_monotonic_decreasing
    # What the label does not depend on comes last (00_datagen.py: the log-odds of fraud).
    assert table.index[0] == "amount_usd"
    assert not {"home_latitude", "home_longitude", "account_balance_usd"} & set(table.index[:4])
    assert "importances_and_confusion.png" in files_of(lesson.work, run)


def test_tags_and_dataset_name_the_rows(lesson, run):
    tags = run.data.tags
    snapshot = lesson.table.snapshot_by_id(int(tags["iceberg_snapshot_id"]))
    assert tags["training_table"] == TABLE
    assert tags["row_count"] == snapshot.summary["total-records"]
    assert tags["iceberg_parent_id"] == str(snapshot.parent_snapshot_id or "none")
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == (TABLE, tags["iceberg_snapshot_id"])
    assert json.loads(used.dataset.profile) == {"num_rows": int(tags["row_count"])}
    schema = json.loads(used.dataset.schema)["mlflow_colspec"]
    assert [column["name"] for column in schema] == [
        field.name for field in lesson.table.schema().fields
    ]
    assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training"}


def test_the_second_run_is_of_the_grown_table(lesson):
    first, second = lesson.first.data.tags, lesson.second.data.tags
    assert second["iceberg_parent_id"] == first["iceberg_snapshot_id"]
    assert (first["row_count"], second["row_count"]) == ("10000", "20000")


def of_both(lesson):
    """What the text calls the older model and this one: their answers for the same test rows."""
    X, y, part = parts_of(lesson, lesson.second)
    models = (model_of(lesson, lesson.first), model_of(lesson, lesson.second))
    return y[part == 0].to_numpy(), [one.predict_proba(X[part == 0])[:, 1] for one in models]


def test_it_compares_both_models_on_the_same_rows(lesson):
    assert "No run on the snapshot before this one" in lesson.printed["first"]
    truth, (older, newer) = of_both(lesson)
    old, new = (metrics.average_precision_score(truth, one) for one in (older, newer))
    assert new == pytest.approx(lesson.second.data.metrics["average_precision"])
    assert f"average_precision: {old:.3f}; {new:.3f}" in lesson.printed["second"]


@pytest.fixture(scope="module")
def spreads(lesson):
    """How far chance moves the difference of both scores, and the newer score alone."""
    truth, answers = of_both(lesson)
    random, drawn = np.random.default_rng(7), []
    for _ in range(200):  # they know a spread to 5 %
        draw = random.integers(len(truth), size=len(truth))
        drawn.append([metrics.average_precision_score(truth[draw], one[draw]) for one in answers])
    older, newer = np.array(drawn).T
    return np.std(newer - older), np.std(newer)


def test_a_gain_is_measured_by_the_spread_of_the_paired_difference(lesson, spreads):
    truth, answers = of_both(lesson)
    paired, single = spreads
    printed = lesson.printed["second"]
    gain, of_difference = re.search(
        r"Average precision: (\S+); chance moves this difference by (\S+)\n", printed
    ).groups()
    old, new = (metrics.average_precision_score(truth, one) for one in answers)
    assert float(gain) == pytest.approx(new - old, abs=0.0006)
    assert float(of_difference) == pytest.approx(paired, rel=0.2)
    (alone,) = re.search(r"either score alone by (\S+):", printed).groups()
    assert float(alone) == pytest.approx(single, rel=0.2)
    assert float(gain) < 2 * float(of_difference)
    assert "No more than chance would do" in printed


def test_ten_times_the_rows_bring_what_the_text_says(lesson):
    """12,000 training rows, then 60,000: more than chance, and still below the best."""
    X, y, part = parts_of(lesson, lesson.tenfold)
    test = part == 0
    best = metrics.average_precision_score(y[test], oracle(X[test]))
    older = model_of(lesson, lesson.second).predict_proba(X[test])[:, 1]
    old = metrics.average_precision_score(y[test], older)
    new = lesson.tenfold.data.metrics["average_precision"]
    assert f"average_precision: {old:.3f}; {new:.3f}" in lesson.printed["tenfold"]
    of_difference = re.search(r"this difference by (\S+)\n", lesson.printed["tenfold"])[1]
    assert "More than chance" in lesson.printed["tenfold"]
    text = " ".join((CODE / SCRIPT).read_text(encoding="utf-8").replace("# ", "").split())
    said = re.search(
        r"60,000 on 20,000 test rows: ([\d.]+) and ([\d.]+), where chance moves the difference by "
        r"([\d.]+)\. A model that knew the true probability would reach ([\d.]+) there",
        text,
    ).groups()
    assert [float(number) for number in said] == pytest.approx(
        [old, new, float(of_difference), best], abs=0.0006
    )


def test_the_best_scores_that_00_states_hold_on_a_hundred_thousand_rows(lesson):
    """A hundred thousand rows leave average precision a chance of 0.005, ROC AUC of 0.003."""
    X, y, _ = parts_of(lesson, lesson.tenfold)
    stated = re.search(
        r"ROC AUC of ([\d.]+) and an average precision of ([\d.]+), where\nguessing gets "
        r"([\d.]+) and ([\d.]+)",
        (CODE / "00_datagen.py").read_text(encoding="utf-8"),
    ).groups()
    best = (
        metrics.roc_auc_score(y, oracle(X)),
        metrics.average_precision_score(y, oracle(X)),
        0.5,
        y.mean(),
    )
    for number, measured in zip(stated, best, strict=True):
        assert float(number) == pytest.approx(measured, abs=0.02)


def test_classes_come_first_then_one_score_then_the_full_run(lesson):
    _, y, part = parts_of(lesson, lesson.first)
    lines = lesson.printed["first"].splitlines()
    for one in range(5):
        of_part = y[part == one]
        frauds = int(of_part.sum())
        expected = [one, len(of_part), len(of_part), frauds, len(of_part) - frauds]
        assert lines[3 + one].split() == [str(number) for number in expected]
    one_tree, baseline = re.search(
        r"average precision of one tree: ([\d.]+); baseline: ([\d.]+)", lines[8]
    ).groups()
    logged = lesson.first.data.metrics
    assert float(baseline) == pytest.approx(logged["baseline_average_precision"], abs=0.0006)
    assert float(baseline) < float(one_tree) < logged["average_precision"]
    assert f"average_precision: {logged['average_precision']:.3f}; baseline: " in lines[11]


def test_a_score_becomes_a_decision(lesson):
    X, y, part = parts_of(lesson, lesson.first)
    truth = y[part == 0].to_numpy()
    answers = model_of(lesson, lesson.first).predict_proba(X[part == 0])[:, 1]
    first = truth[np.argsort(-answers)[:100]].sum()
    printed = lesson.printed["first"]
    assert (
        f"The 100 most suspicious of 2000 test rows hold {first} of {truth.sum()} frauds" in printed
    )
    costs = {}
    for line in re.findall(r"threshold +(\S+): +(\d+) checks, +(\d+) missed, cost +(\d+)", printed):
        threshold, checks, missed, cost = float(line[0]), *map(int, line[1:])
        assert checks == (answers >= threshold).sum()
        assert missed == truth[answers < threshold].sum()
        assert cost == checks + 10 * missed
        costs[threshold] = cost
    assert len(costs) == 4 and min(costs, key=costs.get) == 0.1  # one check, a tenth of a fraud
    recall = lesson.first.data.metrics["recall"]
    assert round(1 / recall) == 7  # "this model finds only one fraud in seven"


def test_the_readme_prints_its_numbers(lesson):
    readme = " ".join((CODE / "README.md").read_text(encoding="utf-8").split())
    first, second = lesson.first.data.metrics, lesson.second.data.metrics
    old = re.search(r"average_precision: ([\d.]+); [\d.]+\n", lesson.printed["second"])[1]
    for sentence, numbers in (
        (
            r"average precision ([\d.]+), where a baseline .*? gets ([\d.]+)\.",
            [first["average_precision"], first["baseline_average_precision"]],
        ),
        (
            r"accuracy would tell nothing here, ([\d.]+) against ([\d.]+)\.",
            [first["accuracy"], first["baseline_accuracy"]],
        ),
        (
            r"on the same test rows, ([\d.]+) and ([\d.]+),",
            [float(old), second["average_precision"]],
        ),
        (
            r"roc_auc ([\d.]+) and ([\d.]+)\)",
            [second["roc_auc"], lesson.distributed.data.metrics["roc_auc"]],
        ),
    ):
        printed = [float(number) for number in re.search(sentence, readme).groups()]
        assert printed == pytest.approx(numbers, abs=0.0015), sentence


def test_the_text_prints_its_numbers(lesson, spreads):
    text = (CODE / SCRIPT).read_text(encoding="utf-8")
    truth, (older, newer) = of_both(lesson)
    said = re.search(
        r"average precision rises\n# from ([\d.]+) to ([\d.]+)\. Chance moves that difference by "
        r"([\d.]+),.*\n# the smaller table said ([\d.]+) ",
        text,
    ).groups()
    expected = [metrics.average_precision_score(truth, one) for one in (older, newer)]
    expected += [spreads[0], lesson.first.data.metrics["average_precision"]]
    assert [float(number) for number in said] == pytest.approx(expected, abs=0.0016)


def test_autolog_saves_what_the_text_says(lesson):
    autolog = [run for run in lesson.runs if run.info.run_name.startswith("autolog")]
    for run in autolog:
        assert len(run.data.params) > len(lesson.first.data.params)
        assert list(run.data.metrics) == ["validation_0-logloss"]
        assert "iceberg_snapshot_id" not in run.data.tags
        assert any("feature_importance" in path for path in files_of(lesson.work, run))
    one = lesson.first.data.metrics["validation_log_loss"]
    assert autolog[-1].data.metrics["validation_0-logloss"] == one


def test_autolog_is_off_afterwards_for_the_next_lesson_of_a_kernel(lesson, warm, work):
    """In this kernel 14 ran last in the pass."""
    look = "from mlflow.utils.autologging_utils import autologging_is_disabled as off"
    assert warm.python(f"import mlflow.xgboost\n{look}\nprint(off('xgboost'))", work) == "True\n"


def test_it_logs_the_code_that_repeats_the_run(lesson):
    client_of(lesson.work)
    uri = f"runs:/{lesson.first.info.run_id}/training.py"
    code = {}
    exec(mlflow.artifacts.load_text(uri), code)
    with_key = lesson.table.scan(
        snapshot_id=int(lesson.first.data.tags["iceberg_snapshot_id"])
    ).to_pandas()
    rows = SimpleNamespace(
        drop=lambda name: SimpleNamespace(toPandas=lambda: with_key.drop(columns=name))
    )
    _, again = code["fit_and_score"](rows, lesson.first.data.params)
    curve = again.pop("validation_log_loss")
    assert curve[-1] == lesson.first.data.metrics["validation_log_loss"]
    logged = lesson.first.data.metrics
    assert again == {name: logged[name] for name in again} and len(again) == 12


def test_it_leads_to_the_page_with_the_learning_curve(lesson):
    run = lesson.first.info
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}/model-metrics"
    assert lesson.printed["first"].endswith(f"/{page}\n")


def test_without_the_table_it_names_the_lesson_that_writes_it(work, warm):
    for script in (SCRIPT, "15_XGBoost_Distributed.py"):
        done = warm.run_script(script, work)
        assert done.returncode != 0
        assert f"There is no table {TABLE}" in done.stderr
        assert "Run this first:  python code/00_datagen.py" in done.stderr
        assert client_of(work).get_experiment_by_name(EXPERIMENT) is None


@pytest.fixture(scope="module")
def altered(module_work, warm):
    """Runs 14 or 15 on a copy of the table that somebody has altered; returns its error."""
    warm.succeed("00_datagen.py", module_work, "--rows", "500")
    run_sql(warm, module_work, f"CREATE TABLE {TABLE}_kept USING iceberg AS SELECT * FROM {TABLE}")

    def run(*statements, script=SCRIPT, query="SELECT * FROM {kept}"):
        copy = (
            f"CREATE OR REPLACE TABLE {TABLE} USING iceberg "
            f"TBLPROPERTIES ('made_by' = 'code/00_datagen.py') AS {query}"
        )
        run_sql(
            warm,
            module_work,
            *(one.format(table=TABLE, kept=f"{TABLE}_kept") for one in (copy, *statements)),
        )
        done = warm.run_script(script, module_work)
        assert done.returncode != 0
        assert client_of(module_work).get_experiment_by_name(EXPERIMENT) is None
        return done.stderr

    return run


@pytest.mark.parametrize(
    "statement, found",
    [
        (
            "INSERT INTO {table} SELECT * FROM {kept} WHERE transaction_id < 20",
            "20 rows of {table} have no transaction_id of their own.",
        ),
        (
            "UPDATE {table} SET transaction_id = NULL WHERE transaction_id = 7",
            "1 rows of {table} have no transaction_id of their own.",
        ),
        (
            "UPDATE {table} SET fraud_label = NULL WHERE transaction_id < 3",
            "3 rows of {table} have a fraud_label other than 0 and 1.",
        ),
        (
            "UPDATE {table} SET fraud_label = 2 WHERE transaction_id = 7",
            "1 rows of {table} have a fraud_label other than 0 and 1.",
        ),
        (
            "DELETE FROM {table} WHERE transaction_id % 5 = 0 AND fraud_label = 1",
            " are too few: fraud or its opposite is missing in test.",
        ),
        ("DELETE FROM {table}", "0 rows of {table} are too few"),
    ],
    ids=["twice", "no key", "no label", "label 2", "one class", "no rows"],
)
def test_an_altered_table_is_refused_before_a_run_exists(altered, statement, found):
    error = altered(statement)
    assert found.format(table=TABLE) in error
    assert "To write the table anew, run:  python code/00_datagen.py" in error


def test_lesson_15_refuses_an_altered_table_too(altered):
    script = "15_XGBoost_Distributed.py"
    error = altered("INSERT INTO {table} SELECT * FROM {kept} LIMIT 20", script=script)
    assert f"20 rows of {TABLE} have no transaction_id of their own." in error
    error = altered(query="SELECT *, 'shop' AS merchant FROM {kept}", script=script)
    assert "merchant is string." in error


def test_a_table_whose_rows_cannot_be_read_is_named(work, warm):
    """Its data files are gone, as after a copy that was not complete."""
    warm.succeed("00_datagen.py", work, "--rows", "300")
    for file in work.rglob("*.parquet"):
        file.unlink()
    for script, *option in (
        (SCRIPT,),
        ("15_XGBoost_Distributed.py",),
        ("00_datagen.py", "--append"),
    ):
        done = warm.run_script(script, work, *option)
        assert done.returncode != 0
        assert f"LessonError: {TABLE} cannot be read: " in done.stderr, script
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None


def test_numbers_that_are_not_finite_are_refused(altered):
    infinite = "UPDATE {table} SET amount_usd = double('-Infinity') WHERE transaction_id = 8"
    for script in (SCRIPT, "15_XGBoost_Distributed.py"):
        assert f"{TABLE} holds infinite numbers: amount_usd." in altered(infinite, script=script)


def test_a_table_with_a_column_more_is_not_compared_with_the_model_before(work, warm):
    warm.succeed("00_datagen.py", work, "--rows", "300")
    warm.succeed(SCRIPT, work)
    add = f"ALTER TABLE {TABLE} ADD COLUMN weekend DOUBLE"
    run_sql(warm, work, add, f"UPDATE {TABLE} SET weekend = 0 WHERE transaction_id = 5")
    printed = warm.succeed(SCRIPT, work)
    assert "No run on the snapshot before this one" in printed
    assert {run.info.status for run in runs_in(work, EXPERIMENT)} == {"FINISHED"}


def test_a_snapshot_with_other_columns_is_refused(altered):
    error = altered(query="SELECT *, 'shop' AS merchant FROM {kept}")
    assert "no model can be trained: merchant is string." in error
    error = altered(query="SELECT transaction_id, transaction_time, fraud_label FROM {kept}")
    assert "no model can be trained: there is no feature." in error
    error = altered(query="SELECT transaction_id, transaction_time, amount_usd FROM {kept}")
    assert "no model can be trained: fraud_label is missing." in error


def test_more_rows_than_the_driver_holds_are_sent_to_lesson_15(altered):
    error = altered(query="SELECT id AS transaction_id FROM range(1200000)")
    assert "1200000 rows do not fit into Spark's driver, which has " in error
    assert "run:  python code/15_XGBoost_Distributed.py" in error


def test_another_name_of_the_table_is_enough_for_a_shared_lake(work, warm):
    """TABLE is the one place: 00, its --append and 14 then leave `transactions` alone."""
    scripts = []
    for name in ("00_datagen.py", SCRIPT):
        text = (CODE / name).read_text(encoding="utf-8")
        assert text.count(f'TABLE = "{TABLE}"') == 1
        scripts.append(work / name)
        scripts[-1].write_text(text.replace(f'"{TABLE}"', '"spark_catalog.default.anna"'))
    warm.succeed("00_datagen.py", work, "--rows", "20")
    warm.succeed(str(scripts[0]), work, "--rows", "300")
    warm.succeed(str(scripts[0]), work, "--rows", "200", "--append")
    warm.succeed(str(scripts[1]), work)
    (run,) = (run for run in runs_in(work, EXPERIMENT) if run.info.run_name.startswith("one"))
    assert run.data.tags["training_table"] == "spark_catalog.default.anna"
    assert run.data.tags["row_count"] == "500"
    assert len(table_in(work, "transactions").snapshots()) == 1
