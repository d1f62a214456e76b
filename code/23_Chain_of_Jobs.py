"""
23 - A chain of jobs: train, promote, redeploy

You learn  a script as a job, children that start after their parent, options as variables
Reads      the scripts of the steps: 01_Experiment.py, 05_Auto_Model_Registration.py,
           22_Promote_Model.py and 20_Deploy_Model.py
Writes     what those scripts write; in CML four jobs, found by name or created
Needs      05_Auto_Model_Registration.py; about 40 seconds, in CML 15 to 40 minutes
Run        python code/23_Chain_of_Jobs.py [--alpha 0.005]
"""

# %%
#
# An experiment as a job
# ----------------------
# A job runs a script of the project without you: on a schedule, or when another job has ended. It
# is a script that already exists, unchanged. Options are given as environment variables,
# `CMLFLOW_ALPHA` for `--alpha`, because a job may ignore arguments. In CML the job is found by its
# name or created; on a laptop the script runs in a process of its own.
from cmlflow import jobs, options

parser = options.parser()
help_alpha = "strength of the penalty of the model that the chain trains"
parser.add_argument("--alpha", type=options.number(0), default=0.005, help=help_alpha)
args = parser.parse_args()

experiment = jobs.Step("tutorial-experiment", "code/01_Experiment.py")
print(f"To run as a job: {experiment.script}")


def show(outcomes):
    """Print a table of the steps, and raise if one of them has failed."""
    for one in outcomes:
        print(f"{one.step.name:20} {one.state:10} {one.seconds:6.1f} s")
    jobs.require_success(outcomes)


show(jobs.run_chain([experiment]))

# %%
#
# Three steps, each a script
# --------------------------
# The first trains a model and registers it as challenger. The second judges it and moves the
# alias champion if it is better. The third deploys the champion: the new one, or again the one
# that serves already. Each of them can run by itself. The first adds a version each time; the
# other two do nothing twice.
chain = [
    jobs.Step(
        "tutorial-train",
        "code/05_Auto_Model_Registration.py",
        {"CMLFLOW_ALPHA": str(args.alpha), "CMLFLOW_ALIAS": "challenger"},
    ),
    jobs.Step("tutorial-promote", "code/22_Promote_Model.py", {"CMLFLOW_MODE": "on"}),
    jobs.Step("tutorial-redeploy", "code/20_Deploy_Model.py"),
]
for step in chain:
    print(f"{step.name:20} {step.script:40} {step.environment or ''}")

# %%
#
# Run the chain
# -------------
# In CML only the first job is started here. The workbench starts each of the others when its parent
# has succeeded, also tonight, if you give the first one a schedule. After a failure the rest does
# not run, so a model that did not pass is never deployed.
outcomes = jobs.run_chain(chain)
show(outcomes)

# %%
#
# What did it do?
# ---------------
# Each step says it in its line `Done:`. Run the chain again: a model with the same params is no
# better than the champion, so the champion stays and the endpoint is not touched.
for one in outcomes:
    print(f"{one.step.name}: {one.told or 'see its log'}")
print(
    f"Done: {', '.join(one.step.name for one in outcomes)}: all succeeded\n"
    "Look at: in CML the page Jobs; on a laptop what the steps logged, with:  make ui"
)
