"""What the lessons run on: the cells, their requirements, and the table in docs/MATRIX.md."""

import re
import sys
from pathlib import Path

import matrix
import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from resolution import PYTHONS

ROWS = re.findall(
    r"^\| ([\w.-]+) \| (.+) \| (\d{4}-\d\d-\d\d) \| (.+) \|$",
    matrix.PAGE.read_text(encoding="utf-8"),
    re.MULTILINE,
)


def pinned(lines):
    return {one.name: str(one.specifier) for one in map(Requirement, lines)}


@pytest.fixture(params=matrix.CELLS, ids=lambda cell: cell.name)
def cell(request):
    return request.param


class TestCells:
    def test_every_supported_python_is_in_it_and_no_other(self):
        assert {cell.python for cell in matrix.CELLS} == set(PYTHONS)

    def test_what_a_cell_changes_takes_the_place_of_the_pin(self, cell):
        lines = matrix.main_requirements(cell)
        if cell.session:
            lines += matrix.asked(cell, "tests/standins/addon.txt")
        for changed in map(Requirement, cell.instead):
            asked = [one for one in map(Requirement, lines) if one.name == changed.name]
            assert [str(one) for one in asked] == [str(changed)]

    def test_all_else_is_what_make_installs(self, cell):
        plain = matrix.Cell("plain", cell.python, session=cell.session)
        names = {Requirement(one).name for one in cell.instead}
        kept = [
            line for line in matrix.main_requirements(plain) if Requirement(line).name not in names
        ]
        assert [line for line in matrix.main_requirements(cell) if line in kept] == kept

    def test_a_session_has_no_spark_among_the_packages_of_pip(self, cell):
        asked = pinned(matrix.main_requirements(cell))
        assert ("pyspark" in asked) != cell.session
        assert ("mlflow" in asked) != cell.session

    def test_a_runtime_that_is_named_has_a_checksum_and_fits_its_spark(self, cell):
        if cell.iceberg:
            assert re.fullmatch("[0-9a-f]{128}", matrix.RUNTIMES[cell.iceberg])
            spark = pinned(matrix.main_requirements(cell))["pyspark"]
            assert spark.startswith(f"=={cell.iceberg.partition('_')[0]}.")


class TestResult:
    """One line from what a pass printed; the first two are ends of `make tutorial`."""

    def test_of_lessons_that_ran_it_counts_them(self):
        printed = (
            "Iceberg for Spark: a.jar\n\n"
            "00 - Generate bank transactions                    12.3 s\n     10000 rows\n"
            "01 - Start a run, look at it, end it                0.4 s\n\nAll lessons ran.\n"
        )
        assert matrix.result(printed, 0) == "ok: 2 lessons"

    def test_of_a_failure_it_tells_the_lesson_and_the_error(self):
        printed = (
            "01 - Start a run, look at it, end it                0.4 s\n"
            "02 - Log the model too                              1.4 s  failed\n\n"
            "MlflowException: no\nmore\n\nTo see all that this lesson says, run:  python x.py\n"
        )
        assert matrix.result(printed, 1) == "failed: 02 - Log the model too: MlflowException: no"

    def test_of_a_session_it_counts_the_tests_or_tells_the_last_error(self):
        assert matrix.result("== 13 passed, 2 deselected in 101.2s ==\n", 0) == "ok: 13 passed"
        printed = "E   first\nE       KeyError: 'a'\n\n== 1 failed in 1.0s ==\n"
        assert matrix.result(printed, 1) == "failed: KeyError: 'a'"

    def test_of_what_never_began_it_tells_the_last_line(self):
        assert matrix.result("Traceback\nImportError: x\n", 1) == "failed: ImportError: x"


def test_a_python_that_is_not_here_is_told_in_the_row_and_the_rest_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(matrix, "FOLDER", tmp_path)
    line = matrix.run_cell(matrix.Cell("old", "2.6"))
    assert re.fullmatch(r"\| old \| 2\.6 \| .* \| skipped: no python2\.6 on this machine \|", line)
    assert list(tmp_path.iterdir()) == []


def test_releases_that_pip_cannot_find_are_told_in_the_row(monkeypatch, tmp_path):
    version = "{}.{}".format(*sys.version_info[:2])
    monkeypatch.setattr(matrix, "FOLDER", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    line = matrix.run_cell(matrix.Cell("none", version, ("mlflow==0.0.1",)))
    assert re.search(r"\| failed: ERROR: No matching distribution found for .* \|$", line)


def test_the_row_of_a_cell_is_replaced_and_all_others_stay():
    page = matrix.PAGE.read_text(encoding="utf-8")
    first, last = matrix.CELLS[0].name, matrix.CELLS[-1].name
    once = matrix.written(page, {last: f"| {last} | new |", first: f"| {first} | new |"})
    lines = once.splitlines()
    assert f"| {first} | new |" in lines and f"| {last} | new |" in lines
    changed = set(page.splitlines()) ^ set(lines)
    assert {line.split(" | ")[0] for line in changed} == {f"| {first}", f"| {last}"}
    assert lines.index(f"| {first} | new |") < lines.index(f"| {last} | new |")
    assert matrix.written(once, {}) == once


class TestPage:
    def run_cells(self):
        """Each cell that has been run, and its row."""
        return [(cell, row) for cell in matrix.CELLS for row in ROWS if row[0] == cell.name]

    def test_its_rows_are_of_cells_in_their_order_and_each_has_a_date(self):
        names = [name for name, *_ in ROWS]
        assert names and names == [cell.name for cell in matrix.CELLS if cell.name in names]
        table = matrix.PAGE.read_text("utf-8").partition(matrix.BEGIN)[2].partition(matrix.END)[0]
        assert len(table.strip().splitlines()) == len(names) + 2

    def test_a_row_tells_the_releases_that_its_cell_asks_for(self):
        for cell, (_, versions, _, _) in self.run_cells():
            assert versions.startswith(f"{cell.python}.")
            for changed in map(Requirement, cell.instead):
                if changed.name in ("mlflow", "pyspark", "pandas", "numpy", "scikit-learn"):
                    assert str(changed.specifier).removeprefix("==") in versions, cell.name
            assert ("skinny" in versions) == cell.session

    def test_the_rows_of_the_pinned_releases_are_of_todays_pins(self):
        """After a change of a pin:  make matrix"""
        laptop = pinned(matrix.main_requirements(matrix.Cell("plain", "3.11")))
        for cell, (_, versions, _, result) in self.run_cells():
            if cell.name.startswith("laptop"):
                for name in ("mlflow", "pyspark", "pandas"):
                    assert laptop[name].removeprefix("==") in versions
                assert result.startswith("ok: ")

    def test_make_matrix_is_a_command_that_a_newcomer_finds(self):
        assert "[each set of releases](docs/MATRIX.md)" in (ROOT / "README.md").read_text("utf-8")
        assert Path(matrix.__file__).parent == ROOT / "tests"


def test_without_a_java_17_the_row_of_spark_4_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(matrix.NotHere, match="no Java 17 on this machine"):
        matrix.find_java_17()
