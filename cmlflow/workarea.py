"""Where a lesson reads and writes: the project root and the working area.

The working area is the project, or the folder that CMLFLOW_WORKAREA names.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from cmlflow.errors import LessonError

SQLITE_ENDINGS = ("", "-journal", "-wal", "-shm")
"""A SQLite database is up to four files: a journal that is left over changes the next database."""
MADE_BY_LESSONS = (
    *(name + ending for name in ("mlflow.db", "mlflow.db.new") for ending in SQLITE_ENDINGS),
    "mlflow.db.lock",
    "mlartifacts",
    "mlruns",
    "spark-warehouse",
    "spark-warehouse.lock",
    "spark-tmp",
    "data/states",
    "data/predictions.csv",
    "data/.predictions-*.unfinished",
)
"""What the lessons leave in the working area, as glob patterns relative to it."""


def root() -> Path:
    """Return the project root, the folder that holds `code/` and `data/`.

    Looked for at the script that runs, then at the current folder, then at the installed package,
    each time upwards: a notebook kernel has no `__file__` and may start in any folder.

    Raises:
        LessonError: none of the three lies inside a checkout of this project.
    """
    starts = (Path(sys.argv[0] or "."), Path.cwd(), Path(__file__))
    for start in starts:
        for folder in start.resolve().parents if start.is_file() else (start, *start.parents):
            if (folder / "code" / "00_datagen.py").is_file() and (folder / "cmlflow").is_dir():
                return folder.resolve()
    raise LessonError(
        f"No project folder above {starts[0]} or {starts[1]}.",
        "a folder with code/00_datagen.py and cmlflow/ in it",
        "Change into the project first:  cd <the folder you cloned>",
    )


def path(*parts: str) -> Path:
    """Return a path in the working area: the project root, or what CMLFLOW_WORKAREA names."""
    chosen = os.environ.get("CMLFLOW_WORKAREA")
    area = Path(chosen).expanduser().resolve() if chosen else root()
    return area.joinpath(*parts)


def in_cml() -> bool:
    """Tell whether this process runs inside CML: its sessions and jobs set CDSW_PROJECT_ID."""
    return bool(os.environ.get("CDSW_PROJECT_ID"))


def remove_what_lessons_made() -> list[Path]:
    """Remove what the lessons left in the working area, and return the paths that were there."""
    removed = []
    for pattern in MADE_BY_LESSONS:
        for made in sorted(path().glob(pattern)):
            if made.is_dir():
                shutil.rmtree(made)
            else:
                made.unlink()
            removed.append(made)
    return removed
