"""
22 - Champion or challenger? Both on the same wines, beyond chance

You learn  a gate: thresholds in a file, a paired bootstrap, a verdict that outlives the console
Reads      registered model "Auto-Deployed Model", data/wine-quality.csv, code/22_thresholds.yaml
Writes     with --mode on or off: experiment "promotions": one run; the alias champion; the verdict,
           as tags of the challenger's run and its version's description
Needs      21_Redeploy_and_Roll_Back.py, or another version after the champion; about 8 seconds
Run        python code/22_Promote_Model.py [--mode off | dry-run | on] [--version N]
"""

# %%
#
# Who is judged?
# --------------
# The challenger is the newest version after the champion, or the one that you name. Three modes:
# `dry-run` says what `on` would do and changes nothing; `on` does it; `off` makes the challenger
# champion unjudged, and its verdict says so.
import mlflow

from cmlflow import errors, gate, options, registry, store, workarea

parser = options.parser()
help_mode = "dry-run changes nothing, on acts on the verdict, off promotes without one"
parser.add_argument("--mode", choices=gate.MODES, default="dry-run", help=help_mode)
help_version = "the version to judge, 1 or more; by default the newest after the champion"
parser.add_argument("--version", type=options.whole_number(1), help=help_version)
args = parser.parse_args()

EXPERIMENT, REGISTERED_MODEL = "auto-registration", "Auto-Deployed Model"
thresholds = gate.read_thresholds(workarea.root() / "code" / "22_thresholds.yaml")
store.use_store()  # a local MLflow store on a laptop; CML brings its own
found = registry.require_versions(REGISTERED_MODEL)
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)  # CML finds a run by its id only after this
champion = registry.champion(REGISTERED_MODEL, EXPERIMENT)
newer = [one for one in found if champion is None or one.number > champion.number]
if args.version is not None:
    newer = [one for one in found if one.number == args.version]
    if not newer or newer[0] == champion:
        raise errors.BadInput(
            f"Version {args.version} of {REGISTERED_MODEL!r} "
            f"{'is the champion' if newer else 'is not there'}.",
            f"one of {[one.number for one in found if one != champion]}",
            "To judge the newest, leave out:  --version",
        )
challenger = newer[0] if newer else None
print(f"Mode {args.mode}\nChampion: {champion or 'none yet'}\nChallenger: {challenger or 'none'}")

# %%
#
# The same wines for both
# -----------------------
# The 1,225 test wines of 05_Auto_Model_Registration.py: neither version has seen them. The loss of
# a wine is the squared error of its grade. The baseline always predicts the mean grade.
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv").astype("float64")
np.random.seed(40)
train, test = train_test_split(wines)
X_test, y_test = test.drop(columns="quality"), test["quality"].to_numpy()
losses = {"baseline": (y_test - train["quality"].mean()) ** 2}
for name, version in (("champion", champion), ("challenger", challenger)):
    if version is not None:
        predictions = mlflow.pyfunc.load_model(version.uri).predict(X_test)
        losses[name] = (y_test - predictions) ** 2
for name, loss in losses.items():
    print(f"{name:10} rmse {gate.rmse(loss):.4f} on {len(loss)} test wines")

# %%
#
# Better, or lucky?
# -----------------
# We draw as many wines again, with replacement, 2,000 times, and each time compute both scores on
# the same draw. The middle 95 % of the differences are the interval. If even its lower end is
# above the threshold, the challenger is better by more than chance. A tie keeps the champion.
print(f"Thresholds: {thresholds}")
verdict = None
if challenger is not None:
    verdict = gate.judge(
        losses["challenger"], losses["baseline"], losses.get("champion"), thresholds
    )
    if args.mode == "off":
        verdict = gate.unjudged(verdict)
    print(f"Verdict: {verdict.decision}, {verdict.reason}")
    for name, value in verdict.numbers.items():
        print(f"  {name:24} {value:8.4f}")

# %%
#
# Write it down
# -------------
# A run of its own keeps the numbers as metrics. The tags of the challenger's run and the
# description of its version lead to it. What has been written down already, with the same champion,
# mode and thresholds, is not written again.
PROMOTIONS = "promotions"
client, is_new = mlflow.MlflowClient(), False
if challenger is not None and args.mode != "dry-run":
    tags = {
        "gate.decision": verdict.decision,
        "gate.reason": verdict.reason,
        "gate.mode": args.mode,
        "gate.against": str(champion or "the baseline only"),
        "gate.thresholds": str(thresholds),
    }
    tags |= {f"gate.{name}": repr(value) for name, value in verdict.numbers.items()}
    is_new = not tags.items() <= client.get_run(challenger.run_id).data.tags.items()
if is_new:
    store.use_store(PROMOTIONS)
    mlflow.set_experiment(PROMOTIONS)
    with mlflow.start_run(run_name=f"{args.mode}: version {challenger.number}") as run:
        mlflow.log_metrics(verdict.numbers)
        mlflow.log_params(vars(thresholds))
        mlflow.set_tags(tags | {"challenger_run": challenger.run_id})
    mlflow.set_experiment(EXPERIMENT)
    for key, value in (tags | {"gate.run": run.info.run_id}).items():
        client.set_tag(challenger.run_id, key, value)
    text = f"{verdict.decision}: {verdict.reason} (run {run.info.run_id})"
    with store.may_refuse("a description of the version", instead="the tags of its run"):
        client.update_model_version(REGISTERED_MODEL, str(challenger.number), text)
written = "The verdict is written down" if is_new else "Nothing new to write down"
print("A dry-run writes nothing down" if args.mode == "dry-run" else written)

# %%
#
# Move the alias
# --------------
# This comes last. If the lesson is stopped before, the old champion is still the champion, and the
# next run of this lesson goes on from here.
promotes = verdict is not None and verdict.decision == gate.PROMOTE
if promotes and args.mode != "dry-run":
    with store.may_refuse("an alias", instead="the tags of the runs"):
        number = str(challenger.number)
        client.set_registered_model_alias(REGISTERED_MODEL, registry.CHAMPION, number)
        client.delete_registered_model_alias(REGISTERED_MODEL, "challenger")
    registry.tag_champion(challenger, EXPERIMENT)
    print(f"{challenger} is the champion")

# %%
#
# What now?
# ---------
# A new champion is not yet what the endpoint serves: 20_Deploy_Model.py deploys it.
now = registry.champion(REGISTERED_MODEL, EXPERIMENT)
for_one = "for one, run:  python code/21_Redeploy_and_Roll_Back.py"
outcome = f"{verdict.decision}, {verdict.reason}" if verdict else f"no version to judge; {for_one}"
would = " (dry-run: nothing was changed)" if args.mode == "dry-run" else ""
print(
    f"Done: {outcome}{would}\n"
    f"Champion: {now or 'none'}\n"
    "Next: python code/20_Deploy_Model.py, or python code/23_Chain_of_Jobs.py for all steps"
)
