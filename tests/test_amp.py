"""The AMP: its file against Cloudera's specification, and its tasks in the order of an import.

The specification is the page "Project Specification" of Cloudera's documentation on AMPs, and for
the fields of tasks the AMPs that Cloudera publishes.
"""

import ast
import contextlib
import re
import shutil
import subprocess
import sys
import venv
from datetime import date
from types import SimpleNamespace

import psutil
import pytest
import yaml
from conftest import (
    LIMIT,
    ROOT,
    CellFailed,
    Kernel,
    clean_environment,
    runs_in,
    wait_until,
)
from servers import alive, ask
from test_mlflow_ui import standin

from cmlflow.processes import free_port

AMP = yaml.safe_load((ROOT / ".project-metadata.yaml").read_text(encoding="utf-8"))
INSTALL = "cml/install_dependencies.py"
EXPERIMENT = "sklearn-classification"
DRY_PIP = standin("dry_pip")  # it only says what it would install: the environment is yours

COMMON = {"type", "name", "short_summary", "long_summary", "cpu", "memory", "gpu"}
TASKS = {  # type: (fields that it needs, fields that it may have besides)
    "run_session": ({"name", "script"}, {"entity_label"}),
    "create_job": ({"name", "entity_label", "script"}, {"arguments", "environment"}),
    "run_job": ({"entity_label"}, {"arguments"}),
    "start_application": (
        {"name", "subdomain", "script"},
        {"bypass_authentication", "static_subdomain", "environment_variables", "is_embedded"},
    ),
}


def tasks(kind):
    return [task for task in AMP["tasks"] if task["type"] == kind]


class TestTheFile:
    @pytest.mark.parametrize(
        ("field", "longest"),
        [
            *(("name", 200), ("description", 2048), ("author", 64)),
            *(("specification_version", 16), ("prototype_version", 16)),
        ],
    )
    def test_required_fields_are_texts_that_are_not_too_long(self, field, longest):
        assert isinstance(AMP[field], str)
        assert 0 < len(AMP[field]) <= longest

    def test_the_date_is_a_text_and_a_day(self):
        assert isinstance(AMP["date"], str)  # without quotation marks YAML makes a date of it
        assert AMP["date"] == date.fromisoformat(AMP["date"]).isoformat()

    def test_there_is_no_field_that_the_specification_does_not_know(self):
        known = {"name", "description", "author", "specification_version", "prototype_version"}
        known |= {"date", "shared_memory_limit", "environment_variables", "feature_dependencies"}
        assert set(AMP) <= known | {"engine_images", "runtimes", "tasks"}

    def test_every_runtime_is_one_that_cml_has_and_none_pins_an_addon(self):
        for runtime in AMP["runtimes"]:
            assert set(runtime) == {"editor", "kernel", "edition"}
            assert runtime["editor"] in ("PBJ Workbench", "JupyterLab")
            assert runtime["kernel"] in ("Python 3.11", "Python 3.10")
            assert runtime["edition"] == "Standard"
        assert len({tuple(runtime.values()) for runtime in AMP["runtimes"]}) == len(AMP["runtimes"])

    def test_every_python_of_the_runtimes_is_one_that_the_project_supports(self):
        asked = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        lowest, highest = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', asked).groups()
        for runtime in AMP["runtimes"]:
            assert int(lowest) <= int(runtime["kernel"].rpartition(".")[2]) < int(highest)

    @pytest.mark.parametrize("task", AMP["tasks"], ids=lambda task: task.get("name"))
    def test_a_task_has_the_fields_of_its_type(self, task):
        needed, possible = TASKS[task["type"]]
        assert needed <= set(task)
        assert set(task) <= COMMON | needed | possible
        for field in set(task) - {"cpu", "memory", "gpu", "environment", "environment_variables"}:
            assert isinstance(task[field], str), field
        for field in {"cpu", "memory"} & set(task):
            assert task[field] > 0

    @pytest.mark.parametrize("task", AMP["tasks"], ids=lambda task: task.get("name"))
    def test_the_script_of_a_task_exists(self, task):
        if "script" in task:
            assert (ROOT / task["script"]).is_file()
            assert not task["script"].startswith("/")

    def test_variables_of_jobs_are_texts_that_the_script_has_an_option_for(self):
        for task in tasks("create_job"):
            source = (ROOT / task["script"]).read_text(encoding="utf-8")
            for name, value in task["environment"].items():
                assert isinstance(value, str)
                option = "--" + name.removeprefix("CMLFLOW_").lower().replace("_", "-")
                assert f'"{option}"' in source

    def test_a_job_is_created_once_and_before_it_runs(self):
        created = []
        for task in AMP["tasks"]:
            if task["type"] == "create_job":
                assert task["entity_label"] not in created
                created.append(task["entity_label"])
            elif task["type"] == "run_job":
                assert task["entity_label"] in created
        assert {task["entity_label"] for task in tasks("run_job")} == set(created)

    def test_it_installs_then_trains_twice_then_starts_the_ui(self):
        order = [(task["type"], task.get("script")) for task in AMP["tasks"]]
        assert order[0] == ("run_session", INSTALL)
        assert order[-1] == ("start_application", "cml/mlflow_ui.py")
        assert {script for kind, script in order if kind == "create_job"} == {
            "code/10_train_kneighbors.py",
            "code/11_train_random_forest.py",
        }

    def test_the_subdomain_is_a_name_of_the_internet(self):
        (application,) = tasks("start_application")
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", application["subdomain"])


