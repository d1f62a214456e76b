"""The pod template of Spark's executors: what the patch changes, and what it never touches."""

import json
import os
import stat
import subprocess
import sys

import pytest
from conftest import LIMIT, ROOT, Kernel, clean_environment

SCRIPT = ROOT / "cml" / "patch_spark_executor.py"
EXAMPLE = ROOT / "spark-executor.json"


def patch(file, *, check=True, **extra):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--file", str(file)],
        cwd=file.parent,
        env=clean_environment(file.parent, **extra),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def compact(pod):
    return json.dumps(pod, separators=(",", ":"), ensure_ascii=False)


def pod(*mounts, **others):
    """A template with one container that has these mounts."""
    containers = [{"name": "executor", "workingDir": "/tmp", "volumeMounts": list(mounts)}]
    return {"kind": "Pod", "apiVersion": "v1", "spec": {"containers": containers} | others}


READ_ONLY = {"name": "project", "mountPath": "/home/cdsw", "readOnly": True, "subPath": "p/1"}
WRITABLE = {"name": "project", "mountPath": "/home/cdsw", "subPath": "p/1"}


@pytest.fixture
def template(tmp_path):
    return tmp_path / "spark-executor.json"


def test_only_the_mount_of_the_project_becomes_writable(template):
    others = [
        {"name": "a", "mountPath": "/home/cdsw/other", "readOnly": True},
        {"name": "b", "mountPath": "/home/cdsw2", "readOnly": True},
        {"name": "c", "mountPath": "/etc/hadoop", "readOnly": True},
        {"readOnly": True, "mountPath": "/", "name": "ü"},
    ]
    template.write_text(compact(pod(*others[:2], READ_ONLY, *others[2:])) + "\n", encoding="utf-8")
    said = patch(template).stdout
    expected = compact(pod(*others[:2], WRITABLE, *others[2:])) + "\n"
    assert template.read_text(encoding="utf-8") == expected  # order, spaces, letters, end of line
    assert "readOnly dropped from 1 mount(s) of /home/cdsw" in said


@pytest.mark.parametrize("path", ["/home/cdsw/", "/home/cdsw//", "/home/./cdsw"])
def test_the_same_folder_written_otherwise_counts(template, path):
    template.write_text(compact(pod(READ_ONLY | {"mountPath": path})))
    patch(template)
    assert template.read_text() == compact(pod(WRITABLE | {"mountPath": path}))


def test_every_container_counts_also_those_that_prepare_the_pod(template):
    def containers(mount):
        second = {"name": "sidecar", "volumeMounts": [mount, mount]}
        both = pod(mount)["spec"]["containers"] + [second, {"name": "none", "volumeMounts": None}]
        return pod(containers=both, initContainers=[{"name": "first", "volumeMounts": [mount]}])

    template.write_text(compact(containers(READ_ONLY)))
    assert "from 4 mount(s)" in patch(template).stdout
    assert template.read_text() == compact(containers(WRITABLE))


def test_null_in_the_place_of_a_list_is_no_mistake(template):
    template.write_text(compact(pod(READ_ONLY, initContainers=None)))
    patch(template)
    assert template.read_text() == compact(pod(WRITABLE, initContainers=None))


def test_a_repeat_changes_nothing_and_keeps_the_first_original(template):
    original = template.with_name("spark-executor.json.orig")
    template.write_text(compact(pod(READ_ONLY)))
    patch(template)
    patched = template.stat()
    assert original.read_text() == compact(pod(READ_ONLY))

    assert "nothing to change" in patch(template).stdout
    assert (template.stat().st_ino, template.stat().st_mtime_ns) == (
        patched.st_ino,
        patched.st_mtime_ns,
    )

    template.write_text(compact(pod(READ_ONLY, volumes=[])))  # a later one, again read-only
    patch(template)
    assert template.read_text() == compact(pod(WRITABLE, volumes=[]))
    assert original.read_text() == compact(pod(READ_ONLY))
    assert sorted(os.listdir(template.parent)) == [template.name, original.name]


