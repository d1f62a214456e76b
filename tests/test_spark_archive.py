import sys
from pathlib import Path

import pytest
from conftest import finish, start_command
from test_spark_java import fake_java

from cmlflow import errors, spark
from cmlflow.spark import archive


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache folder without an archive, and with the jar that others have downloaded."""
    monkeypatch.setenv("CMLFLOW_ICEBERG_JAR", str(spark.iceberg_jar()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_without_an_archive_java_gets_no_option(cache):
    assert archive.java_options(spark.iceberg_jar()) == ""


def test_an_archive_of_which_java_would_die_is_not_used(cache):
    folder = archive._folder(spark.iceberg_jar())
    folder.mkdir(parents=True)
    for name in ("java-5.jsa", "spark-7.jsa"):
        (folder / name).write_bytes(b"x" * int(name[-5]))
    assert "java-5.jsa" in archive.java_options(spark.iceberg_jar())
    (folder / "spark-7.jsa").write_bytes(b"xxx")  # cut off
    assert archive.java_options(spark.iceberg_jar()) == ""


def test_another_java_or_jar_has_another_archive(cache, tmp_path, monkeypatch):
    here = archive._folder(spark.iceberg_jar())
    assert here.parent == cache / "cmlflow"
    (tmp_path / "other.jar").write_text("")
    other_jar = archive._folder(tmp_path / "other.jar")
    says = "echo 'openjdk version \"17.0.1\"' >&2"
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", says)))
    other_java = archive._folder(spark.iceberg_jar())
    assert len({here, other_jar, other_java}) == 3


def test_a_java_that_cannot_make_one_is_named(cache, tmp_path, monkeypatch):
    says = "echo 'openjdk version \"11.0.2\"' >&2"
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", says)))
    with pytest.raises(errors.SparkError, match="is Java 11"):
        archive.make_archive()
    assert not (cache / "cmlflow").exists()


def test_a_cache_that_cannot_be_written_is_told_and_fails_no_installation(tmp_path):
    (tmp_path / "file").write_text("")
    command = (sys.executable, "-m", "cmlflow.spark.archive")
    chosen = {"XDG_CACHE_HOME": str(tmp_path / "file")}
    chosen |= {"CMLFLOW_ICEBERG_JAR": str(spark.iceberg_jar())}
    done = finish(start_command(*command, work=tmp_path, **chosen))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("No class-data archive, so lessons with Spark take longer: ")
    assert len(done.stderr.splitlines()) == 1
