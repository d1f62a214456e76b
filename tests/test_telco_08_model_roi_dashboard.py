"""The ROI dashboard: its arithmetic, the lesson, the server as CML asks it, and the page."""

import numpy as np
from conftest import client_of

from cmlflow import scores

SCRIPT = "telco/08_model_roi_dashboard.py"
CELLS = ("tn", "fp", "fn", "tp")
FIRST, SECOND = "1" * 32, "2" * 32  # runs of the two versions


def truth_of(generator, messages, honest):
    """A labelled day: seeded probabilities, of which a share says how often towers fail."""
    said = generator.beta(0.6, 2.2, messages)
    failed = generator.random(messages) < honest * said + (1 - honest) * said.mean()
    counts = scores.counts(failed, said)
    return {
        "messages": messages,
        "failures": int(failed.sum()),
        "roc_auc": scores.roc_auc(failed, said),
        "reference_roc_auc": 0.845,
        "accuracy": float(((said >= 0.5) == failed).mean()),
        "baseline_accuracy": float(1 - failed.mean()),
        "log_loss": scores.log_loss(failed, said),
        "counts": {cell: counts[cell].tolist() for cell in CELLS},
    }


def board_of(seed=7, newest=9, promoted=9):
    """What 07_model_monitoring.py logs, from seeded numbers: version 2 took over on one day."""
    generator = np.random.default_rng(seed)
    days = []
    for day in range(6, newest + 1):
        drifted = day >= 8
        run_id, version = (SECOND, 2) if day >= promoted else (FIRST, 1)
        psi = {
            f"iot_signal_{n}": generator.uniform(0, 0.05, 3).round(4).tolist() for n in range(1, 5)
        }
        psi |= {"signal_score": [0.02, 0.11, None], "event_severity": [0.01, 0.02, 0.01]}
        if drifted:
            psi["iot_signal_4"] = [0.71, 0.74, 0.69]
        truth = (
            None
            if day == newest
            else truth_of(generator, 1440, 0.3 if drifted and version == 1 else 1)
        )
        days.append(
            {
                "day": day,
                "run_id": run_id,
                "version": version,
                "decision": "retrain" if day == 9 else "wait" if day == 8 else "keep",
                "reason": f"Highest PSI of day {day} is {0.74 if drifted else 0.05}.",
                "predicted_share": 0.27,
                "latency_ms": 4.1,
                "psi": psi,
                "truth": truth,
            }
        )
    judged = {
        role: {"run_id": run, "version": version, "threshold": threshold}
        | {key: made[key] for key in ("roc_auc", "counts")}
        for role, run, version, threshold, made in (
            ("champion", FIRST, 1, 0.23, truth_of(np.random.default_rng(3), 288, 0.3)),
            ("challenger", SECOND, 2, 0.24, truth_of(np.random.default_rng(3), 288, 1)),
        )
    }
    return {
        "schema": 1,
        "model": "CellTwrFail-CLF",
        "day": newest,
        "served": {"run_id": SECOND, "version": 2, "threshold": 0.24},
        "thresholds": list(scores.THRESHOLDS),
        "psi_watch": 0.1,
        "psi_alarm": 0.25,
        "days": days,
        "promotions": [{"day": promoted, "run_id": SECOND, "version": 2}],
        "challenge": {
            **{"day": 9, "decision": "promote", "mode": "on", "messages": 288},
            **{"reason": "roc_auc is higher by 0.19, beyond chance.", **judged},
        },
    }


def log(work, board, experiment="telco-monitoring", status="FINISHED"):
    """Log a dashboard as the monitoring lesson does; return the id of the run."""
    client = client_of(work)
    found = client.get_experiment_by_name(experiment)
    folder = (work / "mlartifacts" / experiment).as_uri()
    experiment_id = found.experiment_id if found else client.create_experiment(experiment, folder)
    run_id = client.create_run(experiment_id).info.run_id
    if board is not None:
        client.log_dict(run_id, board, "dashboard.json")
    client.set_terminated(run_id, status)
    return run_id
