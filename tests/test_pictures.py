"""The pictures in img/: files, manifest, records and both READMEs agree. No browser is needed."""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import CODE, ROOT
from PIL import Image

from img.lens import EPOCH_MS, Lens, Store
from img.records import PICTURES
from img.take_pictures import finished, first_absent, looks_the_same

IMG = ROOT / "img"
MANIFEST = json.loads((IMG / "pictures.json").read_text(encoding="utf-8"))
NAMES = [picture.name for picture in PICTURES]
READMES = {folder: (folder / "README.md").read_text(encoding="utf-8") for folder in (ROOT, CODE)}
COLUMN = 838
"""How wide a README is on GitHub, in CSS pixels; a picture has two pixels for each."""


def shown():
    """Each picture in the READMEs: its name, alt text, given width if any, and caption."""
    found = []
    for folder, text in READMES.items():
        to_img = os.path.relpath(IMG, folder)
        markdown = rf"!\[(?P<alt1>[^\]]*)\]\({to_img}/(?P<name1>\w+)\.png\)"
        html = (
            rf'<img src="{to_img}/(?P<name2>\w+)\.png" width="(?P<width>\d+)" alt="(?P<alt2>.*?)">'
        )
        for match in re.finditer(rf"^(?:{markdown}|{html})\n(?:\n\*(.+?)\*\n)?", text, re.M | re.S):
            part = match.groupdict()
            width = int(part["width"]) if part["width"] else None
            alt = part["alt1"] or part["alt2"]
            found.append((part["name1"] or part["name2"], alt, width, match[6]))
    return found


@pytest.fixture(params=NAMES)
def picture(request):
    return next(one for one in PICTURES if one.name == request.param)


def test_each_record_has_a_file_and_each_file_a_record():
    assert len(set(NAMES)) == len(NAMES)
    assert list(MANIFEST) == NAMES
    assert sorted(path.stem for path in IMG.glob("*.png")) == sorted(NAMES)


def test_each_picture_is_shown_in_a_readme_and_each_that_is_shown_exists():
    named = {
        name
        for text in READMES.values()
        for name in re.findall(r"\bimg/([^\s)\"]+)\.(?:png|svg|jpg|gif)\b", text)
    }
    assert named == set(NAMES)
    assert {name for name, *_ in shown()} == set(NAMES)  # the pattern reads all of them


def test_a_picture_in_a_readme_has_the_alt_text_of_its_record_and_a_caption():
    for name, alt, _, caption in shown():
        assert alt == MANIFEST[name]["alt"], name
        assert caption, name


def test_every_number_in_a_caption_stands_in_the_facts_or_the_alt_text():
    for name, _, _, caption in shown():
        legible = " ".join(
            [*MANIFEST[name]["facts"], MANIFEST[name]["alt"], MANIFEST[name]["mlflow"]]
        )
        prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", caption)  # commands and addresses aside
        for number in re.findall(r"\d[\d.,]*\d|\d", prose):
            assert number.replace(",", "") in legible, f"{name}: {number}"


def test_a_narrow_picture_is_shown_in_its_own_size():
    """A README would show it twice as large; a wide one it makes narrower by itself."""
    for name, _, width, _ in shown():
        natural = MANIFEST[name]["size"][0] // 2
        assert width == (natural if natural < COLUMN - 50 else None), name


def test_the_file_is_the_one_in_the_manifest_and_was_taken_from_its_record(picture):
    entry, path = MANIFEST[picture.name], IMG / f"{picture.name}.png"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
    assert Image.open(path).size == tuple(entry["size"])
    again = "changed after the picture was taken; run:  make pictures"
    assert entry["record"] == picture.digest(), f"The record of {picture.name} was {again}"
    assert (entry["lesson"], entry["alt"]) == (picture.lesson, picture.alt)
    assert entry["facts"] == list(picture.facts)


def test_the_name_begins_with_the_number_of_its_lesson(picture):
    assert any((folder / picture.lesson).is_file() for folder in (CODE, ROOT))
    part, name = picture.lesson.rpartition("/")[::2]
    number = f"{part}_{name[:2]}".strip("_") if name[0].isdigit() else "ui"
    assert re.fullmatch(rf"{number}_[a-z_]+", picture.name)


def test_the_alt_text_says_one_of_the_things_that_can_be_read(picture):
    assert 30 <= len(picture.alt) <= 200
    assert any(fact.removesuffix("…") in picture.alt for fact in picture.facts)


def test_it_shows_something_and_is_small(picture):
    path = IMG / f"{picture.name}.png"
    image = Image.open(path)
    assert image.format == "PNG"
    assert image.width <= 1900 and path.stat().st_size <= 100 * 1024
    counts = [count for count, _ in image.getcolors()]
    assert len(counts) > 16
    assert max(counts) < 0.99 * image.width * image.height  # the background


def test_all_together_are_small():
    assert sum(path.stat().st_size for path in IMG.glob("*.png")) <= 1.5 * 1024**2


def test_they_show_the_mlflow_that_a_laptop_installs():
    pins = (ROOT / "requirements-local.txt").read_text(encoding="utf-8")
    (pin,) = re.findall(r"^mlflow==(\S+)$", pins, re.MULTILINE)
    old = [name for name, entry in MANIFEST.items() if entry["mlflow"] != pin]
    assert old == [], f"These do not show MLflow {pin}; run:  make tutorial pictures"


def test_nothing_in_the_manifest_comes_from_one_store_or_one_machine():
    text = (IMG / "pictures.json").read_text(encoding="utf-8")
    assert not re.search(r"\b[0-9a-f]{32}\b|\b\d{13,19}\b", text)
    assert not re.search(r"(?:/\w+){2}|file:|localhost|127\.0", text.replace("cml/", ""))


