"""
Install what the lessons need, once per project

The first task of the AMP. Nothing of this project is installed yet, so nothing of it is imported.
Run        python cml/install_dependencies.py, or Run All in a CML session
"""

# %%
#
# Where is the project?
# ---------------------
# CML runs this file in a kernel that starts in the project. A terminal may start it from any other
# folder, and then the path of the script tells.
import sys
from pathlib import Path

FILE = "requirements.txt"
starts = (Path(sys.argv[0]).resolve().parent, Path.cwd())
near = [folder for start in starts for folder in (start, *start.parents)]
roots = [folder for folder in near if (folder / FILE).is_file() and (folder / "cmlflow").is_dir()]
if not roots:
    raise FileNotFoundError(
        f"No project folder above {starts[0]} or {starts[1]}.\n"
        f"Expected: a folder with {FILE} and cmlflow/ in it.\n"
        "Change into the project first:  cd <the folder you cloned>"
    )

# %%
#
# Install into the Python that runs this
# --------------------------------------
# `sys.executable -m pip` and not a bare `pip`, which may belong to another Python. In CML the
# packages go to `.local` of the project, where its sessions, jobs and applications find them; they
# need a new session to see `cmlflow`. A second time, pip finds everything in place.
import subprocess

command = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
pip = subprocess.Popen(
    [*command, "-r", FILE],
    cwd=roots[0],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    errors="replace",
)
problems = []
for line in pip.stdout:  # as it comes: an installation takes a minute or two
    print(line, end="", flush=True)
    if line.strip().startswith("ERROR: "):
        problems.append(line.strip().removeprefix("ERROR: "))
if pip.wait() != 0:
    problem = problems[-1] if problems else f"pip ended with code {pip.returncode}"
    raise RuntimeError(
        f"requirements.txt could not be installed: {problem}\n"
        "Expected: Python 3.10, 3.11 or 3.12, and a package index that can be reached.\n"
        f"To try again, run:  {sys.executable} -m pip install -r {FILE}"
    )
print(f"Done: {FILE} is installed for {sys.executable}")
