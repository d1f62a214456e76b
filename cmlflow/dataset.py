"""A snapshot as an MLflow dataset: `mlflow.data.from_iceberg`, `mlflow.data.get_source`.

MLflow imports this module itself, by the package's entry points, while it imports `mlflow.data`.
Use it through `mlflow.data`: imported before MLflow, it would meet itself half-way.
"""

# No `from __future__ import annotations` here: MLflow reads the return type of `from_iceberg`.
import json
import warnings
from typing import TYPE_CHECKING, Any

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource

from cmlflow import increments
from cmlflow.errors import BadInput, SnapshotNotFound, WrongCatalog
from cmlflow.snapshots import Snapshot, by_id, require_id, require_name

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import DatasetInput, Run
    from mlflow.types import Schema
    from pyspark.sql import DataFrame


class IcebergSource(DatasetSource):
    """Where the rows of an MLflow dataset are: one snapshot of one Iceberg table, or an increment.

    MLflow finds this class by the entry point `mlflow.dataset_source` of the package, so that
    `mlflow.data.get_source(run.inputs.dataset_inputs[0])` works in any process.

    Attributes:
        table: catalog, namespace and name, for example `spark_catalog.default.training`.
        snapshot_id: digits, as text.
        catalog: see `Snapshot.catalog`. In CML `load` takes it for the data connection, unless
            CONNECTION_NAME names another.
        start_snapshot_id: digits, as text: only what was appended after this snapshot; None for
            all rows.
    """

    def __init__(
        self, table: str, snapshot_id: str, catalog: str, start_snapshot_id: "str | None" = None
    ) -> None:
        require_name(table)  # it comes back from a store
        for one in (snapshot_id, start_snapshot_id or snapshot_id):
            require_id(one)
        self.table, self.snapshot_id, self.catalog = table, snapshot_id, catalog
        self.start_snapshot_id = start_snapshot_id

    @property
    def digest(self) -> str:
        """The snapshot id; for an increment, a hyphen and its start in hexadecimal after it.

        MLflow takes two datasets of one name and digest for the same, and forgets the second
        source; and it takes 36 characters at most.
        """
        start = self.start_snapshot_id
        return f"{self.snapshot_id}-{int(start):x}" if start else self.snapshot_id

    def load(self) -> "DataFrame":
        """Return exactly the rows of the snapshot or the increment, in no particular order.

        Raises:
            SnapshotNotFound: the catalog has no such table, or the table no such snapshot any
                more; the message lists those that it has.
            WrongCatalog: the same, in another catalog than the one that the source names.
        """
        from cmlflow.spark import catalog_of, start_spark

        spark = start_spark(self.catalog)
        here = catalog_of(spark)
        try:
            end = by_id(spark, self.table, self.snapshot_id)
            if self.start_snapshot_id:
                increments.appended_rows(spark, end, self.start_snapshot_id)
                ends = (self.start_snapshot_id, self.snapshot_id)
                return increments.read(spark, self.table, *ends)
        except SnapshotNotFound as error:
            if here == self.catalog:
                raise
            raise WrongCatalog(
                f"Snapshot {self.snapshot_id} of {self.table} is not in {here}.",
                f"the catalog in which it was written, {self.catalog}",
                "To choose it, set the environment variable:  CONNECTION_NAME=<name> in CML, "
                "CMLFLOW_WORKAREA=<folder> on a laptop",
            ) from error
        return spark.sql(f"SELECT * FROM {self.table} VERSION AS OF {self.snapshot_id}")

    def to_dict(self) -> dict[str, str]:
        """Return table, snapshot ids and catalog: names only, never a credential."""
        named = {"table": self.table, "snapshot_id": self.snapshot_id, "catalog": self.catalog}
        start = self.start_snapshot_id
        return named | ({"start_snapshot_id": start} if start else {})

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> "IcebergSource":
        """Return the source that `to_dict` described.

        Raises:
            BadInput: table, snapshot_id or catalog is missing, or one is not what it should be.
        """
        parts = [source_dict.get(name) for name in ("table", "snapshot_id", "catalog")]
        start = source_dict.get("start_snapshot_id")
        if not all(isinstance(part, str) for part in [*parts, start or ""]):
            raise BadInput(
                f"{json.dumps(source_dict, default=str)} does not describe an Iceberg snapshot.",
                "table, snapshot_id and catalog, each a text",
                "To see what a run names, open its page in the UI and click the dataset.",
            )
        return cls(*parts, start)

    @classmethod
    def from_tags(cls, tags: dict[str, str]) -> "IcebergSource":
        """Return the source that a run's tags name, see `Snapshot.tags`; raises as `from_dict`."""
        names = {
            "table": "training_table",
            "snapshot_id": "iceberg_snapshot_id",
            "catalog": "iceberg_catalog",
            "start_snapshot_id": "iceberg_start_snapshot_id",
        }
        return cls.from_dict({name: tags.get(tag) for name, tag in names.items()})

    @staticmethod
    def _get_source_type() -> str:
        return "iceberg"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False  # no other object turns into a snapshot by itself

    @classmethod
    def _resolve(cls, raw_source: Any) -> "IcebergSource":
        raise NotImplementedError("An IcebergSource is made from a table and a snapshot id.")


