"""The repository as a whole: what git ignores, what is packaged, what no file may hold."""

import re
import shutil
import subprocess

import pytest
from browser import needs
from conftest import ROOT

from cmlflow.workarea import MADE_BY_LESSONS

# What a reader may be sent to: the machine itself, sources of data and licences, invented names.
HOSTS = r"127\.0\.0\.1|repo1\.maven\.org|www\.apache\.org|doi\.org|creativecommons\.org"
INVENTED = r"(?:[\w-]+\.)*example(?:\.org)?|me|user|a\.site"
PATHS = r"/(?:root|work|Users/(?!me\b)\w+|home/(?!cdsw\b|me\b|you\b)\w+)/"


@pytest.fixture(scope="module")
def tracked():
    """The files of the repository, with their text; pictures have none."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    needs(listed.returncode == 0, "no git checkout")
    texts = {}
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.endswith((".png", ".parquet")):
            texts[name] = (ROOT / name).read_text(encoding="utf-8")
    return texts


def test_git_ignores_what_lessons_make_and_nothing_else(tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)

    def ignored(path):
        command = ["git", "check-ignore", "--quiet", "--no-index", path]
        return subprocess.run(command, cwd=tmp_path, check=False).returncode == 0

    for pattern in MADE_BY_LESSONS:
        made = pattern.replace("*", "1a2b")
        assert ignored(made if "." in made.rpartition("/")[2] else f"{made}/file"), pattern
    for kept in ("code/mlruns.py", "data/README.md", "data/wine-quality.csv", "docs/mlflow.db.md"):
        assert not ignored(kept), kept


def test_every_line_of_gitignore_about_the_lessons_is_something_that_clean_removes():
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    about_lessons = [line.strip("/") for line in lines if line.startswith("/")]
    assert len(about_lessons) > 4
    for line in about_lessons:
        start = line.rstrip("*")
        assert any(pattern.startswith(start) for pattern in MADE_BY_LESSONS), line


def test_cml_and_code_are_no_packages():
    """A package `cml` here would hide Cloudera's, which opens data connections."""
    assert not (ROOT / "cml" / "__init__.py").exists()
    assert not (ROOT / "code" / "__init__.py").exists()


def test_every_package_and_every_file_of_cmlflow_is_installed():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[tool.setuptools.packages.find]\ninclude = ["cmlflow*"]' in project
    packaged = re.search(r"\[tool.setuptools.package-data\]\n((?:.+\n)*)", project)[1]
    for file in (ROOT / "cmlflow").rglob("*"):
        if file.suffix == ".py":
            assert file.with_name("__init__.py").exists(), file
        elif file.is_file() and file.suffix != ".pyc":
            assert f'"{file.name}"' in packaged, file


def test_contributing_has_every_room_of_the_package_once():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+`) \|", text, re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(rows))
    rooms = [
        one.stem
        for one in (ROOT / "cmlflow").iterdir()
        if not one.name.startswith("_") and (one.suffix == ".py" or (one / "__init__.py").exists())
    ]
    assert sorted(named) == sorted(rooms)


def test_no_file_names_a_folder_of_a_machine_or_a_host_that_readers_do_not_need(tracked):
    for name, text in tracked.items():
        if name != "tests/test_repository.py":
            assert not re.search(PATHS, text), name
            assert "index-url" not in text, name
            for host in re.findall(r"\bhttps?://(?:[^@/\s]*@)?([A-Za-z0-9.-]+)", text):
                assert re.fullmatch(f"{HOSTS}|{INVENTED}", host), f"{name}: {host}"
