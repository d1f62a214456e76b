import bz2
import gzip
import lzma
import os
import signal
import stat
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import finish, start_python, stop_in_the_middle, wait_until
from mlflow.models import infer_signature
from mlflow.types import ColSpec, Schema

from cmlflow import batches, errors

SCHEMA = Schema(
    [
        ColSpec("double", "alcohol"),
        ColSpec("double", "pH"),
        ColSpec("double", "quality", required=False),
    ]
)
GOOD = "alcohol,pH\n9.5,3.1\n10,3.2\n"


@pytest.fixture
def read(tmp_path):
    """Read a file with this content, and a name that may matter."""

    def read(content, name="mine.csv", schema=SCHEMA):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
        return batches.read(str(tmp_path / name), schema)

    return read


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.rstrip("\n"),
        "\n\n" + GOOD,
        '"alcohol","pH"\n"9.5"," 3.1 "\n1e1,3.20\n',
        "pH,alcohol\n3.1,9.5\n3.2,10\n",
        "alcohol,pH\n9.5,3.1,\n10,3.2,\n",  # each row ends with a comma
    ],
    ids=["plain", "BOM", "CRLF", "CR", "no end", "blank lines", "quotes", "order", "commas"],
)
def test_files_of_many_programs_are_read_alike(read, content):
    rows = read(content)
    assert rows["alcohol"].tolist() == [9.5, 10.0] and rows["pH"].tolist() == [3.1, 3.2]
    assert {str(rows[name].dtype) for name in ("alcohol", "pH")} == {"float64"}


