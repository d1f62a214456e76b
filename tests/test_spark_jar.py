import hashlib
import http.server
import os
import threading
import zipfile
from pathlib import Path

import pyspark
import pytest

from cmlflow import errors, spark
from cmlflow.spark import jar


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
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(jar, "JAR_SIZE", len(Handler.body))
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

    def test_a_cached_jar_that_was_cut_off_is_downloaded_again(self, cache, server, monkeypatch):
        monkeypatch.setattr(jar, "JAR_SHA512", hashlib.sha512(b"the jar").hexdigest())
        found = spark.iceberg_jar()
        found.write_bytes(b"the j")
        assert spark.iceberg_jar().read_bytes() == b"the jar"
        assert server.requests == 2

    def test_the_pinned_size_is_that_of_the_published_file(self, monkeypatch):
        monkeypatch.delenv("CMLFLOW_ICEBERG_JAR", raising=False)
        assert spark.iceberg_jar().stat().st_size == jar.JAR_SIZE
        assert hashlib.sha512(spark.iceberg_jar().read_bytes()).hexdigest() == jar.JAR_SHA512

    def test_a_folder_whose_path_java_would_split_is_refused(self, cache, server, monkeypatch):
        monkeypatch.setattr(jar, "JAR_SHA512", hashlib.sha512(b"the jar").hexdigest())
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "on:disk"))
        with pytest.raises(errors.JarUnavailable, match="in a folder with ':'") as caught:
            spark.iceberg_jar()
        assert caught.value.cure.endswith(f"CMLFLOW_ICEBERG_JAR=<folder>/{jar.JAR_NAME}")


@pytest.fixture
def own(cache, monkeypatch) -> Path:
    """A jar of one's own, with the class that Spark asks for."""
    own = cache / "own.jar"
    with zipfile.ZipFile(own, "w") as files:
        files.writestr("org/apache/iceberg/spark/SparkSessionCatalog.class", "")
    monkeypatch.setenv("CMLFLOW_ICEBERG_JAR", str(own))
    return own


class TestARuntimeForAnotherSpark:
    """Java would start, and fail at the first table: NoClassDefFoundError: scala/..."""

    @pytest.fixture
    def spark_4(self, cache, monkeypatch):
        """The name that the runtime for Spark 4.0 has on Maven Central."""
        file = cache / "iceberg-spark-runtime-4.0_2.13-1.10.1.jar"
        with zipfile.ZipFile(file, "w") as files:
            files.writestr("org/apache/iceberg/spark/SparkSessionCatalog.class", "")
        monkeypatch.setenv("CMLFLOW_ICEBERG_JAR", str(file))
        return file

    def installed(self, monkeypatch, version):
        """Let pip say that another pyspark is here."""
        folder = Path(os.environ["HOME"]) / "site"
        described = folder / f"pyspark-{version}.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text(f"Name: pyspark\nVersion: {version}\n")
        monkeypatch.syspath_prepend(folder)

    def test_it_is_refused_by_its_name_with_the_way_back(self, spark_4):
        with pytest.raises(errors.JarUnavailable) as caught:
            spark.iceberg_jar()
        what, expected, cure = str(caught.value).splitlines()
        assert what == (
            f"pyspark is {pyspark.__version__}, and the Iceberg runtime is for Spark 4.0: "
            + spark_4.name
        )
        assert expected.startswith("Expected: pyspark 3.5 with the runtime of this project")
        assert cure.endswith("unset CMLFLOW_ICEBERG_JAR")

    def test_a_spark_4_is_refused_before_the_runtime_of_3_5_is_downloaded(
        self, cache, server, monkeypatch
    ):
        self.installed(monkeypatch, "4.0.5")
        with pytest.raises(errors.JarUnavailable) as caught:
            spark.iceberg_jar()
        assert caught.value.found == (
            f"pyspark is 4.0.5, and the Iceberg runtime is for Spark 3.5: {jar.JAR_NAME}"
        )
        assert caught.value.cure.endswith("pip install -r requirements-local.txt")
        assert server.requests == 0

    def test_a_spark_4_with_its_own_runtime_is_not_refused(self, spark_4, monkeypatch):
        self.installed(monkeypatch, "4.0.5")
        assert spark.iceberg_jar() == spark_4


class TestAJarOfOnesOwn:
    def test_it_is_used_without_a_download(self, own, server):
        assert spark.iceberg_jar() == own
        assert server.requests == 0

    def test_a_blank_variable_counts_as_not_set(self, own, server, monkeypatch):
        monkeypatch.setenv("CMLFLOW_ICEBERG_JAR", " ")
        with pytest.raises(errors.JarUnavailable, match="could not be downloaded"):
            spark.iceberg_jar()  # the test's server has another file
        assert server.requests == 1

    def test_a_path_that_leads_nowhere_is_named(self, own, monkeypatch):
        monkeypatch.setenv("CMLFLOW_ICEBERG_JAR", "/nowhere/own.jar")
        with pytest.raises(errors.JarUnavailable, match=r"/nowhere/own\.jar, which is not a file"):
            spark.iceberg_jar()

    def error_page(self, own):
        own.write_text("<html>503 Service Unavailable</html>")

    def cut_off(self, own):
        own.write_bytes(own.read_bytes()[:-30])

    def another(self, own):
        with zipfile.ZipFile(own, "w") as files:
            files.writestr("org/apache/iceberg/Table.class", "")

    @pytest.mark.parametrize("spoil", [error_page, cut_off, another], ids=lambda one: one.__name__)
    def test_a_file_without_iceberg_for_spark_is_refused_before_java_starts(self, own, spoil):
        spoil(self, own)
        with pytest.raises(errors.JarUnavailable) as caught:
            spark.iceberg_jar()
        what, expected, cure = str(caught.value).splitlines()
        assert what.endswith(f"{own}, which is no Iceberg runtime for Spark.")
        assert expected == f"Expected: the path of {jar.JAR_NAME}."
        assert cure.endswith("unset CMLFLOW_ICEBERG_JAR")
