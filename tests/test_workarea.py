import json
import shutil
import sys

import pytest
from conftest import ROOT, client_of, python, runs_in

from cmlflow import errors, workarea


class TestRoot:
    def test_it_is_found_from_any_folder(self, tmp_path):
        printed = python("from cmlflow import workarea; print(workarea.root())", tmp_path)
        assert printed.strip() == str(ROOT)

    def test_the_folder_you_stand_in_wins_over_the_installed_package(self, tmp_path, monkeypatch):
        for folder in ("code", "cmlflow"):
            (tmp_path / folder).mkdir()
        (tmp_path / "code" / "00_datagen.py").touch()
        monkeypatch.chdir(tmp_path / "code")
        monkeypatch.setattr(sys, "argv", [""])
        assert workarea.root() == tmp_path

    def test_nowhere_near_the_project_it_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [""])
        monkeypatch.setattr(workarea, "__file__", str(tmp_path / "workarea.py"))
        with pytest.raises(errors.LessonError, match="Change into the project first:  cd"):
            workarea.root()


class TestWorkingArea:
    @pytest.mark.parametrize("blank", ["", "  "])
    def test_it_is_the_project_unless_the_environment_names_a_folder(
        self, monkeypatch, tmp_path, blank
    ):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [""])
        monkeypatch.setenv("CMLFLOW_WORKAREA", blank)
        assert workarea.path("data", "x.csv") == ROOT / "data" / "x.csv"
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(tmp_path))
        assert workarea.path("data", "x.csv") == tmp_path / "data" / "x.csv"

    def test_lessons_run_from_another_folder_and_leave_nothing_there(
        self, warm, work, tmp_path_factory
    ):
        elsewhere = tmp_path_factory.mktemp("a folder with spaces")
        warm.succeed("02_log_model.py", work, cwd=elsewhere)
        (run,) = runs_in(work, "wine-quality-test")
        assert run.info.artifact_uri.startswith(work.as_uri())
        left = sorted(path.name for path in elsewhere.rglob("*") if path.is_file())
        assert left == []

    @pytest.mark.parametrize("name", ["my lessons", "100% ä#+&='"])
    def test_a_working_area_with_an_odd_name_works(self, warm, empty_store, tmp_path, name):
        area = tmp_path / name
        area.mkdir()
        shutil.copy(empty_store, area)
        warm.succeed("02_Log_Artifacts_Tags.py", area)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        shutil.move(area / "mlflow.db", tmp_path / "mlflow.db")  # to open it by a plain address
        (run,) = runs_in(tmp_path, "wine-quality-test")
        assert run.info.status == "FINISHED"
        assert client_of(tmp_path).list_artifacts(run.info.run_id, "states")

    def test_a_folder_that_cannot_be_made_gives_the_reason(self, monkeypatch, tmp_path):
        (tmp_path / "taken").write_text("a file")
        for area, reason in (
            (tmp_path / "taken", "File exists"),
            (tmp_path / "taken" / "below", "Not a directory"),
            (tmp_path / ("e" * 300), "File name too long"),
        ):
            monkeypatch.setenv("CMLFLOW_WORKAREA", str(area))
            with pytest.raises(errors.LessonError) as caught:
                workarea.make_folder("data")
            found, expected, cure = str(caught.value).splitlines()
            assert found == f"The folder {area / 'data'} cannot be made: {reason}." or (
                area.name == "taken" and "Not a directory" in found
            )
            assert expected.startswith("Expected: a folder that you may write to")
            assert cure.endswith("CMLFLOW_WORKAREA=<folder>")


