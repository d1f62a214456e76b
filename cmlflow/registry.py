"""The versions of a registered model, and which of them is the champion."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    model: str
    number: int
    run_id: str
    """The run that logged it."""
    uri: str
    """What `mlflow.pyfunc.load_model` takes."""
