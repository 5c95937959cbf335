"""The schema at head, for `alembic check`. Revisions spell their tables out themselves."""

import pgvector.sqlalchemy as vec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

FULL_TEXT_INDEX = "vector_embeddings_full_text_idx"

_NOW = sa.text("CURRENT_TIMESTAMP")

vector_embeddings = sa.Table(
    "vector_embeddings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("embedding", vec.VECTOR(), nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=_NOW),
    sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=_NOW),
    sa.Column("source", sa.Text, server_default=sa.text("'unknown'")),
    sa.Column("dims", sa.Integer, sa.Computed("vector_dims(embedding)", persisted=True)),
    sa.Column("store", sa.Text),
    sa.Column("store_key", sa.Text),
    sa.Column("run_id", sa.BigInteger),
    sa.UniqueConstraint("store", "store_key"),
    sa.Index("vector_embeddings_metadata_idx", "metadata", postgresql_using="gin"),
    sa.Index("vector_embeddings_source_idx", "source"),
    sa.Index("vector_embeddings_model_id_dims_idx", "model_id", "dims"),
    sa.Index("vector_embeddings_run_id_idx", "run_id"),
)

load_runs = sa.Table(
    "load_runs",
    metadata,
    sa.Column("run_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("store", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("revision", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("1")),
    sa.Column("options", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("read", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("loaded", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("unchanged", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("superseded", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("rejected", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("notes", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("fingerprint", sa.Text),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
    sa.Column("rolled_back_at", sa.TIMESTAMP(timezone=True)),
    sa.CheckConstraint(
        "status IN ('loading', 'loaded', 'verified', 'different', 'rolled back')", name="status"
    ),
    sa.Index("load_runs_store_idx", "store"),
)

load_batches = sa.Table(
    "load_batches",
    metadata,
    sa.Column("run_id", sa.BigInteger, sa.ForeignKey("load_runs.run_id"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("read", sa.Integer, nullable=False),
    sa.Column("loaded", sa.Integer, nullable=False),
    sa.Column("unchanged", sa.Integer, nullable=False),
    sa.Column("superseded", sa.Integer, nullable=False),
    sa.Column("rejected", sa.Integer, nullable=False),
    sa.Column("first_origin", sa.Text, nullable=False),
    sa.Column("last_origin", sa.Text, nullable=False),
    sa.Column("committed_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
)

rejections = sa.Table(
    "rejections",
    metadata,
    sa.Column("rejection_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("run_id", sa.BigInteger, sa.ForeignKey("load_runs.run_id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("payload", sa.LargeBinary),
    sa.Column("rejected_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
    sa.Index("rejections_run_id_idx", "run_id"),
)

superseded = sa.Table(
    "superseded",
    metadata,
    sa.Column("superseded_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("run_id", sa.BigInteger, sa.ForeignKey("load_runs.run_id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("store", sa.Text, nullable=False),
    sa.Column("store_key", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("embedding", vec.VECTOR(), nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("created_at", sa.TIMESTAMP(timezone=True)),
    sa.Column("source", sa.Text),
    sa.Column("row_id", sa.Integer),
    sa.Column("row_run_id", sa.BigInteger),
    sa.Column("row_updated_at", sa.TIMESTAMP(timezone=True)),
    sa.CheckConstraint("kind IN ('conflict', 'outlived', 'duplicate', 'overwritten')", name="kind"),
    sa.Index("superseded_store_store_key_idx", "store", "store_key"),
    sa.Index("superseded_run_id_idx", "run_id"),
)

legacy_tables = sa.Table(
    "legacy_tables",
    metadata,
    sa.Column("schema_name", sa.Text, primary_key=True),
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("run_id", sa.BigInteger, sa.ForeignKey("load_runs.run_id"), nullable=False),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("kept_in", sa.Text),
    sa.Column("details", JSONB, nullable=False, server_default=sa.text("'{}'")),
)


space_settings = sa.Table(
    "space_settings",
    metadata,
    sa.Column("model_id", sa.Text, primary_key=True),
    sa.Column("dims", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("method", sa.Text),
    sa.Column("type", sa.Text),
    sa.Column("parameters", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("effort", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("embedder", sa.Text),
    sa.Column("measured", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
    sa.CheckConstraint("method IN ('exact', 'hnsw', 'ivfflat')", name="method"),
    sa.CheckConstraint("type IN ('vector', 'halfvec', 'bit')", name="type"),
)

measurements = sa.Table(
    "measurements",
    metadata,
    sa.Column("measurement_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("taken_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("harca", sa.Text, nullable=False),
    sa.Column("server", sa.Text, nullable=False),
    sa.Column("result", JSONB, nullable=False),
    sa.Index("measurements_kind_taken_at_idx", "kind", "taken_at"),
)


def is_ours_to_compare(
    _object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object
) -> bool:
    """Say whether `alembic check` compares an object.

    Indexes on the embeddings are left out: they are built after loading, per space,
    with parameters that depend on the rows; that for full text is built on demand. Tables
    that are not ours belong to the application.
    """
    if kind == "table":
        return name in metadata.tables
    if kind == "index":
        return name is not None and not name.startswith(
            ("vector_embeddings_embedding_idx", "vector_embeddings_ann_", FULL_TEXT_INDEX)
        )
    return True
