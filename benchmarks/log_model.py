"""Time `log_model` against its floor: the same model written to a file, and to a folder.

Run  .venv/bin/python benchmarks/log_model.py [--times 7]

In turns, in a temporary working area: the forest of 100 trees is as large as a lesson's models get.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def main() -> None:
    """Time it and print the lines of the table."""
    parser = argparse.ArgumentParser(description="Time log_model.")
    parser.add_argument("--times", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="log-model-") as work:
        os.environ["CMLFLOW_WORKAREA"] = work
        measure(Path(work), args.times)


def measure(work: Path, times: int) -> None:
    """Write a model in four ways, in turns, and print what each took."""
    import cloudpickle
    import mlflow
    import pandas as pd
    import sklearn
    from mlflow.models import infer_signature
    from sklearn.ensemble import RandomForestRegressor

    from cmlflow import store, workarea

    store.use_store("log-model")
    mlflow.set_experiment("log-model")
    wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv").astype("float64")
    X, y = wines.drop(columns="quality"), wines["quality"]
    model = RandomForestRegressor(max_depth=8, random_state=42).fit(X, y)
    options = {
        "signature": infer_signature(X, model.predict(X)),
        "serialization_format": "cloudpickle",
    }
    pins = {"pip_requirements": [f"scikit-learn=={sklearn.__version__}"]}
    number = itertools.count()

    def to_file() -> None:
        (work / "model.pkl").write_bytes(cloudpickle.dumps(model))

    def to_folder() -> None:
        mlflow.sklearn.save_model(model, str(work / f"model-{next(number)}"), **options, **pins)

    ways: dict[str, Callable[[], object]] = {
        "the model as a file: `cloudpickle.dumps`": to_file,
        "as a folder that MLflow can load: `mlflow.sklearn.save_model`": to_folder,
        "`log_model` with `pip_requirements`, as in the lessons": lambda: mlflow.sklearn.log_model(
            model, "model", **options, **pins
        ),
        "`log_model` that finds out the requirements itself": lambda: mlflow.sklearn.log_model(
            model, "model", **options
        ),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(times + 1):  # the first imports what is imported late
        for way, write in ways.items():
            if way == list(ways)[-1] and turn > 2:
                continue  # it starts a process that imports the model: twice is enough
            with mlflow.start_run():
                begin = time.monotonic()
                write()
                if turn:
                    took[way].append(time.monotonic() - begin)
    floor = statistics.median(took[list(ways)[1]])
    for way, seconds in took.items():
        median = statistics.median(seconds)
        print(f"| {way} | {median * 1000:.0f} ms | {median / floor:.2f} |")


if __name__ == "__main__":
    main()