def cells_of(script):
    return (ROOT / script).read_text(encoding="utf-8").split("\n# %%\n")


@pytest.mark.parametrize("script", [INSTALL, "cml/mlflow_ui.py", "cml/patch_spark_executor.py"])
def test_nothing_ties_a_script_to_a_kernel_or_to_a_terminal(script):
    text = (ROOT / script).read_text(encoding="utf-8")
    assert not re.search(r"^\s*[!%]", text, re.MULTILINE)
    nodes = list(ast.walk(ast.parse(text)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not names & {"__file__", "SystemExit", "exit", "quit"}
    assert not attributes & {"exit", "_exit", "execv", "execve", "execvp", "execvpe"}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What an import leaves: each task in a kernel of its own, in the order of the file.

    The variables of the jobs get other values than those of the file, which are the defaults of
    the scripts.
    """
    work, port = tmp_path_factory.mktemp("amp"), free_port()
    jobs, variables, printed = {}, {}, {}
    with contextlib.ExitStack() as running:
        for task in AMP["tasks"]:
            if task["type"] == "create_job":
                jobs[task["entity_label"]] = task
                continue
            job = jobs[task["entity_label"]] if task["type"] == "run_job" else task
            chosen = {name: str(int(old) + 2) for name, old in job.get("environment", {}).items()}
            variables |= chosen
            kernel = running.enter_context(
                Kernel(work, CDSW_APP_PORT=str(port), **DRY_PIP, **chosen)
            )
            *cells, last = (ROOT / job["script"]).read_text(encoding="utf-8").split("\n# %%\n")
            said = [kernel.run_cell(cell) for cell in cells]
            if task["type"] == "start_application":
                kernel.client.execute(last)  # it lasts as long as the application
                wait_until(lambda: ask(port)[0] is not None, "an answer of the application")
                started = psutil.Process(kernel.manager.provisioner.pid).children(recursive=True)
            else:
                printed[job["script"]] = "".join([*said, kernel.run_cell(last)])
        yield SimpleNamespace(work=work, port=port, printed=printed, variables=variables)
    wait_until(lambda: not alive(started), "the end of the application")


@pytest.mark.network
class TestTheImport:
    def test_the_first_task_asks_pip_for_all_that_the_lessons_need(self, imported):
        printed = imported.printed[INSTALL]
        for name in ("numpy", "pandas", "scikit-learn", "matplotlib", "xgboost", "cmlflow"):
            assert re.search(rf"(already satisfied: |Collecting |Would install.*){name}", printed)
        assert f"Done: requirements.txt is installed for {sys.executable}" in printed

    def test_both_jobs_logged_a_run_with_the_values_of_their_variables(self, imported):
        runs = {run.info.run_name: run for run in runs_in(imported.work, EXPERIMENT)}
        assert sorted(runs) == ["kneighbors", "random-forest"]
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        logged = {
            f"CMLFLOW_{name.upper()}": value
            for run in runs.values()
            for name, value in run.data.params.items()
        }
        assert len(imported.variables) == 3
        assert {name: logged[name] for name in imported.variables} == imported.variables

    def test_the_application_answers_and_knows_the_runs(self, imported):
        assert ask(imported.port)[0] == 200
        search = "/api/2.0/mlflow/experiments/search?max_results=10"
        assert EXPERIMENT in ask(imported.port, search)[1]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A Python with pip and nothing else: no cmlflow, no IPython."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def install(python, folder, script=ROOT / INSTALL, **extra):
    return subprocess.run(
        [str(python), str(script)],
        cwd=folder,
        env=clean_environment(folder, **{"PYTHONPATH": ""} | extra),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


class TestInstallDependencies:
    @pytest.mark.network
    def test_it_needs_nothing_but_pip_and_runs_from_any_folder(self, bare_python, tmp_path):
        done = install(bare_python, tmp_path, PIP_NO_DEPS="1", **DRY_PIP)  # the pins alone: quick
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert re.search(r"^Would install .*cmlflow", done.stdout, re.MULTILINE)
        assert done.stdout.splitlines()[-1] == (
            f"Done: requirements.txt is installed for {bare_python}"
        )

    def test_without_an_index_it_says_what_is_missing(self, bare_python, tmp_path):
        done = install(bare_python, tmp_path, PIP_NO_INDEX="1")
        assert done.returncode != 0
        problem, expected, command = done.stderr.rstrip().splitlines()[-3:]
        assert "requirements.txt could not be installed: No matching distribution" in problem
        assert "a package index that can be reached" in expected
        assert command.endswith(f"run:  {bare_python} -m pip install -r requirements.txt")

    def test_in_a_session_a_failure_is_an_error_and_no_exit(self, tmp_path):
        with Kernel(tmp_path, PIP_NO_INDEX="1") as kernel, pytest.raises(CellFailed) as failed:
            for cell in (ROOT / INSTALL).read_text(encoding="utf-8").split("\n# %%\n"):
                kernel.run_cell(cell)
        assert "['RuntimeError']" in str(failed.value)
        assert "requirements.txt could not be installed" in str(failed.value)

    def test_far_from_the_project_it_says_so(self, tmp_path):
        script = shutil.copy(ROOT / INSTALL, tmp_path)
        done = install(sys.executable, tmp_path, script)
        assert done.returncode != 0
        problem, expected, command = done.stderr.rstrip().splitlines()[-3:]
        assert problem.startswith("FileNotFoundError: No project folder above ")
        assert expected == "Expected: a folder with requirements.txt and cmlflow/ in it."
        assert command.startswith("Change into the project first:  cd ")
