"""The truth that a prediction gets later, in the platform's own model metrics."""

import json
import sys
from types import ModuleType

import pytest
from conftest import STANDINS

from cmlflow import model_metrics

TRUTH = {f"uuid-{number}": float(number % 2) for number in range(5)}


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """A session with model metrics; the function tells what they hold."""
    monkeypatch.syspath_prepend(STANDINS)
    for name in ("cml", "cml.metrics_v1", "cdsw"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("CML_STORE", str(tmp_path))
    kept = tmp_path / "model-metrics.jsonl"
    kept.touch()
    yield lambda: [json.loads(line) for line in kept.read_text().splitlines()]
    for name in ("cml", "cml.metrics_v1"):
        sys.modules.pop(name, None)


def test_each_prediction_gets_its_own_truth_once(sent, capsys):
    assert model_metrics.send_truth("final_label", TRUTH) == 5
    assert sent() == [{"uuid": u, "metrics": {"final_label": v}} for u, v in TRUTH.items()]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("taken", [0, 3])
def test_a_refusal_is_one_line_without_a_key_and_what_was_taken_stays(
    sent, monkeypatch, capsys, taken
):
    monkeypatch.setenv("MODEL_METRICS_TAKEN", str(taken))
    monkeypatch.setenv("CDSW_APIV2_KEY", "very-secret")
    assert model_metrics.send_truth("final_label", TRUTH) == taken
    assert [one["uuid"] for one in sent()] == list(TRUTH)[:taken]
    told = f"Model metrics took {taken} of 5: model metrics are not enabled for *** here\n"
    assert capsys.readouterr().out == told


def test_without_new_truth_nothing_is_asked_for(sent, monkeypatch, capsys):
    monkeypatch.setenv("MODEL_METRICS_TAKEN", "0")
    assert model_metrics.send_truth("final_label", {}) == 0
    assert capsys.readouterr().out == ""


def test_no_module_is_no_error(monkeypatch, capsys):
    for name in ("cml", "cml.metrics_v1", "cdsw"):
        monkeypatch.setitem(sys.modules, name, None)
    assert model_metrics.send_truth("final_label", TRUTH) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("with_calls", [True, False])
def test_a_classic_runtime_has_them_in_cdsw(monkeypatch, with_calls):
    monkeypatch.setitem(sys.modules, "cml", ModuleType("cml"))
    monkeypatch.setitem(sys.modules, "cml.metrics_v1", ModuleType("cml.metrics_v1"))
    cdsw, calls = ModuleType("cdsw"), []
    if with_calls:
        cdsw.track_delayed_metrics = lambda metrics, uuid: calls.append((metrics, uuid))
    monkeypatch.setitem(sys.modules, "cdsw", cdsw)
    sent = model_metrics.send_truth("final_label", {"a": 1.0})
    assert (sent, calls) == ((1, [({"final_label": 1.0}, "a")]) if with_calls else (0, []))


def test_a_module_that_fails_while_it_is_imported_is_no_error(tmp_path, monkeypatch):
    for name in ("cml", "cml.metrics_v1"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "cdsw", raising=False)
    (tmp_path / "cdsw.py").write_text("import os; os.environ['NO_SUCH_VARIABLE_OF_CML']")
    monkeypatch.syspath_prepend(tmp_path)
    assert model_metrics.send_truth("final_label", TRUTH) == 0
