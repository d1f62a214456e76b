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
from difflib import get_close_matches
from typing import NoReturn

from cmlflow.errors import BadInput
from cmlflow.workarea import in_kernel


def parser() -> LessonParser:
    """Return a parser for the options of a lesson; a lesson without options uses it too."""
    return LessonParser(allow_abbrev=False, exit_on_error=False)  # or `--f=FILE` were `--folds`


class LessonParser(ArgumentParser):
    """An `argparse.ArgumentParser` for options that are long, and take one value or none."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would end the process for."""
        raise ArgumentError(None, message)

    def parse_args(self) -> Namespace:
        """Return the lesson's options, whoever started it.

        A kernel starts with `-f FILE` or `--f=FILE`, a CML job may add words: those are passed
        over. In a terminal a misspelt option is an error, since ignoring it would give another
        result than the one asked for.

        Raises:
            BadInput: an unknown word, text where a number belongs, a number out of range, no
                value at all, and so on. SystemExit only after `--help`: a CML job that ends with
                it fails without a reason.
        """
        options = {option: action for action in self._actions for option in action.option_strings}
        given = {word.partition("=")[0] for word in sys.argv[1:]}
        variables = [
            option
            for option, action in options.items()
            if option not in given and action.dest != "help" and _text(option)
        ]
        words = [word for option in variables for word in _as_words(option, options[option])]
        try:
            known, others = self.parse_known_args([*words, *sys.argv[1:]])
        except ArgumentError as error:
            option = error.argument_name
            if option in variables:
                raise _bad_variable(option, options[option], error.message) from error
            usage = " ".join(self.format_usage().removeprefix("usage: ").split())
            raise BadInput(
                f"{f'{option}: ' if option else ''}{error.message}.",
                options[option].help if option in options else usage,
                f"To see what each option does, run:  python {sys.argv[0]} --help",
            ) from error
        unknown = [word for word in others if not _is_kernels(word)]
        if unknown and not in_kernel() and "-f" not in others:
            (word, *_) = unknown
            near = get_close_matches(word.partition("=")[0], options, 1)
            raise BadInput(
                f"Unknown option {word}." + (f" Did you mean {near[0]}?" if near else ""),
                ", ".join(option for option in options if option.startswith("--")),
                f"To see what each one does, run:  python {sys.argv[0]} --help",
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


def _bad_variable(option: str, action: Action, problem: str) -> BadInput:
    return BadInput(
        f"{_variable(option)}, the environment variable for {option}: {problem}.",
        action.help,
        f"To go back to the default, run:  unset {_variable(option)}",
    )


def _is_kernels(word: str) -> bool:
    """Tell a kernel's own word, or the `None` that a CML job without arguments may pass."""
    return word in ("-f", "None") or word.startswith("--f=")
