"""How a space is searched, where somebody has measured or said so: kept with the space.

Without settings harca chooses by the number of rows and dimensions, see `space_index`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from harca.model import Space

EXACT = "exact"

_COLUMNS = ("method", "type", "parameters", "effort", "embedder", "measured")


@dataclass(frozen=True, slots=True)
class Effort:
    """What a search by index is given; None leaves it to harca.

    Attributes:
        ef_search: Of HNSW: candidates that the graph search keeps.
        probes: Of ivfflat: lists that are looked through.
        candidates: Rows taken from the index, to be put in order by their exact distance.
        k: For how many results these were enough.
    """

    ef_search: int | None = None
    probes: int | None = None
    candidates: int | None = None
    k: int | None = None

    def as_dict(self) -> dict[str, int]:
        """Return what is given."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SpaceSettings:
    """The settings of one space.

    Attributes:
        method: ``hnsw`` or ``ivfflat``; ``exact`` is no index; None: as harca chooses.
        type: What the index holds: ``vector``, ``halfvec`` or ``bit``.
        parameters: Of the index: ``m``, ``ef_construction``, ``lists``.
        embedder: Who embeds texts for the space, such as ``openai:text-embedding-3-small``.
        measured: What `harca index advise` found: recall, p50_ms, rows and so on.
    """

    method: str | None = None
    type: str | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    effort: Effort = Effort()
    embedder: str | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)


_SELECT = (
    "SELECT method, type, parameters, effort, embedder, measured, model_id, dims "
    "FROM space_settings"
)
# What belongs to a space's index, without which it means nothing.
_OF_INDEX: dict[str, Any] = {
    "method": None, "type": None, "parameters": {}, "effort": {}, "measured": {},
}  # fmt: skip


def settings_of(conn: psycopg.Connection[Any], space: Space) -> SpaceSettings:
    """Return the settings of *space*: nothing in them if nobody has said anything."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(f"{_SELECT} WHERE model_id = %s AND dims = %s", [space.model_id, space.dims])
        row = cursor.fetchone()
    return SpaceSettings() if row is None else _settings(**row)


def all_settings(conn: psycopg.Connection[Any]) -> dict[tuple[str, int], SpaceSettings]:
    """Return the settings by model and dims; none where the schema is older than they are."""
    if not are_there(conn):
        return {}
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_SELECT)
        return {(row["model_id"], row["dims"]): _settings(**row) for row in cursor}


def are_there(conn: psycopg.Connection[Any]) -> bool:
    """Say whether the schema has settings."""
    return conn.execute("SELECT WHERE to_regclass('space_settings') IS NOT NULL").rowcount == 1


def _settings(*, model_id: str, dims: int, effort: Mapping[str, int], **row: Any) -> SpaceSettings:
    return SpaceSettings(**row, effort=Effort(**effort))


def keep(conn: psycopg.Connection[Any], space: Space, **changes: Any) -> None:
    """Keep *changes* of the settings of *space*: fields of `SpaceSettings`, the others stay."""
    conn.execute(keeping(space, **changes))


def keeping(space: Space, **changes: Any) -> sql.Composed:
    """Return the statement that keeps *changes*, complete, as a script has it."""
    assert changes
    assert set(changes) <= set(_COLUMNS), changes
    return sql.SQL(
        "INSERT INTO space_settings (model_id, dims, {names}) "
        "VALUES ({model_id}, {dims}, {values}) ON CONFLICT (model_id, dims) "
        "DO UPDATE SET updated_at = CURRENT_TIMESTAMP, {changes}"
    ).format(
        names=_listed(sql.Identifier(name) for name in changes),
        model_id=sql.Literal(space.model_id),
        dims=sql.Literal(space.dims),
        values=_listed(sql.Literal(_stored(name, value)) for name, value in changes.items()),
        changes=_listed(
            sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in changes
        ),
    )


def _stored(name: str, value: Any) -> Any:
    if isinstance(value, Effort):
        value = value.as_dict()
    return Jsonb(dict(value)) if name in ("parameters", "effort", "measured") else value


def _listed(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def forget_index(conn: psycopg.Connection[Any], space: Space) -> None:
    """Forget what is kept of the index of *space*, and of searches by it: harca chooses again."""
    for statement in forgetting_index(space):
        conn.execute(statement)


def forgetting_index(space: Space) -> list[sql.Composed]:
    """Return the statements that forget it, complete, as a script has them."""
    of_space = sql.SQL("WHERE model_id = {} AND dims = {}").format(
        sql.Literal(space.model_id), sql.Literal(space.dims)
    )
    changes = _listed(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(_stored(name, value)))
        for name, value in _OF_INDEX.items()
    )
    return [
        sql.SQL("UPDATE space_settings SET updated_at = CURRENT_TIMESTAMP, {} {}").format(
            changes, of_space
        ),
        sql.SQL("DELETE FROM space_settings {} AND embedder IS NULL").format(of_space),
    ]


def forget(conn: psycopg.Connection[Any], space: Space) -> None:
    """Forget all settings of *space*: harca chooses again."""
    conn.execute(
        "DELETE FROM space_settings WHERE model_id = %s AND dims = %s",
        [space.model_id, space.dims],
    )
