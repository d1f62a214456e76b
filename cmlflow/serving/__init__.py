"""Endpoints, in CML and on a laptop: each is a name under which one version of a model answers.

    deployment = serving.deploy("wine-quality", version, check)
    predictions = serving.call("wine-quality", rows)

A lesson calls the same functions in both places. In CML an endpoint is a model deployment; on a
laptop it is MLflow's own scoring server, in a process of its own that outlives the lesson.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from cmlflow import workarea
from cmlflow.errors import ServingError
from cmlflow.serving.answers import Answer, Check, Deployment

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cmlflow.registry import Version

__all__ = ["Answer", "Check", "Deployment", "call", "deploy", "deployed", "roll_back"]
__all__ += ["send", "stop"]


def deploy(endpoint: str, version: Version, check: Check) -> Deployment:
    """Let an endpoint serve a version of a registered model.

    A new version is started beside the one that serves, and must answer the check correctly before
    it takes the name. If that version serves already and answers correctly, nothing changes.

    Args:
        endpoint: its name; created if it is absent.
        version: what it shall serve.
        check: rows, and what the model itself predicts for them.

    Raises:
        ServingError: the version does not start or answers wrongly. What served before still does.
        WorkbenchError: in CML, the workbench refused a step or took too long.
    """
    return _platform().deploy(endpoint, version, check)


def deployed(endpoint: str) -> Deployment | None:
    """Return what an endpoint serves now, as what serves says; None if nothing does."""
    return _platform().deployed(endpoint)


def roll_back(endpoint: str, check: Check) -> Deployment:
    """Let an endpoint serve the version that it served before the one that it serves now.

    Called twice, it is back where it was.

    Raises:
        ServingError: there is none, or it does not answer the check. What served before still does.
    """
    return _platform().roll_back(endpoint, check)


def stop(endpoint: str) -> bool:
    """Stop an endpoint; tell whether it was there. Its registered model stays."""
    return _platform().stop(endpoint)


def send(endpoint: str, payload: dict, *, limit_s: float = 60) -> Answer:
    """Send a request as it is, and return the answer, also when it is a refusal.

    Args:
        endpoint: its name.
        payload: scoring JSON of MLflow: `{"dataframe_split": {"columns": [...], "data": [...]}}`.
        limit_s: seconds after which we give up.

    Raises:
        ServingError: nobody answered.
        MissingStep: there is no endpoint of this name.
    """
    return _platform().send(endpoint, payload, limit_s=limit_s)


def call(endpoint: str, rows: pd.DataFrame) -> np.ndarray:
    """Return what an endpoint predicts for rows, shape (n_rows,), float64.

    A request whose connection breaks is sent once more: a prediction changes nothing.

    Raises:
        ServingError: nobody answered, or the answer holds no predictions.
    """
    payload = {"dataframe_split": rows.to_dict(orient="split", index=False)}
    try:
        answer = send(endpoint, payload)
    except ServingError:
        answer = send(endpoint, payload)
    predictions = answer.predictions()
    if len(predictions) != len(rows):
        raise ServingError(
            f"The endpoint {endpoint!r} gave {len(predictions)} predictions for {len(rows)} rows.",
            "one prediction for each row",
            "To send one row after the other, see:  code/20_Deploy_Model.py",
        )
    return predictions


def _platform() -> ModuleType:
    """Return the module that does it here."""
    if workarea.in_cml():
        from cmlflow.serving import on_workbench

        return on_workbench
    from cmlflow.serving import on_laptop

    return on_laptop
