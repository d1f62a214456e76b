"""The page of the monitoring by hand: eleven answers, three days, two versions."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_telco_08_model_roi_dashboard import board_of

from cmlflow import drift, monitoring, scores
from cmlflow.serving import Deployment

ROOT = Path(__file__).resolve().parents[1]
THRESHOLDS = drift.read_thresholds(ROOT / "code" / "telco" / "thresholds.yaml")
LABEL = "failed"
REFERENCE = {"threshold": 0.4}
CHALLENGE = {"day": 7, "decision": "promote"}
SERVES = Deployment("towers", "Towers", 2, "new", "http://127.0.0.1/invocations")
NAN = float("nan")
# Day 6 by version 1; day 7 by version 1, and its last two by version 2; day 8 without a truth.
ANSWERED = pd.DataFrame(
    [
        (6, "old", 1, 0.1, 2.0, 0.0),
        (6, "old", 1, 0.4, 4.0, 1.0),
        (6, "old", 1, 0.8, 9.0, 0.0),
        (6, "old", 1, 0.9, 5.0, 1.0),
        (7, "old", 1, 0.5, 1.0, 1.0),
        (7, "old", 1, 0.5, 1.0, 1.0),
        (7, "new", 2, 0.3, 3.0, 0.0),
        (7, "new", 2, 0.7, 3.0, 1.0),
        (8, "new", 2, 0.2, NAN, NAN),
        (8, "new", 2, 0.3, NAN, NAN),
        (8, "new", 2, 0.6, NAN, NAN),
    ],
    columns=["batch_id", "run_id", "version", "probability", "latency_ms", LABEL],
)


def truth_rows(day, run_id, share, **others):
    values = {"failure_share": share, "reference_roc_auc": 0.85} | others
    return [(day, 0, kind, "", value, 4, run_id) for kind, value in values.items()]


ROWS = pd.DataFrame(
    [
        (6, 1, "psi", "fan", 0.02, 480, "old"),
        (6, 2, "psi", "fan", 0.30, 480, "old"),
        (6, 1, "psi", "noise", 0.05, 480, "old"),
        (6, 2, "psi", "noise", 0.04, 480, "old"),
        (6, 3, "too_few", "", 300.0, 120, "old"),
        (6, 1, "predicted_share", "", 0.2, 480, "old"),
        (6, 2, "predicted_share", "", 0.4, 480, "old"),
        (6, 3, "predicted_share", "", 0.6, 120, "old"),
        *truth_rows(6, "old", 0.5, roc_auc=0.75, accuracy=0.5, baseline_accuracy=0.5),
        (6, 0, "decision", "wait", 1.0, 0, "old"),
        (7, 1, "psi", "fan", 0.9, 480, "old"),  # of the version that left on this day
        (7, 2, "psi", "fan", 0.01, 480, "new"),
        (7, 2, "predicted_share", "", 0.5, 480, "new"),
        *truth_rows(7, "old", 1.0),
        *truth_rows(7, "new", 0.5, roc_auc=1.0, accuracy=1.0, baseline_accuracy=0.5),
        (7, 0, "verdict", "on", 1.0, 288, "new"),
        (8, 1, "too_few", "", 300.0, 3, "new"),
        (8, 1, "predicted_share", "", 1 / 3, 3, "new"),
        (8, 0, "decision", "keep", 0.0, 0, "new"),
    ],
    columns=drift.COLUMNS,
)


def page_of(rows=ROWS, answered=ANSWERED, serves=SERVES, challenge=CHALLENGE):
    return monitoring.page(
        "Towers", rows, answered, LABEL, REFERENCE, THRESHOLDS, serves, challenge
    )


@pytest.fixture(scope="module")
def page():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a day without a time is no reason for one
        return page_of()


def test_a_day_has_the_numbers_of_the_run_that_answered_last(page):
    assert [(day["day"], day["run_id"], day["version"]) for day in page["days"]] == [
        (6, "old", 1),
        (7, "new", 2),
        (8, "new", 2),
    ]
    assert page["days"][0]["predicted_share"] == pytest.approx(0.4)
    assert [day["latency_ms"] for day in page["days"]] == [4.5, 2.0, None]
    assert [day["decision"] for day in page["days"]] == ["wait", None, "keep"]


def test_the_page_of_the_dashboard_is_tested_with_what_is_logged_here(page):
    board = board_of(newest=8)
    assert page.keys() == board.keys()
    for ours, theirs in zip(page["days"], board["days"], strict=True):
        assert ours.keys() == theirs.keys()
    assert page["days"][0]["truth"].keys() == board["days"][0]["truth"].keys()


def test_psi_is_by_window_and_none_for_one_that_was_too_small(page):
    assert page["days"][0]["psi"] == {"fan": [0.02, 0.30, None], "noise": [0.05, 0.04, None]}
    assert page["days"][1]["psi"] == {"fan": [0.01]}
    assert page["days"][2]["psi"] == {}


def test_the_truth_is_counted_at_every_threshold(page):
    six, seven, eight = (day["truth"] for day in page["days"])
    assert eight is None
    assert (six["messages"], six["failures"]) == (4, 2)
    assert (seven["messages"], seven["failures"]) == (2, 1)  # of the two that version 2 answered
    assert {name: six[name] for name in monitoring.TRUTH} == {
        "roc_auc": 0.75,
        "reference_roc_auc": 0.85,
        "accuracy": 0.5,
        "baseline_accuracy": 0.5,
        "log_loss": None,
    }
    assert page["thresholds"] == list(scores.THRESHOLDS)
    counts = pd.DataFrame(six["counts"], index=page["thresholds"])
    assert counts.loc[0.0].to_dict() == {"tn": 0, "fp": 2, "fn": 0, "tp": 2}
    assert counts.loc[0.4].to_dict() == {"tn": 1, "fp": 1, "fn": 0, "tp": 2}
    assert counts.loc[0.81].to_dict() == {"tn": 2, "fp": 0, "fn": 1, "tp": 1}
    assert counts.loc[1.0].to_dict() == {"tn": 2, "fp": 0, "fn": 2, "tp": 0}


def test_what_serves_when_it_took_over_and_who_challenged(page):
    assert page["served"] == {"run_id": "new", "version": 2, "threshold": 0.4}
    assert page["promotions"] == [{"day": 7, "run_id": "new", "version": 2}]
    assert page["challenge"] == CHALLENGE
    assert (page["model"], page["day"], page["schema"]) == ("Towers", 8, 1)
    assert (page["psi_watch"], page["psi_alarm"]) == (0.1, 0.25)


def test_where_nothing_serves_the_page_shows_what_answered_last():
    found = page_of(serves=None, challenge=None)
    assert found["served"] == {"run_id": "new", "version": 2, "threshold": 0.4}
    assert found["challenge"] is None


def test_it_is_json_without_nan_and_does_not_change_what_it_is_given(page):
    rows, answered = ROWS.copy(), ANSWERED.copy()
    again = json.loads(json.dumps(page_of(rows, answered), allow_nan=False))
    assert again == page
    pd.testing.assert_frame_equal(rows, ROWS)
    pd.testing.assert_frame_equal(answered, ANSWERED)


def test_rows_that_are_there_twice_count_once(page):
    """Two sessions that measured the same day at the same moment, in a lake."""
    assert page_of(rows=pd.concat([ROWS, ROWS])) == page


def test_a_metric_has_the_day_as_its_step(page):
    found = sorted(monitoring.metrics(page))
    assert (
        found
        == sorted(
            [
                ("predicted_share", 6, pytest.approx(0.4)),
                ("predicted_share", 7, 0.5),
                ("predicted_share", 8, pytest.approx(1 / 3)),
                ("latency_ms", 6, 4.5),
                ("latency_ms", 7, 2.0),
                ("psi_fan", 6, 0.30),  # the largest of the day
                ("psi_noise", 6, 0.05),
                ("psi_fan", 7, 0.01),
                ("roc_auc", 6, 0.75),
                ("roc_auc", 7, 1.0),
                ("reference_roc_auc", 6, 0.85),
                ("reference_roc_auc", 7, 0.85),
                ("accuracy", 6, 0.5),
                ("accuracy", 7, 1.0),
                ("baseline_accuracy", 6, 0.5),
                ("baseline_accuracy", 7, 0.5),
            ],
            key=lambda one: one[:2],
        )
    )


def curves(figure):
    """The lines of a figure that have a name, as points; a gap is left out."""
    (axes,) = figure.axes
    return {
        line.get_label(): list(zip(*(np.round(one, 6).tolist() for one in line.get_data()),
                                   strict=True))
        for line in axes.lines
        if not line.get_label().startswith("_")
    }  # fmt: skip


def levels(figure):
    """The heights of the horizontal lines, and the days of the vertical ones."""
    (axes,) = figure.axes
    points = [
        tuple(map(list, line.get_data())) for line in axes.lines if line.get_label().startswith("_")
    ]
    return (
        [float(y[0]) for x, y in points if list(x) == [0, 1]],
        [float(x[0]) for x, y in points if list(y) == [0, 1]],
    )


def test_the_figures_have_the_curves_that_they_are_named_after(page):
    figures = monitoring.figures(page)
    assert {name: curves(one) for name, one in figures.items()} == {
        "processing_time.png": {"median of the day": [(6, 4.5), (7, 2)]},
        "scores.png": {
            "roc_auc": [(6, 0.75), (7, 1)],
            "roc_auc in training": [(6, 0.85), (7, 0.85)],
            "accuracy": [(6, 0.5), (7, 1)],
            "accuracy of the baseline": [(6, 0.5), (7, 0.5)],
        },
        "psi.png": {
            "fan": [(6, 0.02), (round(6 + 1 / 3, 6), 0.3), (7, 0.01)],
            "noise": [(6, 0.05), (round(6 + 1 / 3, 6), 0.04)],
        },
        "predicted_failures.png": {
            "share to which a truck would be sent": [(6, 0.4), (7, 0.5), (8, round(1 / 3, 6))],
            "share that failed": [(6, 0.5), (7, 0.5)],
        },
    }
    for name, one in figures.items():
        assert levels(one) == ([0.1, 0.25] if name == "psi.png" else [], [7.0]), name
        (axes,) = one.axes
        assert axes.get_xlabel() == "day" and axes.get_title(loc="left")
        assert "version 2" in {text.get_text() for text in axes.texts}
    assert "ms" in figures["processing_time.png"].axes[0].get_title(loc="left")
