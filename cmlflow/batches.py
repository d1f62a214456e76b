"""A batch: rows to score, read from a CSV file, checked against a model, and written back whole.

A model's signature refuses a wrong type when the model is called. It does not see everything: rows
longer than the header, `True` read as 1, numbers that are not finite. And it does not say in which
row a wrong value stands.
"""

from __future__ import annotations

import contextlib
import io
import uuid
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from cmlflow.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.pyfunc import PyFuncModel
    from mlflow.types import Schema

NO_NUMBER = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
"""Texts that count as an empty cell in a column of numbers."""
_GOOD_BATCH = "To see a batch that fits, run:  python code/04_Predict_Batch.py"
_NEW_MODEL = "To log a new model, run:  python code/02_log_model.py"
_ELSEWHERE = "To write to data/predictions.csv, leave out:  --output"


@contextlib.contextmanager
def loading(model_uri: str) -> Iterator[None]:
    """Name the model that this block cannot load.

    Raises:
        BadInput: the files of the model are damaged, or a library that it needs is missing.
    """
    try:
        yield
    except Exception as error:
        raise BadInput(
            f"The model {model_uri} cannot be loaded: {type(error).__name__}: {_reason(error)}.",
            "a model with all its files, and the libraries that it was made with",
            _NEW_MODEL,
        ) from error


def schema_of(model: PyFuncModel) -> Schema:
    """Return the columns that a model takes, with their types.

    Raises:
        BadInput: the model was logged without a signature, or its signature names no columns.
    """
    schema = model.metadata.get_input_schema()
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        raise BadInput(
            f"The signature of this model names no columns: {schema}.",
            "a model that was logged with signature=infer_signature(<a DataFrame>, ...)",
            _NEW_MODEL,
        )
    return schema


def read(file: str, schema: Schema) -> pd.DataFrame:
    """Read a CSV file with a header line, in UTF-8.

    Args:
        file: path of the file; a name that ends in .gz, .bz2, .xz or .zip is unpacked.
        schema: the columns, as for `check`.

    Returns:
        What `check` returns. A column that the schema does not name is kept as text, cell by
        cell: an id 007 stays 007, and 1.10 stays 1.10.

    Raises:
        BadInput: there is no such file, or it is no table, or its rows do not fit.
    """
    import pandas as pd

    content = io.BytesIO(_content_of(file))
    numbers = [column.name for column in schema.inputs if _is_number(column)]
    try:
        header = pd.read_csv(content, nrows=0)
        content.seek(0)
        with warnings.catch_warnings():
            # Without `index_col=False` pandas takes the first field of rows that are one field
            # longer than the header for an index, and all columns slide.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            rows = pd.read_csv(
                content,
                index_col=False,
                dtype={name: str for name in header if name not in numbers},
                keep_default_na=False,
                na_values={name: NO_NUMBER for name in numbers},
            )
    except pd.errors.ParserWarning as error:
        reason = "its rows are longer than its header line (are they separated by commas?)"
        raise _unreadable(file, reason) from error
    except ValueError as error:  # also a UnicodeDecodeError, and what pandas raises
        raise _unreadable(file, _reason(error)) from error
    return check(rows, schema, file)


