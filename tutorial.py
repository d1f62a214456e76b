"""Run the lessons in order, each in a process of its own, as a learner would one by one.

make tutorial, or:  python tutorial.py            run all lessons
                    python tutorial.py --verbose  and show all that they print
make clean, or:     python tutorial.py --clean    remove what the lessons made
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from cmlflow import store, workarea
from cmlflow.errors import JarUnavailable
from cmlflow.spark import iceberg_jar

CODE = Path(__file__).resolve().parent / "code"
SECOND_PASSES = {
    # The table grows, and the lesson compares what a model learns before and after.
    "14_XGBoost_Iceberg.py": ("00_datagen.py --append", "14_XGBoost_Iceberg.py"),
}
LESSONS = tuple(
    step
    for script in sorted(path.name for path in CODE.glob("[0-9]*.py"))
    for step in (script, *SECOND_PASSES.get(script, ()))
)


def title(lesson: str) -> str:
    """Return the first line of a lesson's docstring, for example `02 - Log the model too`."""
    script, *options = lesson.split()
    docstring = ast.get_docstring(ast.parse((CODE / script).read_text(encoding="utf-8")))
    return " ".join([docstring.splitlines()[0], *(f"({option})" for option in options)])


def command(*words: str | Path) -> str:
    """Return how to run a script with this Python, as one types it in the current folder."""
    typed = []
    for word in (Path(sys.executable), *words):
        if isinstance(word, Path) and word.is_relative_to(Path.cwd()):
            word = word.relative_to(Path.cwd())
        typed.append(f'"{word}"' if " " in str(word) else str(word))
    return " ".join(typed)


def error_message(stderr: str) -> str:
    """Return the message of the last traceback in what a lesson printed, without its stack."""
    last = stderr.rpartition("Traceback (most recent call last):\n")[2]
    return re.sub(r"\A(?:[ \t].*\n)*", "", last).strip()


def run(lesson: str, verbose: bool) -> bool:
    """Run one lesson, print its line of progress, and tell whether it succeeded."""
    print(f"{title(lesson):<66} ", end="\n" if verbose else "", flush=True)
    script, *options = lesson.split()
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(CODE / script), *options],
        stdin=subprocess.DEVNULL,
        stdout=None if verbose else subprocess.PIPE,
        stderr=None if verbose else subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    out, err = wait_for(process, lesson)
    seconds = f"{time.monotonic() - begin:5.1f} s"
    if process.returncode == 0:
        result = re.search(r"^Done: (.*)", out or "", re.MULTILINE)
        print(f"{seconds}\n     {result[1]}" if result else seconds)
        return True
    print(f"{seconds}  failed\n")
    if not verbose:
        print(error_message(err or "") or f"It ended with code {process.returncode}.")
    print(f"\nTo see all that this lesson says, run:  {command(CODE / script, *options)}")
    return False


def wait_for(process: subprocess.Popen, lesson: str) -> tuple[str | None, str | None]:
    """Return what a lesson printed, once it has ended.

    Ctrl+C reaches the lesson too, which then closes its run and stops its Spark. It gets the time
    for that; only then does KeyboardInterrupt go on to the caller.
    """
    try:
        return process.communicate()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # from here on only the lesson heeds it
        print(f"\nInterrupted: waiting until {lesson} has ended", flush=True)
        process.communicate()
        raise


def main() -> int:
    """Run what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(description="Run the lessons in order.")
    parser.add_argument("--verbose", action="store_true", help="show all that the lessons print")
    parser.add_argument("--clean", action="store_true", help="remove what the lessons made")
    args = parser.parse_args()
    if args.clean:
        removed = workarea.remove_what_lessons_made()
        print("\n".join(f"Removed {path}" for path in removed) or "Nothing to remove")
        return 0
    try:
        return run_all(args.verbose)
    except KeyboardInterrupt:
        print(f"\nStopped. To run all lessons again:  {command(Path(__file__).resolve())}")
        return 130


def run_all(verbose: bool) -> int:
    """Run the lessons up to the first that fails and return the exit code."""
    try:
        print(f"Iceberg for Spark: {iceberg_jar()}\n")
    except JarUnavailable as error:
        print(error)
        return 1
    for lesson in LESSONS:
        if not run(lesson, verbose):
            return 1
    print(
        f"\nAll lessons ran. Look at what they logged:  {store.how_to_open_ui()}\n"
        f"To run one lesson by itself:  {command(CODE / '01_Experiment.py')}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
