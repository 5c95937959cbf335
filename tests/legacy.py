"""HARCA's old tables as its scripts and an import left them, in any schema; what they hold."""

import json
import os
import subprocess
import sys
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from harca import embedded
from harca.postgres.connect import Database, target_environment

_EMBEDDINGS = """
CREATE TABLE embeddings (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    content text NOT NULL,
    embedding jsonb,
    metadata jsonb,
    created_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX embeddings_metadata_idx ON embeddings USING gin (metadata);
CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = CURRENT_TIMESTAMP;
    RETURN NEW;
END
$$;
CREATE TRIGGER update_embeddings_updated_at BEFORE UPDATE ON embeddings
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
"""

_VECTOR_COLUMN = """
ALTER TABLE embeddings ADD COLUMN embedding_vector vector(1536);
CREATE INDEX embedding_vector_idx ON embeddings
    USING ivfflat (embedding_vector vector_l2_ops) WITH (lists = 100);
CREATE FUNCTION convert_json_to_vector() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.embedding IS NOT NULL THEN
        NEW.embedding_vector = (
            SELECT array_agg(value::real) FROM jsonb_array_elements_text(NEW.embedding)
        )::vector;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER embedding_to_vector BEFORE INSERT OR UPDATE OF embedding ON embeddings
    FOR EACH ROW EXECUTE FUNCTION convert_json_to_vector();
CREATE FUNCTION search_embeddings(
    query_vector vector, limit_val integer DEFAULT 10, metadata_filter jsonb DEFAULT NULL
) RETURNS TABLE (id uuid, content text, similarity double precision, metadata jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT e.id, e.content, 1 - (e.embedding_vector <-> query_vector), e.metadata
    FROM embeddings e
    WHERE metadata_filter IS NULL OR e.metadata @> metadata_filter
    ORDER BY e.embedding_vector <-> query_vector LIMIT limit_val;
END
$$;
"""

_CODE_VECTORS = """
CREATE TABLE code_vectors (
    id uuid {key} DEFAULT gen_random_uuid(),
    content text NOT NULL,
    embedding {vector},
    metadata jsonb,
    created_at timestamptz DEFAULT now()
);
"""

_MATCH_DOCUMENTS = """
CREATE FUNCTION match_documents(
    query_embedding vector(1536), match_threshold double precision, match_count integer
) RETURNS TABLE (id uuid, content text, metadata jsonb, similarity double precision)
LANGUAGE sql AS $$
    SELECT c.id, c.content, c.metadata, 1 - (c.embedding <=> query_embedding)
    FROM code_vectors c
    WHERE 1 - (c.embedding <=> query_embedding) > match_threshold
    ORDER BY 1 - (c.embedding <=> query_embedding) DESC LIMIT match_count
$$;
"""

EMBEDDINGS = {
    "jsonb only": _EMBEDDINGS,
    "jsonb and vector": _EMBEDDINGS + _VECTOR_COLUMN,
}
CODE_VECTORS = {
    "setup script": _CODE_VECTORS.format(key="PRIMARY KEY", vector="vector(1536) NOT NULL")
    + _MATCH_DOCUMENTS,
    "introspected": _CODE_VECTORS.format(key="NOT NULL", vector="vector(1536)"),
    "imported": _CODE_VECTORS.format(key="NOT NULL", vector="vector") + _MATCH_DOCUMENTS,
}

DIMS = 1536


def create(conn: psycopg.Connection[Any], *scripts: str, schema: str = "public") -> None:
    """Run HARCA's scripts as they were run: unqualified, the extension beside the tables."""
    conn.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    conn.execute(f"SET search_path = {schema}, public")
    conn.execute(f"CREATE EXTENSION IF NOT EXISTS vector SCHEMA {schema}")
    for script in scripts:
        conn.execute(script)


def unit(axis: int, dims: int = DIMS) -> list[float]:
    """Return the vector along *axis*, bent a little so that no two of them are at right angles."""
    return [1.0 if at == axis else 0.001 * ((at * 7 + axis) % 11) for at in range(dims)]


def insert_embedding(
    conn: psycopg.Connection[Any], content: str, vector: Any, **metadata: Any
) -> Any:
    """Insert as HARCA does; return the id."""
    (key,) = conn.execute(
        "INSERT INTO embeddings (content, embedding, metadata) "
        "VALUES (%s, %s::jsonb, %s::jsonb) RETURNING id",
        [content, json.dumps(vector), json.dumps(metadata)],
    ).fetchall()[0]
    return key


def insert_code(conn: psycopg.Connection[Any], content: str, vector: Any, **metadata: Any) -> Any:
    """Insert as HARCA does where there is no `embeddings`; return the id."""
    (key,) = conn.execute(
        "INSERT INTO code_vectors (content, embedding, metadata) "
        "VALUES (%s, %s::vector, %s::jsonb) RETURNING id",
        [content, json.dumps(vector), json.dumps(metadata)],
    ).fetchall()[0]
    return key


def schema_dump(database: Database) -> list[str]:
    """Return the schema, but for harca's own objects and what is random in it."""
    dumped = subprocess.run(
        [embedded.binary("pg_dump"), "--schema-only", "--exclude-table=*.vector_embeddings",
         "--exclude-table=*.load_*", "--exclude-table=*.rejections", "--exclude-table=*.superseded",
         "--exclude-table=*.alembic_version*"],
        env={**os.environ, **target_environment(conninfo_to_dict(database.conninfo))},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [line for line in dumped.splitlines() if line and not line.startswith(("\\", "--"))]


def everything(conn: psycopg.Connection[Any], table: str) -> list[tuple[object, ...]]:
    found = conn.execute(f"SELECT t::text FROM {table} t ORDER BY id, created_at")
    return list(found)


def mirrored(conn: psycopg.Connection[Any], store: str) -> dict[str, str]:
    found = conn.execute(
        "SELECT store_key, content FROM vector_embeddings WHERE store = %s", [store]
    )
    return dict(found.fetchall())


def killed_at(
    database: Database,
    where: str,
    *,
    command: str = "migrations.upgrade",
) -> None:
    """Run *command* in a process of its own, which dies where function *where* is called."""
    owner, _, name = where.rpartition(".")
    program = (
        "import os\n"
        "from harca import consolidate, migrations\n"
        "from harca.postgres import legacy_mirror, legacy_rows, legacy_swap\n"
        "from harca.postgres.connect import database\n"
        f"setattr({owner}, {name!r}, lambda *_, **__: os._exit(9))\n"
        f"{command}(database())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HARCA_DATABASE_URL": database.conninfo},
        check=False,
    )
    assert done.returncode == 9
