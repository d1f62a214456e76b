"""Take the pictures of the README and of the walkthrough, or check that the UI still shows them.

make pictures           takes every picture in records.py from what `make tutorial` has logged
make check-pictures     opens the same pages, and asks whether each fact is to be seen in its cut;
                        then the pages of the other statements (statements.py), and compares the
                        numbers in the prose with the store (computed.py)

To take a few into another folder:
    .venv-pictures/bin/python -m img.take_pictures --into /tmp/pictures 00_model_training
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageDraw, ImageOps

from cmlflow.errors import BadInput, LessonError, MissingStep
from img.computed import COMPUTED
from img.lens import Lens, Store
from img.records import PICTURES, Look, Picture
from img.statements import STATEMENTS, Statement

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Request, Route

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "img"
LESSONS_PYTHON = ROOT / ".venv" / "bin" / "python"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LIMIT_S, PAGE_LIMIT_S = 120, 60
"""For the server to answer, and for a page to settle; a busy machine may need half of it."""
SCALE = 2
"""Pixels of a picture for one of the page: sharp on a dense screen, too."""
MARGIN, FRAME = 5, "#e8710a"
COLOURS = 64
NOTICEABLE = 0.02
"""The share of pixels up to which two pictures count as the same."""
NOW = "2026-01-01T12:00:00Z"
VISITED = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.telemetry.info.alert.dismissed_v1": "true",
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
}
"""What the browser of a visitor remembers who chose Model training and closed the pop-ups."""
HIDDEN = """
    [data-assistant-ui] { display: none !important }
    [data-testid="key-value-Created at"], [data-testid="key-value-Created by"],
    [data-testid="key-value-Duration"], [data-testid="key-value-Source"],
    [data-testid="key-value-Experiment ID"] { display: none !important }
    [col-id="duration"] * { visibility: hidden !important }
    .mlflow-sticky-header { position: static !important }
    *, *::before, *::after { animation: none !important; transition: none !important;
        caret-color: transparent !important }
"""
BOXES = """elements => elements.map(element => element.getBoundingClientRect())
    .filter(box => box.width > 1 && box.height > 1)
    .map(box => [box.left, box.top, box.right, box.bottom])"""
UNSETTLED = """() => document.querySelectorAll(
    '[role=progressbar], [aria-busy=true], [class*=skeleton i], [class*=spinner i]').length"""
LINES = """([left, top, right, bottom]) => {
    // What can be read in a rectangle: characters whose box lies in it, and in every box around
    // them, and not behind a dialog.
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()); ) {
        const around = node.parentElement;
        if (!node.data.trim() || !around.checkVisibility({ visibilityProperty: true })) continue;
        let [l, t, r, b] = [left, top, right, bottom];
        for (let each = around; each; each = each.parentElement) {
            if (getComputedStyle(each).overflow === 'visible') continue;
            const box = each.getBoundingClientRect();
            [l, t] = [Math.max(l, box.left), Math.max(t, box.top)];
            [r, b] = [Math.min(r, box.right), Math.min(b, box.bottom)];
        }
        const range = document.createRange();
        let part = null;
        for (let i = 0; i < node.length; i++) {
            range.setStart(node, i);
            range.setEnd(node, i + 1);
            const box = range.getBoundingClientRect();
            const middle = (box.top + box.bottom) / 2;
            if (box.left < l - 1 || box.right > r + 1 || middle < t || middle > b) continue;
            const over = document.elementFromPoint((box.left + box.right) / 2, middle);
            const dialog = over?.closest('[role=dialog]');
            if (dialog && !dialog.contains(around)) continue;
            if (!part || Math.abs(part.y - middle) > 3)
                found.push((part = { text: '', x: box.left, y: middle }));
            part.text += node.data[i];
        }
    }
    found.sort((one, other) => one.y - other.y);
    const lines = [];
    for (const part of found) {
        const line = lines.at(-1);
        if (line && part.y - line[0].y < 6) line.push(part);
        else lines.push([part]);
    }
    return lines.map(line => line.sort((one, other) => one.x - other.x)
        .map(part => part.text).join(' '));
}"""
DRAW = """([box, colour]) => {
    const frame = document.createElement('div');
    const [left, top, right, bottom] = box;
    frame.style.cssText = `position:fixed; left:${left - 4}px; top:${top - 4}px;
        width:${right - left + 8}px; height:${bottom - top + 8}px; box-sizing:border-box;
        border:3px solid ${colour}; border-radius:6px; pointer-events:none; z-index:2147483647`;
    document.body.append(frame);
}"""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in CSS pixels of the window."""


