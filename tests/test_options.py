import argparse
import sys

import pytest

from cmlflow import options

pytestmark = pytest.mark.once


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--folds", type=int, default=3)
    return parser


@pytest.mark.parametrize(
    "added",
    [
        ["-f", "/run/kernel-1.json"],
        ["--f=/run/kernel-1.json"],
        ["None"],  # what the arguments of a CML job often are
        [],
    ],
)
def test_what_a_kernel_or_a_job_adds_is_passed_over(parser, monkeypatch, added):
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--folds", "5", *added])
    assert options.parse(parser).folds == 5


def test_a_misspelt_option_is_an_error_that_lists_the_options(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--fold", "5"])
    with pytest.raises(options.UnknownOption, match=r"Unknown option --fold\.") as caught:
        options.parse(parser)
    assert "--folds" in str(caught.value)
    assert "python lesson.py --help" in str(caught.value)


def test_a_value_of_the_wrong_type_is_an_error_that_a_kernel_survives(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--folds", "many"])
    with pytest.raises(argparse.ArgumentError, match="invalid int value: 'many'"):
        options.parse(parser)
