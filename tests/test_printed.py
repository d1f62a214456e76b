"""What the READMEs show is what the lessons print."""

import printed
import pytest
from conftest import WarmKernel

import tutorial

pytestmark = [pytest.mark.once, pytest.mark.spark]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each lesson printed, in one pass through all of them."""
    with WarmKernel() as kernel:
        return printed.run_all(kernel, tmp_path_factory.mktemp("lessons"))


@pytest.mark.parametrize("readme", printed.READMES, ids=["README", "code/README"])
def test_each_block_is_what_the_lesson_prints(readme, outputs):
    again = {lesson: iter(texts) for lesson, texts in outputs.items()}
    found = printed.shown(readme)
    assert found
    for lesson, text in found:
        assert printed.masked(text) == printed.masked(next(again[lesson])), lesson


def test_the_walkthrough_shows_every_pass():
    lessons = [lesson for lesson, _ in printed.shown(printed.READMES[1])]
    assert lessons == list(tutorial.LESSONS)


def test_ids_times_and_paths_are_all_that_may_differ():
    one = "run 0123456789abcdef0123456789abcdef at 2026-01-01 10:00:00: rmse 0.822  \n"
    two = "run fedcba9876543210fedcba9876543210 at 2026-12-31 23:59:59: rmse 0.822\n"
    assert printed.masked(one) == printed.masked(two)
    assert printed.masked(one) != printed.masked(one.replace("0.822", "0.823"))