@pytest.mark.parametrize(
    ("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_a_packed_file_is_unpacked_and_a_damaged_one_is_named(read, ending, pack):
    packed = pack(GOOD.encode())
    assert len(read(packed, "mine.csv" + ending)) == 2
    for damaged in (packed[: len(packed) // 2], GOOD.encode()):
        with pytest.raises(errors.BadInput, match=rf"mine.csv{ending} cannot be read: \w"):
            read(damaged, "mine.csv" + ending)


def test_a_zip_file_is_unpacked_if_it_holds_one_file(read, tmp_path):
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("mine.csv", GOOD)
    assert len(batches.read(str(tmp_path / "one.zip"), SCHEMA)) == 2
    with zipfile.ZipFile(tmp_path / "one.zip", "a") as archive:
        archive.writestr("other.csv", GOOD)
    with pytest.raises(errors.BadInput, match=r"one.zip cannot be read: Multiple files"):
        batches.read(str(tmp_path / "one.zip"), SCHEMA)
    with pytest.raises(errors.BadInput, match="not a zip file"):
        read(GOOD, "none.zip")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "No columns to parse from file"),
        (b"alcohol,pH\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        (b"PK\x03\x04\xff\xfe\x80", "can't decode byte 0xff"),
        ("alcohol,pH,é\n1,2,3\n".encode("latin-1"), "can't decode byte 0xe9"),
        (GOOD.encode("utf-16"), "it holds a zero byte, so it is no text in UTF-8"),
        (b"alcohol,pH\n6\0.3,3.1\n", "it holds a zero byte, so it is no text in UTF-8"),
        (b"alcohol,pH\n7,9.5,3.1\n8,10,3.2\n", "its rows are longer than its header line"),
        (b"alcohol,pH\n7,9.5,3.1,4\n", "its rows are longer than its header line"),
        (b"alcohol;pH\n9,5;3,1\n", "longer than its header line (are they separated by commas?)"),
        (b"alcohol,pH\n7,9.5\n8,10,3.2\n", "Expected 2 fields in line 3, saw 3"),
        (b'alcohol,pH\n"7,9.5\n', "EOF inside string"),
    ],
    ids=[
        *("empty", "ragged", "spreadsheet", "latin-1", "utf-16", "zero byte", "one field longer"),
        *("two fields longer", "semicolons", "one long row", "open quote"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_reason(read, content, said):
    with pytest.raises(errors.BadInput) as caught:
        read(content)
    problem, expected, mend = str(caught.value).splitlines()
    assert "mine.csv cannot be read: " in problem and said in problem
    assert expected == "Expected: a CSV file in UTF-8, with a header line and rows to score."
    assert mend.endswith("run:  python code/04_Predict_Batch.py")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD.replace("9.5", "dense"), "'alcohol' holds 'dense' in row 1, not a number"),
        (GOOD.replace("10", ""), "'alcohol' holds nothing in row 2, not a number"),
        (GOOD.replace("10", "NA"), "'alcohol' holds nothing in row 2, not a number"),
        (GOOD.replace("10", "inf"), "'alcohol' holds 'inf' in row 2, not a number"),
        (GOOD.replace("10", "1e400"), "'alcohol' holds '1e400' in row 2, not a number"),
        (GOOD.replace("10", "True"), "'alcohol' holds 'True' in row 2, not a number"),
        (GOOD.replace("9.5", "True").replace("10", "False"), "'alcohol' holds 'True' in row 1"),
        (GOOD.replace("9.5", "True").replace("10", ""), "'alcohol' holds 'True' in row 1"),
        (GOOD.replace("10", "1_0"), "'alcohol' holds '1_0' in row 2, not a number"),
        (GOOD.replace("10", "0x10"), "'alcohol' holds '0x10' in row 2, not a number"),
        (GOOD.replace("10", "2009-01-01"), "'alcohol' holds '2009-01-01' in row 2"),
        (GOOD.replace("alcohol", "alkohol"), "'alcohol' is missing (renamed to 'alkohol'?)."),
        (GOOD.replace("pH", " ph "), "'pH' is missing (renamed to ' ph '?)"),
        (GOOD.replace(",", ";"), "'alcohol' is missing; 'pH' is missing"),
        (GOOD.replace(",", "\t"), "'alcohol' is missing; 'pH' is missing"),
        ("9.5,3.1\n10,3.2\n", "'alcohol' is missing; 'pH' is missing"),
        ("alcohol,pH\n", "there are no rows"),
        ("alcohol,pH\n9.5\n", "'pH' holds nothing in row 1, not a number"),
        ("alcohol,pH,quality\n9,3,True\n9,3,True\n", "'quality' holds 'True' in row 1"),
        ("alcohol,pH,quality\n9,3,NA\n9,3,good\n", "'quality' holds 'good' in row 2"),
        ("alcohol,pH,quality\n9,3,\n9,3,-inf\n", "'quality' holds '-inf' in row 2"),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_column_and_row(read, content, said):
    with pytest.raises(errors.BadInput) as caught:
        read(content)
    problem, expected, _ = str(caught.value).splitlines()
    assert "mine.csv does not fit the model: " in problem and said in problem
    needed = "the columns of the signature, with a number in each row: alcohol, pH."
    assert expected == f"Expected: {needed}"


def test_every_problem_is_named_at_once():
    rows = pd.DataFrame({"ph": [1.0, 2.0], "quality": ["", "?"]})
    with pytest.raises(errors.BadInput) as caught:
        batches.check(rows, SCHEMA)
    for problem in (
        "The batch does not fit the model: 'alcohol' is missing; ",
        "'pH' is missing (renamed to 'ph'?)",
        "'quality' holds '' in row 1, not a number",
    ):
        assert problem in str(caught.value)


def test_other_columns_are_kept_as_they_stand_in_the_file(read):
    texts = ["007", "9007199254740993", "1.10", "NA", "null", "None", "True", " x ", "", "1e5"]
    lines = [f"{text},9,3" for text in texts]
    rows = read("\n".join(["id,alcohol,pH", *lines, ""]))
    assert rows["id"].tolist() == texts


def test_a_missing_grade_is_no_fault_and_stays_missing(read):
    rows = read("alcohol,pH,quality\n9,3,6\n9,3,\n9,3,NA\n9,3,7\n")
    assert rows["quality"].tolist() == pytest.approx([6, np.nan, np.nan, 7], nan_ok=True)
    assert "quality" not in read(GOOD)


def test_whole_numbers_stay_whole_where_the_signature_asks_for_them(read):
    schema = Schema([ColSpec("long", "alcohol"), ColSpec("string", "pH")])
    rows = read("alcohol,pH\n9,3.10\n10,3.2\n", schema=schema)
    assert str(rows["alcohol"].dtype) == "int64" and rows["pH"].tolist() == ["3.10", "3.2"]


def test_rows_that_are_checked_stay_as_they_are():
    given = pd.DataFrame({"alcohol": ["9", "10"], "pH": [3, 4]})
    checked = batches.check(given, SCHEMA)
    assert given["alcohol"].tolist() == ["9", "10"] and str(given["pH"].dtype) == "int64"
    assert checked.dtypes.astype(str).tolist() == ["float64", "float64"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.csv", "There is no file none.csv."),
        ("", "--batch cannot be read: the path is empty."),
        ("  ", "--batch cannot be read: the path is empty."),
        (".", ". cannot be read: it is a folder."),
        (os.devnull, "/dev/null cannot be read: it is not an ordinary file."),
        ("https://example.org/a.csv", "it is an address, not a file; download it first."),
        ("s3://bucket/a.csv", "it is an address, not a file; download it first."),
        ("x" * 300 + ".csv", "File name too long"),
        ("no/folder.csv", "There is no file no/folder.csv."),
        ("pipe", "pipe cannot be read: it is not an ordinary file."),
        ("loop", "loop cannot be read: "),
    ],
)
def test_a_name_that_leads_to_no_file_is_refused(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    with pytest.raises(errors.BadInput) as caught:
        batches.read(name, SCHEMA)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", "the path is empty"),
        (" ", "the path is empty"),
        (".", "it is a folder"),
        ("pipe", "it is not an ordinary file"),
        (os.devnull, "it is not an ordinary file"),
        ("batch.csv", "it holds the rows to score"),
        ("link.csv", "it holds the rows to score"),
        ("batch.csv/out.csv", "it lies under a file, not in a folder"),
        ("/proc/none/out.csv", "cannot be written: "),
        ("x" * 300, "File name too long"),
        ("loop", "loop cannot be written: "),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_and_left_alone(
    tmp_path, monkeypatch, output, said
):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    (tmp_path / "batch.csv").write_text(GOOD)
    (tmp_path / "link.csv").symlink_to("batch.csv")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(errors.BadInput) as caught:
        batches.write(pd.DataFrame({"a": [1]}), batches.place_for(output, "batch.csv"))
    assert said in str(caught.value).splitlines()[0]
    assert str(caught.value).endswith("leave out:  --output")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "batch.csv").read_text() == GOOD
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path / "target.csv").write_text("yesterday")
    (tmp_path / "link.csv").symlink_to("target.csv")
    batches.write(pd.DataFrame({"a": [1]}), batches.place_for(tmp_path / "link.csv"))
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text() == "a\n1\n"


def test_a_missing_folder_is_made(tmp_path):
    batches.write(pd.DataFrame({"a": [1]}), batches.place_for(tmp_path / "new" / "out.csv"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.csv"]


def test_colleagues_may_read_the_file_as_far_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        batches.write(pd.DataFrame({"a": [1]}), tmp_path / "out.csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o640


WRITE = """if True:
    import pandas as pd
    from pathlib import Path
    from cmlflow import batches
    batches.write(pd.DataFrame({"a": range(1_000_000)}), Path("out.csv").resolve())
"""


@pytest.fixture
def writing(tmp_path):
    """A process that writes a large file."""
    process = start_python(WRITE, tmp_path)

    def has_begun():
        return [*tmp_path.glob(".*.unfinished")] or process.poll() is not None

    wait_until(has_begun, "the unfinished file")
    return process


def test_an_interrupt_while_writing_leaves_no_part_of_a_file(writing, tmp_path):
    assert stop_in_the_middle(writing, signal.SIGINT).returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_into_one_file(writing, tmp_path):
    writing.send_signal(signal.SIGSTOP)
    assert not (tmp_path / "out.csv").exists()  # it is stopped in the middle
    batches.write(pd.DataFrame({"a": [7]}), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "a\n7\n"
    writing.send_signal(signal.SIGCONT)
    assert finish(writing).returncode == 0
    assert pd.read_csv(tmp_path / "out.csv")["a"].tolist() == list(range(1_000_000))
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_model_that_cannot_be_loaded_is_named_with_the_reason():
    with (
        pytest.raises(errors.BadInput, match="runs:/1/model cannot be loaded: EOFError: cut off"),
        batches.loading("runs:/1/model"),
    ):
        raise EOFError("cut off\nand more")


@pytest.mark.parametrize("inputs", [None, np.zeros((2, 3))], ids=["no signature", "a tensor"])
def test_a_model_whose_signature_names_no_columns_is_refused(inputs):
    schema = None if inputs is None else infer_signature(inputs).inputs
    model = SimpleNamespace(metadata=SimpleNamespace(get_input_schema=lambda: schema))
    with pytest.raises(errors.BadInput, match=r"names no columns.*\n.*signature=infer_signature"):
        batches.schema_of(model)
