"""The versions of a registered model, and which of them is the champion.

MLflow is asked first. CML's registry may refuse to list versions and keeps no aliases: then the
workbench is asked by API v2, and the tags of the runs say which version is the champion.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmlflow import store, workarea, workbench
from cmlflow.errors import MissingStep, StoreError

if TYPE_CHECKING:
    from cmlapi import RegisteredModelVersion
    from mlflow.entities import Run

CHAMPION = "champion"
REGISTER = "python code/05_Auto_Model_Registration.py"
DEPLOY = "python code/20_Deploy_Model.py"
OF_PART_4 = {"CellTwrFail-CLF": "python code/telco/02_api_deployment.py"}
"""Models that have a lesson of their own, which registers and deploys them."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    model: str
    number: int
    run_id: str
    """The run that logged it."""

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        # CML's registry may keep its files where a session cannot read them.
        if workarea.in_cml():
            return f"runs:/{self.run_id}/model"
        return f"models:/{self.model}/{self.number}"

    def __str__(self) -> str:
        """Return it as one phrase."""
        return f"version {self.number} of {self.model!r} (run {self.run_id})"


def versions(model: str) -> list[Version]:
    """Return the versions of a registered model, newest first; none where there is no such model.

    Raises:
        StoreError: neither the registry nor the workbench lists them.
    """
    import mlflow

    try:
        found = mlflow.MlflowClient().search_model_versions(store.named_model(model))
        numbered = {int(one.version): one.run_id for one in found if one.name == model}
    except Exception as refusal:
        if not workarea.in_cml():
            raise StoreError(
                f"The registry gave no versions of {model!r}: {store.one_line(refusal)}",
                "a registry that answers",
                f"To see what it holds, open:  {store.how_to_open_ui(store.model_page(model))}",
            ) from None  # the cause may show a password
        numbered = {}
    if not numbered and workarea.in_cml():
        numbered = _listed_by_the_workbench(model)
    return [
        Version(model, number, run_id) for number, run_id in sorted(numbered.items(), reverse=True)
    ]


def require_versions(model: str) -> list[Version]:
    """Do what `versions` does.

    Raises:
        MissingStep: no version has been registered.
    """
    found = versions(model)
    if not found:
        raise MissingStep(
            f"The registered model {model!r} has no version.",
            "one version at least; in CML an administrator must have enabled the AI Registry",
            how_to_register(model),
        )
    return found


def how_to_register(model: str) -> str:
    """Return the command of the lesson that registers a model."""
    return OF_PART_4.get(model, REGISTER)


def how_to_deploy(endpoint: str) -> str:
    """Return the command of the lesson that deploys to an endpoint, by the endpoint's name."""
    return OF_PART_4.get(endpoint, DEPLOY)


def register_once(run_id: str, model: str) -> Version:
    """Return the version of a run's model, registered now if it was not before.

    Raises:
        StoreError: the registry does not list it afterwards.
    """
    import mlflow

    refused = ""
    for attempt in range(2):
        found = [one for one in versions(model) if one.run_id == run_id]
        if found:
            return found[0]
        if not attempt:
            with store.may_refuse("a new version", instead="what follows") as refusals:
                mlflow.register_model(f"runs:/{run_id}/model", model)
            refused = f": {store.one_line(refusals[0])}" if refusals else ""
    raise StoreError(
        f"The registry lists no version of {model!r} for run {run_id}{refused}.",
        "a registry that takes versions; in CML an administrator must have enabled it",
        "Run this script again: it registers nothing twice",
    )


def champion(model: str, experiment: str) -> Version | None:
    """Return the version that others should use, or None.

    Args:
        model: name of the registered model.
        experiment: the one in which its runs are; their tags count where there is no alias.
    """
    import mlflow

    with contextlib.suppress(Exception):  # no alias, or a registry without any
        found = mlflow.MlflowClient().get_model_version_by_alias(model, CHAMPION)
        return Version(model, int(found.version), found.run_id)
    numbers = {one.run_id: one.number for one in versions(model)}
    for run in store.newest_first(tagged(model, experiment)):
        if run.info.run_id in numbers:
            return Version(model, numbers[run.info.run_id], run.info.run_id)
    return None


def tagged(model: str, experiment: str, alias: str = CHAMPION) -> list[Run]:
    """Return the runs of an experiment whose tags say that they have an alias of this model."""
    wanted = {"registered_model": model, "registered_alias": alias}
    # Some stores ignore a filter, so all tags are compared here.
    return [run for run in store.runs_of([experiment]) if wanted.items() <= run.data.tags.items()]


def tag_champion(version: Version, experiment: str) -> None:
    """Let the tags say that this version is the champion, and no other is.

    The new one is tagged first: between the two steps there are two champions, never none.
    """
    import mlflow

    client = mlflow.MlflowClient()
    for key, value in (
        ("registered_model", version.model),
        ("registered_version", str(version.number)),
        ("registered_alias", CHAMPION),
    ):
        client.set_tag(version.run_id, key, value)
    with store.may_refuse("removal of the tag from earlier runs", instead="the registry"):
        for other in tagged(version.model, experiment):
            if other.info.run_id != version.run_id:
                client.delete_tag(other.info.run_id, "registered_alias")


def _listed_by_the_workbench(model: str) -> dict[int, str]:
    """Return the run of each version, by its number, as API v2 tells it."""
    api = workbench.client()
    found = workbench.named(api.list_registered_models, model)
    if found is None:
        return {}
    listed = workbench.all_of(api.get_registered_model, found.model_id, items="model_versions")
    return {one.number: run_of(one) for one in listed if workbench.status(one) != "failed"}


def run_of(listed: RegisteredModelVersion) -> str:
    """Return the id of the run of a version, as API v2 lists it; empty where it does not say."""
    metadata = listed.model_version_metadata
    return getattr(getattr(metadata, "mlflow_metadata", None), "run_id", None) or ""
