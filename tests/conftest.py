"""Run lessons as a learner does, and open what they left behind.

The helpers are plain functions (`from conftest import run_script`); the fixtures are working areas.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from jupyter_client import KernelManager

if TYPE_CHECKING:
    from pyiceberg.table import StaticTable

ROOT = Path(__file__).resolve().parents[1]
CODE = ROOT / "code"
STANDINS = ROOT / "tests" / "standins"
CML_STORE = "cml-store"  # the folder of `standins/cml_store` in a working area
ADDON = Path(sys.prefix) / "addon"  # in the environment of `make test-parity`: Spark, outside pip
LIMIT = 300  # seconds; no lesson needs a tenth of it, but these machines are shared

# MLflow 3 opens a store of files, as the stand-in of CML's is, only if it is asked to.
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

# What runs in the background (`nohup make test &`) ignores Ctrl+C, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def clean_environment(work: Path, **extra: str) -> dict[str, str]:
    """The environment of a new terminal: nothing that chooses a store, a Java or a connection."""
    chosen = ("MLFLOW_", "CDSW_", "CMLFLOW_", "JAVA_HOME", "SPARK_", "PYSPARK_", "CONNECTION_NAME")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(chosen)}
    return (
        kept
        | {
            "CMLFLOW_WORKAREA": str(work),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONIOENCODING": "utf-8",
        }
        | extra
    )


def in_cml(work: Path, *switches: str) -> dict[str, str]:
    """What a CML session adds to the environment, with the store of `standins/cml_store`.

    Its switches are explained there. What it holds can be read with `runs_in` and `client_of`.
    """
    return {
        "CDSW_PROJECT_ID": "abcd-efgh-ijkl-mnop",
        "MLFLOW_TRACKING_URI": "cml://localhost",
        "MLFLOW_REGISTRY_URI": "cml://localhost",
        "MLFLOW_ALLOW_FILE_STORE": "true",  # MLflow 3 asks for it
        "PYTHONPATH": os.pathsep.join(map(str, (STANDINS / "cml_store", STANDINS, ADDON))),
        "CML_STORE": str(work),
        "CML_STORE_SWITCHES": " ".join(switches),
    }


def start_command(
    *command: str, work: Path, cwd: Path = ROOT, stdin: int = subprocess.DEVNULL, **extra: str
) -> subprocess.Popen:
    """Start a command as in a new terminal, in a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=clean_environment(work, **extra),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )


def start_script(
    script: str, work: Path, *arguments: str, prefix: tuple[str, ...] = (), **options
) -> subprocess.Popen:
    """Start a lesson with the learner's command; options as `start_command`."""
    command = (*prefix, sys.executable, str(CODE / script), *arguments)
    return start_command(*command, work=work, **options)


def start_python(code: str, work: Path, *arguments: str, **options) -> subprocess.Popen:
    """Start a few lines in a process of their own, by default in the working area."""
    command = (sys.executable, "-c", code, *arguments)
    return start_command(*command, work=work, **{"cwd": work} | options)


def finish(process: subprocess.Popen, limit: float = LIMIT) -> subprocess.CompletedProcess:
    """Wait for what `start_command` started; its input is closed."""
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        for child in (*psutil.Process(process.pid).children(recursive=True), process):
            child.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_script(script: str, work: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run a lesson with the learner's command and wait for it; options as `start_script`."""
    return finish(start_script(script, work, *arguments, **options))


def python(code: str, work: Path, *arguments: str, **options) -> str:
    """Run a few lines that must succeed, as `start_python`; return what they printed."""
    done = finish(start_python(code, work, *arguments, **options))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def stop_in_the_middle(process, sign: signal.Signals) -> subprocess.CompletedProcess:
    """Signal a running lesson; wait until it and the Java that it started are gone."""
    assert process.poll() is None, "it ended before it could be stopped: " + process.stderr.read()
    process.send_signal(sign)
    done = finish(process)

    def alone() -> bool:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(alone, "the end of the processes that the lesson started")
    return done


def succeed(script: str, work: Path, *arguments: str, **options) -> str:
    """Run a lesson that must succeed; return what it printed."""
    done = run_script(script, work, *arguments, **options)
    assert done.returncode == 0, f"{script}: {done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


class CellFailed(AssertionError):
    """A cell of a lesson raised, SystemExit included; the message is its traceback."""


class Kernel:
    """An IPython kernel, started as CML and Jupyter start one: with `-f <connection file>`."""

    def __init__(self, work: Path, cwd: Path = ROOT, **extra: str) -> None:
        self.stdout: list[str] = []
        self.limit = LIMIT  # seconds for one cell
        self.manager = KernelManager()
        self.manager.start_kernel(cwd=str(cwd), env=clean_environment(work, **extra))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LIMIT)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run_cell(self, code: str) -> str:
        """Execute one cell; return what it printed, or raise CellFailed."""
        printed = []

        def collect(message):
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
                if message["content"]["name"] == "stdout":
                    self.stdout.append(message["content"]["text"])
            elif message["msg_type"] == "error":
                printed.append("\n".join(message["content"]["traceback"]))
                failed.append(message["content"]["ename"])

        failed: list[str] = []
        reply = self.client.execute_interactive(
            code, timeout=self.limit, output_hook=collect, allow_stdin=False
        )
        if failed or reply["content"]["status"] != "ok":
            raise CellFailed(f"{failed or reply['content']}\n{''.join(printed)}")
        return "".join(printed)

    def run_lesson(self, lesson: str) -> str:
        """Execute a lesson cell by cell, as Run All does; return what it printed.

        Its options, as in `02_log_model.py --alpha 0.9`, are environment variables meanwhile.
        What it printed without warnings and the like is in `stdout` afterwards.
        """
        self.stdout.clear()
        script, *words = lesson.split()
        option, value = (*words, "1")[:2] if words else ("--no-option", "")
        variable = "CMLFLOW_" + option.strip("-").upper().replace("-", "_")
        cells = (CODE / script).read_text(encoding="utf-8").split("\n# %%\n")
        self.run_cell(f"import os; os.environ[{variable!r}] = {value!r}")
        try:
            return "".join(self.run_cell(cell) for cell in cells)
        finally:
            self.run_cell(f"del os.environ[{variable!r}]")


