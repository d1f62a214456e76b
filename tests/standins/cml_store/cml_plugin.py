"""What MLflow calls for `cml://`; it imports the stores late, when MLflow itself is complete."""


def tracking_store(store_uri=None, artifact_uri=None):
    from cml_store import Tracking

    return Tracking()


def registry_store(store_uri=None, tracking_uri=None):
    from cml_store import Registry

    return Registry()
