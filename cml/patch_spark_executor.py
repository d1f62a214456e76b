"""
Let Spark executors write to the project folder

In CML a Spark executor is a pod, made from the template /tmp/spark-executor.json of the session. It
mounts the project folder /home/cdsw read-only. With `mlflow.spark.log_model(..., dfs_tmpdir=...)`
the executors write the model: a `dfs_tmpdir` in the project needs a mount without `readOnly`.
Run        python cml/patch_spark_executor.py, before Spark starts; once per session
"""

# %%
#
# Which file?
# -----------
# The template belongs to the session and is gone with it. Where there is none, as on a laptop,
# nothing is to be done. `spark-executor.json` in the project shows what is left.
from pathlib import Path

from cmlflow import options

parser = options.parser()
parser.add_argument("--file", default="/tmp/spark-executor.json", help="the pod template")
args = parser.parse_args()
template = Path(args.file).resolve()  # a link stays a link
before = template.read_bytes() if template.is_file() else None

# %%
#
# Drop one key
# ------------
# Every container has its mounts, and so has every container that prepares the pod. Other mounts, a
# folder below `/home/cdsw` too, and all other keys stay as they are, in their order. Kubernetes
# writes null for an empty list.
import json
import posixpath

from cmlflow.errors import BadInput

PROJECT = "/home/cdsw"


def mounts_of_the_project(pod):
    """Return the mounts at PROJECT of all containers, as the objects in `pod`."""
    spec = pod["spec"]
    containers = spec["containers"] + (spec.get("initContainers") or [])
    mounts = [mount for each in containers for mount in each.get("volumeMounts") or []]
    return [mount for mount in mounts if posixpath.normpath(mount["mountPath"]) == PROJECT]


dropped = 0
if before is not None:
    try:
        text = before.decode()
        pod = json.loads(text)
        for mount in mounts_of_the_project(pod):
            dropped += mount.pop("readOnly", None) is not None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"This is no pod template: {args.file} ({type(error).__name__}: {error}).",
            "JSON with spec.containers and their volumeMounts; it was left as it is",
            "To get a new one, start a new session with Enable Spark; then run:  "
            "python cml/patch_spark_executor.py",
        ) from error

# %%
#
# Write it whole or not at all
# ----------------------------
# Spark may read the file at any moment, and this script may be stopped at any. So the new text goes
# to a file of its own, which then takes the place of the old one. The first original is kept.
import os
import shutil
import tempfile

from cmlflow.errors import LessonError


def replace(target, content):
    """Write `content` to `target` in one step, with the permissions of the template."""
    number, unfinished = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(number, "wb") as file:
            file.write(content)
        shutil.copymode(template, unfinished)
        os.replace(unfinished, target)
    except BaseException:
        os.unlink(unfinished)
        raise


if dropped:
    original = template.with_name(template.name + ".orig")
    end = text[len(text.rstrip()) :]
    after = json.dumps(pod, separators=(",", ":"), ensure_ascii=False) + end
    try:
        if not original.exists():
            replace(original, before)
        replace(template, after.encode())
    except OSError as error:
        raise LessonError(
            f"{args.file} cannot be replaced: {error.strerror}.",
            "a file of your own, in a folder that you may write to",
            f"To write into it instead, run:  cp {args.file} executor.json && "
            "python cml/patch_spark_executor.py --file executor.json && "
            f"cp executor.json {args.file}",
        ) from error
    print(f"readOnly dropped from {dropped} mount(s) of {PROJECT} in {args.file}")
    print(f"Done: Spark sees it when it starts next; the original is {original}")
elif before is not None:
    print(f"Done: nothing to change, no mount of {PROJECT} in {args.file} has readOnly")
