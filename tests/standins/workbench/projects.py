"""Projects, their files, and the runtimes."""

from __future__ import annotations

import email.policy
import json
import shutil
from email.parser import BytesParser
from pathlib import Path

from workbench.surface import Refused
from workbench.tables import Call, new_id


def list_projects(call: Call) -> dict:
    return call.page(map(call.state.move_on, call.state.of("projects")))


def list_project_names(call: Call) -> dict:
    found = call.page(call.state.of("projects"))
    return found | {"project_names": [row["name"] for row in found["project_names"]]}


def create_project(call: Call) -> dict:
    wanted, state = call.body, call.state
    name = wanted.get("name", "").strip()
    if not name:
        raise Refused(400, "project name is required")
    if wanted.get("template") == "git" and not wanted.get("git_url"):
        raise Refused(400, "template git needs git_url")
    taken = any(row["name"] == name for row in state.of("projects"))
    if taken and "same-project-names" not in state.switches:
        raise state.refuse(409, f"a project with the name {name} already exists")
    return state.add_project(new_id(), wanted)


def get_project(call: Call) -> dict:
    return call.state.move_on(call.project)


def update_project(call: Call) -> dict:
    changed = ("name", "description", "visibility", "environment", "shared_memory_limit")
    return change(call, call.project, changed)


def change(call: Call, row: dict, fields: tuple[str, ...]) -> dict:
    """Give a row the values of a body; an environment comes as the text of JSON."""
    for name in fields:
        if name in call.body:
            row[name] = call.body[name]
            if name == "environment":
                row[name] = environment_of(call.body[name])
    row["updated_at"] = call.state.now()
    return row


def environment_of(text: str) -> dict:
    """Read an environment as a PATCH sends it."""
    try:
        read = json.loads(text or "{}")
        if not isinstance(read, dict) or not all(isinstance(one, str) for one in read.values()):
            raise ValueError(text)
        return read
    except ValueError:
        raise Refused(400, "environment is not a JSON object of texts") from None


def delete_project(call: Call) -> dict:
    state, project_id = call.state, call.project["id"]
    if project_id == state.own_project:
        raise Refused(400, "the project of this session cannot be deleted")
    shutil.rmtree(call.project["_root"], ignore_errors=True)
    for table in state.rows.values():
        for row in [row for row in table.values() if row.get("_project_id") == project_id]:
            del table[row["id"]]
    del state.rows["projects"][project_id]
    return {}


def place(call: Call, path: str) -> Path:
    """Return where a path of the project is; it must not lead out of it."""
    root = call.project["_root"]
    found = (root / path.lstrip("/")).resolve()
    if found != root.resolve() and root.resolve() not in found.parents:
        raise Refused(400, f"{path} is not in the project")
    return found


def file_info(call: Call, found: Path) -> dict:
    size = 0 if found.is_dir() else found.stat().st_size
    root = call.project["_root"].resolve()
    return {
        "path": found.relative_to(root).as_posix(),
        "is_dir": found.is_dir(),
        "file_size": size,
    }


def existing(call: Call, path: str) -> Path:
    found = place(call, path)
    if not found.exists():
        raise Refused(404, f"{path} not found")
    return found


def list_project_files(call: Call) -> dict:
    found = existing(call, call.ids.get("path") or call.query.get("path", ""))
    inside = sorted(found.iterdir()) if found.is_dir() else [found]
    return {"files": [file_info(call, one) for one in inside]}


def update_project_file_metadata(call: Call) -> dict:
    found = existing(call, call["path"])
    target = place(call, call.body.get("path", call["path"]))
    if target != found:
        target.parent.mkdir(parents=True, exist_ok=True)
        found.rename(target)
    return file_info(call, target)


def delete_project_file(call: Call) -> dict:
    found = existing(call, call["path"])
    if found == call.project["_root"].resolve():
        raise Refused(400, "the project itself is no file")
    shutil.rmtree(found) if found.is_dir() else found.unlink()
    return {}


def download_project_file(call: Call) -> bytes:
    found = existing(call, call["path"])
    if found.is_dir():
        raise Refused(400, f"{call['path']} is a folder")
    return found.read_bytes()


def upload_file(call: Call) -> None:
    """Write the parts of a form: each under the name of its field, or under the path of a PUT."""
    head = f"Content-Type: {call.content_type}\r\n\r\n".encode()
    form = BytesParser(policy=email.policy.HTTP).parsebytes(head + call.raw)
    if not form.is_multipart():
        raise Refused(400, "a multipart form is expected")
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition") or ""
        target = place(call, call.ids.get("path") or name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(part.get_payload(decode=True) or b"")


EDITORS = {
    "PBJ Workbench": "pbj-workbench",
    "JupyterLab": "pbj-jupyterlab",
    "Workbench": "workbench",
}
EDITIONS = {"Standard": "standard", "Nvidia GPU": "cuda"}
VERSIONS = ("2024.10.1-b12", "2025.01.3-b8", "2025.09.1-b5")


def list_runtimes(call: Call) -> dict:
    switches = call.state.switches
    host = "docker.repository.cloudera.com/cloudera/cdsw"
    host = "registry.example.org/ml" if "company-registry" in switches else host
    pythons = ("3.9",) if "no-python-runtime" in switches else ("3.9", "3.10", "3.11", "3.12")
    rows = [
        {
            "image_identifier": f"{host}/ml-runtime-{image}-python{python}-{suffix}:{version}",
            "editor": editor,
            "kernel": f"Python {python}",
            "edition": edition,
            "description": f"{edition} edition Python runtime",
            "full_version": version,
            "status": "ENABLED",
        }
        for version in VERSIONS
        for editor, image in EDITORS.items()
        for python in pythons
        for edition, suffix in EDITIONS.items()
    ]
    return call.page(rows)


def list_runtime_addons(call: Call) -> dict:
    names = {
        "hadoop-cli-7.3.1.709-1": ("HadoopCLI", "Hadoop CLI - CDP 7.3.1"),
        "spark332-7190-1202-b75": ("Spark", "Spark 3.3.2 - CDP 7.1.9"),
        "spark351-1241-hf1": ("Spark", "Spark 3.5.1 - CDE 1.24.1 - HOTFIX-1"),
    }
    if "spark-4" in call.state.switches:
        names["spark400-1260"] = ("Spark", "Spark 4.0.0 - CDE 1.26")
        names["spark354-1245"] = ("", "Spark 3.5.4 - CDE 1.24.5")
    if "no-spark" in call.state.switches:
        names = {one: said for one, said in names.items() if said[0] == "HadoopCLI"}
    made = call.state.of("projects")[0]["created_at"]
    rows = [
        {
            "identifier": identifier,
            "component": component,
            "display_name": display_name,
            "status": "AVAILABLE",
            "manageable": True,
            "created_at": made,
            "id": number,
        }
        for number, (identifier, (component, display_name)) in enumerate(names.items(), 1)
    ]
    return call.page(rows)


def validate_api_key(call: Call) -> dict:
    return {"valid": True, "username": "learner", "message": ""}
