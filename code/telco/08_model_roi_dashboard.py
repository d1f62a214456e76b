"""
Telco 08 - What does the model earn? A dashboard in money

You learn  how scores become money, which threshold earns most, and how a page of numbers is served
           as a CML application
Reads      MLflow experiment "telco-monitoring": the artifact dashboard.json of its newest run
Writes     nothing
Needs      telco/07_model_monitoring.py; about 5 seconds
Run        python code/telco/08_model_roi_dashboard.py [--print-only]; in CML also as the script of
           an application. CDSW_APP_PORT chooses another port than 8090
"""

# %%
#
# Which run?
# ----------
# Each time a day is monitored, a run logs `dashboard.json`: counts, not messages. The page
# multiplies these counts by prices. It trains nothing, so it opens within seconds. We take the
# newest finished run that has the file, and read the file with `mlflow.artifacts.load_dict`.
from cmlflow import applications, dashboard, errors, options, store, workarea

parser = options.parser()
parser.add_argument("--print-only", action="store_true", help="print the money, start no server")
args = parser.parse_args()

EXPERIMENT = "telco-monitoring"
store.use_store()  # a local MLflow store on a laptop; CML brings its own
run = dashboard.newest_run(EXPERIMENT)
messages = []
if run is not None:
    board = dashboard.load(run.info.run_id)
    messages, served = dashboard.choices(board), board["served"]
    print(f"Run {run.info.run_id}: measured up to day {board['day']}")
    print(f"Answered last: {board['model']} version {served['version']} (run {served['run_id']})")
elif args.print_only:
    raise errors.MissingStep(
        f"No finished run of the experiment {EXPERIMENT!r} has logged dashboard.json.",
        "the monitoring of at least one day",
        dashboard.MAKE,
    )
else:
    print(f"Nothing has been monitored yet. The page will say so and name:  {dashboard.MAKE}")

# %%
#
# What is an answer worth?
# ------------------------
# A truck that is sent in time saves `R1`. A quiet day earns `R0`. A truck for nothing costs the
# penalty `P`. A missed failure costs `R1`, so it counts twice against one that was found: it earns
# nothing, and it costs. From which probability `p` does a truck pay? It earns `p R1 - (1 - p) P`.
# Staying at home earns `(1 - p) R0 - p R1`. Both are equal at (R0 + P) / (2 R1 + R0 + P).
from cmlflow import scores

prices = scores.PRICES
break_even = scores.break_even(prices)
print("net revenue = TP x R1 + TN x R0 - FP x P - FN x R1")
print(f"R1 {prices.failure:g}, R0 {prices.quiet:g}, P {prices.false_alarm:g}")
print(f"A truck pays from a probability of {break_even:.3f} on")

# %%
#
# What would the served model have earned?
# ----------------------------------------
# On the messages whose truth is known, we compare three thresholds with two rules that need no
# model. 0.5 is what a classifier does if nobody asks about money. The best threshold was chosen on
# these very messages, so it looks a little better than it is. If the probabilities are right, it
# lies near the break-even.
shown = None
if messages:
    title, counts = messages[0].title, messages[0].counts
    shown = dashboard.figures(counts, threshold=0.5)
    print(f"{title}: {shown.messages:,} messages")
    for name, threshold in (("", 0.5), ("best", shown.best), ("break-even", break_even)):
        row = dashboard.figures(counts, threshold)
        cells = f"TP {row.tp:5,}  TN {row.tn:5,}  FP {row.fp:5,}  FN {row.fn:5,}"
        print(f"threshold {row.threshold:.2f} {name:10} {cells}  net {row.net:10,.0f}")
    print(f"{'never act':64} net {shown.net_never:10,.0f}")
    print(f"{'always act':64} net {shown.net_always:10,.0f}")
elif run is not None:
    print("The truth of no day is known yet: it comes one day later")

# %%
#
# The page
# --------
# In CML, make an application of this script: it is shown at a subdomain of the workbench. Type your
# own prices there, move the threshold, and choose a day.
if shown is not None:
    print(
        f"Done: net {shown.net_best:,.0f} at {shown.best:.2f}, {shown.net:,.0f} at 0.50", end="; "
    )
    print(f"never act {shown.net_never:,.0f}, always act {shown.net_always:,.0f}")
elif run is not None:
    print(f"Done: measured up to day {board['day']}; no net revenue before the first truth")
if args.print_only:
    print("Look at: the page, with  python code/telco/08_model_roi_dashboard.py")
    print(f"Open the UI: {store.how_to_open_ui(store.run_page(run, 'artifacts/dashboard.json'))}")

# %%
#
# A server that ends with this lesson
# -----------------------------------
# In CML this lesson runs in a kernel, where the server of Dash would return at once. So it is a
# child process, `cml/roi_dashboard.py`, and this cell waits for it. The child ends when this one
# does, even if that is killed. A reload of the page shows what has been monitored meanwhile.
if not args.print_only:
    again = "python code/telco/08_model_roi_dashboard.py"
    port = applications.port(f"CDSW_APP_PORT={{port}} {again}")
    applications.domain()  # a wrong name is reported here, before anything is started
    print(f"Look at: http://127.0.0.1:{port}, in CML under Applications")
    program = str(workarea.root() / "cml" / "roi_dashboard.py")
    applications.serve(program, number=port, told="The page answers", again=again)