class IcebergDataset(Dataset):
    """The rows of a snapshot or an increment, for `mlflow.log_input`; made by `from_iceberg`."""

    def __init__(
        self, source: IcebergSource, schema: "Schema", row_count: int, name: str, digest: str
    ) -> None:
        self._schema, self._row_count = schema, row_count
        super().__init__(source, name, digest)

    @property
    def schema(self) -> "Schema":
        """Columns with their types."""
        return self._schema

    @property
    def profile(self) -> dict[str, int]:
        """The number of rows."""
        return {"num_rows": self._row_count}

    def to_dict(self) -> dict[str, str]:
        """Return what MLflow stores: texts, the schema and the profile as JSON."""
        return super().to_dict() | {
            "schema": json.dumps({"mlflow_colspec": self.schema.to_dict()}),
            "profile": json.dumps(self.profile),
        }

    def _compute_digest(self) -> str:
        return self.source.digest


def training_dataset(run: "Run") -> "DatasetInput | None":
    """Return the Iceberg dataset that a run was trained on; None if it names none.

    A dataset with another context than `training` is passed over, one without a context is not.
    """
    for used in getattr(run.inputs, "dataset_inputs", []):  # not every store keeps inputs
        context = {tag.key: tag.value for tag in used.tags}.get("mlflow.data.context", "training")
        if used.dataset.source_type == "iceberg" and context == "training":
            return used
    return None


def from_iceberg(
    rows: "pd.DataFrame | DataFrame",
    snapshot: Snapshot,
    name: str | None = None,
    digest: str | None = None,
    start_snapshot_id: str | None = None,
    row_count: int | None = None,
) -> IcebergDataset:
    """Describe one snapshot as an MLflow dataset, for `mlflow.log_input`; or an increment.

    Args:
        rows: the rows of the snapshot, or some of them: they tell the columns and their types.
        snapshot: from `current` or `by_id`; its row count is the dataset's.
        name: by default the name of the table.
        digest: by default that of the source; for a whole snapshot this is its id. Then
            `mlflow.search_runs(filter_string="dataset.digest = '<id>'")` finds the models that
            were trained on the snapshot.
        start_snapshot_id: where the rows are an increment: the snapshot after which they came.
        row_count: of the increment; by default that of the snapshot.
    """
    from mlflow.models import infer_signature

    with warnings.catch_warnings():  # a hint on integers, which concerns scoring only
        warnings.simplefilter("ignore", UserWarning)
        schema = infer_signature(rows).inputs
    source = IcebergSource(
        snapshot.table, snapshot.snapshot_id, snapshot.catalog, start_snapshot_id
    )
    return IcebergDataset(
        source,
        schema,
        snapshot.row_count if row_count is None else row_count,
        name or snapshot.table,
        digest or source.digest,
    )
