"""Where a lesson reads and writes: the project root and the working area.

The working area is the project, or the folder that CMLFLOW_WORKAREA names.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

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
    "endpoints",
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
    chosen = os.environ.get("CMLFLOW_WORKAREA", "").strip()
    area = Path(chosen).expanduser().resolve() if chosen else root()
    return area.joinpath(*parts)


def make_folder(*parts: str) -> Path:
    """Return a folder in the working area, made if it is absent.

    Raises:
        LessonError: it cannot be made, for example because a file has its name.
    """
    folder = path(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LessonError(
            f"The folder {folder} cannot be made: {error.strerror or error}.",
            "a folder that you may write to, with no file in its place",
            "To use another working area, set:  CMLFLOW_WORKAREA=<folder>",
        ) from error
    return folder


def require_same_place() -> None:
    """Refuse a working area that was copied or moved: its files hold absolute paths.

    A lesson would go on writing into the folder that was copied, and remove files there.

    Raises:
        LessonError: it was made somewhere else.
    """
    here = path()
    for place in _places():
        if place.lstrip("/") != here.as_posix().lstrip("/"):
            raise LessonError(
                f"The working area {here} was made at {place}.",
                "an area that stays in its place, because MLflow and Iceberg keep absolute paths",
                "To start anew here, run:  make clean"
                + ("" if Path(place).exists() else f"  (or move the folder back to {place})"),
            )


def in_cml() -> bool:
    """Tell whether this process runs inside CML: its sessions and jobs set CDSW_PROJECT_ID."""
    return bool(os.environ.get("CDSW_PROJECT_ID"))


def in_kernel() -> bool:
    """Tell whether this process is a kernel, as in a CML session or job, or in a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def remove_what_lessons_made() -> list[Path]:
    """Remove what the lessons left in the working area, and return the paths that were there.

    A link to a folder stays, and what lies in that folder goes: it may be on a larger disk. An
    `mlruns` with files in it stays too: MLflow makes an empty one, and lessons log nothing there.
    """
    removed = []
    for pattern in MADE_BY_LESSONS:
        for made in sorted(path().glob(pattern)):
            content = list(made.iterdir()) if made.is_dir() else []
            if pattern == "mlruns" and any(file.is_file() for file in made.rglob("*")):
                continue
            if made.is_symlink() and made.is_dir() and not content:
                continue
            for gone in content if made.is_symlink() else [made]:
                if gone.is_dir() and not gone.is_symlink():
                    shutil.rmtree(gone)
                else:
                    gone.unlink()
            removed.append(made)
    return removed


def _places() -> Iterator[str]:
    """Yield the folders, as the files of this area name them, in which those files were made."""
    database = path("mlflow.db")
    if database.is_file():
        with contextlib.suppress(sqlite3.Error):  # whoever opens it next says what is wrong with it
            opened = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
            with contextlib.closing(opened):
                for (uri,) in opened.execute("SELECT artifact_location FROM experiments"):
                    folder, _, _ = unquote(urlsplit(uri or "").path).rpartition("/mlartifacts/")
                    if folder and uri.startswith("file:"):
                        yield folder
    for table in path().glob("spark-warehouse/*/*/metadata"):
        with contextlib.suppress(OSError, ValueError, LookupError):
            (metadata, *_) = sorted(table.glob("*.metadata.json"))
            location = json.loads(metadata.read_text(encoding="utf-8"))["location"]
            folder, _, _ = location.removeprefix("file:").rpartition("/spark-warehouse/")
            if folder and location.startswith("file:"):
                yield "/" + folder.lstrip("/")
