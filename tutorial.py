"""Run the lessons in order, in one session, as Run All does in CML.

Java starts once and every library is imported once. Run by itself, a lesson does the same.

make tutorial, or:  python tutorial.py            run all lessons
                    python tutorial.py --verbose  and show all that they print
make telco, or:     python tutorial.py --telco    run Part 4 only, and four days of its loop
make clean, or:     python tutorial.py --clean    remove what the lessons made

The endpoints that they start end with the lessons.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Collection
from multiprocessing.connection import Connection
from pathlib import Path

from cmlflow import registry, runner, spark, store, workarea
from cmlflow.errors import JarUnavailable
from cmlflow.processes import error_message
from cmlflow.serving import on_laptop

CODE = Path(__file__).resolve().parent / "code"
SECOND_PASSES = {
    # The table grows, and the lesson compares what a model learns before and after.
    "14_XGBoost_Iceberg.py": ("00_datagen.py --append", "14_XGBoost_Iceberg.py"),
    # A second day passes: with it comes the truth of the first.
    "telco/03_newbatch.py": ("telco/03_newbatch.py",),
}
ENDLESS = {"telco/08_model_roi_dashboard.py": "--print-only"}
"""Lessons that go on until somebody stops them, and the option with which they do not."""
LOOP = "telco/09_jobs.py"
"""Runs lessons of Part 4 itself."""


def in_order(*folders: str) -> tuple[str, ...]:
    """Return the lessons of folders by their numbers, each with its options and second passes."""
    return tuple(
        step
        for folder in folders
        for file in sorted((CODE / folder).glob("[0-9]*.py"))
        for script in [file.relative_to(CODE).as_posix()]
        if script != LOOP
        for step in (
            f"{script} {ENDLESS.get(script, '')}".strip(),
            *SECOND_PASSES.get(script, ()),
        )
    )


LESSONS = in_order("", "telco")
TELCO = (*in_order("telco"), f"{LOOP} --days 4")


def title(lesson: str) -> str:
    """Return the first line of a lesson's docstring, for example `02 - Log the model too`."""
    script, *options = lesson.split()
    docstring = ast.get_docstring(ast.parse((CODE / script).read_text(encoding="utf-8")))
    return docstring.splitlines()[0] + (f" ({' '.join(options)})" if options else "")


def command(*words: str | Path) -> str:
    """Return how to run a script with this Python, as one types it in the current folder."""
    typed = []
    for word in (Path(sys.executable), *words):
        if isinstance(word, Path) and word.is_relative_to(Path.cwd()):
            word = word.relative_to(Path.cwd())
        typed.append(f'"{word}"' if " " in str(word) else str(word))
    return " ".join(typed)


def how_it_ended(stderr: str, code: int) -> str:
    """Return why a lesson failed: its error, or how its process ended without one."""
    if "Traceback (most recent call last):\n" in stderr:
        return error_message(stderr)
    end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"{stderr.strip()}\nThe process {end}.".lstrip()


class Session:
    """The Python process in which the lessons run one after the other.

    What it prints goes to two files, unless `verbose` sends it to the terminal. Java keeps
    the files that it was started with, so they stay the same and are emptied before a lesson.
    """

    def __init__(self, folder: Path, verbose: bool) -> None:
        self.files = () if verbose else (folder / "stdout", folder / "stderr")
        context = multiprocessing.get_context("spawn")
        self.line, other_end = context.Pipe()
        # Ctrl+C reaches this process too. It must not meet it before or between lessons.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.process = context.Process(target=run_lessons, args=(other_end, self.files))
        self.process.start()
        signal.signal(signal.SIGINT, before)
        other_end.close()

    def run(self, lesson: str) -> tuple[int | None, str, str]:
        """Run one lesson.

        Returns:
            None if it succeeded, else the code with which it ended the process; what it printed
            to stdout; and to stderr.
        """
        for file in self.files:
            if file.exists():
                os.truncate(file, 0)
        try:
            self.line.send(lesson)
            self.line.recv()
        except (EOFError, OSError):  # the process has ended
            self.process.join()
        return self.process.exitcode, *self.printed()

    def printed(self) -> tuple[str, str]:
        """Return what the last lesson printed to stdout and stderr; nothing where it was shown."""
        texts = [
            file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
            for file in self.files
        ]
        return (texts[0], texts[1]) if texts else ("", "")

    def how_to_open_ui(self) -> str:
        """Return what the store says; asked there, where MLflow has been imported already."""
        self.line.send("")
        return self.line.recv()

    def end(self) -> None:
        """Wait until the process has ended, and the lesson in it before."""
        self.line.close()
        self.process.join()


