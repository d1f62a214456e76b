"""
The MLflow UI as a CML application

CML starts this file, waits until GET / answers on 127.0.0.1 and its port, and shows that under a
name of its own. On a laptop it is the same server, at http://127.0.0.1:8090.
Run        python cml/mlflow_ui.py; CDSW_APP_PORT chooses another port
"""

# %%
#
# Which port?
# -----------
# CML says so in `CDSW_APP_PORT`. Elsewhere it is 8090, the port that CML uses.
import os
import socket

port = os.environ.get("CDSW_APP_PORT") or "8090"
if not port.isdecimal() or not 0 < int(port) < 65536:
    raise ValueError(
        f"CDSW_APP_PORT is {port!r}.\n"
        "Expected: a number from 1 to 65535, or no such variable.\n"
        "To use port 8090, run:  unset CDSW_APP_PORT"
    )
with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself will
    try:
        probe.bind(("127.0.0.1", int(port)))
    except OSError as error:
        raise RuntimeError(
            f"No server can listen on port {port} of 127.0.0.1: {error.strerror}.\n"
            "Expected: a port that no other program listens on, perhaps an earlier MLflow UI.\n"
            f"To use another, run:  CDSW_APP_PORT={int(port) % 65535 + 1} python cml/mlflow_ui.py"
        ) from error

# %%
#
# Under which names?
# ------------------
# Since version 3.5 the server answers 403 to any Host that it does not know: else a page on the
# internet could have your browser fetch your runs (DNS rebinding). CML serves an application as
# `<subdomain>.<domain>`. The subdomain is chosen when the application is made and not told here, so
# every subdomain of the workbench is allowed, but no other domain. Where this is too wide, set the
# two variables `MLFLOW_SERVER_...` below for the application. MLflow 2 knows neither of them.
import re
from urllib.parse import urlsplit

domain = os.environ.get("CDSW_DOMAIN", "").lower()
if domain and not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?", domain):
    raise ValueError(
        f"CDSW_DOMAIN is {domain!r}.\n"
        "Expected: the name of the workbench, such as ml-1234.example.cloudera.site.\n"
        "On a laptop there is none; run:  unset CDSW_DOMAIN"
    )
names = ["127.0.0.1", "localhost"]
address = os.environ.get("CDSW_IP_ADDRESS", "")
if re.fullmatch(r"\d+(\.\d+){3}", address):
    names.append(address)  # what a proxy may ask for that keeps no name
origins = []
workbench_scheme = urlsplit(os.environ.get("CDSW_API_URL", "")).scheme
if domain:
    names.append(f"*.{domain}")
    schemes = ("https", "http") if workbench_scheme == "http" else ("https",)
    origins = [f"{scheme}://*.{domain}" for scheme in schemes]


def with_ports(patterns):
    """Return the patterns as they are and followed by any port, as one text."""
    return ",".join(text for pattern in patterns for text in (pattern, f"{pattern}:*"))


allowed = {"MLFLOW_SERVER_ALLOWED_HOSTS": with_ports(names)}
if origins:
    allowed["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = with_ports(origins)

# %%
#
# What is there to serve?
# -----------------------
# A local store is served by MLflow itself: one worker, since four would need four times the memory,
# and no background jobs. The artifacts of its runs are read in place.
#
# In CML the runs are in the platform's own store, and the session has `mlflow-skinny`, which has no
# server. Then this application has nothing to serve but a page that says where to look.
import html
import importlib.util
import sys
import tempfile
from pathlib import Path

import mlflow

from cmlflow import store, workarea

pages = Path(mlflow.__file__).parent / "server" / "js" / "build" / "index.html"
has_server = pages.is_file() and importlib.util.find_spec("flask") is not None
uri = os.environ.get("MLFLOW_TRACKING_URI", "")
is_elsewhere = urlsplit(uri).scheme in ("cml", "http", "https")
settings = {}
if has_server and not is_elsewhere:
    store.use_store()  # makes a new one if there is none
    settings = {
        "MLFLOW_BACKEND_STORE_URI": mlflow.get_tracking_uri(),  # no argument: think of a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", port]
    command += ["--workers", "1", "--no-serve-artifacts"]
    command += ["--default-artifact-root", workarea.path("mlartifacts").as_uri()]
    print(f"MLflow UI: http://127.0.0.1:{port}, in CML under Applications (stop with Ctrl+C)")
else:
    if is_elsewhere and not uri.startswith("cml:"):
        reason = "The runs of this project are on an MLflow server, which has a UI of its own."
        advice = f"Look at: {store.how_to_open_ui()}."
    elif is_elsewhere or workarea.in_cml():
        project = os.environ.get("CDSW_PROJECT") or "this project"
        reason = "The runs of this project are in Cloudera Machine Learning's own store."
        advice = f"Look at: Projects > {project} > Experiments."
    else:
        reason = "This Python has mlflow-skinny, which has no server."
        advice = "To install all of it, run:  pip install -r requirements-local.txt"
    print(f"{reason}\n{advice}\nhttp://127.0.0.1:{port} says so too (stop with Ctrl+C)")
    text = f"<p>{html.escape(reason)}</p>\n<p>{html.escape(advice)}</p>"
    if domain:
        home = f"{'http' if workbench_scheme == 'http' else 'https'}://{domain}/"
        text += f'\n<p><a href="{home}">Open the workbench</a></p>'
    folder = tempfile.TemporaryDirectory()
    Path(folder.name, "index.html").write_text(
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>MLflow UI</title>\n'
        f"<h1>Where are the runs?</h1>\n{text}\n</html>\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"]
    command += ["--directory", folder.name]

# %%
#
# A child process that ends with this one
# ---------------------------------------
# The server replaces neither the kernel nor its event loop: it is a child, and this cell waits for
# it. `end_with_parent.py` stands between the two and ends the server when this process ends, even
# if that is killed.
import contextlib
import signal
import subprocess

root = workarea.root()
child = subprocess.Popen(
    [sys.executable, str(root / "cml" / "end_with_parent.py"), *command],
    cwd=root,
    env={**allowed, **os.environ, **settings},
    stdin=subprocess.PIPE,
    start_new_session=True,
)
try:
    child.wait()
except KeyboardInterrupt:
    print("Stopped")
else:
    raise RuntimeError(
        f"The server on port {port} ended by itself; its last words stand above.\n"
        "Expected: a server that runs until the application is stopped.\n"
        "To start it again, run:  python cml/mlflow_ui.py"
    )
finally:
    child.stdin.close()  # this is what it waits for
    child.wait()
    with contextlib.suppress(ProcessLookupError):  # nobody is left, unless it was itself killed
        os.killpg(child.pid, signal.SIGKILL)
