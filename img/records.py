"""What is on each picture: one record a picture, in the order of the lessons.

A page is what follows the server's address. In pages and facts, `{experiment}` stands for the id of
an experiment, `{experiment/run}` for that of its first run of this name, `{experiment/run#2}` for
that of the second, `{experiment/run@tag}` for the value of a tag of it, and
`{experiment/run@model}` for the id of its model. `{experiment/run@tag:4}` stands for the first four
characters of the value.

Selectors are Playwright's. What they name is text, a role or a test id: the classes of MLflow's
pages change with its version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Look:
    """A page of the UI, and what must be legible on a part of it."""

    page: str
    strips: tuple[tuple[str, ...], ...] = (("main",),)
    """What is cut out: the box around all that these selectors find. Several strips are stacked."""
    facts: tuple[str, ...]
    """Texts that can be read in the cut, from top to bottom and from left to right."""
    in_any_order: bool = False
    clicks: tuple[str, ...] = ()
    typed: tuple[str, str] | None = None
    """A field, and what is typed into it after the clicks."""
    columns: tuple[str, ...] = ()
    """In a list of runs: the columns that are chosen, as if under Columns."""
    expanded: tuple[str, ...] = ()
    """In a list of runs: the parents that are open, as `{experiment/run}`."""
    new_visitor: bool = False
    """Whether the visitor has not yet chosen Model training, nor closed the pop-ups."""
    width: int = 1280
    height: int = 2000
    """Of the window: so high that nothing has to scroll."""


@dataclass(frozen=True, kw_only=True)
class Picture(Look):
    """One picture, and what must be legible on it."""

    name: str
    """Of the file, without `.png`: the lesson's number and what is to be seen."""
    lesson: str
    """The script that makes what is to be seen."""
    alt: str
    """Says in a sentence what is to be seen."""
    frame: tuple[str, ...] = ()
    """What the orange frame goes around."""
    program: str = "cml/mlflow_ui.py"
    variables: dict[str, str] = field(default_factory=dict)
    """Of an environment in which the program is started for this picture alone."""

    @property
    def has_own_server(self) -> bool:
        """Whether it shows no page of the MLflow UI on the store of the lessons."""
        return bool(self.variables) or self.program != "cml/mlflow_ui.py"

    def digest(self) -> str:
        """Return a short text that is another one when anything that this record says is."""
        said = {key: value for key, value in vars(self).items() if value}
        return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def run_page(run: str, tab: str = "") -> str:
    """Return the page of a run that is named as `experiment/run`."""
    experiment = run.partition("/")[0]
    return f"#/experiments/{{{experiment}}}/runs/{{{run}}}" + (f"/{tab}" if tab else "")


def runs_page(experiment: str, order: str = "") -> str:
    """Return the list of the runs of an experiment, by default newest first."""
    return f"#/experiments/{{{experiment}}}/runs{order}"


def by_metric(metric: str, ascending: bool = False) -> str:
    """Return the order of a list of runs by one of their metrics."""
    return f"?orderByKey=metrics.%60{metric}%60&orderByAsc={str(ascending).lower()}"


def compare_page(*runs: str) -> str:
    """Return the page that compares runs of one experiment, in this order."""
    experiment = runs[0].partition("/")[0]
    ids = ",".join(f'"{{{run}}}"' for run in runs)
    return f'#/compare-runs?runs=[{ids}]&experiments=["{{{experiment}}}"]'


def metric(name: str) -> str:
    """Return the name of a metric's column."""
    return f"metrics.`{name}`"


def param(name: str) -> str:
    """Return the name of a param's column."""
    return f"params.`{name}`"


def card(name: str) -> str:
    """Return the selector of the card with the chart of a metric."""
    return f'{CARDS}:has-text("{name}")'


def section(name: str) -> str:
    """Return the selector of a heading on the page of a run."""
    return f'main h4:has-text("{name}")'


def tag(name: str = "") -> str:
    """Return the selector of a tag on the page of a run, or of all of them."""
    selector = 'main [data-component-id*="keyvaluetag"]'
    return f'{selector}:has-text("{name}")' if name else selector


def row(name: str) -> str:
    """Return the selector of a row of a table by a text in it."""
    return f':is(main, [role="dialog"]) :is(tr, [role="row"]):has-text("{name}")'


