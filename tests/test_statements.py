"""What the texts say about the UI, and their numbers: each has its record. No browser is needed."""

import ast
import re

import pytest
from conftest import CODE, ROOT
from printed import BLOCK

from img.computed import COMPUTED, NUMBER
from img.records import PICTURES
from img.statements import STATEMENTS, flat_from_800_on, rises_in_steps, still_falls_at_100

TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", CODE / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
PROGRAMS = (*CODE.rglob("*.py"), *(ROOT / "cml").glob("*.py"), ROOT / "tutorial.py")
PRINTED = re.compile(
    r"^(?:Look at: |All lessons ran\. Look at )(.+?)\s*(?=^(?:Open the UI|Next|To run|\$)|\Z)",
    re.MULTILINE | re.DOTALL,
)
SAID = re.compile(r'(?<!")In the UI\b.+?(?:\.(?=\s|\Z)|(?=\n```|\Z))', re.DOTALL)
RECORDS = [statement.text for statement in STATEMENTS]
OTHER_NUMBERS = {
    "0.02": "what statistics expect, not what a lesson computes",
}


def one_line(text):
    """A text with single spaces, and with <port> for every port but that of the UI."""
    return re.sub(r"(?<=127\.0\.0\.1:)(?!5000)\d+", "<port>", " ".join(text.split()))


def strings(path):
    """The texts in a program, each with a list of its parts: None stands for a value."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield [
                getattr(part, "value", "") if isinstance(part, ast.Constant) else None
                for part in node.values
            ]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield [node.value]


def templates():
    """Each statement that a program may print, as a pattern: a value may be anything."""
    for path in PROGRAMS:
        for parts in strings(path):
            whole = "".join("\0" if part is None else part for part in parts)
            for match in PRINTED.finditer(whole):
                pattern = re.escape(one_line(match[1])).replace("\0", ".+?")
                yield path.name, pattern


def shown():
    """Each statement in the console blocks of the READMEs."""
    for text in TEXTS.values():
        for block in BLOCK.findall(text):
            yield from map(one_line, PRINTED.findall(block))


def said():
    """Each statement in prose, in the comments of a program, and in what else it prints."""
    for text in TEXTS.values():
        yield from map(one_line, SAID.findall(text))
    for path in PROGRAMS:
        source = path.read_text(encoding="utf-8")
        comments = "\n".join(re.findall(r"^# ?(.*)$", source, re.MULTILINE))
        yield from map(one_line, SAID.findall(comments))
        for parts in strings(path):
            yield from map(one_line, SAID.findall("".join(part or "" for part in parts)))


def test_each_statement_has_one_record():
    assert len(set(RECORDS)) == len(RECORDS)
    assert sorted({*shown(), *said()} - set(RECORDS)) == []


def test_each_statement_that_a_program_may_print_has_a_record():
    found = list(templates())
    assert len(found) > 25
    for name, pattern in found:
        assert any(re.fullmatch(pattern, text) for text in RECORDS), f"{name}: {pattern}"


def test_each_record_is_a_statement_of_a_text_or_of_a_program():
    there = {*shown(), *said()}
    patterns = [pattern for _, pattern in templates() if not pattern.startswith(".+?")]
    for text in RECORDS:
        assert text in there or any(re.fullmatch(pattern, text) for pattern in patterns), text


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.text[:40])
def test_each_record_says_how_it_is_checked(statement):
    assert set(statement.pictures) <= {picture.name for picture in PICTURES}
    in_ui = bool(statement.pictures or statement.looks)
    assert in_ui != bool(statement.elsewhere) == bool(statement.test)
    if statement.test:
        file, name = statement.test.split("::")
        tests = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *def {name}\(", tests, re.MULTILINE), statement.test


def test_the_shapes_of_curves_can_be_false():
    falls = {50: 0.9, 200: 0.86, 800: 0.82, 3673: 0.82}
    assert flat_from_800_on(falls) and not flat_from_800_on(falls | {3673: 0.8})
    assert not flat_from_800_on(falls | {200: 0.95})
    loss = {step: 1 / (step + 1) for step in range(101)}
    assert still_falls_at_100(loss) and not still_falls_at_100(loss | {60: 0})
    rise = {step: step // 4 for step in range(12)}
    assert rises_in_steps(rise) and not rises_in_steps(rise | {5: 0})
    assert not rises_in_steps(dict.fromkeys(range(12), 1))


def prose():
    """What stands in the READMEs outside blocks and pictures, each as one line."""
    for name in ("README.md", "code/README.md"):
        text = re.sub(r"^( *)```.*?^\1```$", "", TEXTS[name], flags=re.DOTALL | re.MULTILINE)
        yield name, " ".join(re.sub(r"<img.*?>|!\[.*?\]\(.*?\)", "", text).split())


def test_each_text_with_computed_numbers_stands_in_the_prose_once():
    for one in COMPUTED:
        assert sum(text.count(one.text) for _, text in prose()) == 1, one.text
        assert len(NUMBER.findall(one.text)) == len(one.sources), one.text


def test_numbers_are_those_of_blocks_and_tests():
    """Those of the store are compared by `make check-pictures`."""
    assert [wrong for one in COMPUTED for wrong in one.wrong()] == []


def test_each_decimal_number_of_the_prose_has_a_source():
    """Versions and sizes aside, and captions, whose numbers are those of the picture."""
    for name, text in prose():
        for listed in (*RECORDS, *(one.text for one in COMPUTED)):
            text = text.replace(listed, "")
        text = re.sub(r" \*(?!Notice|In the)[^*]+\*(?= )", "", text)  # captions
        pattern = r"(?<![\d.])\d\.\d+(?![\d.]*\.\d)" if name == "code/README.md" else r"\b0\.\d+"
        assert set(re.findall(pattern, text)) <= set(OTHER_NUMBERS), name
