"""What the lessons and the READMEs say is to be seen in the UI: one record a statement.

A statement begins with `Look at:` in what a lesson prints, or with "In the UI" in prose. Many are
what a picture shows: then its record is enough. For the others the pages are opened in the same
browser, and no picture is taken. Where a chart is said to have a shape, the store is asked too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from img.records import (
    CARDS,
    FILES,
    FIRST_ROW,
    LISTED,
    Look,
    box_of,
    card,
    expander_of,
    metric_row,
    row,
    run_page,
    runs_page,
    tag,
)

Curve = dict[int, float]
"""The values of a metric by step."""


@dataclass(frozen=True)
class Statement:
    """One statement, and how it is checked."""

    text: str
    """As it stands, in one line, after `Look at:` or from "In the UI" on; `<port>` is any."""
    pictures: tuple[str, ...] = ()
    """Names of pictures that show it."""
    looks: tuple[Look, ...] = ()
    """Pages that show it, beside these pictures."""
    curve: tuple[str, str, Callable[[Curve], bool]] | None = None
    """A run as `experiment/run`, one of its metrics, and what is true of all its values."""
    elsewhere: str = ""
    """Why it is about no page of the UI, if so."""
    test: str = ""
    """Then the test that checks it, as `file::name`."""


def flat_from_800_on(curve: Curve) -> bool:
    """Tell whether a curve falls up to step 800, and hardly changes after it."""
    steps = sorted(curve)
    before = [curve[step] for step in steps if step <= 800]
    after = [curve[step] for step in steps if step >= 800]
    falls = before == sorted(before, reverse=True)
    return falls and 20 * (max(after) - min(after)) < before[0] - before[-1]


def still_falls_at_100(curve: Curve) -> bool:
    """Tell whether the lowest value of a curve of 100 steps is in its last ones."""
    return max(curve) == 100 and min(curve, key=curve.__getitem__) > 95


def rises_in_steps(curve: Curve) -> bool:
    """Tell whether a curve of twelve values never falls, and rises."""
    values = [curve[step] for step in sorted(curve)]
    return len(values) == 12 and values == sorted(values) and values[0] < values[-1]


ENDPOINT = "the address of an endpoint, which answers requests and shows no page"
BOTH_BARS = Look(
    page=runs_page("example-experiment"),
    clicks=('main label:has(input[value="CHART"])',),
    strips=((card("mean_quality"),),),
    facts=("mean_quality", "5.88", "5.88"),
)
CHILDREN_OF_GRID_SEARCH = Look(
    page=runs_page("sklearn-comparison"),
    clicks=(expander_of("grid-search"),),
    strips=(LISTED,),
    facts=(
        "grid-search",
        *(f"depth {depth}, {trees}…" for depth in (3, 6, 12) for trees in (20, 80)),
    ),
    in_any_order=True,
)
CHILDREN_OF_TUNING = Look(
    page=runs_page("sklearn-tuning"),
    clicks=(expander_of("tuning"),),
    strips=(LISTED,),
    facts=("tuning", *(f"trial-{number:02}" for number in reversed(range(12)))),
)
VISITOR = Look(
    page="",
    new_visitor=True,
    strips=(("body",),),
    facts=("GenAI", "Model training", "Prompts", "AI Gateway"),
)

STATEMENTS = (
    Statement(
        "what they logged: make ui, then http://127.0.0.1:5000", pictures=("00_model_training",)
    ),
    Statement(
        "In the UI of MLflow 3, choose **Model training** at the top left, once: MLflow 3 opens in "
        "its GenAI view, which shows these runs under other headings.",
        pictures=("00_model_training",),
        looks=(VISITOR,),
    ),
    Statement(
        "In the UI, choose Model training at the top left, once", pictures=("00_model_training",)
    ),
    Statement(
        "Experiments > example-experiment, two runs; the chart icon above the list shows that "
        "mean_quality is 5.88 in both.",
        pictures=("01_two_runs",),
        looks=(BOTH_BARS,),
    ),
    Statement(
        "In the UI:* two runs, `by-hand` and `with-block`; click the chart icon above the list: "
        "both bars of `mean_quality` say 5.88.",
        pictures=("01_two_runs",),
        looks=(BOTH_BARS,),
    ),
    Statement(
        "Experiments > wine-quality-test > elasticnet > Model metrics, the last chart: "
        "rmse_by_train_rows.",
        pictures=("01_rmse_by_train_rows",),
        looks=(
            Look(
                page=run_page("wine-quality-test/elasticnet", "model-metrics"),
                strips=((f"{CARDS} >> nth=-1",),),
                facts=("rmse_by_train_rows",),
            ),
        ),
    ),
    Statement(
        "In the UI:* under Model metrics, the chart of `rmse_by_train_rows` is flat from 800 wines "
        "on.",
        pictures=("01_rmse_by_train_rows",),
        curve=("wine-quality-test/elasticnet", "rmse_by_train_rows", flat_from_800_on),
    ),
    Statement(
        "Experiments > wine-quality-test > files-and-tags > Artifacts > figures > grades.png.",
        pictures=("02_figure",),
    ),
    Statement(
        "In the UI:* Artifacts > figures > grades.png opens in the browser.",
        looks=(
            Look(
                page=run_page("wine-quality-test/files-and-tags"),
                clicks=(
                    'main [role="tab"]:has-text("Artifacts")',
                    f'{FILES}:has-text("figures")',
                    f'{FILES}:has-text("grades.png") >> nth=-1',
                ),
                strips=((FILES, "main img"),),
                facts=("figures", "grades.png"),
            ),
        ),
    ),
    Statement(
        "Experiments > wine-quality-test > elasticnet-with-model > Artifacts: the files of the "
        "model.",
        looks=(
            Look(
                page=run_page("wine-quality-test/elasticnet-with-model"),
                clicks=('main [role="tab"]:has-text("Artifacts")',),
                strips=((FILES,),),
                facts=("MLmodel", "model.pkl", "requirements.txt"),
            ),
        ),
    ),
    Statement(
        "Experiments > wine-quality-test; sort the runs by rmse, ascending.",
        looks=(
            Look(
                page=runs_page("wine-quality-test"),
                clicks=(
                    '[data-testid="sort-select-dropdown"]',
                    '[data-testid="sort-select-rmse"]',
                    '[data-testid="sort-select-dropdown"]',
                    '[data-testid="sort-select-asc"]',
                ),
                strips=(LISTED,),
                facts=("rmse", "elasticnet", "0.822…", "elasticnet-with-model", "0.849…"),
                width=1900,
            ),
        ),
    ),
    Statement(
        "the last three columns of that file.",
        elsewhere="about a file, data/predictions.csv",
        test="test_04_predict_batch.py::test_the_last_three_columns_are_what_the_lesson_added",
    ),
    Statement(
        "Model registry > Auto-Deployed Model > Version 1, its alias champion and its schema.",
        pictures=("05_schema",),
        looks=(
            Look(  # the chain of 23 has moved the alias
                page="#/models/Auto-Deployed Model/versions/3",
                facts=("Version 3", "champion", "Schema", "Inputs (11)"),
            ),
        ),
    ),
    Statement(
        "In the UI:* the list under Model registry says `@champion: Version 1`; after all lessons "
        "Version 3, because 23 moves the alias.",
        pictures=("23_registry",),
        looks=(
            Look(
                page="#/models",
                strips=((row("Auto-Deployed Model"),),),
                facts=("Auto-Deployed Model", "@ champion : Version 3"),
            ),
        ),
    ),
    Statement(
        "Experiments > sparkml-experiment, column Dataset: the same id for experiments 1 and 3.",
        pictures=("06_dataset_column",),
    ),
    Statement(
        "In the UI:* the column Dataset of the list of runs shows the same id for experiments 1 "
        "and 3.",
        pictures=("06_dataset_column",),
    ),
    Statement(
        "Experiments > keep-snapshot > forest: the dataset and the tag iceberg_tag.",
        pictures=("07_forest",),
    ),
    Statement(
        "In the UI:* the run `forest` shows its dataset, its tag `iceberg_tag` and its registered "
        "model on one page.",
        pictures=("07_forest",),
    ),
    Statement(
        "Experiments > reproductions, comparison.json and the tag reproduction_verdict.",
        pictures=("08_comparison", "08_verdict"),
    ),
    Statement(
        "In the UI:* `comparison.json` of the run, shown as a table.", pictures=("08_comparison",)
    ),
    Statement(
        "Experiments > sklearn-classification > kneighbors, Model metrics.",
        looks=(
            Look(
                page=run_page("sklearn-classification/kneighbors", "model-metrics"),
                strips=((card("test_accuracy"),),),
                facts=("test_accuracy", "0.93…"),
            ),
        ),
    ),
    Statement(
        "Experiments > sklearn-classification > random-forest, Model metrics.",
        looks=(
            Look(
                page=run_page("sklearn-classification/random-forest", "model-metrics"),
                strips=((card("test_accuracy"),),),
                facts=("test_accuracy", "0.92"),
            ),
        ),
    ),
    Statement(
        "In the UI:* tick both runs, choose Compare, and scroll to Metrics: test_accuracy 0.932 "
        "and 0.92.",
        looks=(
            Look(
                page=runs_page("sklearn-classification"),
                clicks=(
                    box_of("kneighbors"),
                    box_of("random-forest"),
                    '[data-testid="runs-compare-button"]',
                ),
                strips=(
                    (row("Run Name:"),),
                    (metric_row("baseline_accuracy"), metric_row("train_accuracy")),
                ),
                facts=("test_accuracy", "0.932", "0.92"),
                in_any_order=True,
            ),
        ),
    ),
    Statement(
        "Experiments > sklearn-comparison, [+] beside grid-search: its children.",
        looks=(CHILDREN_OF_GRID_SEARCH,),
    ),
    Statement(
        "In the UI:* open `grid-search` with its [+]: six children, named by depth and trees.",
        looks=(CHILDREN_OF_GRID_SEARCH,),
    ),
    Statement(
        "In the UI, [+] beside grid-search shows its children; CML lists them flat.",
        looks=(CHILDREN_OF_GRID_SEARCH,),
    ),
    Statement(
        "Experiments > sklearn-tuning > tuning, Model metrics, best_cv_accuracy.",
        pictures=("13_best_cv_accuracy",),
        curve=("sklearn-tuning/tuning", "best_cv_accuracy", rises_in_steps),
    ),
    Statement(
        "In the UI:* the children under `tuning` ([+]); Model metrics shows the curve of "
        "`best_cv_accuracy`.",
        pictures=("13_best_cv_accuracy",),
        looks=(CHILDREN_OF_TUNING,),
    ),
    Statement(
        "In the UI, [+] beside tuning shows its children; CML lists them flat.",
        looks=(CHILDREN_OF_TUNING,),
    ),
    Statement(
        "the run's Model metrics, type validation in the search field; Datasets on its Overview, a "
        "click shows the columns; importances_and_confusion.png under Artifacts.",
        pictures=("14_validation_log_loss", "14_dataset", "14_importances"),
    ),
    Statement(
        "In the UI:* Model metrics, with `validation` in the search field: `validation_log_loss` "
        "still falls at 100 trees; Artifacts has the figure of importances; under Datasets, a "
        "click shows the columns.",
        pictures=("14_validation_log_loss", "14_dataset", "14_importances"),
        curve=(
            "xgboost-fraud/one-machine, 20000 rows",
            "validation_log_loss",
            still_falls_at_100,
        ),
    ),
    Statement(
        "Experiments > xgboost-fraud, this run beside that of one machine: Metrics.",
        pictures=("15_two_machines",),
    ),
    Statement(
        "Experiments > xgboost-fraud, this run, Model metrics.",
        looks=(
            Look(
                page=run_page("xgboost-fraud/distributed, 20000 rows", "model-metrics"),
                strips=((card("average_precision"),),),
                facts=("average_precision", "0.39…"),
            ),
        ),
    ),
    Statement(
        "http://127.0.0.1:<port>/invocations",
        elsewhere=ENDPOINT,
        test="test_20_deploy_model.py::test_the_endpoint_answers_what_the_champion_itself_predicts",
    ),
    Statement(
        "in CML the page Jobs; on a laptop what the steps logged, with: make ui",
        pictures=("22_promotion", "23_registry"),
    ),
    Statement(
        "Experiments > xgb-telco, reference.json and training.py under Artifacts.",
        looks=(
            Look(
                page=run_page("xgb-telco/first model, 7200 messages"),
                clicks=('main [role="tab"]:has-text("Artifacts")',),
                strips=((FILES,),),
                facts=("reference.json", "training.py"),
            ),
        ),
    ),
    Statement(
        "Experiments > xgb-telco, the newest challenger: its tags gate.decision and gate.reason.",
        looks=(
            Look(
                page=runs_page("xgb-telco"),
                strips=((FIRST_ROW,),),
                facts=("challenger of day 8…",),
            ),
            Look(
                page=run_page("xgb-telco/challenger of day 8, 1440 messages"),
                strips=((tag("gate."),),),
                facts=("gate.reason", "roc_auc is higher by 0.2005", "gate.decision", "promote"),
            ),
        ),
    ),
    Statement(
        "Experiments > telco-monitoring, psi.png and scores.png under Artifacts.",
        looks=(
            Look(
                page=run_page("telco-monitoring/day 7: keep"),
                clicks=(
                    'main [role="tab"]:has-text("Artifacts")',
                    f'{FILES}:has-text("scores.png")',
                ),
                strips=((FILES, "main img"),),
                facts=("psi.png", "scores.png"),
            ),
        ),
    ),
    Statement(
        "the page, with python code/telco/08_model_roi_dashboard.py",
        pictures=("telco_08_one_half", "telco_08_best"),
    ),
    Statement(
        "http://127.0.0.1:<port>, in CML under Applications",
        pictures=("telco_08_one_half", "telco_08_best"),
    ),
    Statement(
        "Experiments > telco-monitoring, scores.png of the newest run.",
        pictures=("telco_07_scores",),
        looks=(
            Look(
                page=runs_page("telco-monitoring"),
                strips=((FIRST_ROW,),),
                facts=("day 11: keep",),
            ),
        ),
    ),
    Statement("Projects > mlflow-lessons > Experiments.", pictures=("ui_where_are_the_runs",)),
)
