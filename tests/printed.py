"""What the READMEs show of a lesson's output, compared with what the lesson prints.

A console block holds commands, each followed by what it prints. Ids, times and paths differ from
run to run: MASKS says what they look like. After a lesson has changed, write the blocks anew:

    python tests/printed.py        runs all lessons in a temporary folder, rewrites the blocks
"""

from __future__ import annotations

import getpass
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from conftest import CODE, ROOT, WarmKernel, stop_endpoints

sys.path.append(str(ROOT))
import tutorial

READMES = (ROOT / "README.md", CODE / "README.md")
FOLDER = "/home/you/lessons"
"""What stands for the working area in the READMEs."""
MASKS = {
    r"%22": '"',
    r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])": "<id>",
    r"\b(?!6000000000000001)\d{15,19}\b *": "<snapshot>",  # or the last digits of a score
    r"\+[-+]+\+": "<line of a table>",
    r"\b\d+ bytes": "<size>",
    r"(?<===)\d[\d.]*\d": "<version>",
    r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b": "<time>",
    r"(?<=/experiments/)\d+": "<experiment>",
    r'(?<=experiments=%5B")\d+': "<experiment>",
    r"(?<=127\.0\.0\.1:)(?!5000)\d+": "<port>",
    r"(?<=ends by itself at )\d\d:\d\d": "<time>",
    r" +\d+\.\d s\n": " <seconds>\n",
    r"within \d+\.\d ms": "within <time>",
    r"(?<=1440 \d\.\d\d\d) +\d+\.\d(?=\n)": " <time>",  # the median of telco/06
    r"\b\d\d:\d\d:\d\d\b": "<time>",
    r"\{('(dataframe_split|dataframe_records|instances|inputs)',? ?){4}\}": "<the four fields>",
    r" +\|": "|",  # a column is as wide as its longest id
    r"[ \t]+(?=\n|\Z)": "",
}
BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    r"^\$ python code/(\S+\.py(?: --[\w-]+)*)\n((?:(?!\$ |```).*\n)*)", re.MULTILINE
)


def shown(readme: Path) -> list[tuple[str, str]]:
    """The lessons with their options that a README shows, each with the output beneath it."""
    blocks = BLOCK.findall(readme.read_text(encoding="utf-8"))
    return [found for block in blocks for found in COMMAND.findall(block)]


def masked(text: str) -> str:
    """A text in which all that differs from run to run looks the same."""
    for pattern, word in MASKS.items():
        text = re.sub(pattern, word, text)
    return text.strip()


def moved(text: str, work: Path) -> str:
    """What a lesson would print in FOLDER, to `you`."""
    return text.replace(str(work), FOLDER).replace(f") by {getpass.getuser()}", ") by you")


def run_all(kernel: WarmKernel, work: Path) -> dict[str, list[str]]:
    """Run all lessons in order; return what each printed, once for each time that it ran."""
    printed: dict[str, list[str]] = {}
    for lesson in (*tutorial.LESSONS, tutorial.LOOP):
        out = kernel.succeed(*lesson.split()[:1], work, *lesson.split()[1:])
        printed.setdefault(lesson, []).append(moved(out, work))
    return printed


def main() -> None:
    """Rewrite the blocks of the READMEs."""
    with tempfile.TemporaryDirectory(prefix="lessons-") as work, WarmKernel() as kernel:
        printed = run_all(kernel, Path(work))
        stop_endpoints(Path(work))
    for readme in READMES:
        again = {lesson: iter(outputs) for lesson, outputs in printed.items()}

        def fill(block, again=again):
            return (
                "```console\n"
                + COMMAND.sub(
                    lambda found: f"$ python code/{found[1]}\n{next(again[found[1]]).strip()}\n",
                    block[1],
                )
                + "```"
            )

        readme.write_text(BLOCK.sub(fill, readme.read_text(encoding="utf-8")), encoding="utf-8")
    subprocess.run(["git", "diff", "--stat", "--", *map(str, READMES)], check=False)


if __name__ == "__main__":
    sys.exit(main())
