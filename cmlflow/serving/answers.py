"""What an endpoint serves, what it answered, and whether the answer is right."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cmlflow.errors import ServingError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Deployment:
    """What an endpoint serves."""

    endpoint: str
    """Its name."""
    model: str
    """The registered model."""
    version: int
    run_id: str
    """The run that made this version."""
    address: str
    """Where requests go; it holds no key."""
    before: int | None = None
    """The version that `roll_back` would deploy; None if there is none."""
    ends: datetime | None = None
    """On a laptop: when its process ends by itself, in UTC."""

    def __str__(self) -> str:
        """Return it as one phrase."""
        return f"version {self.version} of {self.model!r} (run {self.run_id})"


@dataclass(frozen=True)
class Answer:
    """What a server answered to one request."""

    status: int
    """The HTTP status."""
    body: object
    """Parsed JSON; text where it is none."""

    @property
    def message(self) -> str:
        """What the server says is wrong, in one line; empty where it says nothing."""
        found = self.body
        while isinstance(found, dict):
            keys = ("message", "errors", "error", "response", "detail", "error_code")
            found = next((found[key] for key in keys if found.get(key)), "")
        text = str(found if found is not None else "").strip().partition(" IMPORTANT: ")[0]
        if text.startswith("Failed to "):  # MLflow puts the data first, the reason last
            text = text.rpartition("Error: ")[2]
        return text.splitlines()[0][:300] if text else ""

    @property
    def uuid(self) -> str:
        """The id that CML's model metrics give this prediction; empty where there are none."""
        found = self.body.get("response") if isinstance(self.body, dict) else None
        return str(found.get("uuid") or "") if isinstance(found, dict) else ""

    def predictions(self) -> np.ndarray:
        """Return the predictions, shape (n_rows,), float64.

        A scoring server of MLflow answers `{"predictions": [...]}`. A model deployment of CML puts
        what its function returned under `response`, and where model metrics are on, that is
        `{"prediction": [...], "uuid": ..., "model_deployment_crn": ...}`.

        Raises:
            ServingError: the answer holds no predictions.
        """
        import numpy as np

        found = self.body
        for key in ("response", "prediction", "predictions"):
            if isinstance(found, dict) and key in found:
                found = found[key]
        # Records, as of a model that returns a table with one column.
        if isinstance(found, list) and all(
            isinstance(one, dict) and len(one) == 1 for one in found
        ):
            found = [value for one in found for value in one.values()]
        try:
            if self.status != 200 or not isinstance(found, list) or None in found:
                raise ValueError
            return np.asarray(found, dtype="float64").reshape(len(found))
        except (TypeError, ValueError):
            raise ServingError(
                f"The endpoint answered {self.status}: {self.message or str(self.body)[:300]}",
                "200 and one prediction for each row",
                "To see a request that fits, run:  python code/20_Deploy_Model.py",
            ) from None


@dataclass(frozen=True)
class Check:
    """Rows, and what the model itself predicts for them: what an endpoint must answer."""

    rows: pd.DataFrame
    """At least one row, with the columns that the model takes."""
    expected: np.ndarray
    """Shape (n_rows,)."""
    tolerance: float = 1e-9
    """The largest absolute difference that counts as equal: JSON keeps all digits of a float."""

    @property
    def payload(self) -> dict:
        """The request, as MLflow's scoring JSON."""
        return {"dataframe_split": self.rows.to_dict(orient="split", index=False)}

    def problem(self, answer: Answer) -> str:
        """Return what is wrong with the answer to `payload`, in one sentence; empty if nothing."""
        import numpy as np

        try:
            predictions = answer.predictions()
        except ServingError as error:
            return error.found
        if len(predictions) != len(self.expected):
            return f"{len(predictions)} predictions for {len(self.expected)} rows."
        misses = np.abs(predictions - np.asarray(self.expected, dtype="float64"))
        if not (misses <= self.tolerance).all():  # NaN is no number that fits
            row = int(np.argmax(~(misses <= self.tolerance)))
            return (
                f"Row {row + 1} of the check: {float(predictions[row])!r} instead of "
                f"{float(self.expected[row])!r}."
            )
        return ""
