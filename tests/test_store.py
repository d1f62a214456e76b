import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from types import SimpleNamespace

import mlflow
import pytest
from conftest import (
    clean_environment,
    client_of,
    finish,
    in_cml,
    python,
    runs_in,
    start_python,
    start_script,
)

from cmlflow import database, errors, store
from cmlflow.processes import free_port


@pytest.fixture
def use_store(warm, tmp_path_factory):
    """Do what every lesson does before its first run; return what came of it."""
    script = tmp_path_factory.mktemp("script") / "use_store.py"

    def use(work, experiment=None, **extra):
        script.write_text(f"from cmlflow import store; store.use_store({experiment!r})")
        return warm.run_script(str(script), work, **extra)

    return use


def three_lines(done):
    """The three lines of an error at the end of what a script in the warm kernel printed."""
    assert done.returncode != 0
    *_, found, expected, cure, _ = done.stderr.splitlines()
    assert expected.startswith("Expected: ")
    return found.partition(": ")[2], expected, cure


def type_the_command(cure, work):
    """Type the command at the end of an error's message in a terminal without our environment."""
    command = cure.partition("run:  ")[2]
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


class TestLocalStore:
    def test_two_lessons_at_once_on_a_fresh_store_both_succeed(self, tmp_path):
        scripts = ("01_Active_Experiment.py", "01_Active_Experiment.py")
        for process in [start_script(script, tmp_path) for script in scripts]:
            done = finish(process)
            assert done.returncode == 0, done.stderr[-2000:]
        assert len(runs_in(tmp_path, "example-experiment")) == 4  # in one experiment
        assert not (tmp_path / "mlflow.db.new").exists()

    @pytest.mark.parametrize("ending", ["-journal", "-wal"])
    def test_what_a_killed_process_left_does_not_get_into_the_next_store(
        self, use_store, tmp_path, ending
    ):
        leave_behind(tmp_path / "mlflow.db", ending)
        (tmp_path / "mlflow.db").unlink()
        for name in ("mlflow.db.new", "mlflow.db.new-journal", "mlflow.db.new-shm"):
            (tmp_path / name).write_bytes(b"half a database")
        done = use_store(tmp_path, "mine")
        assert done.returncode == 0, done.stderr[-2000:]
        assert client_of(tmp_path).get_experiment_by_name("mine") is not None
        left = sorted(path.name for path in tmp_path.glob("mlflow.db*"))
        assert left == ["mlflow.db", "mlflow.db.lock"]

    def test_a_deleted_experiment_says_how_to_bring_it_back(self, use_store, tmp_path, empty_store):
        area = tmp_path / "my lessons"
        area.mkdir()
        shutil.copy(empty_store, area / "mlflow.db")
        client = client_of(area)
        client.delete_experiment(client.create_experiment("wine-quality-test"))
        found, _, cure = three_lines(use_store(area, "wine-quality-test"))
        assert found == "The experiment 'wine-quality-test' was deleted."
        type_the_command(cure, area)
        assert use_store(area, "wine-quality-test").returncode == 0

    @pytest.mark.parametrize(
        ("script", "experiment"),
        [
            ("01_Active_Experiment.py", "example-experiment"),
            ("01_Experiment.py", "wine-quality-test"),
            ("03_Get_Experiment.py", "wine-quality-test"),
        ],
    )
    def test_a_lesson_tells_how_to_bring_back_the_experiment_that_it_needs(
        self, warm, work, script, experiment
    ):
        client = client_of(work)
        client.delete_experiment(client.create_experiment(experiment))
        done = warm.run_script(script, work)
        assert f"The experiment {experiment!r} was deleted." in done.stderr
        assert three_lines(done)[2].startswith("To bring it back, run:  ")

    def test_a_store_one_migration_behind_is_usable_after_the_command(
        self, use_store, tmp_path, empty_store
    ):
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
            type_the_command(three_lines(done)[2], area)
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
        self, use_store, work, revision, other_tables, age
    ):
        with closing(sqlite3.connect(work / "mlflow.db")) as database, database:
            database.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
            if other_tables:
                database.execute("ALTER TABLE registered_model_aliases RENAME TO aliases")
        before = (work / "mlflow.db").read_bytes()
        found, expected, cure = three_lines(use_store(work))
        assert "was made by another version of MLflow than " + mlflow.__version__ in found
        assert f"this one is {age}" in expected
        upgrade = f"run:  {sys.executable} -m mlflow db upgrade sqlite:///{work}/mlflow.db"
        assert (upgrade in cure) == (age == "older")
        assert ("run:  make clean" in cure) == (age == "newer")
        assert (work / "mlflow.db").read_bytes() == before

    @pytest.mark.parametrize(
        ("project", "cure"),
        [("", "pip install -r requirements-local.txt"), ("a-b", "MLFLOW_TRACKING_URI")],
    )
    def test_where_mlflow_has_no_database_it_says_what_to_do_here(
        self, use_store, tmp_path, project, cure
    ):
        """CML's mlflow-skinny has none: advice to install another MLflow over it would break it."""
        (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['sqlalchemy'] = None")
        done = use_store(tmp_path, CDSW_PROJECT_ID=project, PYTHONPATH=str(tmp_path))
        found, _, said = three_lines(done)
        assert found.startswith(f"MLflow could not create {tmp_path / 'mlflow.db'}: ")
        assert said.endswith(cure)

    @pytest.mark.parametrize(
        ("spoil", "problem"),
        [
            (lambda good: b"a text", "file is not a database"),
            (lambda good: good[: len(good) // 2], "database disk image is malformed"),
            (lambda good: good[:20_000] + b"x" * 200_000 + good[220_000:], "malformed"),
        ],
        ids=["text", "cut", "overwritten"],
    )
    def test_a_damaged_store_is_named_and_kept_by_the_command(
        self, use_store, tmp_path, empty_store, spoil, problem
    ):
        area, database = tmp_path / "my lessons", tmp_path / "my lessons" / "mlflow.db"
        area.mkdir()
        database.write_bytes(spoil(empty_store.read_bytes()))
        before = database.read_bytes()
        found, expected, cure = three_lines(use_store(area))
        assert found.startswith(f"{database} cannot be used: ") and problem in found
        assert expected == "Expected: a database that MLflow made."
        type_the_command(cure, area)
        assert not database.exists()
        assert (area / "mlflow.db.damaged").read_bytes() == before

    def test_a_folder_or_a_foreign_database_in_its_place_is_named(self, use_store, tmp_path):
        (tmp_path / "mlflow.db").mkdir()
        assert three_lines(use_store(tmp_path))[0].endswith("cannot be used: it is a folder.")
        (tmp_path / "mlflow.db").rmdir()
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
            database.execute("CREATE TABLE mine (text)")
        assert three_lines(use_store(tmp_path))[0].endswith("it has no table alembic_version.")

    def test_a_store_that_another_program_holds_is_not_waited_for(self, use_store, work):
        with closing(sqlite3.connect(work / "mlflow.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            found, expected, cure = three_lines(use_store(work))
        assert found == f"{work / 'mlflow.db'} cannot be used: database is locked."
        assert expected == "Expected: a database that no other program holds."
        assert cure == f"To see which program holds it, run:  lsof {work / 'mlflow.db'}"
        assert use_store(work).returncode == 0

    @pytest.mark.parametrize("name", ["/".join(["d" * 200] * 3), "a?b", "a%20b"])
    def test_a_path_that_no_database_can_have_is_refused_at_once(self, use_store, tmp_path, name):
        found, _, cure = three_lines(use_store(tmp_path / name))
        assert str(tmp_path / name) in found
        assert cure == "To use another folder, set:  CMLFLOW_WORKAREA=<folder>"
        assert [path.name for path in tmp_path.rglob("mlflow.db")] == []

    @pytest.mark.parametrize(
        ("problem", "cure"),
        [
            ("(sqlite3.OperationalError) database or disk is full", "df -h"),
            ("No space left on device", "df -h"),
            ("attempt to write a readonly database", "CMLFLOW_WORKAREA=<folder>"),
            ("Permission denied", "CMLFLOW_WORKAREA=<folder>"),
        ],
    )
    def test_what_mends_a_store_depends_on_the_reason(self, tmp_path, problem, cure):
        """A full disk and a read-only one need a machine of their own: here only the message."""
        error = database._unusable(tmp_path / "mlflow.db", problem)
        assert problem in error.found and cure in error.cure

    def test_a_file_where_the_artifacts_belong_is_named_before_a_run_exists(self, warm, work):
        (work / "mlartifacts").write_text("in the way")
        found, *_ = three_lines(warm.run_script("02_log_model.py", work))
        assert found.startswith(f"The folder {work / 'mlartifacts'} cannot be made: ")
        assert runs_in(work, "wine-quality-test") == []


class TestChosenStore:
    def test_a_store_that_the_user_chose_wins(self, warm, tmp_path, empty_store):
        own = tmp_path / "own.db"
        own.write_bytes(empty_store.read_bytes())
        uri = f"sqlite:///{own}"
        warm.succeed("01_Experiment.py", tmp_path, cwd=tmp_path, MLFLOW_TRACKING_URI=uri)
        assert not (tmp_path / "mlflow.db").exists()
        mlflow.set_tracking_uri(uri)
        found = mlflow.search_runs(experiment_names=["wine-quality-test"], output_format="list")
        assert len(found) == 1

    def test_blanks_choose_nothing(self, use_store, work):
        blanks = {"MLFLOW_TRACKING_URI": "  ", "MLFLOW_REGISTRY_URI": " "}
        assert use_store(work, "mine", **blanks).returncode == 0
        assert client_of(work).get_experiment_by_name("mine") is not None

    @pytest.mark.parametrize("kind", ["nobody listens", "no such scheme"])
    def test_a_store_that_does_not_answer_is_named_without_its_password(
        self, use_store, tmp_path, kind
    ):
        uri = f"http://me:secret@127.0.0.1:{free_port()}"
        uri = uri if kind == "nobody listens" else "postgresque://me:secret@host/db"
        done = use_store(tmp_path, MLFLOW_TRACKING_URI=uri)
        found, _, cure = three_lines(done)
        assert found.startswith("The store that MLFLOW_TRACKING_URI names cannot be used: ")
        assert "secret" not in found
        assert cure.endswith("run:  unset MLFLOW_TRACKING_URI")


def open_run(work, before="", inside="print('open', flush=True); time.sleep(300)"):
    """Start a process with a run in a run, and wait until both are open."""
    code = f"""if True:
        import os, signal, time
        import mlflow
        from cmlflow import store
        {before}
        store.use_store("stopped")
        mlflow.set_experiment("stopped")
        with mlflow.start_run(run_name="parent"):
            with mlflow.start_run(run_name="child", nested=True):
                {inside}
            time.sleep(300)
    """
    return start_python(code, work)


class TestSignals:
    """No signal but `kill -9` leaves a run RUNNING."""

    @pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP])
    def test_a_stopped_process_marks_its_runs_failed(self, work, sign):
        process = open_run(work)
        assert process.stdout.readline() == "open\n"
        process.send_signal(sign)
        assert finish(process).returncode == 128 + sign
        assert [run.info.status for run in runs_in(work, "stopped")] == ["FAILED", "FAILED"]

    @pytest.mark.parametrize("call", ["create_run", "set_terminated"])
    def test_a_signal_while_mlflow_opens_or_ends_a_run_waits_until_it_is_done(self, work, call):
        """In between, a run is in the store and MLflow does not know it."""
        before = f"""
        original = mlflow.MlflowClient.{call}
        def stopped_in_the_middle(*arguments, **options):
            if "{call}" == "create_run":
                made = original(*arguments, **options)
                os.kill(os.getpid(), signal.SIGTERM)
                return made
            os.kill(os.getpid(), signal.SIGTERM)
            return original(*arguments, **options)
        mlflow.MlflowClient.{call} = stopped_in_the_middle
        """
        done = finish(open_run(work, before=before, inside="pass"))
        assert done.returncode == 128 + signal.SIGTERM, done.stderr[-2000:]
        *child, parent = [run.info.status for run in runs_in(work, "stopped")]
        assert parent == "FAILED"
        assert set(child) <= {"FINISHED"}  # it may be over before the signal comes again

    def test_an_open_run_without_a_block_and_an_ignored_signal(self, work):
        """What `nohup` lets a process ignore stays ignored."""
        code = """if True:
            import signal, sys, time
            import mlflow
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            from cmlflow import store
            store.use_store("stopped")
            mlflow.set_experiment("stopped")
            mlflow.start_run()
            signal.raise_signal(signal.SIGHUP)
            print("still there", flush=True)
            signal.raise_signal(signal.SIGTERM)
        """
        done = finish(start_python(code, work))
        assert (done.stdout, done.returncode) == ("still there\n", 128 + signal.SIGTERM)
        assert [run.info.status for run in runs_in(work, "stopped")] == ["FAILED"]

    @pytest.mark.parametrize(
        ("first", "raised", "second"),
        [("SIGTERM", "SystemExit", "SIGHUP"), ("SIGINT", "KeyboardInterrupt", None)],
    )
    def test_a_run_without_a_block_fails_after_ctrl_c_and_a_second_signal_waits(
        self, work, first, raised, second
    ):
        """MLflow alone would end it as FINISHED; a lesson cleans up after the first signal."""
        lines = f"""if True:
            import signal
            import mlflow
            from cmlflow import store
            store.use_store("stopped")
            mlflow.set_experiment("stopped")
            mlflow.start_run()
            try:
                signal.raise_signal(signal.{first})
            except {raised}:
                {f"signal.raise_signal(signal.{second})" if second else "pass"}
                print("cleaned up", flush=True)
                raise
        """
        done = finish(start_python(lines, work))
        assert done.stdout == "cleaned up\n"
        assert done.returncode == (128 + signal.SIGTERM if second else -signal.SIGINT)
        assert [run.info.status for run in runs_in(work, "stopped")] == ["FAILED"]

    def test_a_kernel_keeps_its_own_handlers(self, warm, work):
        show = "import signal; print([signal.getsignal(one) for one in (2, 15)])"
        before = warm.run_cell(show)
        warm.succeed("01_Active_Experiment.py", work)
        assert warm.run_cell(show) == before


def refuse_metrics(work):
    """A store that fails in the middle of a run: the first metric is refused."""
    with closing(sqlite3.connect(work / "mlflow.db")) as database, database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON metrics "
            "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
        )


def block_artifacts(work):
    """No place for the artifacts of any experiment: a file lies where their folder should be."""
    (work / "mlartifacts").mkdir()
    for name in ("wine-quality-test", "auto-registration"):
        (work / "mlartifacts" / name).write_text("in the way")


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
def test_a_lesson_that_fails_in_a_run_marks_it_failed(warm, work, script, experiment, spoil):
    spoil(work)
    done = warm.run_script(script, work)
    assert done.returncode != 0
    assert [run.info.status for run in runs_in(work, experiment)] == ["FAILED"]


@pytest.fixture
def registry(work, monkeypatch):
    """A local store: two runs of this user, one of another; two versions and an alias."""
    client = client_of(work)
    monkeypatch.setenv("CMLFLOW_WORKAREA", str(work))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/mlflow.db")
    experiment_id = client.create_experiment("mine")
    ids = {}
    for start, (key, user) in enumerate({"first": None, "second": None, "other": "eve"}.items()):
        tags = {"mlflow.user": user or store.getpass.getuser(), "snapshot": key}
        ids[key] = client.create_run(experiment_id, start_time=start + 1, tags=tags).info.run_id
        client.set_terminated(ids[key])
    client.create_registered_model("m")
    for key in ("first", "second"):
        client.create_model_version("m", f"runs:/{ids[key]}/model", ids[key])
    client.set_registered_model_alias("m", "champion", "1")
    return SimpleNamespace(client=client, **ids)


class TestChooseRun:
    @pytest.mark.parametrize(
        ("asked", "run", "uri"),
        [
            ({"run_id": "other"}, "other", "runs:/{other}/model"),
            ({"model": "m"}, "second", "models:/m/2"),
            ({"model": "m", "version": 1}, "first", "models:/m/1"),
            ({"model": "m", "alias": "champion"}, "first", "models:/m/1"),
            ({}, "second", "models:/m/2"),
            ({"wanted": "first"}, "first", "models:/m/1"),
            (
                {"wanted": "other", "experiments": ("no such", "mine")},
                "other",
                "runs:/{other}/model",
            ),
        ],
        ids=str,
    )
    def test_it_is_found_by_id_version_or_alias_or_is_the_newest_wanted(
        self, registry, asked, run, uri
    ):
        asked = dict(asked)
        if "run_id" in asked:
            asked["run_id"] = getattr(registry, asked["run_id"])
        if "wanted" in asked:
            key = asked["wanted"]
            asked["wanted"] = lambda run: run.data.tags["snapshot"] == key
        found, model_uri = store.choose_run(**asked)
        assert found.info.run_id == getattr(registry, run)
        assert model_uri == uri.format(**vars(registry))

    def test_where_nothing_is_wanted_there_is_none(self, registry):
        assert store.choose_run(wanted=lambda run: False, experiments=("mine",)) is None

    @pytest.mark.parametrize(
        ("asked", "problem"),
        [
            ({"run_id": "0" * 32}, "There is no run " + "0" * 32),
            ({"run_id": "../no id"}, "There is no run ../no id"),
            ({"model": "m", "version": 9}, "The registered model 'm' has no version 9"),
            ({"model": "m", "alias": "none"}, "The registered model 'm' has no alias 'none'"),
        ],
        ids=str,
    )
    def test_what_is_not_there_is_bad_input(self, registry, asked, problem):
        with pytest.raises(errors.BadInput) as caught:
            store.choose_run(**asked)
        assert problem in caught.value.found

    def test_a_registry_that_lists_no_versions_leaves_the_experiments(self, registry, monkeypatch):
        def refuse(*_):
            raise NotImplementedError

        monkeypatch.setattr(mlflow.MlflowClient, "search_model_versions", refuse)
        run, uri = store.choose_run(experiments=("mine",))
        assert (run.info.run_id, uri) == (registry.other, f"runs:/{registry.other}/model")
        assert store.choose_run(model="m", version=1)[1] == "models:/m/1"
        for asked in ({}, {"model": "m"}):
            with pytest.raises(errors.StoreError, match="NotImplementedError"):
                store.choose_run(**asked)

    def test_a_server_that_is_down_is_never_called_a_missing_run(self, monkeypatch, work):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(work))
        uri = f"http://127.0.0.1:{free_port()}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        for asked in ({"run_id": "0" * 32}, {}, {"model": "m"}, {"experiments": ("mine",)}):
            with pytest.raises(errors.StoreError, match="Max retries exceeded"):
                store.choose_run(**asked)

    @pytest.mark.parametrize("switches", [(), ("experiment-first", "no-list")], ids=" ".join)
    def test_in_cml_a_run_is_found_in_the_experiments_that_are_named(self, work, switches):
        """A store may know only the experiment that was set, and may list none."""
        make = """if True:
            import mlflow
            client = mlflow.MlflowClient()
            run = client.create_run(client.create_experiment("mine"), tags={"mlflow.user": "eve"})
            client.set_terminated(run.info.run_id)
            print(run.info.run_id)
        """
        other = python(make, work, **in_cml(work)).strip()
        code = f"""if True:
            import mlflow
            from cmlflow import database, errors, store
            store.use_store()
            run, uri = store.choose_run(run_id="{other}", experiments=("no such", "mine"))
            print(store.author(run), store.is_mine(run))
            mlflow.set_experiment("later")
            print(store.choose_run(wanted=lambda run: "eve" == store.author(run),
                                   experiments=("mine",))[1])
            try:
                print(store.find_run("{"0" * 32}", ("mine",)))
            except errors.StoreError as error:
                print(error.found)
        """
        told, uri, absent = python(code, work, **in_cml(work, *switches)).splitlines()
        assert (told, uri) == ("eve False", f"runs:/{other}/model")
        said = f"The store did not say whether it has a run {'0' * 32}: "
        assert absent.startswith(said) if switches else absent == "None"


def test_a_run_is_mine_if_this_user_made_it_in_this_working_area(registry, monkeypatch):
    mine, other = (registry.client.get_run(one) for one in (registry.second, registry.other))
    assert (store.is_mine(mine), store.is_mine(other)) == (True, False)
    assert store.author(other) == "eve"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert not store.is_mine(mine)  # on a server the name is a text that anybody may write


def test_a_refusal_is_one_line_and_known_afterwards(capsys):
    with store.may_refuse("a dataset", instead="the tags") as refusals:
        raise NotImplementedError("a long story")
    assert [type(one) for one in refusals] == [NotImplementedError]
    said = "No dataset: this store refused it (NotImplementedError); see the tags\n"
    assert capsys.readouterr().out == said
    with store.may_refuse("an alias", instead="the tags") as refusals:
        pass
    assert refusals == [] and capsys.readouterr().out == ""
    with pytest.raises(KeyboardInterrupt), store.may_refuse("an alias", instead="the tags"):
        raise KeyboardInterrupt


def test_the_version_of_a_run_is_found_where_log_model_does_not_tell_it(registry, monkeypatch):
    untold = SimpleNamespace(registered_model_version=None)
    run = registry.client.get_run(registry.first)
    assert store.version_of(untold, run, "m") == 1
    assert store.version_of(SimpleNamespace(registered_model_version="7"), run, "m") == 7
    other = registry.client.get_run(registry.other)
    with pytest.raises(errors.StoreError, match="does not tell which version of 'm'"):
        store.version_of(untold, other, "m")


class TestHowToOpenUi:
    def test_on_a_laptop(self, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow.set_tracking_uri(None)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        assert store.how_to_open_ui() == "make ui, then http://127.0.0.1:5000"
        page = store.model_page("Auto-Deployed Model", 3)
        there = "http://127.0.0.1:5000/#/models/Auto-Deployed%20Model/versions/3"
        assert store.how_to_open_ui(page) == f"make ui, then {there}"

    def test_in_cml(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "cml://localhost")
        said = store.how_to_open_ui(store.model_page("m"))
        assert said == "the Experiments page of this CML project"

    def test_on_a_server_without_its_password(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example:8443/x")
        said = store.how_to_open_ui()
        assert said == "the MLflow UI of https://mlflow.example:8443/x"
        assert store.how_to_open_ui("#/models/m") == f"{said}/#/models/m"

    def test_on_a_server_without_the_token_in_its_address(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example/x?token=SECRET#SECRET")
        assert store.how_to_open_ui() == "the MLflow UI of https://mlflow.example/x"