# Runs a script in a kernel as a new terminal would, but with everything imported already.
RUN_WARM = """if True:
    def run_warm(script, arguments, environment, cwd):
        import os, sys, traceback
        from pathlib import Path
        from cmlflow import runner
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        try:
            runner.run(Path(script), arguments)
        except BaseException:
            traceback.print_exc()
            print("FAILED", file=sys.stderr)
"""


class WarmKernel(Kernel):
    """A kernel that has imported what lessons import: a second lesson takes a moment.

    For variations and negative paths; the learner's own command has its own test, in a process
    of its own. Java goes on too: what chooses a Java, a jar or a store plugin needs a new process.
    """

    def __init__(self) -> None:
        super().__init__(ROOT)
        self.run_cell(RUN_WARM)

    def run_script(
        self,
        script: str,
        work: Path,
        *arguments: str,
        cwd: Path = ROOT,
        seen: Callable[[str], None] = len,
        **extra: str,
    ) -> subprocess.CompletedProcess:
        """Do what the function `run_script` does; the code that it returns is 0 or 1.

        Each piece of what it prints is given to `seen` while the lesson goes on.
        """
        call = (str(CODE / script), arguments, clean_environment(work, **extra), str(cwd))
        streams = {"stdout": [], "stderr": []}

        def collect(message):
            if message["msg_type"] == "stream":
                streams[message["content"]["name"]].append(message["content"]["text"])
                seen(message["content"]["text"])

        self.client.execute_interactive(
            f"run_warm{call!r}", timeout=LIMIT, output_hook=collect, allow_stdin=False
        )
        out, err = ("".join(streams[name]) for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(script, int(err.endswith("FAILED\n")), out, err)

    def succeed(self, script: str, work: Path, *arguments: str, **options) -> str:
        """Do what the function `succeed` does."""
        done = self.run_script(script, work, *arguments, **options)
        assert done.returncode == 0, f"{script}: {done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def python(self, code: str, work: Path, *arguments: str, **options) -> str:
        """Do what the function `python` does, but for the current folder."""
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder, "lines.py")
            lines.write_text(code, encoding="utf-8")
            return self.succeed(str(lines), work, *arguments, **options)


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmKernel]:
    """A kernel for all tests of one worker, in which lessons follow each other quickly."""
    with WarmKernel() as kernel:
        yield kernel


def run_sql(warm: WarmKernel, work: Path, *statements: str) -> None:
    """Run statements in the Spark of a working area, as somebody who alters a lesson's table."""
    script = work / "alter.py"
    lines = ["from cmlflow.spark import start_spark", "spark = start_spark('')"]
    lines += [f"spark.sql({statement!r})" for statement in statements]
    script.write_text("\n".join([*lines, "spark.stop()"]), encoding="utf-8")
    warm.succeed(str(script), work)


