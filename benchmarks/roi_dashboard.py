"""How long the ROI dashboard takes from the start of its process to its page and to its charts.

Run    python benchmarks/roi_dashboard.py, after lesson 07 of Part 4; it needs Chromium
"""

import argparse
import contextlib
import importlib
import os
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
Browser = importlib.import_module("browser").Browser

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--times", type=int, default=5)
args = parser.parse_args()
CHARTS = (
    "(document.getElementById('net') || {}).innerText && "
    "[...document.querySelectorAll('.js-plotly-plot')].filter(e => e.data.length).length == 4"
)
pages, charts, cpu = [], [], []
with tempfile.TemporaryDirectory() as folder, contextlib.closing(Browser(Path(folder))) as browser:
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
            browser.tell("Page.navigate", url=f"http://127.0.0.1:{port}/")
            while not browser.evaluate(CHARTS):
                time.sleep(0.02)
            if turn:
                pages.append(page)
                charts.append(time.monotonic() - begin)
                used = psutil.Process(app.pid).cpu_times()
                cpu.append(used.user + used.system)
        finally:
            app.terminate()
            app.wait()
for what, seconds in (("first page", pages), ("all charts", charts), ("CPU of the server", cpu)):
    print(f"{what}: median {statistics.median(seconds):.2f} s", end=" ")
    print(f"({min(seconds):.2f} to {max(seconds):.2f}), load {os.getloadavg()[0]:.1f}")
