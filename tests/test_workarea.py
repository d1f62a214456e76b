import argparse
import os
import shutil
import sqlite3
import subprocess
import sys

import mlflow
import pytest
from conftest import (
    ROOT,
    clean_environment,
    client_of,
    finish,
    python,
    run_script,
    runs_in,
    start_python,
    start_script,
    succeed,
)

from cmlflow import errors, store, workarea


def use_store(work, experiment=None, **extra):
    """Do what every lesson does before its first run."""
    code = f"from cmlflow import store; store.use_store({experiment!r})"
    return finish(start_python(code, work, **extra))


def type_the_command(done, work):
    """Type the command at the end of an error's message in a terminal without our environment."""
    assert done.returncode != 0
    command = done.stderr.splitlines()[-1].partition("run:  ")[2]
    typed = subprocess.run(
        command,
        shell=True,
        cwd="/",
        env=clean_environment(work, PATH="/usr/bin:/bin"),
        capture_output=True,
        text=True,
    )
    assert typed.returncode == 0, f"{command}\n{typed.stderr[-2000:]}"


def leave_behind(database, ending):
    """Leave a database and its journal as a process does that is killed while it writes."""
    write = sqlite3.connect(database, isolation_level=None)
    write.execute(f"PRAGMA journal_mode = {'WAL' if ending == '-wal' else 'DELETE'}")
    write.execute("PRAGMA cache_size = 1")  # pages are written before the end of the transaction
    write.execute("CREATE TABLE other (text)")
    write.execute("BEGIN")
    write.executemany("INSERT INTO other VALUES (?)", [("x" * 1000,)] * 1000)
    write.execute("COMMIT")
    write.execute("BEGIN")
    write.execute("UPDATE other SET text = 'y' || text")
    journal = database.with_name(database.name + ending).read_bytes()
    write.execute("ROLLBACK")
    write.close()
    database.with_name(database.name + ending).write_bytes(journal)


class TestRoot:
    def test_it_is_found_from_any_folder(self, tmp_path):
        printed = python("from cmlflow import workarea; print(workarea.root())", tmp_path)
        assert printed.strip() == str(ROOT)

    def test_the_folder_one_stands_in_wins_over_the_installed_package(self, tmp_path):
        for folder in ("code", "cmlflow"):
            (tmp_path / folder).mkdir()
        (tmp_path / "code" / "00_datagen.py").touch()
        show = "from cmlflow import workarea; print(workarea.root())"
        assert python(show, tmp_path, cwd=tmp_path / "code").strip() == str(tmp_path)

    def test_nowhere_near_the_project_it_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [""])
        monkeypatch.setattr(workarea, "__file__", str(tmp_path / "workarea.py"))
        with pytest.raises(errors.LessonError, match="Change into the project first:  cd"):
            workarea.root()


