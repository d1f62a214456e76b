"""What `make benchmark` writes, and how it measures. Nothing here asserts a time."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from PIL import Image, ImageChops

import tutorial
from benchmarks import __main__ as benchmark

TEXT = benchmark.README.read_text(encoding="utf-8")


def test_a_cost_that_is_ten_times_as_high_for_ten_times_the_rows_grows_with_exponent_1():
    assert benchmark.slope((10**5, 10**6), (3.0, 30.0)) == pytest.approx(1)
    assert benchmark.slope((10**5, 10**6), (3.0, 300.0)) == pytest.approx(2)
    assert benchmark.slope((10**5, 10**7), (3.0, 30.0)) == pytest.approx(0.5)


def test_the_second_exponent_leaves_out_what_the_smallest_table_takes():
    took = {10: [9.0, 5.0], 100: [10.0, 5.0], 1000: [19.0, 6.0]}
    assert benchmark.exponents(took) == [
        "| exponent, 100 to 1,000 | 0.28 | | 0.08 | |",
        "| exponent of what exceeds 10 rows, 100 to 1,000 | 1.00 | | none | |",
    ]


def test_memory_is_that_of_a_process_and_of_those_that_it_started(tmp_path, monkeypatch):
    """Its child takes 200 MiB and ends when they have been seen."""
    child = (
        "import os, time; block, end = bytearray(b'1') * (200 << 20), time.monotonic() + 60\n"
        f"while not os.path.exists({str(tmp_path / 'seen')!r}): assert time.monotonic() < end"
    )
    lesson = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    (tmp_path / "takes.py").write_text(lesson)
    memory_of = benchmark.memory_of

    def see(process):
        used = memory_of(process)
        if used > 200 << 20:
            (tmp_path / "seen").touch()
        return used

    monkeypatch.setattr(benchmark, "memory_of", see)
    monkeypatch.setattr(tutorial, "CODE", tmp_path)
    _, memory = benchmark.measure("takes.py", str(tmp_path))
    assert 200 < memory < 400


def test_a_lesson_that_fails_is_told_and_nothing_is_written(tmp_path, monkeypatch):
    (tmp_path / "fails.py").write_text("raise ValueError('the reason')")
    monkeypatch.setattr(tutorial, "CODE", tmp_path)
    with pytest.raises(SystemExit, match=r"ValueError: the reason\n\nfails\.py ended with code 1"):
        benchmark.measure("fails.py", str(tmp_path))


def test_a_part_is_replaced_and_all_others_stay():
    new = ("| What | Seconds |\n| --- | --- |\n| new | 1.0 |", "*Measured today.*")
    once = benchmark.written(TEXT, "models", *new)
    assert benchmark.table(once, "models") == [["new", "1.0"]]
    for part in benchmark.PARTS:
        if part != "models":
            assert benchmark.table(once, part) == benchmark.table(TEXT, part)
    assert benchmark.written(once, "models", *new) == once


def measured(part):
    """The cells of a part's table; a test of a part that nobody has measured yet is skipped."""
    found = benchmark.table(TEXT, part)
    if not found:
        pytest.skip(f"not measured yet:  python -m benchmarks --only {part}")
    return found


class TestReadme:
    @pytest.mark.parametrize("part", benchmark.PARTS)
    def test_each_part_has_a_table_and_says_on_what_it_was_measured(self, part):
        assert measured(part)
        begin, end = benchmark.markers(part)
        between = TEXT.partition(begin)[2].partition(end)[0]
        assert re.search(
            r"^\*Measured \d{4}-\d\d-\d\d, \d+ cores, \d+ GiB, \w+, Python 3\.\d+\.\d+; "
            r"load \d+\.\d before, \d+\.\d at the end\.\*$",
            between,
            re.MULTILINE,
        )

    def test_every_lesson_is_in_it_in_the_order_of_running(self):
        names = [name.strip("`") for name, *_ in measured("lessons")]
        assert names == [*tutorial.LESSONS, f"{tutorial.LOOP} --days 1"]

    def test_costs_of_more_rows_grow_no_faster_than_the_rows(self):
        """Of the committed numbers: a lesson that grew faster must be mended, not written down."""
        first, beyond = measured("rows")[-2:]
        exponents = [float(cell) for cell in first[1:] if re.match(r"\d", cell)]
        assert len(exponents) == len(benchmark.GROWING)
        assert max(exponents) < 1.05
        assert beyond[0].startswith("exponent of what exceeds")

    def test_the_figure_is_drawn_from_its_tables_and_small(self, tmp_path, monkeypatch):
        assert measured("lessons") and measured("rows")
        assert benchmark.FIGURE.stat().st_size < 100_000
        assert f"]({benchmark.FIGURE.name})" in TEXT
        monkeypatch.setattr(benchmark, "FIGURE", tmp_path / "again.png")
        benchmark.draw(TEXT)
        again, committed = (
            Image.open(path).convert("L")
            for path in (tmp_path / "again.png", ROOT / "benchmarks" / "costs.png")
        )
        assert again.size == committed.size
        changed = sum(ImageChops.difference(again, committed).histogram()[32:])
        assert changed < 0.02 * again.width * again.height  # fonts differ a little


def test_the_command_lists_its_parts(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "nothing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert all(part in done.stderr for part in benchmark.PARTS)