@pytest.fixture(scope="session")
def fraud_pass(tmp_path_factory, empty_store, warm) -> SimpleNamespace:
    """Lessons 00, 14 and 15 on a table that grows: 10,000 rows, 20,000, 100,000.

    Lessons 14 and 15 run once with the learner's own command, which 00 does in its own tests.
    """
    work = tmp_path_factory.mktemp("fraud")
    shutil.copy(empty_store, work / "mlflow.db")
    printed = {}
    warm.succeed("00_datagen.py", work)
    printed["first"] = succeed("14_XGBoost_Iceberg.py", work)
    warm.succeed("00_datagen.py", work, "--append")
    printed["second"] = warm.succeed("14_XGBoost_Iceberg.py", work)
    printed["distributed"] = succeed("15_XGBoost_Distributed.py", work)
    warm.succeed("00_datagen.py", work, "--append", "--rows", "80000")
    printed["tenfold"] = warm.succeed("14_XGBoost_Iceberg.py", work)
    runs = runs_in(work, "xgboost-fraud")
    by_name = {run.info.run_name: run for run in runs}
    return SimpleNamespace(
        work=work,
        printed=printed,
        runs=runs,
        first=by_name["one-machine, 10000 rows"],
        second=by_name["one-machine, 20000 rows"],
        tenfold=by_name["one-machine, 100000 rows"],
        distributed=by_name["distributed, 20000 rows"],
        table=table_in(work, "transactions"),
    )


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what tests recorded with `record_property`, for example memory; xdist hides prints."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for what, value in report.user_properties if report.when == "call" else ():
            terminalreporter.write_line(f"{what}: {value}")


def client_of(work: Path) -> mlflow.MlflowClient:
    """Open the MLflow store of a working area, also for calls of `mlflow` without a client."""
    files = work / CML_STORE
    mlflow.set_tracking_uri(files.as_uri() if files.exists() else f"sqlite:///{work}/mlflow.db")
    return mlflow.MlflowClient()


def runs_in(work: Path, experiment: str) -> list[mlflow.entities.Run]:
    """The runs of an experiment, newest first; none where there is no store or no experiment."""
    if not any((work / name).exists() for name in ("mlflow.db", CML_STORE)):
        return []
    found = client_of(work).get_experiment_by_name(experiment)
    if found is None:
        return []
    return client_of(work).search_runs(
        [found.experiment_id], order_by=["attributes.start_time DESC"]
    )


def files_of(work: Path, run: mlflow.entities.Run, path: str | None = None) -> list[str]:
    """The artifact paths of a run, below `path`, folders walked through."""
    found = []
    for entry in client_of(work).list_artifacts(run.info.run_id, path):
        found += files_of(work, run, entry.path) if entry.is_dir else [entry.path]
    return sorted(found)


def table_in(work: Path, name: str) -> StaticTable:
    """Open an Iceberg table of a working area without Spark, by its own metadata file."""
    from pyiceberg.table import StaticTable

    return StaticTable.from_metadata(str(work / "spark-warehouse" / "default" / name))


def wait_until(condition: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    """Wait for a condition with a limit."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {limit} s"
        time.sleep(0.02)


def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file together: they share a pass. So do those of 14 and 15.

    xdist's own groups (--dist loadgroup) do nothing with pytest 9.2: it no longer reads the name
    that xdist gives a test.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            way = re.search(r"\[((?:kernel|processes)-as-\w+)", nodeid)  # see test_in_cml.py
            file = nodeid.partition("::")[0]
            fraud = re.search(r"/test_1[45]_", file)
            return way[1] if way else "fraud" if fraud else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A new MLflow database, made once by the product: migrations take seconds."""
    work = tmp_path_factory.mktemp("empty_store")
    make = "from cmlflow import store; store.use_store()"
    subprocess.run([sys.executable, "-c", make], env=clean_environment(work), cwd=work, check=True)
    return work / "mlflow.db"


@pytest.fixture(scope="module", autouse=True)
def mlflow_as_it_was() -> Iterator[None]:
    """Forget the stores and the experiment that the tests of a file chose in this process.

    MLflow also notes its choices in environment variables, and does not take them back.
    """
    before = {name for name in os.environ if name.startswith("MLFLOW_")}
    yield
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        if name not in before:
            del os.environ[name]


def stop_endpoints(work: Path) -> None:
    """End what lessons of Part 3 started in a working area, as `make stop` does."""
    if (work / "endpoints").is_dir():
        command = [sys.executable, "-m", "cmlflow.serving", "--stop"]
        subprocess.run(command, env=clean_environment(work), cwd=ROOT, check=True)


@pytest.fixture
def work(tmp_path, empty_store) -> Iterator[Path]:
    """A working area with a fresh store, for one test."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    yield tmp_path
    stop_endpoints(tmp_path)


@pytest.fixture(scope="module")
def module_work(tmp_path_factory, empty_store) -> Iterator[Path]:
    """A working area with a fresh store, for the tests of one module that look at one pass."""
    folder = tmp_path_factory.mktemp("lesson")
    shutil.copy(empty_store, folder / "mlflow.db")
    yield folder
    stop_endpoints(folder)


@pytest.fixture(scope="session")
def wines() -> pd.DataFrame:
    """The wine data as committed."""
    return pd.read_csv(ROOT / "data" / "wine-quality.csv")


@pytest.fixture(scope="session")
def split(wines) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test wines of MLflow's tutorial: numpy's seed 40, a quarter to test on."""
    test_rows = int(np.ceil(len(wines) / 4))
    order = np.random.RandomState(40).permutation(len(wines))  # what train_test_split draws
    return wines.iloc[order[test_rows:]], wines.iloc[order[:test_rows]]
