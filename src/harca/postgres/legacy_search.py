"""HARCA's search functions, answered from the rows that came over, by their index.

They keep name, arguments and result; what they answer becomes correct
(docs/consolidation.md).
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from harca.postgres.digest import composed
from harca.postgres.legacy import LegacyTable
from harca.postgres.space_index import capabilities

_SPELLED = {"int4": "integer", "float8": "double precision"}


@dataclass(frozen=True, slots=True)
class _Answer:
    """How one of them makes its answer; ``$n`` are its own arguments.

    Attributes:
        wanted: How many rows.
        passed: What the inner statements take as ``$3``.
    """

    table: str
    arguments: str
    result: str
    wanted: str
    what: str
    columns: str
    passed: str
    filter: str = ""
    threshold: str = ""


_ANSWERS = {
    "search_embeddings": _Answer(
        table="embeddings",
        arguments="vector, integer, jsonb",
        result="TABLE(id uuid, content text, similarity double precision, metadata jsonb)",
        wanted="$2",
        what="1 - cosine distance, nearest first; metadata_filter as containment",
        filter=" AND ($3 IS NULL OR s.metadata @> $3)",
        passed=", $3",
        columns="s.id, s.content, s.similarity, s.metadata",
    ),
    "match_documents": _Answer(
        table="code_vectors",
        arguments="vector, double precision, integer",
        result="TABLE(id uuid, content text, metadata jsonb, similarity double precision)",
        wanted="$3",
        what="1 - cosine distance above match_threshold, nearest first",
        passed=", $2",
        columns="s.id, s.content, s.metadata, s.similarity",
        threshold="WHERE s.similarity > $3 AND s.similarity <> ''NaN'' ",
    ),
}


@dataclass(frozen=True, slots=True)
class SearchFunction:
    """One as it was found.

    Attributes:
        arguments: With names and defaults.
        definition: The statement that makes it again.
    """

    schema: str
    name: str
    arguments: str
    definition: str
    is_definer: bool

    def replacement(
        self, conn: psycopg.Connection[Any], rows: sql.Identifier, *, vectors: str, model_id: str
    ) -> sql.Composed:
        """Return the statement that makes it search *rows*.

        Args:
            vectors: Schema of the extension.
            model_id: Label of the rows, by which their space's index is found.
        """
        can = capabilities(conn)
        answer = _ANSWERS[self.name]
        settings = ["SECURITY DEFINER"] if self.is_definer else []
        if can.hnsw:
            settings.append("SET hnsw.ef_search = 100")
        if can.iterative_scan:
            settings.append("SET hnsw.iterative_scan = strict_order")
        quoted = rows.as_string(conn).replace("'", "''").replace("%", "%%")
        return composed(
            "legacy_search",
            what=sql.SQL(answer.what),
            function=sql.Identifier(self.schema, self.name),
            arguments=sql.SQL(self.arguments),
            result=sql.SQL(answer.result),
            settings=sql.SQL(" ".join(settings)),
            vectors=sql.Identifier(vectors),
            wanted=sql.SQL(answer.wanted),
            rows=sql.SQL(quoted),
            filter=sql.SQL(answer.filter),
            passed=sql.SQL(answer.passed),
            columns=sql.SQL(answer.columns),
            threshold=sql.SQL(answer.threshold),
            model_id=sql.Literal(model_id),
        )


def find(conn: psycopg.Connection[Any], table: LegacyTable, schema: str) -> list[SearchFunction]:
    """Return those in *schema* that search *table* as HARCA's do, and may be replaced.

    None where the table has policies: the functions go on through the view, which respects
    them.
    """
    if table.row_security:
        return []
    found = conn.execute(
        "SELECT proname, pg_get_function_arguments(p.oid), pg_get_functiondef(p.oid), prosecdef, "
        "pg_get_function_result(p.oid), "
        "(SELECT string_agg(t.typname, ', ' ORDER BY a.n) FROM unnest(p.proargtypes::oid[]) "
        "WITH ORDINALITY a (type, n) JOIN pg_type t ON t.oid = a.type) "
        "FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace "
        "WHERE nspname = %s AND proname = ANY (%s) AND prokind = 'f' "
        "AND pg_has_role(proowner, 'USAGE')",
        [schema, list(_ANSWERS)],
    ).fetchall()
    functions = []
    for name, arguments, definition, is_definer, result, types in found:
        answer = _ANSWERS[name]
        spelled = ", ".join(_SPELLED.get(one, one) for one in (types or "").split(", "))
        if (answer.table, answer.arguments, answer.result) == (table.name, spelled, result):
            functions.append(SearchFunction(schema, name, arguments, definition, is_definer))
    return functions
