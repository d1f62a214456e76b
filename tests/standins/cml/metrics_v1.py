"""Stands in for `cml.metrics_v1`: what is tracked is a line of a file in the folder CML_STORE.

With MODEL_METRICS_TAKEN it refuses after so many, as a workbench without model metrics refuses all.
"""

import json
import os
from pathlib import Path


def track_delayed_metrics(metrics, prediction_uuid, dev=False):
    kept = Path(os.environ["CML_STORE"], "model-metrics.jsonl")
    lines = kept.read_text().splitlines() if kept.exists() else []
    if len(lines) >= int(os.environ.get("MODEL_METRICS_TAKEN", 10**9)):
        key = os.environ.get("CDSW_APIV2_KEY", "")
        raise RuntimeError(f"model metrics are not enabled for {key} here\nsecond line")
    with kept.open("a") as file:
        file.write(json.dumps({"uuid": prediction_uuid, "metrics": metrics}) + "\n")