def test_permissions_stay_and_a_link_stays_a_link(tmp_path, template):
    real = tmp_path / "elsewhere" / "pod.json"
    real.parent.mkdir()
    real.write_text(compact(pod(READ_ONLY)))
    real.chmod(0o640)
    template.symlink_to(real)
    patch(template)
    assert template.is_symlink()
    assert real.read_text() == compact(pod(WRITABLE))
    for file in (real, real.with_name("pod.json.orig")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_without_the_file_it_says_nothing_and_makes_nothing(template):
    done = patch(template)
    assert (done.stdout, done.stderr) == ("", "")
    assert os.listdir(template.parent) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"kind":"Pod","spec":{"containers":[{"volumeMounts":[{"mountPath":"/home/cdsw","readO',
        b"[]",
        b'"Pod"',
        b'{"kind":"Pod"}',
        b'{"spec":null}',
        b'{"spec":{"containers":null}}',
        b'{"spec":{"containers":[null]}}',
        b'{"spec":{"containers":[{"volumeMounts":["/home/cdsw"]}]}}',
        b'{"spec":{"containers":[{"volumeMounts":[{"readOnly":true}]}]}}',
        b'{"spec":{"containers":[{"volumeMounts":[{"mountPath":1,"readOnly":true}]}]}}',
        b"\xff\xfe{}",
    ],
)
def test_what_is_no_template_is_left_alone_and_said(template, content):
    template.write_bytes(content)
    done = patch(template, check=False)
    assert done.returncode != 0
    problem, expected, command = done.stderr.rstrip().splitlines()[-3:]
    assert problem.startswith(f"cmlflow.errors.BadInput: This is no pod template: {template} (")
    assert "it was left as it is" in expected
    assert command.endswith("run:  python cml/patch_spark_executor.py")
    assert template.read_bytes() == content
    assert os.listdir(template.parent) == [template.name]


def fail_to_write(file):
    """Patch where no file may grow beyond 9 bytes, as on a disk that is full."""
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9)); "
    run = "sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    done = subprocess.run(
        [sys.executable, "-c", limit + run, str(SCRIPT), "--file", str(file)],
        env=clean_environment(file.parent, PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode != 0
    return done.stderr.rstrip().splitlines()[-3:]


@pytest.mark.parametrize("kept", [False, True], ids=["no original", "an original"])
def test_both_files_are_written_whole_or_not_at_all(template, kept):
    """In the middle of the original, or of the template once there is an original."""
    original = template.with_name("spark-executor.json.orig")
    template.write_text(compact(pod(READ_ONLY)))
    if kept:
        original.write_text("first")
    problem, expected, _ = fail_to_write(template)
    assert problem == f"cmlflow.errors.LessonError: {template} cannot be replaced: File too large."
    assert expected.startswith("Expected: ")
    assert template.read_text() == compact(pod(READ_ONLY))
    assert sorted(os.listdir(template.parent)) == [template.name] + [original.name] * kept


def test_the_way_out_that_the_error_names_works(template):
    template.write_text(compact(pod(READ_ONLY)))
    command = fail_to_write(template)[-1].partition("run:  ")[2]
    assert command.startswith(f"cp {template} ") and command.endswith(f" {template}")
    here = command.replace("python cml/", f"{sys.executable} {ROOT}/cml/")
    subprocess.run(here, shell=True, cwd=template.parent, check=True, timeout=LIMIT)
    assert template.read_text() == compact(pod(WRITABLE))


def test_a_kernel_runs_it_cell_by_cell_with_the_file_and_without(template):
    cells = SCRIPT.read_text(encoding="utf-8").split("\n# %%\n")
    with Kernel(template.parent, CMLFLOW_FILE=str(template)) as kernel:
        assert "".join(kernel.run_cell(cell) for cell in cells) == ""
        template.write_text(compact(pod(READ_ONLY)))
        assert "Done: " in "".join(kernel.run_cell(cell) for cell in cells)
    assert template.read_text() == compact(pod(WRITABLE))


class TestTheExample:
    """spark-executor.json in the project: a shape, with a mount that can be written to."""

    def test_it_is_what_the_patch_makes_of_a_read_only_mount(self, template):
        example = EXAMPLE.read_text(encoding="utf-8")
        pod = json.loads(example)
        (mount,) = [
            mount
            for container in pod["spec"]["containers"]
            for mount in container["volumeMounts"]
            if mount["mountPath"] == "/home/cdsw"
        ]
        assert "readOnly" not in mount
        mount["readOnly"] = True
        template.write_text(compact(pod) + "\n")
        patch(template)
        assert template.read_text() == example

    def test_it_names_no_workbench(self):
        text = EXAMPLE.read_text(encoding="utf-8")
        assert "not taken from a workbench" in text
        assert "cloudera" not in text.lower()
