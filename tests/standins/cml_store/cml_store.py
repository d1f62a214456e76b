"""Stands in for CML's MLflow plugin: MLflow's file stores behind `cml://localhost`.

As seen in CML: a status has the prefix EXPERIMENT_RUN_, runs come oldest first unless an order is
asked for, and an experiment tells neither its age nor its tags. CML_STORE names the folder of the
stores. Each word in CML_STORE_SWITCHES adds a behaviour that was seen once or is suspected.
"""

import os
from pathlib import Path

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.file_store import FileStore as FileRegistry
from mlflow.store.tracking.file_store import FileStore as FileTracking
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service.client import TrackingServiceClient

SWITCHES = (
    "no-filter",  # search_runs ignores filter_string
    "no-order",  # search_runs ignores order_by
    "no-names",  # runs have no name
    "no-list",  # search_experiments is refused
    "no-delete",  # delete_tag is refused
    "no-datasets",  # log_inputs is refused
    "no-aliases",  # the registry refuses them
    "no-version-search",  # the registry refuses search_model_versions
    "no-late-files",  # a run that has ended takes no more files
    "no-registry",  # there is none
    "experiment-first",  # get_run needs set_experiment in the same process
    "only-set-experiment",  # and so do search_experiments and search_runs
    "stopped-session",  # the data connection hands it out once more, see ../cml/data_v1.py
)
ON = os.environ.get("CML_STORE_SWITCHES", "").split()
FOLDER = Path(os.environ.get("CML_STORE", ".")) / "cml-store"
assert set(ON) <= set(SWITCHES), ON


def refuse_if(switch):
    if switch in ON:
        raise NotImplementedError(f"this store was started with {switch}")


def require_set(experiment_id, *switches):
    if set(switches) & set(ON) and fluent._active_experiment_id != experiment_id:
        raise MlflowException("missing experiment_id")


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


def refuse_late_files(log_artifact):
    def log_if_running(self, run_id, *args, **options):
        if self.get_run(run_id).info.end_time:
            refuse_if("no-late-files")
        return log_artifact(self, run_id, *args, **options)

    return log_if_running


if "no-late-files" in ON:  # files go past the store, so the client itself must refuse them
    TrackingServiceClient.log_artifact = refuse_late_files(TrackingServiceClient.log_artifact)


class Tracking(FileTracking):
    def __init__(self):
        super().__init__(str(FOLDER), FOLDER.with_name("cml-artifacts").as_uri())

    def get_experiment_by_name(self, experiment_name):
        found = FileTracking.search_experiments(self, ViewType.ALL)
        named = [one for one in found if one.name == experiment_name]
        return without_details(named[0] if named else None)

    def search_experiments(self, *args, **options):
        refuse_if("no-list")
        found = super().search_experiments(*args, **options)
        if "only-set-experiment" in ON:
            found[:] = [one for one in found if one.experiment_id == fluent._active_experiment_id]
        return found

    def create_run(self, *args, **options):
        run = super().create_run(*args, **options)
        as_cml_tells_it(run.info)
        return run

    def update_run_info(self, *args, **options):
        return as_cml_tells_it(super().update_run_info(*args, **options))

    def get_run(self, run_id):
        run = super().get_run(run_id)
        require_set(run.info.experiment_id, "experiment-first", "only-set-experiment")
        as_cml_tells_it(run.info)
        return run

    def _search_runs(self, experiment_ids, filter_string, view, limit, order_by, token):
        for experiment_id in experiment_ids:
            require_set(experiment_id, "only-set-experiment")
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

    def log_inputs(self, *args, **options):
        refuse_if("no-datasets")
        return super().log_inputs(*args, **options)


class Registry(FileRegistry):
    def __init__(self):
        if "no-registry" in ON:
            raise MlflowException("this workbench has no model registry")
        super().__init__(str(FOLDER))

    def search_model_versions(self, *args, **options):
        refuse_if("no-version-search")
        return super().search_model_versions(*args, **options)

    def set_registered_model_alias(self, *args, **options):
        refuse_if("no-aliases")
        return super().set_registered_model_alias(*args, **options)
