"""A script run in this process, as if it had a process of its own.

Java starts once, and every library is imported once: a second script then takes a moment.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def run(script: Path, options: Iterable[str] = (), variables: Mapping[str, str] = {}) -> None:
    """Run a script from its first line to its last, in a namespace of its own.

    Args:
        script: its file.
        options: the words after its name.
        variables: environment variables beside those that are set already.

    Raises:
        BaseException: whatever the script raises; `SystemExit` only if it means a failure.
    """
    with _as_it_was():
        sys.argv = [str(script), *options]
        os.environ.update(variables)
        try:
            with warnings.catch_warnings():  # what was shown once is shown again
                runpy.run_path(str(script), run_name="__main__")
        except SystemExit as error:
            if error.code not in (None, 0):
                raise


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Undo what a script changes in its process: options, folder, variables, handlers, MLflow."""
    argv, folder, environment = sys.argv, os.getcwd(), dict(os.environ)
    handlers = {one: signal.getsignal(one) for one in signal.valid_signals()}
    hook = sys.excepthook
    try:
        yield
    finally:
        _forget_mlflow_and_spark()
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        sys.argv, sys.excepthook = argv, hook
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)


def _forget_mlflow_and_spark() -> None:
    """Undo what a script chose in MLflow and stop its Spark, as the end of a process does."""
    if sys.modules.get("mlflow"):
        import mlflow

        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None
    if sys.modules.get("pyspark"):  # None: it cannot be imported here
        from pyspark import SparkContext

        if SparkContext._active_spark_context is not None:
            SparkContext._active_spark_context.stop()
