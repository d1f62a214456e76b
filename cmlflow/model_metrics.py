"""What a CML model deployment keeps of its predictions: the platform's own model metrics.

They exist in CML only, and only where an administrator has enabled them. Nothing here depends on
them: our own tables keep the same and more.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping
from typing import Any

from cmlflow import store, workbench


def send_truth(name: str, truth: Mapping[str, float]) -> int:
    """Give each prediction the truth that came later; return how many were taken.

    The first refusal ends it, with one line that says so.

    Args:
        name: of the metric, such as `final_label`.
        truth: by the id that the model deployment gave the prediction.
    """
    library, sent = _library(), 0
    if library is None or not truth:
        return 0
    for uuid, value in truth.items():
        try:
            library.track_delayed_metrics({name: value}, uuid)
        except Exception as refusal:
            told = workbench.without_key(store.one_line(refusal))
            print(f"Model metrics took {sent} of {len(truth)}: {told}")
            break
        sent += 1
    return sent


def _library() -> Any:
    """Return the module with CML's calls, or None: its name depends on the runtime."""
    for module in ("cml.metrics_v1", "cdsw"):
        with contextlib.suppress(Exception):  # whatever one says that cannot be used here
            found = importlib.import_module(module)
            if hasattr(found, "track_delayed_metrics"):
                return found
    return None
