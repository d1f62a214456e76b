import argparse
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import CODE

from cmlflow import errors, options


@pytest.fixture
def parser():
    parser = options.parser()
    parser.add_argument("--folds", type=int, default=3, help="number of parts")
    parser.add_argument("--penalty", type=options.whole_number(1, 9), default=2, help="1 to 9")
    parser.add_argument("--kind", choices=["a", "b"], default="a", help="a or b")
    parser.add_argument("--batch-file", help="a file")
    parser.add_argument("--append", action="store_true", help="add to what is there")
    return parser


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """The environment of the tests may choose options: not here."""
    for name in [name for name in os.environ if name.startswith("CMLFLOW_")]:
        monkeypatch.delenv(name)


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
    assert parser.parse_args().folds == 5


def test_a_misspelt_option_is_an_error_that_names_the_nearest_one(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--fold", "5"])
    with pytest.raises(errors.BadInput) as caught:
        parser.parse_args()
    assert str(caught.value) == (
        "Unknown option --fold. Did you mean --folds?\n"
        "Expected: --help, --folds, --penalty, --kind, --batch-file, --append.\n"
        "To see what each one does, run:  python lesson.py --help"
    )


@pytest.mark.parametrize("words", [["--alpha=" + "9" * 5000], ["x" * 5000]])
def test_of_an_endless_word_only_its_beginning_is_shown(parser, monkeypatch, words):
    parser.add_argument("--alpha", type=options.number(0, 1))
    monkeypatch.setattr(sys, "argv", ["lesson.py", *words])
    with pytest.raises(errors.BadInput) as caught:
        parser.parse_args()
    assert len(str(caught.value)) < 400


def test_a_lesson_without_options_takes_no_word_in_a_terminal_and_any_in_a_kernel(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--seed", "5"])
    with pytest.raises(errors.BadInput, match=r"Unknown option --seed\."):
        options.parser().parse_args()
    monkeypatch.setattr(sys, "argv", ["kernel", "-f", "/run/kernel.json", "--seed", "5"])
    assert vars(options.parser().parse_args()) == {}


def test_the_beginning_of_an_option_is_not_taken_but_understood(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--batch", "x"])
    with pytest.raises(errors.BadInput, match=r"--batch\. Did you mean --batch-file"):
        parser.parse_args()


def test_a_stray_word_is_an_error_because_an_option_was_forgotten(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesson.py", "5"])
    with pytest.raises(errors.BadInput, match=r"Unknown option 5\."):
        parser.parse_args()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--folds", "many"], "--folds: invalid int value: 'many'."),
        (["--folds"], "--folds: expected one argument."),
        (["--penalty", "0"], "--penalty: 0 is not a whole number from 1 to 9."),
        (["--kind", "c"], "--kind: invalid choice: 'c' "),
    ],
)
def test_a_bad_value_is_an_error_of_three_lines_that_a_kernel_survives(
    parser, monkeypatch, words, problem
):
    monkeypatch.setattr(sys, "argv", ["lesson.py", *words])
    with pytest.raises(errors.BadInput) as caught:
        parser.parse_args()
    first, second, third = str(caught.value).splitlines()
    assert problem in first
    assert second.startswith("Expected: ")
    assert third == "To see what each option does, run:  python lesson.py --help"


def test_the_second_line_is_the_help_of_the_option(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--folds=many"])
    with pytest.raises(errors.BadInput, match=r"\nExpected: number of parts\.\n"):
        parser.parse_args()


def test_a_required_option_left_out_is_an_error_that_a_kernel_survives(parser, monkeypatch):
    parser.add_argument("--run", required=True)
    monkeypatch.setattr(sys, "argv", ["lesson.py"])
    with pytest.raises(errors.BadInput, match="required: --run") as caught:
        parser.parse_args()
    assert len(str(caught.value).splitlines()) == 3
    monkeypatch.setenv("CMLFLOW_RUN", "abc")
    assert parser.parse_args().run == "abc"


@pytest.mark.parametrize(
    ("name", "text", "option", "value"),
    [
        ("CMLFLOW_FOLDS", "7", "folds", 7),
        ("CMLFLOW_FOLDS", "-7", "folds", -7),
        ("CMLFLOW_FOLDS", " 7 ", "folds", 7),
        ("CMLFLOW_FOLDS", "", "folds", 3),  # set, but left blank
        ("CMLFLOW_FOLDS", "  ", "folds", 3),
        ("CMLFLOW_BATCH_FILE", " wines.csv ", "batch_file", "wines.csv"),
        ("CMLFLOW_BATCH_FILE", "a b=c.csv", "batch_file", "a b=c.csv"),
        ("CMLFLOW_BATCH_FILE", "--append", "batch_file", "--append"),
        ("CMLFLOW_APPEND", "1", "append", True),
        ("CMLFLOW_APPEND", "True", "append", True),
        ("CMLFLOW_APPEND", "0", "append", False),
        ("CMLFLOW_APPEND", "false", "append", False),
        ("CMLFLOW_APPEND", "", "append", False),
    ],
)
def test_an_environment_variable_sets_an_option(parser, monkeypatch, name, text, option, value):
    monkeypatch.setattr(sys, "argv", ["lesson.py", "-f", "/run/kernel-1.json"])
    monkeypatch.setenv(name, text)
    assert getattr(parser.parse_args(), option) == value


@pytest.mark.parametrize("text", ["7", "many"])
@pytest.mark.parametrize("words", [["--folds", "5"], ["--folds=5"]])
def test_the_command_line_wins_whatever_the_variable_says(parser, monkeypatch, text, words):
    monkeypatch.setattr(sys, "argv", ["lesson.py", *words])
    monkeypatch.setenv("CMLFLOW_FOLDS", text)
    assert parser.parse_args().folds == 5


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("CMLFLOW_FOLDS", "many", "the environment variable for --folds: invalid int value"),
        ("CMLFLOW_PENALTY", "10", "for --penalty: 10 is not a whole number from 1 to 9."),
        ("CMLFLOW_KIND", "c", "for --kind: invalid choice: 'c' "),
        ("CMLFLOW_APPEND", "yes", "for --append: yes is not 1, true, 0 or false."),
    ],
)
def test_a_bad_value_in_a_variable_is_an_error_that_names_it(
    parser, monkeypatch, name, text, problem
):
    monkeypatch.setattr(sys, "argv", ["lesson.py"])
    monkeypatch.setenv(name, text)
    with pytest.raises(errors.BadInput) as caught:
        parser.parse_args()
    first, second, third = str(caught.value).splitlines()
    assert first.startswith(f"{name}, ") and problem in first
    assert second.startswith("Expected: ")
    assert third == f"To go back to the default, run:  unset {name}"


def test_variables_with_another_meaning_change_no_option(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesson.py"])
    before = parser.parse_args()
    for name in ("CMLFLOW_WORKAREA", "CMLFLOW_ICEBERG_JAR", "CMLFLOW_HELP"):
        monkeypatch.setenv(name, "1")
    assert parser.parse_args() == before


def test_no_lesson_has_an_option_whose_variable_is_taken():
    for path in CODE.rglob("*.py"):
        added = re.findall(r"""add_argument\(\s*["'](--[\w-]+)""", path.read_text(encoding="utf-8"))
        assert not {"--workarea", "--iceberg-jar"} & set(added), path.name


SCRIPTS = sorted(path.relative_to(CODE).as_posix() for path in CODE.rglob("[0-9]*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_the_title_and_the_options_and_runs_nothing(warm, tmp_path, script):
    text = (CODE / script).read_text(encoding="utf-8")
    done = warm.run_script(script, tmp_path, "--help")
    assert done.stdout.startswith(f"usage: {Path(script).name} [-h]")
    assert f"\n{text.splitlines()[1]}\n" in done.stdout
    for option in re.findall(r"""add_argument\(\s*["'](--[\w-]+)""", text):
        assert re.search(rf"^  {option}\b.* \S", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "text", "number"),
    [((1,), "1", 1), ((1,), "1000000", 1000000), ((0, 4), "0", 0), ((-2, 4), "-2", -2)],
)
def test_a_whole_number_within_its_limits_is_taken(limits, text, number):
    assert options.whole_number(*limits)(text) == number


@pytest.mark.parametrize(
    ("limits", "text", "number"),
    [((0,), "0", 0), ((0,), "1e3", 1000), ((0, 1), "0.25", 0.25), ((0, 1), "1", 1)],
)
def test_a_number_within_its_limits_is_taken(limits, text, number):
    assert options.number(*limits)(text) == number


@pytest.mark.parametrize(
    ("limits", "text", "wanted"),
    [
        ((0, 1), "1.01", "from 0 to 1"),
        ((0, 1000), "-1", "from 0 to 1,000"),
        ((0.5, 2), "0", "from 0.5 to 2"),
        *(((0,), text, "0 or more") for text in ("-0.1", "nan", "two", "")),
        *(((0,), text, "up to 1,000,000,000") for text in ("inf", "1e10")),
    ],
)
def test_any_other_number_is_refused_with_the_value_and_the_limits(limits, text, wanted):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        options.number(*limits)(text)
    assert str(caught.value) == f"{text} is not a number {wanted}"


@pytest.mark.parametrize(
    ("limits", "text", "wanted"),
    [
        ((0, 4), "5", "from 0 to 4"),
        ((1, 750), "0", "from 1 to 750"),
        *(((1,), text, "1 or more") for text in ("0", "-1", "2.5", "nan", "two")),
        ((1,), "1" + "0" * 30, "up to 1,000,000,000"),
    ],
)
def test_anything_but_a_whole_number_is_refused_with_the_value_and_the_limits(limits, text, wanted):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        options.whole_number(*limits)(text)
    assert str(caught.value) == f"{text} is not a whole number {wanted}"


@pytest.mark.parametrize("largest", [750, options.LARGEST])
def test_a_number_of_more_digits_than_python_reads_is_called_too_large(largest):
    with pytest.raises(argparse.ArgumentTypeError, match=f"to {largest:,}$"):
        options.whole_number(1, largest)("9" * 5000)


def test_a_negative_number_is_a_value_not_an_option(monkeypatch):
    parser = options.parser()
    parser.add_argument("--shift", type=float)
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--shift", "-0.5", "-f", "/run/kernel.json"])
    assert parser.parse_args().shift == -0.5


@pytest.mark.parametrize("text", ["-inf", "-nan", "-1e400", "-.5"])
def test_a_negative_number_out_of_range_is_told_the_range(monkeypatch, text):
    parser = options.parser()
    parser.add_argument("--alpha", type=options.number(0, 1000))
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--alpha", text])
    with pytest.raises(errors.BadInput) as caught:
        parser.parse_args()
    assert caught.value.found == f"--alpha: {text} is not a number from 0 to 1,000."


def test_help_tells_the_defaults_once(capsys, monkeypatch):
    parser = options.parser()
    parser.add_argument("--rows", type=int, default=10_000, help="rows to write")
    parser.add_argument("--output", default="out.csv", help="file; default: out.csv")
    parser.add_argument("--append", action="store_true", help="add a batch")
    parser.add_argument("--alias", help="an alias")
    monkeypatch.setattr(sys, "argv", ["lesson.py", "--help"])
    with pytest.raises(SystemExit):
        parser.parse_args()
    printed = capsys.readouterr().out
    assert "rows to write (default: 10000)\n" in printed
    assert printed.count("default") == 2