class TestWorkingArea:
    def test_it_is_the_project_unless_the_environment_names_a_folder(self, monkeypatch, tmp_path):
        monkeypatch.delenv("CMLFLOW_WORKAREA", raising=False)
        assert workarea.path("data", "x.csv") == ROOT / "data" / "x.csv"
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(tmp_path))
        assert workarea.path("data", "x.csv") == tmp_path / "data" / "x.csv"

    def test_lessons_run_from_another_folder_and_leave_nothing_there(self, work, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("a folder with spaces")
        succeed("02_log_model.py", work, cwd=elsewhere)
        (run,) = runs_in(work, "wine-quality-test")
        assert run.info.artifact_uri.startswith(work.as_uri())
        left = sorted(path.name for path in elsewhere.rglob("*") if path.is_file())
        assert left == []

    def test_a_working_area_with_spaces_in_its_name_works(self, tmp_path):
        area = tmp_path / "my lessons"
        succeed("02_Log_Artifacts_Tags.py", area)
        (run,) = runs_in(area, "wine-quality-test")
        assert run.info.status == "FINISHED"
        assert [entry.path for entry in client_of(area).list_artifacts(run.info.run_id, "states")]


class TestStore:
    def test_two_lessons_at_once_on_a_fresh_store_both_succeed(self, tmp_path):
        scripts = ("01_Active_Experiment.py", "01_Experiment.py")
        for process in [start_script(script, tmp_path) for script in scripts]:
            done = finish(process)
            assert done.returncode == 0, done.stderr[-2000:]
        assert len(runs_in(tmp_path, "example-experiment")) == 2
        assert len(runs_in(tmp_path, "wine-quality-test")) == 1
        assert not (tmp_path / "mlflow.db.new").exists()

    def test_the_same_lesson_twice_at_once_shares_one_experiment(self, work):
        for process in [start_script("01_Active_Experiment.py", work) for _ in range(2)]:
            done = finish(process)
            assert done.returncode == 0, done.stderr[-2000:]
        assert len(runs_in(work, "example-experiment")) == 4

    def test_half_a_database_of_a_crash_is_made_anew(self, tmp_path):
        (tmp_path / "mlflow.db.new").write_bytes(b"half a database")
        succeed("01_Experiment.py", tmp_path)
        assert len(runs_in(tmp_path, "wine-quality-test")) == 1

    def test_a_store_that_the_user_chose_wins(self, tmp_path, empty_store):
        own = tmp_path / "own.db"
        own.write_bytes(empty_store.read_bytes())
        uri = f"sqlite:///{own}"
        succeed("01_Experiment.py", tmp_path, cwd=tmp_path, MLFLOW_TRACKING_URI=uri)
        assert not (tmp_path / "mlflow.db").exists()
        mlflow.set_tracking_uri(uri)
        found = mlflow.search_runs(experiment_names=["wine-quality-test"], output_format="list")
        assert len(found) == 1

    def test_a_deleted_experiment_says_how_to_bring_it_back(self, tmp_path, empty_store):
        area = tmp_path / "my lessons"
        area.mkdir()
        shutil.copy(empty_store, area / "mlflow.db")
        client = client_of(area)
        client.delete_experiment(client.create_experiment("wine-quality-test"))
        done = use_store(area, "wine-quality-test")
        assert "The experiment 'wine-quality-test' was deleted" in done.stderr
        type_the_command(done, area)
        assert use_store(area, "wine-quality-test").returncode == 0

    def test_a_store_one_migration_behind_is_usable_after_the_command(self, tmp_path, empty_store):
        area = tmp_path / "my lessons"
        area.mkdir()
        shutil.copy(empty_store, area / "mlflow.db")
        python(
            "import alembic.command, os, sys\n"
            "from mlflow.store.db.utils import _get_alembic_config\n"
            "config = _get_alembic_config(f'sqlite:///{os.getcwd()}/mlflow.db')\n"
            "alembic.command.downgrade(config, '-1')\n",
            area,
        )
        done = use_store(area)
        if done.returncode != 0:  # MLflow 3 lacks a table then, and does it by itself
            assert "this one is older" in done.stderr
            type_the_command(done, area)
            done = use_store(area)
        assert done.returncode == 0, done.stderr[-2000:]

    @pytest.mark.parametrize(
        ("revision", "other_tables", "age"),
        [
            ("451aebb31d03", False, "older"),
            ("0123456789ab", False, "newer"),
            ("0123456789ab", True, "newer"),  # an error of the migrations, not of MLflow
        ],
    )
    def test_a_store_of_another_mlflow_version_says_so_and_is_left_alone(
        self, work, revision, other_tables, age
    ):
        with sqlite3.connect(work / "mlflow.db") as database:
            database.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
            if other_tables:
                database.execute("ALTER TABLE registered_model_aliases RENAME TO aliases")
        database.close()
        before = (work / "mlflow.db").read_bytes()
        done = use_store(work)
        assert done.returncode != 0
        assert "was made by another version of MLflow than " + mlflow.__version__ in done.stderr
        assert f"this one is {age}" in done.stderr
        upgrade = f"run:  {sys.executable} -m mlflow db upgrade sqlite:///{work}/mlflow.db"
        assert (upgrade in done.stderr) == (age == "older")
        assert ("run:  make clean" in done.stderr) == (age == "newer")
        assert (work / "mlflow.db").read_bytes() == before

    @pytest.mark.parametrize("ending", ["-journal", "-wal"])
    def test_what_a_killed_sqlite_left_does_not_get_into_the_next_store(self, tmp_path, ending):
        leave_behind(tmp_path / "mlflow.db", ending)
        (tmp_path / "mlflow.db").unlink()
        for name in ("mlflow.db.new-journal", "mlflow.db.new-wal", "mlflow.db.new-shm"):
            (tmp_path / name).write_bytes(b"of another database")
        done = use_store(tmp_path, "mine")
        assert done.returncode == 0, done.stderr[-2000:]
        assert client_of(tmp_path).get_experiment_by_name("mine") is not None
        left = sorted(path.name for path in tmp_path.glob("mlflow.db*"))
        assert left == ["mlflow.db", "mlflow.db.lock"]

    @pytest.mark.parametrize(
        ("project", "cure"),
        [("", "pip install -r requirements-local.txt"), ("a-b", "MLFLOW_TRACKING_URI")],
    )
    def test_where_mlflow_has_no_database_it_says_what_to_do_here(self, tmp_path, project, cure):
        """CML's mlflow-skinny has none: advice to install another MLflow over it would break it."""
        (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['sqlalchemy'] = None")
        done = use_store(tmp_path, CDSW_PROJECT_ID=project, PYTHONPATH=str(tmp_path))
        assert "MLflow could not create" in done.stderr
        assert done.stderr.splitlines()[-1].endswith(cure)

    def test_a_folder_that_cannot_be_written_gives_the_reason(self, tmp_path):
        (tmp_path / "taken").write_text("a file where the working area should be")
        done = run_script("01_Experiment.py", tmp_path / "taken")
        assert done.returncode != 0
        assert str(tmp_path / "taken") in done.stderr


def test_clean_removes_what_lessons_made_and_nothing_else(tmp_path, monkeypatch):
    kept = ("data/mine.csv", "data/predictions-1.unfinished", "mlflow.db-backup", "notes.txt")
    made = (
        *("mlflow.db", "mlflow.db-journal", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db.lock"),
        *("mlflow.db.new", "mlflow.db.new-journal", "mlflow.db.new-wal", "mlflow.db.new-shm"),
        *("mlartifacts/1/model", "spark-warehouse/default/t", "spark-warehouse.lock"),
        *(
            "data/predictions.csv",
            "data/.predictions-1.unfinished",
            "data/.predictions-2.unfinished",
        ),
    )
    area = tmp_path / "area [1]*"  # not a pattern
    for name in (*kept, *made):
        (area / name).parent.mkdir(parents=True, exist_ok=True)
        (area / name).touch()
    monkeypatch.setenv("CMLFLOW_WORKAREA", str(area))
    removed = workarea.remove_what_lessons_made()
    left = sorted(path.relative_to(area).as_posix() for path in area.rglob("*") if path.is_file())
    assert left == sorted(kept)
    assert len(removed) == len(made)
    assert workarea.remove_what_lessons_made() == []


class TestHowToOpenUi:
    def test_on_a_laptop(self, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow.set_tracking_uri(None)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        assert store.how_to_open_ui() == "make ui, then http://127.0.0.1:5000"

    def test_in_cml(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "cml://localhost")
        assert "Experiments page" in store.how_to_open_ui()

    def test_on_a_server_without_its_password(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example:8443/x")
        said = store.how_to_open_ui()
        assert said == "the MLflow UI of https://mlflow.example:8443/x"

    def test_on_a_server_without_the_token_in_its_address(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example/x?token=SECRET#SECRET")
        assert store.how_to_open_ui() == "the MLflow UI of https://mlflow.example/x"


def test_remove_what_lessons_made_keeps_everything_else(tmp_path, monkeypatch):
    monkeypatch.setenv("CMLFLOW_WORKAREA", str(tmp_path))
    kept = [tmp_path / "data" / "mine.csv", tmp_path / ".venv" / "complete"]
    made = [tmp_path / "mlflow.db", tmp_path / "data" / "states" / "x" / "json.json"]
    for path in (*kept, *made):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    removed = workarea.remove_what_lessons_made()
    assert removed == [tmp_path / "mlflow.db", tmp_path / "data" / "states"]
    assert all(path.exists() for path in kept) and not any(path.exists() for path in made)
    assert workarea.remove_what_lessons_made() == []


def refuse_metrics(work):
    """A store that fails in the middle of a run: the first metric is refused."""
    with sqlite3.connect(work / "mlflow.db") as database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON metrics "
            "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
        )
    database.close()


def block_artifacts(work):
    """No place for artifacts: a file lies where their folder should be."""
    (work / "mlartifacts").write_text("in the way")


@pytest.mark.parametrize(
    ("script", "experiment", "spoil"),
    [
        ("01_Active_Experiment.py", "example-experiment", refuse_metrics),
        ("01_Experiment.py", "wine-quality-test", refuse_metrics),
        ("02_log_model.py", "wine-quality-test", block_artifacts),
        ("02_Log_Artifacts_Tags.py", "wine-quality-test", block_artifacts),
        ("05_Auto_Model_Registration.py", "auto-registration", block_artifacts),
    ],
)
def test_a_lesson_that_fails_in_a_run_marks_it_failed(work, script, experiment, spoil):
    spoil(work)
    done = run_script(script, work)
    assert done.returncode != 0
    assert [run.info.status for run in runs_in(work, experiment)] == ["FAILED"]


@pytest.mark.parametrize("typo", ["-alpha", "-a", "-fold"])
def test_an_option_with_one_dash_is_refused_and_nothing_is_logged(work, typo):
    done = run_script("01_Experiment.py", work, typo, "0.3")
    assert done.returncode != 0
    assert f"Unknown option {typo}." in done.stderr
    assert runs_in(work, "wine-quality-test") == []


def test_a_negative_number_is_a_value_not_an_option(monkeypatch):
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--shift", type=float)
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--shift", "-0.5", "-f", "/run/kernel.json"])
    assert parser.parse_args().shift == -0.5