class NotToBeSeen(LessonError):
    """A page does not show what its record says."""


def browser() -> str:
    """Return the path of a Chromium on this machine: that of CMLFLOW_BROWSER, or on the PATH.

    Raises:
        BadInput: there is none.
    """
    chosen = os.environ.get("CMLFLOW_BROWSER", "").strip()
    names = (chosen,) if chosen else BROWSERS
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise BadInput(
            f"There is no {' and no '.join(names)} on this machine.",
            "a Chromium or Chrome on the PATH, or its path in the variable CMLFLOW_BROWSER",
            "On Debian or Ubuntu, run:  apt-get install chromium",
        )
    return path


def require_lessons() -> None:
    """Stop if the lessons have not logged anything.

    Raises:
        MissingStep: there is no store in the working area.
    """
    area = Path(os.environ.get("CMLFLOW_WORKAREA") or ROOT)
    if not (area / "mlflow.db").is_file():
        raise MissingStep(
            f"There is no MLflow store in {area}.", "what all lessons logged", "make tutorial"
        )


@contextlib.contextmanager
def application(program: str = "cml/mlflow_ui.py", **variables: str) -> Iterator[str]:
    """Start a program of cml/ on a free port of this machine and yield its address.

    Args:
        program: what to start.
        variables: of the environment, for example those that a session of CML has.

    Raises:
        LessonError: it does not answer.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "CDSW_"))
    }
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "CDSW_APP_PORT": str(port)}
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + LIMIT_S
    with tempfile.TemporaryFile() as printed:
        child = subprocess.Popen(
            [LESSONS_PYTHON, program],
            cwd=ROOT,
            env={**inherited, **settings, **variables},
            stdout=printed,
            stderr=printed,
        )
        try:
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(address):
                    break
                if child.poll() is not None or time.monotonic() > end:
                    printed.seek(0)
                    raise LessonError(
                        f"{program} did not start: {printed.read().decode(errors='replace')}",
                        f"an answer within {LIMIT_S} s",
                        f"To see what it says by itself, run:  python {program}",
                    )
                time.sleep(0.2)
            yield address
        finally:
            child.terminate()
            child.wait()


class Window:
    """A browser's window on one address.

    Args:
        page: of Playwright.
        address: of the server; requests to others are refused.
        lens: through which pictures are taken; None to see the store as it is.
    """

    def __init__(self, page: Page, address: str, lens: Lens | None = None) -> None:
        self.page, self.address, self.lens = page, address, lens
        self.pending: set[Request] = set()
        self.quiet_since = time.monotonic()
        page.on("request", self._begins)
        page.on("requestfinished", self._ends)
        page.on("requestfailed", self._ends)
        page.route("**/*", self._pass)
        if lens:
            page.clock.install(time=NOW)

    def _begins(self, request: Request) -> None:
        if not request.url.endswith(".worker.js"):  # the browser tells no end of these
            self.pending.add(request)

    def _ends(self, request: Request) -> None:
        self.pending.discard(request)
        self.quiet_since = time.monotonic()

    def _pass(self, route: Route) -> None:
        """Answer a request of the browser, through the lens if there is one."""
        request = route.request
        if not request.url.startswith(f"{self.address}/"):
            route.abort()
            return
        asks_store = re.match(r"/(ajax-api|graphql|get-artifact)", request.url[len(self.address) :])
        if self.lens is None or not asks_store:
            route.continue_()
            return
        body = request.post_data
        answer = route.fetch(
            url=self.lens.request(request.url),
            post_data=self.lens.request(body) if body else None,
        )
        if answer.headers.get("content-type", "").startswith("image/"):
            route.fulfill(response=answer)
        else:
            route.fulfill(response=answer, body=self.lens.answer(answer.text()))

    def open(self, picture: Look, store: Store | None) -> list[str]:
        """Open the page of a record, mostly as one who has been there before; return its facts."""
        shown = self.lens.answer if self.lens else str

        def filled_in(text: str) -> str:
            return store.filled_in(text, shown) if store else text

        remembered = {} if picture.new_visitor else dict(VISITED)
        if picture.columns:
            experiment = filled_in(picture.page).split("/")[2]
            key = f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState'
            expanded = {filled_in(run): True for run in picture.expanded}
            remembered[key] = json.dumps(
                {"selectedColumns": list(picture.columns), "runsExpanded": expanded}
            )
        page = self.page
        if self.lens:
            page.clock.set_system_time(NOW)
        page.set_viewport_size({"width": picture.width, "height": picture.height})
        page.goto(f"{self.address}/health" if store else self.address)
        page.evaluate(
            """remembered => {
                localStorage.clear();
                sessionStorage.clear();
                for (const key in remembered) localStorage.setItem(key, remembered[key]);
            }""",
            remembered,
        )
        self.pending.clear()
        page.goto(f"{self.address}/{filled_in(picture.page)}")
        if self.lens:
            page.add_style_tag(content=HIDDEN)
        for selector in picture.clicks:
            page.locator(selector).first.click()
        if picture.typed:
            page.locator(picture.typed[0]).first.fill(picture.typed[1])
        page.mouse.move(0, 0)
        return [filled_in(fact) for fact in picture.facts]

    def strips(self, picture: Look) -> list[Box]:
        """Return the boxes of what is cut out; empty while some of it is missing.

        The strips of one picture are equally wide.
        """
        found = [self._union(selectors) for selectors in picture.strips]
        if not all(found):
            return []
        left = max(min(box[0] for box in found) - MARGIN, 0)
        right = min(max(box[2] for box in found) + MARGIN, picture.width)
        return [(left, max(box[1] - MARGIN, 0), right, box[3] + MARGIN) for box in found]

    def _union(self, selectors: tuple[str, ...]) -> Box | None:
        """Return the box around all that the selectors find; None if one of them finds nothing."""
        boxes = []
        for selector in selectors:
            found = self.page.locator(selector).evaluate_all(BOXES)
            if not found:
                return None
            boxes += found
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        return int(min(lefts)), int(min(tops)), int(max(rights)) + 1, int(max(bottoms)) + 1

    def text(self, strips: list[Box]) -> str:
        """Return what can be read in some strips, from top to bottom, as one line."""
        lines = [line for strip in strips for line in self.page.evaluate(LINES, list(strip))]
        return " ".join(" ".join(lines).split())

    def settle(self, picture: Look, facts: list[str]) -> list[Box]:
        """Wait until the page shows the facts and nothing moves any more; return its strips.

        Raises:
            NotToBeSeen: a fact is not in the cut, or the page does not come to rest.
        """
        end = time.monotonic() + PAGE_LIMIT_S
        before: list[list[Box]] = []
        absent: str | None = "all that is cut out, at rest"
        while time.monotonic() < end:
            self.page.wait_for_timeout(100)
            strips = self.strips(picture)
            before = [*before[-2:], strips]
            at_rest = not self.pending and time.monotonic() - self.quiet_since > 0.4
            if not strips or not at_rest or before != [strips] * 3:
                continue
            if self.page.evaluate(UNSETTLED):
                continue
            absent = first_absent(facts, self.text(strips), picture.in_any_order)
            if absent is None:
                return strips
        shown = self.text(strips) if strips else f"nothing like {picture.strips}"
        raise NotToBeSeen(
            f"The page does not show {absent!r}, but: {shown}",
            f"in this order: {', '.join(facts)}",
            f"Look at {self.page.url}, then correct the lesson or the record in img/",
        )

    def shoot(self, picture: Picture, facts: list[str]) -> Image.Image:
        """Return the picture of the page that is open, with its frame, as PNG has it."""
        self.settle(picture, facts)
        if picture.frame:
            box = self._union(picture.frame)
            if box is None:
                raise NotToBeSeen(
                    f"The page of {picture.name} has nothing to frame.",
                    " and ".join(picture.frame),
                    "Correct the frame in img/records.py",
                )
            self.page.evaluate(DRAW, [box, FRAME])
        parts = []
        for left, top, right, bottom in self.settle(picture, facts):
            clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            parts.append(Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB"))
        return finished(parts)


def first_absent(facts: list[str], text: str, in_any_order: bool = False) -> str | None:
    """Return the first fact that does not follow the ones before it in a text; None if all do.

    A fact that ends in `…` may be the beginning of a longer word or number.
    """
    position = 0
    for fact in facts:
        end = "" if fact.endswith("…") else r"(?!\w|\.\d)"
        pattern = rf"(?<!\w)(?<!\d\.){re.escape(fact.removesuffix('…'))}{end}"
        found = re.compile(pattern).search(text, position)
        if found is None:
            return fact
        position = 0 if in_any_order else found.end()
    return None


def finished(parts: list[Image.Image]) -> Image.Image:
    """Stack the strips of a picture, with a border around and few colours.

    A dashed line between two strips says that something of the page is left out.
    """
    gap = 12 * SCALE
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (parts[0].width, height), "white")
    draw, top = ImageDraw.Draw(whole), 0
    for position, part in enumerate(parts):
        if position:
            for x in range(0, whole.width, 8 * SCALE):
                middle = top - gap // 2
                draw.line((x, middle, x + 4 * SCALE, middle), fill="#9aa0a6", width=SCALE)
        whole.paste(part, (0, top))
        top += part.height + gap
    whole = ImageOps.expand(whole, border=1, fill="#d0d7de")
    return whole.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def looks_the_same(one: Path, other: bytes) -> bool:
    """Tell whether two PNG files are of one size and differ in hardly any pixel."""
    before = Image.open(one).convert("RGB")
    now = Image.open(io.BytesIO(other)).convert("RGB")
    if before.size != now.size:
        return False
    changed = ImageChops.difference(before, now).convert("L").point(lambda level: level > 8 and 255)
    return changed.histogram()[255] <= NOTICEABLE * before.width * before.height


def keep(picture: Picture, image: Image.Image, folder: Path, version: str) -> str:
    """Write a picture and its part of the manifest, keep what looks the same; say what was done."""
    path, manifest = folder / f"{picture.name}.png", folder / "pictures.json"
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    data = file.getvalue()
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    before, done = entries.get(picture.name, {}), "written"
    is_current = before.get("record") == picture.digest() and before.get("mlflow") == version
    if path.is_file() and path.read_bytes() == data:
        done = "the same bytes"
    elif path.is_file() and is_current and looks_the_same(path, data):
        done, data = "looks the same, kept", path.read_bytes()
    else:
        path.write_bytes(data)
    entries[picture.name] = {
        "lesson": picture.lesson,
        "alt": picture.alt,
        "facts": list(picture.facts),
        "record": picture.digest(),
        "size": list(image.size),
        "sha256": hashlib.sha256(data).hexdigest(),
        "mlflow": version,
    }
    names = [one.name for one in PICTURES]
    entries = {name: entries[name] for name in names if name in entries}
    text = json.dumps(entries, indent=2, ensure_ascii=False)
    manifest.write_text(f"{text}\n", encoding="utf-8")
    return f"{len(data) / 1024:4.0f} KB  {done}"


class Session:
    """A browser on the UI of one store, and what failed in it so far.

    Args:
        context: of Playwright.
        store: what the UI shows.
        folder: where pictures are written; without one, records are only checked.
    """

    def __init__(self, context: BrowserContext, store: Store, folder: Path | None) -> None:
        self.context, self.store, self.folder, self.failed = context, store, folder, 0
        self.window = Window(context.new_page(), store.address, Lens(store) if folder else None)

    def do(self, name: str, what: Callable[[], str]) -> None:
        """Do one thing, and print how it ended and how long it took."""
        begin = time.monotonic()
        try:
            done = what()
        except LessonError as error:
            self.failed += 1
            done = f"failed\n{name}\n{error}"
        print(f"{name[:50]:50} {time.monotonic() - begin:5.1f} s  {done}", flush=True)

    def picture(self, picture: Picture) -> str:
        """Take a picture, or look at its facts; say what was done."""
        with contextlib.ExitStack() as own:
            window, store = self.window, self.store
            if picture.has_own_server:
                served = application(picture.program, **picture.variables)
                page = own.enter_context(contextlib.closing(self.context.new_page()))
                window, store = Window(page, own.enter_context(served)), None
            with reached(picture):
                facts = window.open(picture, store)
                if self.folder:
                    image = window.shoot(picture, facts)
                    return keep(picture, image, self.folder, self.store.version)
                window.settle(picture, facts)
                return f"{len(facts)} facts"

    def look(self, look: Look) -> str:
        """Look at the facts of a page; say how many there are."""
        with reached(look):
            facts = self.window.open(look, self.store)
            self.window.settle(look, facts)
            return f"{len(facts)} facts"

    def curve(self, statement: Statement) -> str:
        """Ask the store for the values that a statement is about; say how many there are."""
        run, metric, holds = statement.curve
        values = self.store.curve(run, metric)
        if not holds(values):
            raise NotToBeSeen(
                f"{metric} of {run} is {values}.",
                statement.text,
                "Correct the lesson, or the statement and its record in img/statements.py",
            )
        return f"{len(values)} values"

    def computed(self) -> str:
        """Compare the numbers of the prose with their sources; say how many there are."""
        wrong = [f"{one.text!r}: {what}" for one in COMPUTED for what in one.wrong(self.store)]
        if wrong:
            raise NotToBeSeen(
                "Numbers in the prose: " + "; ".join(wrong),
                "what the lessons computed",
                "Correct README.md or code/README.md, and img/computed.py",
            )
        return f"{sum(len(one.sources) for one in COMPUTED)} numbers"


@contextlib.contextmanager
def reached(look: Look) -> Iterator[None]:
    """Say in our words what Playwright cannot reach."""
    from playwright.sync_api import Error

    try:
        yield
    except Error as error:
        raise NotToBeSeen(
            f"The page cannot be reached: {error.message.splitlines()[0]}",
            ", then ".join((look.page, *look.clicks)),
            "Look at that page with make ui, then correct the record in img/",
        ) from None


def run(pictures: list[Picture], executable: str, folder: Path | None, check_all: bool) -> int:
    """Take pictures into a folder, or only check them if there is none; return how many failed.

    Args:
        pictures: which ones.
        executable: of the browser.
        folder: where they are written.
        check_all: whether to check the other statements and the numbers of the prose, too.
    """
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as stack:
        store = Store(stack.enter_context(application()))
        chromium = stack.enter_context(sync_playwright()).chromium
        context = chromium.launch(executable_path=executable).new_context(
            device_scale_factor=SCALE, timezone_id="UTC", locale="en-US"
        )
        context.set_default_timeout(PAGE_LIMIT_S * 1000)
        session = Session(context, store, folder)
        for picture in pictures:
            session.do(picture.name, functools.partial(session.picture, picture))
        if check_all:
            looks = {look: one.text for one in STATEMENTS for look in one.looks}
            for look, text in looks.items():
                session.do(text, functools.partial(session.look, look))
            for statement in STATEMENTS:
                if statement.curve:
                    session.do(statement.text, functools.partial(session.curve, statement))
            session.do("numbers in the prose", session.computed)
        return session.failed


def main() -> int:
    """Do what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(description="Take the pictures, or check them.")
    parser.add_argument("names", nargs="*", help="of pictures; without any, all of them")
    parser.add_argument("--check", action="store_true", help="take none, look at each fact")
    parser.add_argument("--into", type=Path, default=IMAGES, help="where to write; default img")
    args = parser.parse_args()
    try:
        if unknown := set(args.names) - {one.name for one in PICTURES}:
            raise BadInput(
                f"There is no picture {', '.join(sorted(unknown))}.",
                f"some of {', '.join(one.name for one in PICTURES)}",
                "To take all of them, run:  make pictures",
            )
        executable = browser()
        require_lessons()
        chosen = [one for one in PICTURES if not args.names or one.name in args.names]
        if not args.check:
            args.into.mkdir(parents=True, exist_ok=True)
        everything = args.check and not args.names
        failed = run(chosen, executable, None if args.check else args.into, everything)
    except LessonError as error:
        print(error, file=sys.stderr)
        return 1
    what = f"{len(chosen)} pictures"
    if everything:
        what += f", {len(STATEMENTS)} statements and the numbers in the prose"
    done = "as recorded" if args.check else f"taken into {args.into}"
    print(f"{what}: {f'{failed} failed' if failed else done}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