def run_lessons(line: Connection, files: tuple[Path, ...]) -> None:
    """Run the lessons whose names arrive; answer each that succeeded. A failure ends the process.

    Each has a namespace of its own, and finds what it would find in a process of its own.
    """
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for file, stream in zip(files, (sys.stdout, sys.stderr), strict=False):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    sys.path.insert(0, str(CODE))
    while True:
        try:
            lesson = line.recv()
        except EOFError:
            return
        if not lesson:
            line.send(store.how_to_open_ui())
            continue
        script, *options = lesson.split()
        # Set before each lesson: the next one shall heed Ctrl+C, the time between two shall not.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            runner.run(CODE / script, options)
        except SystemExit:
            raise
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.exit(1)
        signal.signal(signal.SIGINT, before)
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            line.send("done")
        except OSError:  # nobody waits: Ctrl+C
            return


def run(session: Session, lesson: str) -> bool:
    """Run one lesson, print its line of progress, and tell whether it succeeded."""
    verbose = not session.files
    print(f"{title(lesson):<66} ", end="\n" if verbose else "", flush=True)
    begin = time.monotonic()
    try:
        code, out, err = session.run(lesson)
    except KeyboardInterrupt:
        # It reached the lesson too, which closes its run and stops its Spark. It gets the time
        # for that: from here on only the lesson heeds Ctrl+C.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(f"\nInterrupted: waiting until {lesson} has ended", flush=True)
        session.end()
        raise
    seconds = f"{time.monotonic() - begin:5.1f} s"
    if code is None:
        result = re.search(r"^(?:Done: |(?=Skipped: ))(.*)", out, re.MULTILINE)
        print(f"{seconds}\n     {result[1]}" if result else seconds)
        return True
    print(f"{seconds}  failed\n")
    if not verbose:
        print(how_it_ended(err, code))
    script, *options = lesson.split()
    print(f"\nTo see all that this lesson says, run:  {command(CODE / script, *options)}")
    return False


def main() -> int:
    """Run what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(description="Run the lessons in order.")
    parser.add_argument("--verbose", action="store_true", help="show all that the lessons print")
    parser.add_argument("--telco", action="store_true", help="run Part 4 only, and its loop")
    parser.add_argument("--clean", action="store_true", help="remove what the lessons made")
    args = parser.parse_args()
    if args.clean:
        stop_endpoints()
        removed = workarea.remove_what_lessons_made()
        print("\n".join(f"Removed {path}" for path in removed) or "Nothing to remove")
        return 0
    try:
        return run_all(TELCO if args.telco else LESSONS, args.verbose)
    except KeyboardInterrupt:
        print(f"\nStopped. To run all lessons again:  {command(Path(__file__).resolve())}")
        return 130


def stop_endpoints(keep: Collection[str] = ()) -> None:
    """End the endpoints of this working area, but for those to keep, and say which there were."""
    for name in on_laptop.stop_all(keep):
        print(f"The endpoint {name} is stopped; to start it again:  {registry.how_to_deploy(name)}")


def run_all(lessons: tuple[str, ...], verbose: bool) -> int:
    """Run lessons up to the first that fails and return the exit code."""
    try:
        print(f"Iceberg for Spark: {spark.iceberg_jar()}\n")
    except JarUnavailable as error:
        print(error)
        return 1
    os.environ["PYTHONIOENCODING"] = "utf-8"
    running = on_laptop.running()
    try:
        with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
            session = Session(Path(folder), verbose)
            if not all(run(session, lesson) for lesson in lessons):
                return 1
            where = session.how_to_open_ui()
            session.end()
    finally:
        stop_endpoints(keep=running)
    one = LOOP if lessons[-1].startswith(LOOP) else "01_Experiment.py"
    print(
        f"\nAll lessons ran. Look at what they logged:  {where}\n"
        f"To run one lesson by itself:  {command(CODE / one)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
