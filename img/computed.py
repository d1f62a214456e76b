"""The numbers in the prose of the READMEs that a lesson computes, and where each comes from.

One record a text, with a source for each of its numbers. A number of the store may differ from
what is written by half of its last digit: 0.850 stands for all from 0.8495 to 0.8505.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from img.lens import Store

ROOT = Path(__file__).resolve().parents[1]
WALK = ROOT / "code" / "README.md"
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Metric:
    """The last value of a metric of a run, which is named as `experiment/run`."""

    run: str
    name: str
    times: float = 1

    def value(self, store: Store) -> float:
        """Return the number as the store has it."""
        return self.times * store.metric(self.run, self.name)


@dataclass(frozen=True)
class Param:
    """A param of a run, which is named as `experiment/run`."""

    run: str
    name: str

    def value(self, store: Store) -> float:
        """Return the number as the store has it."""
        return float(store.param(self.run, self.name))


@dataclass(frozen=True)
class Printed:
    """What a lesson prints, as code/README.md shows it; a test compares that with the lesson."""

    lesson: str
    pattern: str
    """Finds the number, as its first group, in what the lesson prints."""

    def value(self, store: Store | None = None) -> float:
        """Return the number that is printed; no store is needed."""
        block = rf"^\$ python code/{re.escape(self.lesson)}(?: --[\w-]+)*\n((?:(?!\$ |```).*\n)*)"
        printed = "".join(re.findall(block, WALK.read_text(encoding="utf-8"), re.MULTILINE))
        return found_in(printed, self.pattern, f"what {self.lesson} prints")


@dataclass(frozen=True)
class Tested:
    """What a test asserts: the number as it stands there."""

    file: str
    pattern: str

    def value(self, store: Store | None = None) -> float:
        """Return the number that the test asserts; no store is needed."""
        text = (ROOT / "tests" / self.file).read_text(encoding="utf-8")
        return found_in(text, self.pattern, f"tests/{self.file}")


Source = Metric | Param | Printed | Tested


@dataclass(frozen=True)
class Computed:
    """A text of the prose with numbers, and the source of each of them, in their order."""

    text: str
    sources: tuple[Source, ...]

    def wrong(self, store: Store | None = None) -> list[str]:
        """Return what is wrong with each number of the text that is not what its source says.

        Without a store, only those that need none are looked at.
        """
        found = []
        for written, source in zip(NUMBER.findall(self.text), self.sources, strict=True):
            if store is None and isinstance(source, Metric | Param):
                continue
            value = source.value(store)
            half = 0.5 * 10 ** -len(written.partition(".")[2])
            if abs(value - float(written.replace(",", ""))) > half * (1 + 1e-9):
                found.append(f"{written} is written, and {value:.12g} is what {source} says")
        return found


def found_in(text: str, pattern: str, where: str) -> float:
    """Return the number that the first group of a pattern finds.

    Raises:
        LookupError: it finds nothing.
    """
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise LookupError(f"{pattern!r} finds nothing in {where}")
    return float(match[1])


def scores(run: str, *names: str) -> tuple[Metric, ...]:
    """Return several metrics of one run as sources."""
    return tuple(Metric(run, name) for name in names)


def forest(depth: int, trees: int) -> tuple[Source, ...]:
    """Return the score of one of the forests of lesson 12 as a source, with its params."""
    run = f"sklearn-comparison/depth {depth}, {trees} trees"
    params = ("forest__max_depth", "forest__n_estimators")
    return Metric(run, "mean_test_score"), *(Param(run, name) for name in params)


NEIGHBORS, TREES = "10_train_kneighbors.py", "11_train_random_forest.py"
FRAUD, MONEY = "14_XGBoost_Iceberg.py", "telco/08_model_roi_dashboard.py"
TOWERS = "telco/00_datagen.py"
MESSAGES, HOW_MANY_TOWERS = (
    Printed(TOWERS, r"^ +1 +(\d+) +\d+ +\d+$"),
    Printed(TOWERS, r"^ +1 +\d+ +\d+ +(\d+)$"),
)

COMPUTED = (
    Computed(
        "Writes 10,000 bank transactions with a fraud label; about 7 % are fraud.",
        (
            Printed("00_datagen.py", r"Done: (\d+) rows"),
            Printed("00_datagen.py", r"Done: .* ([\d.]+)% fraud"),
        ),
    ),
    Computed(
        "would reach a ROC AUC of 0.88.",
        (Tested("test_00_datagen.py", r"score\) == pytest.approx\(([\d.]+), abs"),),
    ),
    Computed("grades 4,898 white wines", (Printed("01_Experiment.py", r"^(\d+) wines, graded"),)),
    Computed(
        "rmse 0.82224284976, mae 0.627876141016, r2 0.126787219728.",
        scores("wine-quality-test/elasticnet", "rmse", "mae", "r2"),
    ),
    Computed(
        "`baseline_rmse`, 0.880, is the error",
        scores("wine-quality-test/elasticnet", "baseline_rmse"),
    ),
    Computed(
        "a stronger penalty (rmse 0.850)", scores("wine-quality-test/elasticnet-with-model", "rmse")
    ),
    Computed(
        "The accuracy of 1.0 is measured on the training rows",
        scores("sparkml-experiment/experiment-1", "train_accuracy"),
    ),
    Computed(
        "rmse 0.688, baseline 0.869.", scores("keep-snapshot/forest", "rmse", "baseline_rmse")
    ),
    Computed(
        "233 and 230 of 250 test rows are right",
        (
            Metric("sklearn-classification/kneighbors", "test_accuracy", 250),
            Metric("sklearn-classification/random-forest", "test_accuracy", 250),
            Printed(NEIGHBORS, r"(\d+) test rows"),
        ),
    ),
    Computed(
        "is right for all training rows and for 87 % of the test rows",
        (Tested("test_10_11_train.py", r"single\[1\], 2\)\) == \(1\.0, 0\.(\d\d)\)"),),
    ),
    Computed(
        "rises from 0.895 (depth 3, 20 trees) to 0.948 (depth 12, 80 trees)",
        (*forest(3, 20), *forest(12, 80)),
    ),
    Computed(
        "score the winner only (0.968)", scores("sklearn-comparison/grid-search", "test_accuracy")
    ),
    Computed(
        "0.892 for the untuned model and 0.925 for the best (34 neighbours, weighted by distance), "
        "yet the test accuracy stays 0.932",
        (
            *scores("sklearn-tuning/tuning", "untuned_cv_accuracy", "best_cv_accuracy"),
            Param("sklearn-tuning/tuning", "best_n_neighbors"),
            *scores("sklearn-tuning/tuning", "test_accuracy"),
        ),
    ),
    Computed(
        "average precision 0.387, where a baseline that predicts the share of fraud for every "
        "transaction gets 0.070.",
        scores(
            "xgboost-fraud/one-machine, 10000 rows",
            "average_precision",
            "baseline_average_precision",
        ),
    ),
    Computed(
        "0.934 against 0.929.",
        scores("xgboost-fraud/one-machine, 10000 rows", "accuracy", "baseline_accuracy"),
    ),
    Computed(
        "The 100 most suspicious test rows hold 41 of 141 frauds, where 100 rows drawn at random "
        "hold 7.",
        (
            Printed(FRAUD, r"The (\d+) most suspicious"),
            Printed(FRAUD, r"hold (\d+) of \d+ frauds"),
            Printed(FRAUD, r"hold \d+ of (\d+) frauds"),
            Printed(FRAUD, r"^(\d+) rows at random"),
            Printed(FRAUD, r"rows at random would hold about (\d+)"),
        ),
    ),
    Computed(
        "the model of 10,000 rows with that of 20,000 on the same test rows, 0.379 and 0.385, "
        "where chance moves the difference by 0.010:",
        (
            Printed(FRAUD, r"^(1\d+) rows in snapshot"),
            Printed(FRAUD, r"^(2\d+) rows in snapshot"),
            Printed(FRAUD, r"^average_precision: ([\d.]+); \d"),
            Metric("xgboost-fraud/one-machine, 20000 rows", "average_precision"),
            Printed(FRAUD, r"chance moves this difference by ([\d.]+)"),
        ),
    ),
    Computed(
        "(roc_auc 0.867 and 0.865)",
        (
            Metric("xgboost-fraud/one-machine, 20000 rows", "roc_auc"),
            Metric("xgboost-fraud/distributed, 20000 rows", "roc_auc"),
        ),
    ),
    Computed(
        "2,000 times the wines are drawn again",
        (Printed("22_Promote_Model.py", r"resamples (\d+)"),),
    ),
    Computed("40 cell towers report every", (HOW_MANY_TOWERS,)),
    Computed("40 cell towers, 1,440 messages a day,", (HOW_MANY_TOWERS, MESSAGES)),
    Computed("1,440 requests a day", (MESSAGES,)),
    Computed(
        "from a probability of about 0.23 on", (Printed(MONEY, r"a probability of ([\d.]+) on"),)
    ),
    Computed(
        "1,440 messages instead of 7,200",
        (
            Printed("telco/04_train_xgboost.py", r"^(\d+) messages up to"),
            Printed("telco/01_train_xgboost.py", r"^(\d+) messages up to"),
        ),
    ),
    Computed("earns less than at 0.23", (Printed(MONEY, r"threshold ([\d.]+) break-even"),)),
    Computed(
        "a roc_auc of 0.646 and 0.644",
        (
            Metric("telco-monitoring/day 9: retrain", "roc_auc"),
            Metric("telco-monitoring/day 10: keep", "roc_auc"),
        ),
    ),
)
