"""HARCA's two old tables, `embeddings` and `code_vectors`: where they are, and in which shape.

``code_vectors`` is known in three shapes and ``embeddings`` in two; with the extension they
may be in any schema. A table with these names and another shape is somebody else's.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from harca.postgres.digest import query

FORMAT = "postgresql-table"
KEPT = "legacy"

_KEPT_LIKE = r"legacy(_.*)?"
_JSON = ("jsonb",)  # json can hold what jsonb cannot, and no script of HARCA's has it
_TIMES = ("timestamptz", "timestamp")
_SECURITY_INVOKER = 150000
_MOST_DIMS = 16_000  # VECTOR_MAX_DIM, pgvector src/vector.h


@dataclass(frozen=True, slots=True)
class LegacyTable:
    """One of the two, as the catalogues describe it.

    Attributes:
        types: Type by column.
        has_key: Whether something keeps ``id`` unique.
        publications: That replicate it, by name.
        dependents: What uses it: views, foreign keys, policies, triggers, functions.
    """

    schema: str
    name: str
    kind: str
    owner: str
    is_owned: bool
    can_create: bool
    hides_rows: bool
    row_security: bool
    inherits: bool
    has_rules: bool
    has_key: bool
    publications: tuple[str, ...]
    types: dict[str, str]
    columns: tuple[str, ...]
    not_null: frozenset[str]
    dependents: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name of its store in ``vector_embeddings``, of where it was found."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """The table in a statement."""
        return sql.Identifier(self.schema, self.name)

    @property
    def is_ours(self) -> bool:
        """Whether it has the columns of one of the known shapes."""
        vectors = self.types.get("embedding") in (*_JSON, "vector") or (
            self.types.get("embedding_vector") == "vector"
        )
        return (
            self.types.get("id") == "uuid"
            and "id" in self.not_null
            and self.types.get("content") in ("text", "varchar")
            and self.types.get("metadata", "jsonb") in _JSON
            and vectors
        )

    def obstacles(self, server_version: int) -> list[str]:
        """Return why it cannot be consolidated without changing what it does."""
        found = []
        if self.kind == "p" or self.inherits:
            found.append("it is partitioned, or inherits")
        if self.has_rules:
            found.append("it has rules, which rewrite statements")
        if self.publications:
            found.append(
                f"it is replicated by the publication {', '.join(self.publications)}, whose "
                "subscribers know it by its present name"
            )
        if self.row_security and server_version < _SECURITY_INVOKER:
            found.append("it has row level security, which views respect from PostgreSQL 15 on")
        if not self.can_create:
            found.append(
                f"the role, or the table's owner, may not create a view in schema {self.schema}"
            )
        if self.hides_rows:
            found.append("its policies hide rows from the role, by FORCE ROW LEVEL SECURITY")
        return found

    def reading(self, row: str) -> dict[str, sql.Composable]:
        """Return the expressions that make a row of ``vector_embeddings`` of one of *row*.

        ``reason`` is NULL for a row that can come over, else a reason code of
        `harca.model.Reason`; ``differs`` is true where jsonb and vector disagree.
        """

        def column(name: str) -> sql.Composable:
            return sql.SQL(row + ".{}").format(sql.Identifier(name))

        null = sql.SQL("NULL")
        vectors = [
            column(name)
            for name in ("embedding_vector", "embedding")
            if self.types.get(name) == "vector"
        ]
        written = None
        if self.types.get("embedding") in _JSON:
            written = sql.SQL("{}::jsonb").format(column("embedding"))
            vectors.append(sql.SQL("vector_of_json({})").format(written))
        embedding = sql.SQL("coalesce({})").format(sql.SQL(", ").join(vectors))
        metadata = (
            sql.SQL("{}::jsonb").format(column("metadata"))
            if "metadata" in self.types
            else sql.SQL("NULL::jsonb")
        )
        times = {
            name: sql.SQL("{}::timestamptz").format(column(name))
            for name in ("created_at", "updated_at")
            if self.types.get(name) in _TIMES
        }
        created_at = times.get("created_at", sql.SQL("NULL::timestamptz"))
        differs: sql.Composable = sql.SQL("false")
        if written is not None and len(vectors) > 1:
            differs = sql.SQL(
                "coalesce(jsonb_typeof({written}) <> 'null' AND {vector} IS NOT NULL AND "
                "vector_send({vector}) IS DISTINCT FROM vector_send(vector_of_json({written})), "
                "false)"
            ).format(written=written, vector=vectors[0])
        return {
            "content": column("content"),
            "embedding": embedding,
            "metadata": sql.SQL("coalesce(nullif({}, 'null'), '{{}}')").format(metadata),
            "created_at": created_at,
            "updated_at": times.get("updated_at", created_at),
            "reason": _reason(column("content"), embedding, metadata, written or null),
            "differs": differs,
        }


def _reason(
    content: sql.Composable,
    embedding: sql.Composable,
    metadata: sql.Composable,
    written: sql.Composable,
) -> sql.Composed:
    return sql.SQL(
        "CASE WHEN {content} IS NULL THEN 'no-text' "
        "WHEN jsonb_typeof({metadata}) NOT IN ('object', 'null') THEN 'metadata-not-object' "
        "WHEN {embedding} IS NOT NULL THEN NULL "
        "WHEN {written} IS NULL OR {written} = 'null'::jsonb THEN 'no-vector' "
        "WHEN jsonb_typeof({written}) <> 'array' THEN 'not-a-vector' "
        "WHEN jsonb_array_length({written}) = 0 THEN 'empty-vector' "
        "WHEN jsonb_array_length({written}) > {most} THEN 'too-many-dims' "
        "ELSE 'not-a-vector' END"
    ).format(
        content=content,
        embedding=embedding,
        metadata=metadata,
        written=sql.SQL("({})::jsonb").format(written),
        most=sql.Literal(_MOST_DIMS),
    )


def find(conn: psycopg.Connection[Any]) -> list[LegacyTable]:
    """Return relations called like the two, in the schemas where HARCA may have made them."""
    return _described(
        conn,
        "SELECT nspname FROM pg_namespace WHERE nspname !~ %s AND (nspname IN ('public', 'harca') "
        "OR nspname = ANY (current_schemas(false)))",
        f"^{_KEPT_LIKE}$",
    )


def kept_in(conn: psycopg.Connection[Any], schema: str) -> list[LegacyTable]:
    """Return those of the two that are in *schema*."""
    return _described(conn, "SELECT nspname FROM pg_namespace WHERE nspname = %s", schema)


def _described(conn: psycopg.Connection[Any], schemas: str, argument: str) -> list[LegacyTable]:
    names = [name for (name,) in conn.execute(schemas, [argument])]
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query("legacy_tables"), {"schemas": names})
        return [
            LegacyTable(
                **{
                    **row,
                    "publications": tuple(row["publications"]),
                    "columns": tuple(row["columns"]),
                    "not_null": frozenset(row["not_null"]),
                    "dependents": tuple(row["dependents"]),
                }
            )
            for row in cursor
        ]
