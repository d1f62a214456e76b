import json

import mlflow
import pytest
from conftest import ROOT, client_of, files_of, runs_in, succeed

SCRIPT = "02_Log_Artifacts_Tags.py"
EXPERIMENT = "wine-quality-test"


@pytest.fixture(scope="module")
def run(module_work):
    stray = module_work / "data" / "states" / "stray.txt"  # lies where the lesson writes
    stray.parent.mkdir(parents=True)
    stray.write_text("not made by the lesson")
    (module_work / "data" / "json.json").write_text("{}")
    succeed(SCRIPT, module_work)
    (run,) = runs_in(module_work, EXPERIMENT)
    return run


@pytest.fixture(scope="module")
def fetched(run, module_work, tmp_path_factory):
    client_of(module_work)
    folder = tmp_path_factory.mktemp("fetched")
    mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=str(folder))
    return folder


def test_it_logs_exactly_the_files_it_made(run, module_work):
    assert files_of(module_work, run) == [
        "data_source/README.md",
        "facts.json",
        "figures/grades.png",
        "states/features.txt",
        "states/json.json",
    ]


def test_artifacts_equal_the_files_byte_for_byte(run, module_work, fetched):
    made = module_work / "data" / "states" / run.info.run_id
    for name in ("json.json", "features.txt"):
        assert (fetched / "states" / name).read_bytes() == (made / name).read_bytes()
    source = (ROOT / "data" / "README.md").read_bytes()
    assert (fetched / "data_source" / "README.md").read_bytes() == source


def test_the_files_say_what_is_in_the_data(fetched, wines):
    facts = json.loads((fetched / "states" / "json.json").read_text())
    assert facts["rows"] == len(wines)
    assert facts["mean"]["alcohol"] == pytest.approx(wines["alcohol"].mean(), abs=1e-4)
    features = (fetched / "states" / "features.txt").read_text().splitlines()
    assert [*features, "quality"] == list(wines.columns)
    assert json.loads((fetched / "facts.json").read_text()) == facts


def test_the_figure_is_a_picture(fetched):
    assert (fetched / "figures" / "grades.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_tags_are_set_and_are_not_params(run):
    own = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    assert own == {
        "data.name": "wine-quality",
        "data.license": "CC BY 4.0",
        "purpose": "what a run can keep",
    }
    assert run.data.params == {}


def test_a_second_run_keeps_the_files_of_the_first(run, warm, module_work, fetched):
    warm.succeed(SCRIPT, module_work)
    newest, first = runs_in(module_work, EXPERIMENT)
    assert first.info.run_id == run.info.run_id
    made = module_work / "data" / "states"
    assert (made / run.info.run_id / "json.json").exists()
    assert (made / newest.info.run_id / "json.json").exists()
    assert (made / "stray.txt").read_text() == "not made by the lesson"
