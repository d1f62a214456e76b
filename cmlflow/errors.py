"""What stops a lesson, and what its reader can do about it.

LessonError              any of these; its text has three lines: found, expected, cure
    MissingStep          an earlier lesson has not run yet
    BadInput             an option, a variable or a file holds what it cannot hold
    Unsupported          a package is installed in a release that the lessons do not run with
    StoreError           the MLflow store cannot be used as it is
    SparkError           there is no Spark with Iceberg to be had
        SparkMissing     no pyspark, or a CML session without the Spark add-on
        JarUnavailable   no Iceberg runtime for this Spark is here or to be had
        SparkBusy        another lesson uses the tables of this working area
    SnapshotNotFound     the table has no such snapshot, or it has expired
    WrongCatalog         this session looks into another catalog than the one that is named
    TableTaken           a table of this name is there, and no lesson made it
    ServingError         an endpoint does not serve what it should, or not at all
    WorkbenchError       the workbench, asked by API v2, refuses or does not answer
    PinTaken             the Iceberg tag of a run's model keeps another snapshot
"""

from __future__ import annotations


class LessonError(Exception):
    """What stops a lesson, in three lines.

    Args:
        found: one sentence, with the value that was met.
        expected: what should have been there instead.
        cure: the one command or click that mends it, ready to paste.
    """

    def __init__(self, found: str, expected: str, cure: str) -> None:
        super().__init__(found, expected, cure)
        self.found, self.expected, self.cure = found, expected, cure

    def __str__(self) -> str:
        """Return the three lines."""
        return f"{self.found}\nExpected: {self.expected.removesuffix('.')}.\n{self.cure}"


class MissingStep(LessonError):
    """An earlier lesson has not run yet; `command` runs it."""

    def __init__(self, found: str, expected: str, command: str) -> None:
        super().__init__(found, expected, f"Run this first:  {command}")
        self.args = (found, expected, command)


class BadInput(LessonError):
    """An option, a variable or a file holds what it cannot hold."""


class Unsupported(LessonError):
    """A package is installed in a release that the lessons do not run with."""


class StoreError(LessonError):
    """The MLflow store cannot be used as it is."""


class SparkError(LessonError):
    """There is no Spark with Iceberg to be had."""


class SparkMissing(SparkError):
    """This environment has no Spark at all: no pyspark, or a CML session without the add-on."""


class JarUnavailable(SparkError):
    """No Iceberg runtime for this Spark is here or to be had."""


class SparkBusy(SparkError):
    """Another lesson uses the tables of this working area."""


class SnapshotNotFound(LessonError):
    """The table was never written to, or has no such snapshot, or it has expired."""


class WrongCatalog(LessonError):
    """This session looks into another catalog than the one in which the table was written."""


class TableTaken(LessonError):
    """A table of this name is there, and no lesson made it."""


class PinTaken(LessonError):
    """The Iceberg tag of this run and its model already keeps another snapshot."""


class ServingError(LessonError):
    """An endpoint does not serve what it should, or not at all."""


class WorkbenchError(LessonError):
    """The workbench, asked by API v2, refuses or does not answer."""

    status: int | None = None
    """The HTTP status of a refusal; None if there was no answer, or if it is unknown."""
