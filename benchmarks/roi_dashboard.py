"""How long the ROI dashboard takes from the start of its process to its page and to its charts.

Run    python benchmarks/roi_dashboard.py, after lesson 07 of Part 4; the charts need Chromium
"""

import argparse
import contextlib
import importlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from cmlflow import processes

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
browsers = importlib.import_module("browser")

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--times", type=int, default=5)
args = parser.parse_args()
CHARTS = (
    "(document.getElementById('net') || {}).innerText && "
    "[...document.querySelectorAll('.js-plotly-plot')].filter(e => e.data.length).length == 4"
)
pages, charts, cpu = [], [], []
with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    browser = None
    if any(map(shutil.which, browsers.NAMES)):
        browser = stack.enter_context(contextlib.closing(browsers.Browser(Path(folder))))
    for turn in range(args.times + 1):  # the first only warms the browser
        port = processes.free_port()
        begin = time.monotonic()
        app = subprocess.Popen(
            [sys.executable, str(ROOT / "cml" / "roi_dashboard.py")],
            env=os.environ | {"CDSW_APP_PORT": str(port)},
            stdout=subprocess.DEVNULL,
        )
        try:
            if processes.wait_for_answer(f"http://127.0.0.1:{port}", app, 300) != 200:
                raise SystemExit("The dashboard does not answer")
            page = time.monotonic() - begin
            if browser is not None:
                browser.tell("Page.navigate", url=f"http://127.0.0.1:{port}/")
                while not browser.evaluate(CHARTS):
                    time.sleep(0.02)
            if turn:
                pages.append(page)
                if browser is not None:
                    charts.append(time.monotonic() - begin)
                used = psutil.Process(app.pid).cpu_times()
                cpu.append(used.user + used.system)
        finally:
            app.terminate()
            app.wait()
WHAT = {
    "the first page answers 200": pages,
    "all four charts with their numbers, in Chromium": charts,
    "processor time of the server by then": cpu,
}
for what, seconds in WHAT.items():
    if seconds:
        spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
        print(f"| {what} | {statistics.median(seconds):.1f} ({spread}) |")