class TestSamePlace:
    @pytest.fixture
    def area(self, monkeypatch, work):
        """A working area with an experiment, and with a table as Iceberg describes it."""
        area = work / "an area"
        client = client_of(work)
        client.create_experiment("e", artifact_location=(area / "mlartifacts" / "e").as_uri())
        area.mkdir()
        shutil.copy(work / "mlflow.db", area)
        metadata = area / "spark-warehouse" / "default" / "wines" / "metadata"
        metadata.mkdir(parents=True)
        location = f"file:{area}/spark-warehouse/default/wines"
        (metadata / "v1.metadata.json").write_text(json.dumps({"location": location}))
        return area

    @pytest.mark.parametrize("gone", [None, "mlflow.db", "spark-warehouse"])
    def test_an_area_is_used_where_it_was_made_and_refused_as_a_copy(self, monkeypatch, area, gone):
        """Either half knows the place: an area may hold only tables, or only runs."""
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(area))
        workarea.require_same_place()
        copy = area.with_name("copy")
        shutil.copytree(area, copy)
        if gone is not None:
            shutil.move(copy / gone, copy.parent / "moved away")
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(copy))
        with pytest.raises(errors.LessonError) as caught:
            workarea.require_same_place()
        found, expected, cure = str(caught.value).splitlines()
        assert found == f"The working area {copy} was made at {area}."
        assert "absolute paths" in expected
        assert cure == "To start anew here, run:  make clean"
        workarea.remove_what_lessons_made()
        workarea.require_same_place()
        assert (area / "mlflow.db").exists() and (area / "spark-warehouse").exists()

    def test_a_moved_area_is_refused_until_it_is_moved_back(self, monkeypatch, area):
        elsewhere = area.with_name("elsewhere")
        area.rename(elsewhere)
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(elsewhere))
        with pytest.raises(errors.LessonError, match=rf"\(or move the folder back to {area}\)"):
            workarea.require_same_place()
        elsewhere.rename(area)
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(area))
        workarea.require_same_place()

    def test_a_lesson_in_a_copied_area_writes_into_neither(self, warm, area, tmp_path_factory):
        copy = tmp_path_factory.mktemp("copied") / "area"
        shutil.copytree(area, copy)
        before = [sorted(path.rglob("*")) for path in (area, copy)]
        database = (copy / "mlflow.db").read_bytes()
        for script in ("01_Experiment.py", "02_log_model.py"):
            done = warm.run_script(script, copy)
            assert f"The working area {copy} was made at {area}." in done.stderr
        assert [sorted(path.rglob("*")) for path in (area, copy)] == before
        assert (copy / "mlflow.db").read_bytes() == database

    def test_spark_refuses_a_copied_area_before_java_starts(self, area, tmp_path_factory):
        copy = tmp_path_factory.mktemp("copied") / "area"
        shutil.copytree(area, copy)
        start = (
            "from cmlflow import errors\nfrom cmlflow.spark import start_spark\n"
            "try: start_spark('none')\nexcept errors.LessonError as error: print(error)"
        )
        done = python(start, copy, JAVA_HOME="/no/such/java", CMLFLOW_ICEBERG_JAR="/no/such.jar")
        assert done.startswith(f"The working area {copy} was made at {area}.")


class TestClean:
    def test_it_removes_what_lessons_made_and_nothing_else(self, tmp_path, monkeypatch):
        kept = (
            *("data/mine.csv", "data/predictions-1.unfinished", "mlflow.db-backup", "notes.txt"),
            *(".venv/complete", "mlruns/0/of a run that no lesson made"),
        )
        made = (
            *("mlflow.db", "mlflow.db-journal", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db.lock"),
            *("mlflow.db.new", "mlflow.db.new-journal", "mlflow.db.new-wal", "mlflow.db.new-shm"),
            *("mlartifacts/1/model", "spark-warehouse/default/t", "spark-warehouse.lock"),
            *("data/predictions.csv", "data/states/x/json.json"),
            *("data/.predictions-1.unfinished", "data/.predictions-2.unfinished"),
        )
        area = tmp_path / "area [1]*"  # not a pattern
        for name in (*kept, *made):
            (area / name).parent.mkdir(parents=True, exist_ok=True)
            (area / name).touch()
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(area))
        removed = workarea.remove_what_lessons_made()
        left = sorted(
            path.relative_to(area).as_posix() for path in area.rglob("*") if path.is_file()
        )
        assert left == sorted(kept)
        assert len(removed) == len(made)
        assert workarea.remove_what_lessons_made() == []

    def test_the_empty_folder_that_mlflow_makes_goes_too(self, tmp_path, monkeypatch):
        (tmp_path / "mlruns" / "0").mkdir(parents=True)
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(tmp_path))
        assert workarea.remove_what_lessons_made() == [tmp_path / "mlruns"]
        assert list(tmp_path.iterdir()) == []

    def test_a_link_to_a_larger_disk_stays_and_the_tables_behind_it_go(self, tmp_path, monkeypatch):
        disk, area = tmp_path / "disk", tmp_path / "area"
        (disk / "default" / "wines").mkdir(parents=True)
        (disk / "default" / "wines" / "part.parquet").touch()
        area.mkdir()
        (area / "spark-warehouse").symlink_to(disk)
        (area / "mlflow.db").touch()
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(area))
        removed = {path.name for path in workarea.remove_what_lessons_made()}
        assert removed == {"mlflow.db", "spark-warehouse"}
        assert [path.name for path in area.iterdir()] == ["spark-warehouse"]
        assert list(disk.iterdir()) == []
        assert workarea.remove_what_lessons_made() == []
