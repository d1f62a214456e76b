"""
13 - Tune a model: a parent run, and a child run for each trial

You learn  nested runs; Optuna's ask and tell; what a trial that fails leaves behind
Reads      nothing: the data are generated, always the same
Writes     MLflow experiment "sklearn-tuning": a parent run with the best model, 12 child runs
Needs      Optuna (`pip install optuna==5.0.0`): without it the lesson is skipped; about 10 seconds
Run        python code/13_Tune_Nested_Runs.py [--trials 12] [--max-neighbors 50]
"""

# %%
#
# What to tune, and with what
# ---------------------------
# A nearest-neighbours classifier leaves three choices: how many training rows vote, whether near
# rows count more, and what "near" means. **Optuna** proposes values and learns from the scores.
# A CML session does not have it, and only this lesson uses it.
from cmlflow import options, samples, store

MOST_TRIALS = 1000
parser = options.parser()
parser.add_argument(
    "--trials",
    type=options.whole_number(1, MOST_TRIALS),
    default=12,
    help=f"trials, 1 to {MOST_TRIALS}",
)
parser.add_argument(
    "--max-neighbors",
    type=options.whole_number(5, samples.TRAIN_ROWS),
    default=50,
    help=f"largest number of rows that vote, 5 to {samples.TRAIN_ROWS}",
)
args = parser.parse_args()
try:
    import optuna
except ImportError:
    optuna = None
    print("Skipped: this lesson needs Optuna:  pip install optuna==5.0.0")
else:
    print(f"{args.trials} trials with up to {args.max_neighbors} neighbours")

# %%
#
# The rows, and a baseline
# ------------------------
# The data of lessons 10 to 12. The baseline predicts the class that most training rows have.
X_train, X_test, y_train, y_test = samples.train_and_test()
baseline_accuracy = (y_test == y_train.mode()[0]).mean()
if optuna is not None:
    print(f"{len(X_train)} rows train, {len(X_test)} test; baseline {baseline_accuracy:.3f}")

# %%
#
# A score without the test rows
# -----------------------------
# If you pick the best of many models by their test scores, you have fitted to the test rows. So
# we score a trial by five-fold cross-validation on the training rows: four fifths train the model,
# one fifth scores it, five times. `error_score="raise"` makes a model that cannot be scored an
# error. Otherwise its score would be NaN.
import mlflow
import sklearn
from mlflow.models import infer_signature
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def classifier(params):
    """Return the unfitted model with these params."""
    return make_pipeline(StandardScaler(), KNeighborsClassifier(**params))


if optuna is not None:
    untuned = cross_val_score(classifier({}), X_train, y_train, cv=5).mean()
    print(f"Cross-validated accuracy of the untuned model: {untuned:.3f}")

# %%
#
# A child run for each trial
# --------------------------
# `nested=True` is all it takes: a run that starts inside another one gets the id of its parent as
# the tag `mlflow.parentRunId`. `ask` gets the next values from Optuna.


def propose(trial):
    """Return the params of a trial; p is 1 for distances along the axes, 2 for straight ones."""
    return {
        "n_neighbors": trial.suggest_int("n_neighbors", 1, args.max_neighbors),
        "weights": trial.suggest_categorical("weights", ["uniform", "distance"]),
        "p": trial.suggest_int("p", 1, 2),
    }


def run_trial(name, params):
    """Score params in a child run of the open run; an error marks the child as FAILED."""
    with mlflow.start_run(run_name=name, nested=True):
        mlflow.log_params(params)
        scores = cross_val_score(classifier(params), X_train, y_train, cv=5, error_score="raise")
        mlflow.log_metric("cv_accuracy", scores.mean())
    return scores.mean()


# %%
#
# What the parent run keeps
# -------------------------
# The best params train a model on all training rows, and the test rows score it once.


def log_best(params):
    """Log the model with these params to the open run; return its accuracy on the test rows."""
    model = classifier(params).fit(X_train, y_train)
    test_accuracy = model.score(X_test, y_test)
    mlflow.log_params({f"best_{name}": value for name, value in params.items()})
    mlflow.log_metrics({"test_accuracy": test_accuracy, "baseline_accuracy": baseline_accuracy})
    mlflow.sklearn.log_model(
        model,
        "model",  # by position: this argument's name differs between MLflow 2 and 3
        signature=infer_signature(X_test, model.predict(X_test)),
        input_example=X_test.head(3),
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
        serialization_format="cloudpickle",
    )
    return test_accuracy


# %%
#
# One parent, many children
# -------------------------
# The first trial is the model of 10_train_kneighbors.py, to compare with. The next four are drawn
# at random. From the sixth on, Optuna proposes values like those that were good before. A trial
# may fail: with `--max-neighbors 750` it may ask for more neighbours than the 600 rows it is
# trained on. It leaves a FAILED child, and the tuning goes on.
EXPERIMENT = "sklearn-tuning"
SEED = 1
if optuna is not None:
    store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
    mlflow.end_run()  # close a run that an earlier cell left open
    mlflow.set_experiment(EXPERIMENT)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=SEED, n_startup_trials=5)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({"n_neighbors": 5, "weights": "uniform", "p": 2})
    with mlflow.start_run(run_name="tuning") as parent:
        mlflow.log_params(
            {"trials": args.trials, "seed": SEED, "max_neighbors": args.max_neighbors}
        )
        for number in range(args.trials):
            trial = study.ask()
            params = propose(trial)
            try:
                cv_accuracy = run_trial(f"trial-{number:02d}", params)
            except ValueError as error:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                print(f"trial {number:>2}: {params} failed: {error}")
                continue
            study.tell(trial, cv_accuracy)
            mlflow.log_metric("best_cv_accuracy", study.best_value, step=number)
            print(f"trial {number:>2}: {params} accuracy {cv_accuracy:.3f}")
        mlflow.log_metric("untuned_cv_accuracy", study.trials[0].value)
        test_accuracy = log_best(study.best_params)

# %%
#
# How good is that?
# -----------------
# In cross-validation, 34 neighbours weighted by distance are right for 92.5 of 100 rows, and the
# untuned 5 for 89.2. On the test rows both are right for 233 of 250. So the gain is smaller than
# it looks, because the best of twelve scores is also the luckiest, and 250 rows are too few to
# tell apart models that differ by two or three points. A forest gains more: see
# 12_Compare_Runs.py. In the UI, [+] beside tuning shows its children; CML lists them flat.
if optuna is not None:
    print(
        f"Done: cross-validated accuracy {study.best_value:.3f} with {study.best_params}, "
        f"untuned {study.trials[0].value:.3f}; test accuracy {test_accuracy:.3f}, baseline "
        f"{baseline_accuracy:.3f} (run {parent.info.run_id})\n"
        f"Look at: Experiments > {EXPERIMENT} > tuning, Model metrics, best_cv_accuracy.\n"
        f"Open the UI: {store.how_to_open_ui(store.run_page(parent, 'model-metrics'))}"
    )
