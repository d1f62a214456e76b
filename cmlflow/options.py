"""The options of a lesson: a notebook kernel adds arguments of its own to `sys.argv`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace


class UnknownOption(ValueError):
    """The command line holds an option that the lesson does not have."""


def parse(parser: ArgumentParser) -> Namespace:
    """Return the lesson's options, whoever started it.

    A kernel starts with `-f FILE` or `--f=FILE`, a CML job may add words: those are passed over.
    In a terminal a misspelt option is an error, since ignoring it would give another result than
    the one asked for.

    Args:
        parser: made with `allow_abbrev=False`, or `--f=FILE` would be taken for `--folds`.

    Raises:
        UnknownOption: an option that the parser does not know, with one dash or with two.
    """
    known, others = parser.parse_known_args()
    unknown = [word for word in others if word.startswith("-") and not _is_kernels(word)]
    if unknown and not _in_kernel():
        there = [option for action in parser._actions for option in action.option_strings]
        raise UnknownOption(
            f"Unknown option {unknown[0]}.\n"
            f"Expected: {', '.join(option for option in there if option.startswith('--'))}.\n"
            f"To see what each one does, run:  python {sys.argv[0]} --help"
        )
    return known


def _is_kernels(word: str) -> bool:
    return word == "-f" or word.startswith("--f=")


def _in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None
