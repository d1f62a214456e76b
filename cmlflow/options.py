"""The options of a lesson, from the command line or from environment variables.

Every option can also be set by a variable: `--n-neighbors 9` by CMLFLOW_N_NEIGHBORS=9, because a
CML job may ignore its arguments. A flag such as `--append` takes 1 or true, 0 or false. The command
line wins, and an empty variable counts as not set. No option may be called `--workarea` or
`--iceberg-jar`: those variables mean something else (see `workarea` and `spark`).
"""

from __future__ import annotations

import math
import os
import sys
from argparse import Action, ArgumentError, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import NoReturn


class UnknownOption(ValueError):
    """The command line holds an option that the lesson does not have."""


class BadValue(ValueError):
    """An option, or the variable in its place, has a value that it cannot have, or none."""


def parse(parser: ArgumentParser) -> Namespace:
    """Return the lesson's options, whoever started it.

    A kernel starts with `-f FILE` or `--f=FILE`, a CML job may add words: those are passed over.
    In a terminal a misspelt option is an error, since ignoring it would give another result than
    the one asked for.

    Args:
        parser: made with `allow_abbrev=False`, or `--f=FILE` would be taken for `--folds`. Its
            options are long ones; each takes one value or is a flag.

    Raises:
        UnknownOption: a word that the parser does not know, with or without a dash.
        BadValue: text where a number belongs, a number out of range, no value at all, and so on.
            Never SystemExit, which argparse prefers: a CML job would fail without a reason.
    """

    def refuse(message: str) -> NoReturn:
        raise ArgumentError(None, message)

    parser.error = refuse
    options = {option: action for action in parser._actions for option in action.option_strings}
    given = {word.partition("=")[0] for word in sys.argv[1:]}
    variables = [
        option
        for option, action in options.items()
        if option not in given and action.dest != "help" and _text(option)
    ]
    words = [word for option in variables for word in _as_words(option, options[option])]
    try:
        known, others = parser.parse_known_args([*words, *sys.argv[1:]])
    except ArgumentError as error:
        option = error.argument_name
        if option in variables:
            raise _bad_variable(option, options[option], error.message) from error
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
        expected = options[option].help if option in options else usage
        raise BadValue(
            f"{f'{option}: ' if option else ''}{error.message}.\nExpected: {expected}.\n"
            f"To see what each option does, run:  python {sys.argv[0]} --help"
        ) from error
    unknown = [word for word in others if not _is_kernels(word)]
    if unknown and not _in_kernel() and "-f" not in others:
        raise UnknownOption(
            f"Unknown option {unknown[0]}.\n"
            f"Expected: {', '.join(option for option in options if option.startswith('--'))}.\n"
            f"To see what each one does, run:  python {sys.argv[0]} --help"
        )
    return known


def whole_number(smallest: int, largest: int | None = None) -> Callable[[str], int]:
    """Return what `type=` of an option takes, for whole numbers in a range, both ends included."""
    return _in_range(int, "whole number", smallest, largest)


def number(smallest: float, largest: float | None = None) -> Callable[[str], float]:
    """Return what `type=` of an option takes, for finite numbers in a range, ends included."""
    return _in_range(float, "number", smallest, largest)


def _in_range(kind: type, name: str, smallest: float, largest: float | None) -> Callable:
    wanted = f"{smallest} or more" if largest is None else f"from {smallest} to {largest}"

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (smallest <= value <= (sys.float_info.max if largest is None else largest)):
            raise ArgumentTypeError(f"{text} is not a {name} {wanted}")
        return value

    return convert


def _variable(option: str) -> str:
    return "CMLFLOW_" + option.lstrip("-").upper().replace("-", "_")


def _text(option: str) -> str:
    return os.environ.get(_variable(option), "").strip()


def _as_words(option: str, action: Action) -> list[str]:
    """Return the variable of an option as the words of a command line."""
    text = _text(option)
    if action.nargs != 0:
        return [f"{option}={text}"]
    if text.lower() not in ("1", "true", "0", "false"):
        raise _bad_variable(option, action, f"{text} is not 1, true, 0 or false")
    return [option] if text.lower() in ("1", "true") else []


def _bad_variable(option: str, action: Action, problem: str) -> BadValue:
    return BadValue(
        f"{_variable(option)}, the environment variable for {option}: {problem}.\n"
        f"Expected: {action.help}.\n"
        f"To go back to the default, run:  unset {_variable(option)}"
    )


def _is_kernels(word: str) -> bool:
    """Tell a kernel's own word, or the `None` that a CML job without arguments may pass."""
    return word in ("-f", "None") or word.startswith("--f=")


def _in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None
