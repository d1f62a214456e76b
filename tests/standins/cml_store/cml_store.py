"""Stands in for CML's MLflow plugin: the stores behind `cml://localhost`, in a file of one's own.

As seen in CML: a status has the prefix EXPERIMENT_RUN_, runs come oldest first unless an order is
asked for, and an experiment tells neither its age nor its tags. CML_STORE names the folder of
`mlflow.db`. Each word in CML_STORE_SWITCHES adds a behaviour that was seen once or is suspected.
"""

import os
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as SqlRegistry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as SqlTracking
from mlflow.tracking import fluent

SWITCHES = (
    "no-filter",  # search_runs ignores filter_string
    "no-order",  # search_runs ignores order_by
    "no-names",  # runs have no name
    "no-list",  # search_experiments is refused
    "no-delete",  # delete_tag is refused
    "no-aliases",  # the registry refuses them
    "experiment-first",  # get_run needs set_experiment in the same process
)
ON = os.environ.get("CML_STORE_SWITCHES", "").split()
FOLDER = Path(os.environ.get("CML_STORE", "."))
assert set(ON) <= set(SWITCHES), ON


def refuse_if(switch):
    if switch in ON:
        raise NotImplementedError(f"this store was started with {switch}")


def as_cml_tells_it(info):
    info._status = "EXPERIMENT_RUN_" + info.status.removeprefix("EXPERIMENT_RUN_")
    if "no-names" in ON:
        info._run_name = None
    return info


def without_details(experiment):
    if experiment is not None:
        experiment._creation_time = experiment._last_update_time = None
        experiment._tags = {}
    return experiment


class Tracking(SqlTracking):
    is_open = False

    def __init__(self):
        super().__init__(f"sqlite:///{FOLDER}/mlflow.db", str(FOLDER / ".experiments"))
        self.is_open = True

    def get_experiment_by_name(self, experiment_name):
        return without_details(super().get_experiment_by_name(experiment_name))

    def search_experiments(self, *args, **options):
        if self.is_open:  # MLflow 2 itself asks while it opens the file
            refuse_if("no-list")
        return super().search_experiments(*args, **options)

    def create_run(self, *args, **options):
        run = super().create_run(*args, **options)
        as_cml_tells_it(run.info)
        return run

    def update_run_info(self, *args, **options):
        return as_cml_tells_it(super().update_run_info(*args, **options))

    def get_run(self, run_id):
        run = super().get_run(run_id)
        if "experiment-first" in ON and fluent._active_experiment_id != run.info.experiment_id:
            raise MlflowException("missing experiment_id")
        as_cml_tells_it(run.info)
        return run

    def _search_runs(self, experiment_ids, filter_string, view, limit, order_by, token):
        filter_string = None if "no-filter" in ON else filter_string
        order_by = None if "no-order" in ON else order_by
        order_by = order_by or ["attributes.start_time ASC"]
        found = super()._search_runs(experiment_ids, filter_string, view, limit, order_by, token)
        for run in found[0]:
            as_cml_tells_it(run.info)
        return found

    def delete_tag(self, *args, **options):
        refuse_if("no-delete")
        return super().delete_tag(*args, **options)


class Registry(SqlRegistry):
    def __init__(self):
        super().__init__(f"sqlite:///{FOLDER}/mlflow.db")

    def set_registered_model_alias(self, *args, **options):
        refuse_if("no-aliases")
        return super().set_registered_model_alias(*args, **options)