def box_of(run: str) -> str:
    """Return the selector of the box that ticks a run in a list."""
    return f'{row(run)} >> input[type="checkbox"] >> nth=0'


def expander_of(run: str) -> str:
    """Return the selector of the [+] beside a run in a list, which shows its children."""
    return f'[role="row"]:has-text("{run}") [data-component-id*="runnamecellrenderer"]'


def metric_row(name: str) -> str:
    """Return the selector of a row of metrics where runs are compared."""
    return f'main [role="rowgroup"] > div:has-text("{name}")'


CARDS = '[data-testid="experiment-view-compare-runs-card"]'
HEADING, TABS = "main h2", '[role="tablist"]'
FILES = '[data-testid="artifact-tree-node"]'
LISTED = ('main [role="columnheader"] >> visible=true', 'main [role="gridcell"]')
FIRST_ROW = '[row-index="0"] [role="gridcell"]'
VERSIONS = '[data-testid="model-version-table"]'
TRAINING = "spark_catalog.default.training"
DESCRIPTION = '[data-testid="descriptions-item"]'

ROI = (
    ("h1",),
    (".grid:has(#threshold)",),
    ("section:has(#breakdown)",),
)

PICTURES = (
    Picture(
        name="00_model_training",
        lesson="00_datagen.py",
        page="#/experiments",
        strips=(
            (
                '[aria-label="Toggle sidebar"]',
                'text="GenAI"',
                'text="Home"',
                HEADING,
                '[data-testid="experiment-list-item-link"]',
                '[role="columnheader"]:has-text("Last modified")',
            ),
        ),
        facts=("Experiments", "Model training", "xgboost-fraud", "wine-quality-test"),
        alt="The MLflow UI with Model training chosen at the top left, and the experiments.",
        frame=('text="Model training"',),
        width=1080,
    ),
    Picture(
        name="01_two_runs",
        lesson="01_Active_Experiment.py",
        page=runs_page("example-experiment"),
        strips=(LISTED,),
        facts=("mean_qual…", "with-block", "5.8779…", "by-hand", "5.8779…"),
        alt="Two runs, with-block and by-hand, with the same mean_quality.",
        columns=(
            metric("mean_quality"),
            param("rows"),
        ),
    ),
    Picture(
        name="01_rmse_by_train_rows",
        lesson="01_Experiment.py",
        page=run_page("wine-quality-test/elasticnet", "model-metrics"),
        strips=((card("rmse_by_train_rows"),),),
        facts=("rmse_by_train_rows", "Step", "elasticnet"),
        alt="Chart of rmse_by_train_rows: it falls, and is flat from 800 wines on.",
    ),
    Picture(
        name="02_figure",
        lesson="02_Log_Artifacts_Tags.py",
        page=run_page("wine-quality-test/files-and-tags", "artifacts/figures/grades.png"),
        strips=((TABS, FILES, "main img"),),
        facts=("Artifacts", "data_source", "figures", "grades.png", "states", "facts.json"),
        alt="The artifacts of a run: folders, facts.json, and the figure grades.png.",
        frame=(f'{FILES}:has-text("grades.png")',),
        width=1080,
    ),
    Picture(
        name="02_tags",
        lesson="02_Log_Artifacts_Tags.py",
        page=run_page("wine-quality-test/files-and-tags"),
        strips=((HEADING, TABS), (section("Tags"), tag())),
        facts=("files-and-tags", "Tags", "data.license", "CC BY 4.0", "what a run can keep"),
        alt="The run files-and-tags with its three tags, among them data.license.",
        frame=(tag(),),
        width=1080,
    ),
    Picture(
        name="02_logged_model",
        lesson="02_log_model.py",
        page="#/experiments/{wine-quality-test}/models/{wine-quality-test/elasticnet-with-model@model}",
        strips=(
            (HEADING, 'text="Overview"', 'text="Register model"', 'text="Source run ID"'),
            (section("Metrics"), row("r2")),
        ),
        facts=("Register model", "elasticnet-with-model", "rmse", "0.849…"),
        alt="The page of a logged model with its metrics and the button Register model.",
        width=1080,
        height=1400,
        frame=('main button:has-text("Register model")',),
    ),
    Picture(
        name="03_sorted_by_rmse",
        lesson="03_Get_Experiment.py",
        page=runs_page("wine-quality-test", by_metric("rmse", ascending=True)),
        strips=(LISTED,),
        facts=("rmse", "elasticnet", "0.822…", "elasticnet-with-model", "0.849…", "files-and-tags"),
        alt="The runs of wine-quality-test, the lowest rmse first.",
        columns=(
            metric("rmse"),
            param("alpha"),
        ),
    ),
    Picture(
        name="05_schema",
        lesson="05_Auto_Model_Registration.py",
        page="#/models/Auto-Deployed Model/versions/1",
        clicks=('text="Inputs (11)"',),
        strips=((HEADING, DESCRIPTION), ('main :text-is("Schema")', row("residual sugar"))),
        facts=(
            "Version 1",
            "registered",
            "Schema",
            "Inputs (11)",
            "fixed acidity",
            "double",
            "residual sugar",
        ),
        alt="Version 1 of the registered model; its schema has 11 inputs, such as fixed acidity.",
        width=1140,
    ),
    Picture(
        name="06_dataset_column",
        lesson="06_Spark_Iceberg.py",
        page=runs_page("sparkml-experiment"),
        strips=(LISTED,),
        facts=(
            "Dataset",
            "experiment-3",
            f"{TRAINING} ( {{sparkml-experiment/experiment-1@iceberg_snapshot_id:4}}…",
            "experiment-2",
            f"{TRAINING} ( {{sparkml-experiment/experiment-2@iceberg_snapshot_id:4}}…",
            "experiment-1",
            f"{TRAINING} ( {{sparkml-experiment/experiment-1@iceberg_snapshot_id:4}}…",
        ),
        alt="The column Dataset of three runs: experiments 1 and 3 name the same snapshot.",
        columns=("attributes.`Dataset`",),
        frame=('[role="gridcell"][col-id="attributes.`Dataset`"]',),
    ),
    Picture(
        name="06_three_runs",
        lesson="06_Spark_Iceberg.py",
        page=compare_page(*(f"sparkml-experiment/experiment-{number}" for number in (1, 2, 3))),
        clicks=('[role="button"]:has-text("Artifacts")',),
        strips=((row("Run Name:"),), (row("iceberg_parent_id"), row("training_table"))),
        facts=(
            "experiment-1",
            "experiment-2",
            "experiment-3",
            "{sparkml-experiment/experiment-1@iceberg_snapshot_id}",
            "{sparkml-experiment/experiment-2@iceberg_snapshot_id}",
            "{sparkml-experiment/experiment-1@iceberg_snapshot_id}",
            "row_count",
            "4",
            "8",
            "4",
        ),
        alt="Tags of three runs side by side: experiments 1 and 3 share a snapshot of 4 rows.",
        width=1080,
        frame=(row("iceberg_snapshot_id"),),
    ),
    Picture(
        name="07_forest",
        lesson="07_Keep_Snapshot.py",
        page=run_page("keep-snapshot/forest"),
        strips=(
            (
                HEADING,
                TABS,
                section("Registered models"),
                'main a[href*="models/wine-forest"] >> nth=-1',
            ),
            (section("Metrics"), row("baseline_rmse")),
        ),
        facts=(
            "forest",
            "Datasets",
            "spark_catalog.default.wines",
            "{keep-snapshot/forest@iceberg_snapshot_id}",
            "iceberg_tag",
            "identical",
            "wine-forest",
            "rmse",
            "0.688…",
        ),
        alt="The run forest: its metrics, dataset, tags such as iceberg_tag, and registered model.",
        width=1080,
        frame=(tag("iceberg_tag"),),
    ),
    Picture(
        name="08_comparison",
        lesson="08_Reproduce_Run.py",
        page=run_page("reproductions/again: forest", "artifacts/comparison.json"),
        strips=((TABS, FILES, 'main [role="row"]'),),
        facts=("comparison.json", "rows", "True", "predictions", "3000 equal", "True"),
        alt="The file comparison.json as a table: five lines, each of them equal.",
        width=1080,
    ),
    Picture(
        name="08_verdict",
        lesson="08_Reproduce_Run.py",
        page=run_page("reproductions/again: forest"),
        strips=((HEADING, TABS), (section("Datasets"), tag())),
        facts=(
            "again: forest",
            "{keep-snapshot/forest@iceberg_snapshot_id}",
            "reproduction_of",
            "reproduction_verdict",
            "identical",
        ),
        alt="The run that repeats forest, with the tag reproduction_verdict: identical.",
        width=1080,
        frame=(tag("reproduction_verdict"),),
    ),
    Picture(
        name="11_test_accuracy",
        lesson="11_train_random_forest.py",
        page=compare_page(
            "sklearn-classification/kneighbors", "sklearn-classification/random-forest"
        ),
        strips=(
            (row("Run Name:"),),
            (metric_row("baseline_accuracy"), metric_row("train_accuracy")),
        ),
        facts=(
            "kneighbors",
            "random-forest",
            "baseline_accuracy",
            "0.504",
            "test_accuracy",
            "0.932",
            "0.92",
        ),
        alt="Two runs compared: test_accuracy is 0.932 and 0.92.",
        width=1080,
        frame=(metric_row("test_accuracy"), metric_row("0.932"), metric_row("0.92") + " >> nth=0"),
    ),
    Picture(
        name="12_best_child",
        lesson="12_Compare_Runs.py",
        page=runs_page("sklearn-comparison", by_metric("mean_test_score")),
        strips=(LISTED,),
        facts=(
            "mean_test…",
            "depth 12, 80 trees",
            "0.948",
            "depth 6, 80 trees",
            "depth 3, 20 trees",
            "0.894…",
            "grid-search",
        ),
        alt="The six children of grid-search, the best first: depth 12, 80 trees scores 0.948.",
        columns=(metric("mean_test_score"),),
    ),
    Picture(
        name="13_children",
        lesson="13_Tune_Nested_Runs.py",
        page=runs_page("sklearn-tuning"),
        strips=(LISTED,),
        facts=("tuning", "trial-11", "trial-10", "0.925…", "34", "trial-00"),
        alt="The run tuning opened: twelve trials with their params and cv_accuracy.",
        columns=(
            metric("cv_accuracy"),
            param("n_neighbors"),
            param("weights"),
            param("p"),
        ),
        expanded=("{sklearn-tuning/tuning}",),
        frame=('[row-index="2"] [role="gridcell"]',),
    ),
    Picture(
        name="13_best_cv_accuracy",
        lesson="13_Tune_Nested_Runs.py",
        page=run_page("sklearn-tuning/tuning", "model-metrics"),
        strips=((card("best_cv_accuracy"),),),
        facts=("best_cv_accuracy", "Step", "tuning"),
        alt="Chart of best_cv_accuracy over twelve trials: it rises in steps.",
    ),
    Picture(
        name="14_validation_log_loss",
        lesson="14_XGBoost_Iceberg.py",
        page=run_page("xgboost-fraud/one-machine, 20000 rows", "model-metrics"),
        typed=('[placeholder="Search metric charts"]', "validation"),
        strips=((card("validation_log_loss"),),),
        facts=("validation_log_loss", "Step", "one-machine, 20000 rows"),
        alt="Chart of validation_log_loss: it still falls at 100 trees.",
    ),
    Picture(
        name="14_importances",
        lesson="14_XGBoost_Iceberg.py",
        page=run_page(
            "xgboost-fraud/one-machine, 20000 rows", "artifacts/importances_and_confusion.png"
        ),
        strips=((TABS, FILES, "main img"),),
        facts=("Artifacts", "importances_and_confusion.png"),
        alt="The figure importances_and_confusion.png: 30 of 271 frauds are found.",
        width=1080,
    ),
    Picture(
        name="14_dataset",
        lesson="14_XGBoost_Iceberg.py",
        page=run_page("xgboost-fraud/one-machine, 20000 rows"),
        clicks=('main :text("spark_catalog.default.transactions")',),
        strips=(("[role=dialog] :text('Data details for')", row("fraud_label")),),
        facts=(
            "Data details for",
            "20000",
            "{xgboost-fraud/one-machine, 20000 rows@iceberg_snapshot_id}",
            "amount_usd",
            "fraud_label",
            "integer",
        ),
        alt="The dataset of a run: table, snapshot, columns with types, down to fraud_label.",
        width=1280,
        height=900,
    ),
    Picture(
        name="15_two_machines",
        lesson="15_XGBoost_Distributed.py",
        page=compare_page(
            "xgboost-fraud/distributed, 20000 rows", "xgboost-fraud/one-machine, 20000 rows"
        ),
        strips=(
            (row("Run Name:"),),
            (metric_row("accuracy") + " >> nth=0", metric_row("baseline_accuracy")),
        ),
        facts=("distributed", "one-machine", "average_precision", "0.392", "0.385"),
        alt="Distributed training beside one machine: average_precision is 0.392 and 0.385.",
        width=1080,
        frame=(
            metric_row("average_precision") + " >> nth=0",
            metric_row("0.392"),
            metric_row("0.385"),
        ),
    ),
    Picture(
        name="22_promotion",
        lesson="22_Promote_Model.py",
        page=run_page("promotions/on: version 3"),
        strips=(
            (HEADING, TABS),
            (section("Tags"), tag()),
            (section("Metrics"), row("gain_over_champion_high")),
        ),
        facts=(
            "on: version 3",
            "gate.decision",
            "promote",
            "challenger_rmse",
            "0.754…",
            "champion_rmse",
            "0.849…",
        ),
        alt="The run of a promotion: rmse of challenger and champion, and the verdict promote.",
        width=1080,
    ),
    Picture(
        name="22_verdict",
        lesson="22_Promote_Model.py",
        page="#/models/Auto-Deployed Model/versions/3",
        strips=((HEADING, DESCRIPTION, 'main :text("promote: ")'),),
        facts=("Version 3", "champion", "promote: 0.0949"),
        alt="Version 3 of the registered model: the alias champion, and the verdict promote.",
        frame=('main :text("promote: ")',),
        width=1140,
    ),
    Picture(
        name="23_registry",
        lesson="23_Chain_of_Jobs.py",
        page="#/models/Auto-Deployed Model",
        strips=((HEADING,), (f'{VERSIONS} [role="row"]',)),
        facts=("Auto-Deployed Model", "Version 3", "champion", "Version 2", "Version 1"),
        alt="Three versions of the registered model; the champion is Version 3.",
        frame=('main :text("champion")',),
        width=1080,
    ),
    Picture(
        name="telco_07_scores",
        lesson="telco/07_model_monitoring.py",
        page=run_page("telco-monitoring/day 11: keep", "artifacts/scores.png"),
        strips=((TABS, FILES, "main img"),),
        facts=("Artifacts", "scores.png"),
        alt="The figure scores.png: roc_auc falls on day 8; another version mends it on day 10.",
        width=1080,
    ),
    Picture(
        name="telco_07_psi",
        lesson="telco/07_model_monitoring.py",
        page=run_page("telco-monitoring/day 11: keep", "artifacts/psi.png"),
        strips=((TABS, FILES, "main img"),),
        facts=("Artifacts", "psi.png"),
        alt="The figure psi.png: on days 8 and 9 iot_signal_4 is far above both lines.",
        width=1080,
    ),
    Picture(
        name="telco_08_one_half",
        lesson="telco/08_model_roi_dashboard.py",
        program="cml/roi_dashboard.py",
        page="",
        strips=ROI,
        facts=(
            "Interactive Model ROI Dashboard",
            "Decision Threshold: 0.50",
            "All days of the served model: 1,440 messages",
            "5,000 = 47 x 100 + 1,255 x 10 - 31 x 50 - 107 x 100",
            "TP 47",
        ),
        alt="The ROI dashboard with Decision Threshold: 0.50, at which the model earns 5,000.",
        width=860,
    ),
    Picture(
        name="telco_08_best",
        lesson="telco/08_model_roi_dashboard.py",
        program="cml/roi_dashboard.py",
        page="",
        typed=("#threshold", "0.36"),
        strips=ROI,
        facts=(
            "Interactive Model ROI Dashboard",
            "Decision Threshold: 0.36",
            "All days of the served model: 1,440 messages",
            "8,700 = 76 x 100 + 1,220 x 10 - 66 x 50 - 78 x 100",
            "TP 76",
        ),
        alt="The same page with Decision Threshold: 0.36, at which the model earns 8,700.",
        width=860,
    ),
    Picture(
        name="ui_where_are_the_runs",
        lesson="cml/mlflow_ui.py",
        page="",
        strips=(("h1", "p"),),
        facts=(
            "Where are the runs?",
            "Projects > mlflow-lessons > Experiments",
            "Open the workbench",
        ),
        alt="The page Where are the runs? names the project and its Experiments page.",
        width=760,
        variables={
            "MLFLOW_TRACKING_URI": "cml://localhost",
            "CDSW_DOMAIN": "ml-1234.example.cloudera.site",
            "CDSW_PROJECT": "mlflow-lessons",
        },
    ),
)
