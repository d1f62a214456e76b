"""Time an endpoint on a laptop: until it is ready, and 1,000 requests, four at a time.

Run  .venv/bin/python benchmarks/endpoint.py [--requests 1000]

Ready: against `mlflow models serve`, in turns. Requests: against the model's own `predict`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CODE = Path(__file__).resolve().parents[1] / "code"
CLIENTS, TURNS = 4, 3


def until_ready(model: str) -> float:
    """Return the seconds until `mlflow models serve` answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", model, "--port", str(port), "--host", "127.0.0.1"]
    begin = time.monotonic()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # of uvicorn
    server = subprocess.Popen(
        command, env=os.environ | {"PATH": path}, start_new_session=True, **quiet
    )
    try:
        while server.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1):
                    return time.monotonic() - begin
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise SystemExit("mlflow models serve has ended")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def main() -> None:
    """Time it in a temporary working area and print the lines of the table."""
    parser = argparse.ArgumentParser(description="Time an endpoint.")
    parser.add_argument("--requests", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="endpoint-") as work:
        os.environ["CMLFLOW_WORKAREA"] = work
        script = str(CODE / "05_Auto_Model_Registration.py")
        subprocess.run([sys.executable, script], check=True, capture_output=True)
        measure(args.requests)


def measure(requests: int) -> None:
    """Deploy the champion, call it, and print what it took."""
    import mlflow
    import pandas as pd

    from cmlflow import registry, serving, store
    from cmlflow.serving import on_laptop

    store.use_store()
    champion = registry.champion("Auto-Deployed Model", "auto-registration")
    wines = pd.read_csv(CODE.parent / "data" / "wine-quality.csv").drop(columns="quality") * 1.0
    model = mlflow.pyfunc.load_model(champion.uri)
    check = serving.Check(wines.head(1), model.predict(wines.head(1)))
    files = mlflow.artifacts.download_artifacts(artifact_uri=champion.uri)
    ours, theirs = [], []
    for _ in range(TURNS):
        serving.stop("timed")
        begin = time.monotonic()
        serving.deploy("timed", champion, check)
        ours.append(time.monotonic() - begin)
        theirs.append(until_ready(files))
    mine, served = statistics.median(ours), statistics.median(theirs)
    print(
        "| ready, and checked with one request | `mlflow models serve` answers `/ping` "
        f"| {mine:.1f} s to {served:.1f} s | {mine / served:.2f} |"
    )

    (process,) = on_laptop._processes("timed")
    rows = [wines.iloc[[number % len(wines)]] for number in range(requests)]

    def timed(row: pd.DataFrame) -> float:
        begin = time.monotonic()
        serving.call("timed", row)
        return (time.monotonic() - begin) * 1000

    memory = [process.memory_info().rss / 2**20]  # at its start, after 50, after all
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(timed, rows[:50]))  # the first ones load what is imported late
        memory.append(process.memory_info().rss / 2**20)
        begin = time.monotonic()
        took = sorted(pool.map(timed, rows))
        rate = requests / (time.monotonic() - begin)
    memory.append(process.memory_info().rss / 2**20)
    begin = time.monotonic()
    for row in rows:
        model.predict(row)
    alone = requests / (time.monotonic() - begin)
    median, late = statistics.median(took), took[int(len(took) * 0.99)]
    bare = f"the model's own `predict` in this process, {1000 / alone:.1f} ms a row"
    print(
        f"| {requests:,} requests of one row, {CLIENTS} at a time: median; 99th percentile "
        f"| {bare} | {median:.0f} ms; {late:.0f} ms | {median * alone / 1000:.1f} |"
    )
    print(
        f"| answers per second, {CLIENTS} clients | its rows per second "
        f"| {rate:.0f} to {alone:.0f} | {rate / alone:.2f} |"
    )
    print(
        f"| memory of its process after {requests:,} requests | after the first 50 "
        f"| {memory[2]:.0f} MiB to {memory[1]:.0f} MiB | {memory[2] / memory[1]:.2f} |"
    )
    serving.stop("timed")


if __name__ == "__main__":
    main()
