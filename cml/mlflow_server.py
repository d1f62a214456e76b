"""
The server behind the MLflow UI, in one process

`mlflow_ui.py` starts this file. The command `mlflow ui` imports all of MLflow in one process, then
again in each worker, and again for its background jobs. Here it is imported once, and MLflow's own
web application is served with threads: it answers in a third of the time.
Run        python cml/mlflow_ui.py, which chooses the port and the names that are answered
"""

import logging
import os
import sys

from cmlflow import store, workarea
from cmlflow.errors import LessonError

try:
    store.use_store()  # makes a new one if there is none
except LessonError:
    sys.exit(1)  # mlflow_ui.py meets the same error, and shows it
import mlflow

# What `mlflow ui` hands to its workers. Variables, because a URI may hold a password, and because
# MLflow reads them when the server is imported.
uri = mlflow.get_tracking_uri()
artifacts = workarea.path("mlartifacts").as_uri()
os.environ["_MLFLOW_SERVER_FILE_STORE"] = uri
os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = artifacts

from mlflow.server import app, handlers
from werkzeug.serving import make_server

handlers.initialize_backend_stores(uri, uri, artifacts)  # fails here, and not at the first request
logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or it prints every request
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
