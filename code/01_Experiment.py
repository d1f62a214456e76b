"""
01 - Log the params and metrics of a model

You learn  log_param(s), log_metric(s), a metric with steps
Reads      data/wine-quality.csv
Writes     MLflow experiment "wine-quality-test": one run, without a model
Needs      nothing; about 5 seconds
Run        python code/01_Experiment.py [--alpha 0.5] [--l1-ratio 0.5]
"""

# %%
#
# The question: how well do eleven measurements predict the taste of a wine?
# --------------------------------------------------------------------------
# A laboratory measured 4,898 white wines, and experts graded them from 0 to 10. We fit a straight
# line with a penalty (an ElasticNet). `alpha` is the strength of the penalty and `l1_ratio` its
# kind: 1 drops measurements altogether, 0 only shrinks their weights.
import pandas as pd

from cmlflow import options, store, workarea

parser = options.parser()
strength, share = options.number(0, 1000), options.number(0, 1)
parser.add_argument(
    "--alpha", type=strength, default=0.5, help="strength of the penalty, 0 to 1000"
)
parser.add_argument("--l1-ratio", type=share, default=0.5, help="share of the L1 penalty, 0 to 1")
args = parser.parse_args()

TARGET = "quality"
wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv").astype("float64")
print(f"{len(wines)} wines, graded {wines[TARGET].min():.0f} to {wines[TARGET].max():.0f}")

# %%
#
# Rows to train on, rows to test on
# ---------------------------------
# We set a quarter of the wines aside at random. Seed and split are those of MLflow's own tutorial,
# so you can check our results against its published numbers. The test is not quite a test on new
# wines: 937 rows of the file repeat an earlier one, and 339 of the 1,225 test wines have an exact
# twin among the training wines, so a model that memorises would look better than it is. The
# columns are float64, as in all lessons.
import numpy as np
from sklearn.model_selection import train_test_split

np.random.seed(40)
train, test = train_test_split(wines)
X_train, y_train = train.drop(columns=TARGET), train[TARGET]
X_test, y_test = test.drop(columns=TARGET), test[TARGET]
print(f"{len(train)} wines train the model, {len(test)} test it")

# %%
#
# Fit and score
# -------------
# A score needs something to compare it with. Our baseline predicts the mean grade of the training
# wines for every wine.
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

model = ElasticNet(alpha=args.alpha, l1_ratio=args.l1_ratio, random_state=42)
model.fit(X_train, y_train)
predictions = model.predict(X_test)
rmse = mean_squared_error(y_test, predictions) ** 0.5
baseline_rmse = mean_squared_error(y_test, np.full(len(y_test), y_train.mean())) ** 0.5
print(f"rmse {rmse:.3f}, baseline {baseline_rmse:.3f}")

# %%
#
# One run: what went in, what came out
# ------------------------------------
# What you choose is a param, what comes out is a metric: MLflow sorts and plots metrics only.
# A metric may have a value per step. Our steps are numbers of training rows, and the curve shows
# whether more wines would help. This run has no model: 02_log_model.py adds it.
import mlflow

EXPERIMENT = "wine-quality-test"
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run(run_name="elasticnet") as run:
    mlflow.log_params({"alpha": args.alpha, "l1_ratio": args.l1_ratio})
    mlflow.log_param("train_rows", len(train))
    mlflow.log_metrics({"rmse": rmse, "baseline_rmse": baseline_rmse})
    mlflow.log_metric("mae", mean_absolute_error(y_test, predictions))
    mlflow.log_metric("r2", r2_score(y_test, predictions))
    for rows in (50, 200, 800, len(train)):
        part = ElasticNet(alpha=args.alpha, l1_ratio=args.l1_ratio, random_state=42)
        part.fit(X_train[:rows], y_train[:rows])
        part_rmse = mean_squared_error(y_test, part.predict(X_test)) ** 0.5
        mlflow.log_metric("rmse_by_train_rows", part_rmse, step=rows)
        print(f"trained on {rows:>4} wines: rmse {part_rmse:.3f}")

# %%
#
# How good is that?
# -----------------
# The line errs by 0.82 grades, the baseline by 0.88: the line explains an eighth of the
# differences (r2 is 0.13). The curve is flat from 800 wines on, so more rows of this kind do not
# help. A smaller penalty or another model may.
print(
    f"Done: rmse {rmse:.3f}; baseline {baseline_rmse:.3f} (run {run.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT} > elasticnet > Model metrics, the last chart: "
    "rmse_by_train_rows.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(run, 'model-metrics'))}"
)
