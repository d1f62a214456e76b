"""The options of a lesson, from the command line or from environment variables.

A CML job may ignore its arguments, so every option can also be set by a variable: `--n-neighbors 9`
by CMLFLOW_N_NEIGHBORS=9. A flag such as `--append` takes 1 or true, 0 or false. The command line
wins, and a blank variable counts as not set. No option may be called `--workarea` or
`--iceberg-jar`, because those variables mean something else (see `workarea` and `spark`).
"""

from __future__ import annotations

import math
import os
import re
import sys
from argparse import (
    Action,
    ArgumentDefaultsHelpFormatter,
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
)
from collections.abc import Callable
from difflib import get_close_matches
from typing import NoReturn

from cmlflow.errors import BadInput
from cmlflow.workarea import in_kernel

LARGEST = 10**9
"""The upper end of a range that names none: more trees or rows than this would never end."""


def parser() -> LessonParser:
    """Return a parser for the options of a lesson.

    A lesson without options uses it too: `--help` then shows its title instead of running it.
    """
    title, *_ = (sys.modules["__main__"].__doc__ or "").strip().splitlines() or [""]
    # With abbreviations a kernel's `--f=FILE` would be read as `--folds`.
    made = LessonParser(
        description=title, allow_abbrev=False, exit_on_error=False, formatter_class=_WithDefaults
    )
    made._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)
    return made


class _WithDefaults(ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: Action) -> str:
        told = action.default in (None, False) or "default" in (action.help or "")
        return action.help if told else super()._get_help_string(action)


class LessonParser(ArgumentParser):
    """An `argparse.ArgumentParser` for options that are long, and take one value or none."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would end the process for."""
        raise ArgumentError(None, message)

    def parse_args(self) -> Namespace:
        """Return the lesson's options, whether a terminal, a job or a kernel started it.

        A kernel starts with `-f FILE` or `--f=FILE`, and a CML job may add words: we ignore those.
        In a terminal a misspelt option is an error, because without it the lesson would give
        another result than the reader asked for.

        Raises:
            BadInput: an unknown word, text where a number belongs, a number out of range, a
                missing value, and so on.
            SystemExit: only after `--help`.
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
                (option in options and options[option].help) or usage,
                f"To see what each option does, run:  python {sys.argv[0]} --help",
            ) from error
        unknown = [word for word in others if not _is_kernels(word)]
        if unknown and not in_kernel() and "-f" not in others:
            (word, *_) = unknown
            name = word.partition("=")[0]
            near = [option for option in options if len(name) > 2 and option.startswith(name)]
            near += get_close_matches(name, options, 1)
            raise BadInput(
                f"Unknown option {_shortened(word)}."
                + (f" Did you mean {near[0]}?" if near else ""),
                ", ".join(option for option in options if option.startswith("--")),
                f"To see what each one does, run:  python {sys.argv[0]} --help",
            )
        return known


def whole_number(smallest: int, largest: int = LARGEST) -> Callable[[str], int]:
    """Return what `type=` of an option takes, for whole numbers in a range, both ends included."""
    return _in_range(int, "whole number", smallest, largest)


def number(smallest: float, largest: float = LARGEST) -> Callable[[str], float]:
    """Return what `type=` of an option takes, for finite numbers in a range, ends included."""
    return _in_range(float, "number", smallest, largest)


def _in_range(kind: type, name: str, smallest: float, largest: float) -> Callable:
    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.inf if text.strip().isdigit() else math.nan  # too many digits for Python
        if smallest <= value <= largest:
            return value
        wanted = f"from {smallest:,} to {largest:,}"
        if largest == LARGEST:
            wanted = f"up to {LARGEST:,}" if value > LARGEST else f"{smallest:,} or more"
        raise ArgumentTypeError(f"{_shortened(text)} is not a {name} {wanted}")

    return convert


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


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
        action.help or f"what {option} takes",
        f"To go back to the default, run:  unset {_variable(option)}",
    )


def _is_kernels(word: str) -> bool:
    """Tell a kernel's own word, or the `None` that a CML job without arguments may pass."""
    return word in ("-f", "None") or word.startswith("--f=")
