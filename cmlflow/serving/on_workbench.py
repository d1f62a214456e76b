"""Endpoints in CML: model deployments in a project for production, by API v2.

A registered model becomes an endpoint in three steps: a model, which has the name and the access
key; a build of one version; and a deployment of that build. A new deployment takes the place of
the one before, and the access key stays.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cmlflow import registry, workbench
from cmlflow.errors import MissingStep, ServingError, WorkbenchError
from cmlflow.registry import Version
from cmlflow.serving.answers import Answer, Check, Deployment

if TYPE_CHECKING:
    from cmlapi import CMLServiceApi
    from cmlapi import Model as Endpoint

PROJECT = "PRD"
"""The project in which endpoints live, unless CMLFLOW_PROJECT names another."""
BUILD_LIMIT_S = 30 * 60
"""Builds take 5 to 10 minutes, and can stall."""
DEPLOYMENT_LIMIT_S = 15 * 60
CHECK_LIMIT_S = 60
"""Seconds that a deployment may take to answer a check."""
CPU, MEMORY_GB = 1.0, 2.0
REHEARSAL = "-check"
"""What the name of the model ends with in which a new version is tried."""
REGISTRATION_LIMIT_S = 10 * 60
_GONE = ("failed", "stopped", "stopping", "build failed", "timedout")
_BUILT = ("built", "succeeded")
_DEPLOYED = "deployed"
_REGISTERED = ("ready", "registered", "unknown")
_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
_here = threading.local()


def deploy(endpoint: str, version: Version, check: Check) -> Deployment:
    """Let an endpoint serve a version; see `cmlflow.serving.deploy`."""
    place = _Place.open(endpoint, create_for=version)
    registered, serving = place.registered_version(version), place.deployed()
    if serving is not None and serving.number != version.number:
        place.rehearse(registered, check)
    return _replace(place, version, check)


def _replace(place: _Place, version: Version, check: Check) -> Deployment:
    """Let a version take the name; the one before takes it back if this one answers wrongly."""
    endpoint, serving = place.model.name, place.deployed()
    if serving is None or serving.number != version.number:
        place.serve(place.registered_version(version))
    problem = _problem(endpoint, check)
    now = place.deployed()
    if now is None or now.number != version.number:
        raise ServingError(
            f"The endpoint {endpoint!r} serves {now or 'nothing'}: somebody else deployed or "
            f"stopped it while {version} was deployed.",
            "one deployment at a time",
            f"To deploy the champion, run:  {registry.how_to_deploy(endpoint)}",
        )
    if not problem:
        return place.described(now)
    back = serving if serving is not None and serving.number != version.number else None
    if back is not None:
        place.serve(place.registered_version(back))
    raise ServingError(
        f"{version} answers wrongly: {problem}",
        "what the model itself predicts" + (f"; {back} serves again" if back else ""),
        f"To see its log, open:  {place.where} > Monitoring",
    )


def deployed(endpoint: str) -> Deployment | None:
    """Return what an endpoint serves now, or None."""
    place = _Place.open(endpoint)
    serving = place.deployed() if place else None
    return place.described(serving) if serving else None


def roll_back(endpoint: str, check: Check) -> Deployment:
    """Let an endpoint serve the version that it served before; see `cmlflow.serving.roll_back`."""
    place = _Place.open(endpoint)
    before = place.before() if place else None
    if before is None:
        raise ServingError(
            f"The endpoint {endpoint!r} has served no other version.",
            "an endpoint that was deployed twice",
            "To deploy another version, run:  python code/21_Redeploy_and_Roll_Back.py",
        )
    return _replace(place, before, check)  # it has answered under this name before


def stop(endpoint: str) -> bool:
    """Stop the deployments of an endpoint; tell whether there was one."""
    place = _Place.open(endpoint)
    running = place.deployments(ended=False) if place else []
    for build, one in running:
        ids = (place.project.id, place.model.id, build.id, one.id)
        workbench.call(place.api.stop_model_deployment, *ids)
    return bool(running)


def send(endpoint: str, payload: dict, *, limit_s: float = 60) -> Answer:
    """Send a request to an endpoint; see `cmlflow.serving.send`."""
    import requests

    key = _access_key(endpoint)
    if not hasattr(_here, "session"):
        _here.session = requests.Session()
    end = time.monotonic() + limit_s
    while True:
        try:
            answer = _here.session.post(
                address(),
                json={"accessKey": key, "request": payload},
                headers={"Authorization": f"Bearer {os.environ.get('CDSW_APIV2_KEY', '')}"},
                timeout=limit_s,
                verify=_CA_FILE if os.path.exists(_CA_FILE) else True,
                allow_redirects=False,  # the key is for this server
            )
        except requests.RequestException as error:
            raise ServingError(
                f"The model service did not answer: {workbench.without_key(type(error).__name__)}",
                f"an answer of {address()} within {limit_s:.0f} s",
                "If the workbench has it elsewhere, set:  CMLFLOW_MODEL_SERVICE=https://<host>",
            ) from None  # the cause may show the key
        text = answer.text
        for secret in (key, os.environ.get("CDSW_APIV2_KEY", "")):
            text = text.replace(secret, "***") if len(secret) > 3 else text
        try:
            body = json.loads(text)
        except ValueError:
            body = text
        if answer.status_code in (401, 403, 404):
            if _KEYS.get(_named(endpoint)) == key:  # else another thread has the new one already
                _KEYS.pop(_named(endpoint), None)
            known, key = key, _access_key(endpoint)
            if key != known:
                continue
        # One request at a time: the platform answers so after it has waited for 30 s itself.
        if answer.status_code != 429 or time.monotonic() > end:
            return Answer(answer.status_code, body)
        time.sleep(min(1.0, workbench.poll_seconds()))


def address() -> str:
    """Return where requests to all models of this workbench go."""
    chosen = os.environ.get("CMLFLOW_MODEL_SERVICE", "").strip().rstrip("/")
    if chosen:
        return f"{chosen}/model"
    parts = urlsplit(os.environ.get("CDSW_API_URL", ""))
    domain = parts.netloc or os.environ.get("CDSW_DOMAIN", "")
    return f"{parts.scheme or 'https'}://modelservice.{domain}/model"


_KEYS: dict[tuple[str, ...], str] = {}
"""The access key of an endpoint stays the same until somebody makes the model anew."""


def _named(endpoint: str) -> tuple[str, ...]:
    return address(), _project_name(), endpoint


def _access_key(endpoint: str) -> str:
    named = _named(endpoint)
    if named not in _KEYS:
        place = _Place.open(endpoint)
        if place is None:
            raise MissingStep(
                f"There is no endpoint {endpoint!r} in the project {_project_name()!r}.",
                "one that was deployed",
                registry.how_to_deploy(endpoint),
            )
        _KEYS[named] = place.model.access_key
    return _KEYS[named]


def _project_name() -> str:
    return os.environ.get("CMLFLOW_PROJECT", "").strip() or PROJECT


def _problem(endpoint: str, check: Check, attempts: int = 6) -> str:
    """Return what is wrong with an endpoint's answer to a check; empty if nothing.

    A deployment that has just started may refuse the first requests, and the one before may answer
    a last one, so we ask again.
    """
    problem = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(workbench.poll_seconds())
        try:
            problem = check.problem(send(endpoint, check.payload, limit_s=CHECK_LIMIT_S))
            if not problem:
                return ""
        except ServingError as error:
            problem = error.found
    return problem


@dataclass
class _Place:
    """A model in the project for production, and the builds and deployments of it."""

    api: CMLServiceApi
    project: Any
    model: Endpoint
    registered_id: str

    @classmethod
    def open(cls, endpoint: str, create_for: Version | None = None) -> _Place | None:
        """Find the endpoint; make what is missing, or return None if nothing shall be made."""
        api, name = workbench.client(), _project_name()
        registered_id = _registered_id(api, create_for) if create_for else ""

        def find_project() -> Any:
            return workbench.named(
                api.list_projects, name, search_filter=json.dumps({"name": name})
            )

        def find_model() -> Any:
            found = workbench.named(api.list_models, endpoint, project.id)
            # The access key comes with one model, not with a list of them.
            return found and workbench.call(api.get_model, project.id, found.id)

        def create_project() -> Any:
            return workbench.call(api.create_project, {"name": name, "template": "blank"})

        if create_for is None:
            project = find_project()
            model = project and find_model()
            return cls(api, project, model, model.registered_model_id) if model else None
        project, created = workbench.find_or_create(find_project, create_project)
        if created:
            print(f"Project {name!r} created")
        wanted = {
            "project_id": project.id,
            "name": endpoint,
            "description": f"Serves the registered model {create_for.model}",
            "registered_model_id": registered_id,
        }
        model, _ = workbench.find_or_create(
            find_model, lambda: workbench.call(api.create_model, wanted, project.id)
        )
        if model.registered_model_id != registered_id:
            raise ServingError(
                f"The model {endpoint!r} of project {name!r} belongs to no registered model "
                f"{create_for.model!r}.",
                "a model that takes versions of it",
                f"On the page Models of {name}, rename or delete it, or set CMLFLOW_ENDPOINT",
            )
        return cls(api, project, model, registered_id)

    @property
    def where(self) -> str:
        """The page of this model on the workbench."""
        return f"project {self.project.name} > Models > {self.model.name}"

    def registered_version(self, version: Version) -> Any:
        """Return the workbench's own entry of a version."""
        found = [
            one
            for one in self.registered_versions()
            if one.number == version.number and registry.run_of(one) in ("", version.run_id)
        ]
        if found:
            ids = (self.registered_id, found[0].model_version_id)
            return workbench.wait(
                lambda: workbench.call(self.api.get_registered_model_version, *ids),
                f"Registration of version {version.number}",
                _REGISTERED,
                ("failed",),
                REGISTRATION_LIMIT_S,
                "the registered model; delete this version there, then register the model again, "
                f"run:  {registry.how_to_register(version.model)}",
            )
        raise WorkbenchError(
            f"The workbench does not list {version}.",
            "a version that its registry has, with the same run",
            f"To register the model again, run:  {registry.how_to_register(version.model)}",
        )

    def registered_versions(self) -> list:
        """Return all versions of the registered model."""
        return workbench.all_of(
            self.api.get_registered_model, self.registered_id, items="model_versions"
        )

    def builds(self) -> list:
        """Return the builds of this model."""
        return workbench.all_of(self.api.list_model_builds, self.project.id, self.model.id)

    def deployments(self, ended: bool | None = None) -> list[tuple[Any, Any]]:
        """Return pairs of build and deployment, oldest deployment first."""
        found = [
            (build, one)
            for build in self.builds()
            for one in workbench.all_of(
                self.api.list_model_deployments, self.project.id, self.model.id, build.id
            )
            if ended is None or (workbench.status(one) in _GONE) == ended
        ]
        return sorted(found, key=lambda pair: pair[1].created_at)

    def version_of(self, build: Any) -> Version | None:
        """Return the version that a build holds, or None."""
        for one in self.registered_versions():
            if one.model_version_id == build.registered_model_version_id:
                name = workbench.call(self.api.get_registered_model, self.registered_id).name
                return Version(name, one.number, registry.run_of(one))
        return None

    def deployed(self) -> Version | None:
        """Return the version that is served now, or None."""
        running = [
            (build, one) for build, one in self.deployments() if workbench.status(one) == _DEPLOYED
        ]
        return self.version_of(running[-1][0]) if running else None

    def before(self) -> Version | None:
        """Return the version that was deployed before the one that is served now, or None."""
        serving, found = self.deployed(), None
        for build, one in reversed(self.deployments()):
            found = self.version_of(build)
            was_served = workbench.status(one) in (_DEPLOYED, "stopped", "stopping")
            if found and was_served and (serving is None or found.number != serving.number):
                return found
        return None

    def described(self, serving: Version) -> Deployment:
        """Return what `cmlflow.serving.deployed` tells of this endpoint."""
        before = self.before()
        return Deployment(
            self.model.name,
            serving.model,
            serving.number,
            serving.run_id,
            address(),
            before.number if before else None,
        )

    def build(self, registered: Any) -> Any:
        """Return the build of a version, made if there is none that has not failed."""
        ids = (self.project.id, self.model.id)

        def find() -> Any:
            return workbench.newest(
                one
                for one in self.builds()
                if one.registered_model_version_id == registered.model_version_id
                and workbench.status(one) not in _GONE
            )

        def create() -> Any:
            image = workbench.runtime(self.api).image_identifier
            wanted = {
                "project_id": self.project.id,
                "model_id": self.model.id,
                "comment": f"version {registered.number}",
                "registered_model_version_id": registered.model_version_id,
                "runtime_identifier": image,
            }
            return workbench.call(self.api.create_model_build, wanted, *ids)

        build, _ = workbench.find_or_create(find, create)
        return workbench.wait(
            lambda: workbench.call(self.api.get_model_build, *ids, build.id),
            f"Build of version {registered.number} for {self.model.name}",
            _BUILT,
            _GONE,
            BUILD_LIMIT_S,
            f"{self.where} > Builds",
        )

    def serve(self, registered: Any) -> None:
        """Build and deploy a version, and wait until it is deployed."""
        build = self.build(registered)
        ids = (self.project.id, self.model.id, build.id)

        def find() -> Any:
            running = [one for made, one in self.deployments(ended=False) if made.id == build.id]
            return workbench.newest(running)

        def create() -> Any:
            wanted = {"cpu": CPU, "memory": MEMORY_GB, "replicas": 1}
            named = dict(zip(("project_id", "model_id", "build_id"), ids, strict=True))
            return workbench.call(self.api.create_model_deployment, named | wanted, *ids)

        deployment, _ = workbench.find_or_create(find, create)
        workbench.wait(
            lambda: workbench.call(self.api.get_model_deployment, *ids, deployment.id),
            f"Deployment of version {registered.number} as {self.model.name}",
            (_DEPLOYED,),
            _GONE,
            DEPLOYMENT_LIMIT_S,
            f"{self.where} > Deployments",
        )

    def rehearse(self, registered: Any, check: Check) -> None:
        """Let a version answer under another name before it takes this one.

        Raises:
            ServingError: it cannot be built, does not start or answers wrongly.
        """
        name = f"{self.model.name}{REHEARSAL}-{registered.number}"
        serving = self.deployed()
        wanted = {"name": name, "registered_model_id": self.registered_id}
        wanted |= {"project_id": self.project.id, "description": f"Tries {self.model.name}"}
        model, _ = workbench.find_or_create(
            lambda: workbench.named(self.api.list_models, name, self.project.id),
            lambda: workbench.call(self.api.create_model, wanted, self.project.id),
        )
        trial = _Place(self.api, self.project, model, self.registered_id)
        try:
            trial.serve(registered)
            problem = _problem(name, check)
        except WorkbenchError as error:
            problem = f"{error.found} {error.cure}"
        finally:
            stop(name)
            _KEYS.pop(_named(name), None)
            workbench.call(self.api.delete_model, self.project.id, model.id)
        if problem:
            again = registry.how_to_register(serving.model if serving else "")
            raise ServingError(
                f"Version {registered.number} was tried as {name!r}: {problem}",
                f"what the model itself predicts; {serving} still serves {self.model.name!r}",
                f"To register another version, run:  {again}",
            )


def _registered_id(api: CMLServiceApi, version: Version) -> str:
    found = workbench.named(api.list_registered_models, version.model)
    if found is None:
        raise MissingStep(
            f"The workbench has no registered model {version.model!r}.",
            "one in its AI Registry, which an administrator must have enabled",
            registry.how_to_register(version.model),
        )
    return found.model_id