def make(*words, **variables):
    """Run make in the project, as a learner does: CI is not set."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "MAKEFLAGS")}
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=ROOT,
        env=kept | variables,
        capture_output=True,
        text=True,
    )


def test_without_a_browser_the_check_says_so_in_one_line(tmp_path):
    (tmp_path / "mlflow.db").touch()
    done = make("check-pictures", "CHROMIUM=", CMLFLOW_WORKAREA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Pictures not checked: no Chromium here (apt-get install chromium)"
    ]


@pytest.mark.parametrize("target", ["pictures", "check-pictures"])
def test_before_anything_was_logged_it_says_what_to_run(target, tmp_path):
    done = make(target, CMLFLOW_WORKAREA=str(tmp_path))
    assert done.returncode != 0
    assert done.stdout == "Nothing has been logged yet. Run this first:  make tutorial\n"


class TestLens:
    """A store of two runs with one name, on one snapshot."""

    @pytest.fixture
    def store(self):
        def run(run_id, start):
            info = {"run_id": run_id, "run_name": "forest", "user_id": "ann", "start_time": start}
            return {
                "info": info,
                "data": {"tags": [{"key": "iceberg_snapshot_id", "value": "7" * 19}]},
            }

        store = Store.__new__(Store)
        store.experiments = {"wines": "4"}
        store.runs = {
            ("wines", "forest", 1): run("a" * 32, 1_700_000_000_000),
            ("wines", "forest", 2): run("b" * 32, 1_700_000_100_000),
        }
        store.models, store.folder = [], "/somewhere/of/ann"
        return store

    def test_a_name_stands_for_an_id_or_a_tag(self, store):
        assert store.filled_in("#/{wines}/{wines/forest}") == f"#/4/{'a' * 32}"
        assert store.filled_in("{wines/forest#2}") == "b" * 32
        assert store.filled_in("{wines/forest@iceberg_snapshot_id}") == "7" * 19

    def test_the_beginning_of_a_value_is_that_of_what_is_shown(self, store):
        text = "{wines/forest@iceberg_snapshot_id:4}"
        assert store.filled_in(text) == "7777"
        shown = Lens(store).answer
        assert store.filled_in(text, shown) == shown("7" * 19)[:4] != "7777"

    @pytest.mark.parametrize("name", ["{x}", "{wines/x}", "{wines/forest@x}", "{wines/forest#3}"])
    def test_what_the_store_lacks_is_named_with_the_cure(self, store, name):
        with pytest.raises(LookupError) as caught:
            store.filled_in(name)
        assert name in str(caught.value) and "make tutorial" in str(caught.value)

    def test_the_browser_sees_nothing_of_this_store_and_the_server_nothing_else(self, store):
        lens = Lens(store)
        real = f'"{"a" * 32}" {"7" * 19} "ann" file:///somewhere/of/ann/mlartifacts 1700000050000'
        shown = lens.answer(real)
        assert not re.search(f"{'a' * 32}|{'7' * 19}|ann|somewhere|17000000", shown)
        assert "/home/you/lessons/mlartifacts" in shown and '"you"' in shown
        assert lens.request(shown.split()[0]) == f'"{"a" * 32}"'

    def test_what_is_shown_follows_from_names_alone(self, store):
        shown = Lens(store).answer("a" * 32)
        run = store.runs["wines", "forest", 1]
        run["info"]["run_id"] = "c" * 32
        assert Lens(store).answer("c" * 32) == shown

    def test_times_keep_their_order_within_one_second(self, store):
        times = [1_700_000_000_000, 1_750_000_000_000, 1_760_000_000_000]
        seen = [int(one) for one in EPOCH_MS.findall(Lens(store).answer(str(times)))]
        assert seen == sorted(set(seen)) and len(seen) == 3
        assert seen[-1] - seen[0] < 1000

    def test_a_metric_is_no_time(self, store):
        assert Lens(store).answer("0.1712345678901") == "0.1712345678901"


class TestWhatIsLegible:
    def test_facts_stand_one_after_the_other(self):
        text = "elasticnet 0.82224284 elasticnet-with-model 0.84989804"
        assert first_absent(["elasticnet", "0.822…", "elasticnet-with-model"], text) is None
        assert first_absent(["0.849…", "0.822…"], text) == "0.822…"
        assert first_absent(["0.849…", "0.822…"], text, in_any_order=True) is None

    def test_a_number_is_not_found_in_a_longer_one(self):
        assert first_absent(["4"], "40 14 0.4 4.5") == "4"
        assert first_absent(["0.92"], "0.921") == "0.92"

    def test_a_picture_that_hardly_differs_is_the_same(self, tmp_path):
        one = tmp_path / "one.png"
        white = finished([Image.new("RGB", (200, 100), "white")])
        white.save(one)
        other = white.convert("RGB")
        other.putpixel((50, 50), (0, 0, 0))
        assert looks_the_same(one, saved(other, tmp_path))
        other.paste((0, 0, 0), (0, 0, 100, 50))
        assert not looks_the_same(one, saved(other, tmp_path))

    def test_pictures_of_two_sizes_are_two(self, tmp_path):
        one = tmp_path / "one.png"
        Image.new("RGB", (200, 100)).save(one)
        assert not looks_the_same(one, saved(Image.new("RGB", (200, 101)), tmp_path))


def saved(image: Image.Image, folder: Path) -> bytes:
    """The bytes of an image as a PNG file."""
    image.save(folder / "saved.png")
    return (folder / "saved.png").read_bytes()
