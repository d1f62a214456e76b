"""Serve API v2 of a workbench on this machine, until this process is ended.

    python tests/standins/workbench --port 0 --area FOLDER

prints one line, the address and the API key, and serves. FOLDER is the working area of the lessons:
the runs and the registered models are those of its MLflow store. What the server can do otherwise
than usual is listed in switches.py.
"""

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SESSION = dict(os.environ)  # jobs get it; this process chooses its own MLflow store
sys.path[0] = str(HERE.parent)
for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
    del os.environ[name]
os.environ.update(
    MLFLOW_ALLOW_FILE_STORE="true",  # MLflow 3 asks for it
    MLFLOW_DISABLE_TELEMETRY="true",
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
)

if __name__ == "__main__":
    from workbench import server

    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--area", type=Path, required=True, help="the working area of the lessons")
    parser.add_argument(
        "--project-root", type=Path, default=HERE.parents[2], help="the files of the project"
    )
    parser.add_argument("--switches", default="", help="words, see switches.py")
    args = parser.parse_args()
    server.serve(
        args.port, args.area.resolve(), args.project_root.resolve(), args.switches.split(), SESSION
    )