def check(rows: pd.DataFrame, schema: Schema, source: str = "The batch") -> pd.DataFrame:
    """Return rows that fit a schema; the rows that are given stay as they are.

    Args:
        rows: the rows to score.
        schema: columns of a model. A column with `required=False` may be missing, as a whole or
            in some rows.
        source: where the rows come from, for the message.

    Returns:
        The same columns and rows, at least one. A `double` of the schema is float64, and NaN only
        if it is not required.

    Raises:
        BadInput: names every column that is missing or holds something else than numbers.
    """
    import numpy as np
    import pandas as pd

    fitting, problems = rows.copy(), []
    known = schema.input_names()
    for column in schema.inputs:
        name = column.name
        if name not in rows:
            spare = {str(other).strip().lower(): other for other in rows if other not in known}
            near = len(rows.columns) > 1 and get_close_matches(name.lower(), spare, 1, 0.8)
            hint = f" (renamed to {spare[near[0]]!r}?)" if near else ""
            problems += [f"{name!r} is missing{hint}"] if column.required else []
        elif _is_number(column):
            cells = rows[name]
            if cells.dtype.kind not in "iuf":  # read as text: True is not 1
                cells = cells.map(str, na_action="ignore")
            numbers = pd.to_numeric(cells, errors="coerce")
            wrong = ~np.isfinite(numbers.astype("float64"))
            if not column.required:
                wrong &= cells.notna()
            if wrong.any():
                row = int(wrong.to_numpy().argmax())
                held = "nothing" if pd.isna(cells.iloc[row]) else f"'{cells.iloc[row]}'"
                problems.append(f"{name!r} holds {held} in row {row + 1}, not a number")
            is_whole = column.type.name in ("integer", "long")
            fitting[name] = numbers if is_whole else numbers.astype("float64")
    if rows.empty:
        problems.append("there are no rows")
    if problems:
        needed = ", ".join(column.name for column in schema.inputs if column.required)
        raise BadInput(
            f"{source} does not fit the model: {'; '.join(problems)}.",
            f"the columns of the signature, with a number in each row: {needed}",
            _GOOD_BATCH,
        )
    return fitting


def place_for(output: str | Path, *kept: str | Path | None) -> Path:
    """Return the file to which `write` may write; a link is followed.

    Args:
        output: the path that was asked for.
        kept: files with rows to score, which must not be replaced.

    Raises:
        BadInput: the path is empty, or it names something that is no file, or the batch itself.
    """
    if not str(output).strip():
        raise _unwritable("--output", "the path is empty")
    try:
        file = Path(output).resolve()
        if file.exists() and not file.is_file():
            kind = "it is a folder" if file.is_dir() else "it is not an ordinary file"
            raise _unwritable(output, kind)
        if any(folder.is_file() for folder in file.parents):
            raise _unwritable(output, "it lies under a file, not in a folder")
        if any(one and file.exists() and Path(one).exists() and file.samefile(one) for one in kept):
            raise _unwritable(output, "it holds the rows to score")
    except (OSError, RuntimeError) as error:  # a name that is too long, a link to itself
        raise _unwritable(output, _reason(error)) from error
    return file


def write(rows: pd.DataFrame, output: Path) -> None:
    """Write rows to a CSV file, whole or not at all.

    They go into a file of another name in the same folder, which is renamed at the end. So nobody
    reads half of it, and two processes never write into one file.

    Raises:
        BadInput: the folder or the file cannot be written.
    """
    unfinished = output.with_name(f".predictions-{uuid.uuid4().hex}.unfinished")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(unfinished, index=False)
        unfinished.replace(output)
    except OSError as error:
        raise _unwritable(output, error.strerror or _reason(error)) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _content_of(file: str) -> bytes:
    """Return the bytes of a text file, unpacked."""
    from pandas.io.common import get_handle  # what `read_csv` uses: it knows all the endings

    path = Path(file)
    with contextlib.suppress(OSError):  # a name that is too long
        if not file.strip():
            raise _unreadable("--batch", "the path is empty")
        if "://" in file:
            raise _unreadable(file, "it is an address, not a file; download it first")
        if path.exists() and not path.is_file():
            kind = "it is a folder" if path.is_dir() else "it is not an ordinary file"
            raise _unreadable(file, kind)
    try:
        with get_handle(file, "rb", compression="infer", is_text=False) as handles:
            content = handles.handle.read()
    except FileNotFoundError as error:
        raise BadInput(f"There is no file {file}.", "a CSV file to score", _GOOD_BATCH) from error
    except Exception as error:  # each kind of archive has errors of its own
        raise _unreadable(file, _reason(error)) from error
    if b"\0" in content:  # pandas would end the cell there
        raise _unreadable(file, "it holds a zero byte, so it is no text in UTF-8")
    return content


def _is_number(column) -> bool:
    return getattr(column.type, "name", None) in ("integer", "long", "float", "double")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__


def _unreadable(file: str, reason: str) -> BadInput:
    return BadInput(
        f"{file} cannot be read: {reason}.",
        "a CSV file in UTF-8, with a header line and rows to score",
        _GOOD_BATCH,
    )


def _unwritable(output: str | Path, reason: str) -> BadInput:
    return BadInput(f"{output} cannot be written: {reason}.", "a file for the result", _ELSEWHERE)
