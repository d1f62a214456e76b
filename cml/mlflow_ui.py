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
from cmlflow import applications

port = applications.port("make ui PORT={port}")

# %%
#
# Under which names?
# ------------------
# Since version 3.5 the server answers 403 to any Host that it does not know: else a page on the
# internet could have your browser fetch your runs (DNS rebinding). CML serves an application as
# `<subdomain>.<domain>`. The subdomain is chosen when the application is made and not told here, so
# every subdomain of the workbench is allowed, but no other domain. Where this is too wide, set the
# two variables `MLFLOW_SERVER_...` below for the application. MLflow 2 knows neither of them.
import os
from urllib.parse import urlsplit

domain, names = applications.domain(), applications.own_names()
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
# An empty variable chooses nothing: MLflow would then go back to its own, wider list.
chosen = {name: value for name in allowed if (value := os.environ.get(name, "").strip(" ,"))}

# %%
#
# What is there to serve?
# -----------------------
# A local store is served by MLflow itself, in one process and without background jobs. The
# artifacts of its runs are read in place. To start it, we import nothing of MLflow here.
#
# In CML the runs are in the platform's own store, and the session has `mlflow-skinny`, which has no
# server. Then this application has nothing to serve but a page that says where to look.
import html
import importlib.util
import tempfile
from pathlib import Path

from cmlflow import store, workarea

(mlflow_folder,) = importlib.util.find_spec("mlflow").submodule_search_locations
has_pages = Path(mlflow_folder, "server", "js", "build", "index.html").is_file()
has_server = has_pages and importlib.util.find_spec("flask") is not None
has_views = Path(mlflow_folder, "genai").is_dir()  # MLflow 3: two views behind one switch
uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
is_elsewhere = urlsplit(uri).scheme in ("cml", "http", "https")
serves_store = has_server and not is_elsewhere
address = f"http://127.0.0.1:{port}"
if serves_store:
    program = (str(workarea.root() / "cml" / "mlflow_server.py"), str(port))
    place = ", in CML under Applications" if workarea.in_cml() else ""
    told = f"MLflow UI: {address}{place} (stop with Ctrl+C)"
    if has_views:
        told += "\nIn the UI, choose Model training at the top left, once"
    print("Starting the MLflow UI ...", flush=True)
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
    told = f"{reason}\n{advice}\n{address} says so too (stop with Ctrl+C)"
    body = f"<p>{html.escape(reason)}</p>\n<p>{html.escape(advice)}</p>"
    if domain:
        home = f"{'http' if workbench_scheme == 'http' else 'https'}://{domain}/"
        body += f'\n<p><a href="{home}">Open the workbench</a></p>'
    folder = tempfile.TemporaryDirectory()
    Path(folder.name, "index.html").write_text(
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>MLflow UI</title>\n'
        f"<h1>Where are the runs?</h1>\n{body}\n</html>\n",
        encoding="utf-8",
    )
    program = ("http.server", str(port), "--bind", "127.0.0.1", "--directory", folder.name)

# %%
#
# A child process that ends with this one
# ---------------------------------------
# The server replaces neither the kernel nor its event loop: it is a child, and this cell waits for
# it. The child ends when this process ends, even if that is killed.
from cmlflow.errors import LessonError

variables = {**os.environ, **allowed, **chosen, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
again = "python cml/mlflow_ui.py"
try:
    applications.serve(*program, number=port, told=told, again=again, env=variables)
except LessonError:
    if serves_store:
        store.use_store()  # if it is the store, this says what is wrong with it
    raise
