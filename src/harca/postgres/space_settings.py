"""How a space is searched, where somebody has measured or said so: kept with the space.

Without settings harca chooses by the number of rows and dimensions, see `space_index`.
"""

from collections.abc import Mapping
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
    """

    ef_search: int | None = None
    probes: int | None = None
    candidates: int | None = None

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


def settings_of(conn: psycopg.Connection[Any], space: Space) -> SpaceSettings:
    """Return the settings of *space*: nothing in them if nobody has said anything."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT method, type, parameters, effort, embedder, measured FROM space_settings "
            "WHERE model_id = %s AND dims = %s",
            [space.model_id, space.dims],
        )
        row = cursor.fetchone()
    if row is None:
        return SpaceSettings()
    return SpaceSettings(**{**row, "effort": Effort(**row["effort"])})


def keep(conn: psycopg.Connection[Any], space: Space, **changes: Any) -> None:
    """Keep *changes* of the settings of *space*: fields of `SpaceSettings`, the others stay."""
    values = {
        name: Jsonb(value.as_dict() if isinstance(value, Effort) else dict(value))
        if name in ("parameters", "effort", "measured")
        else value
        for name, value in changes.items()
    }
    assert set(values) <= set(_COLUMNS), values
    names = [sql.Identifier(name) for name in values]
    conn.execute(
        sql.SQL(
            "INSERT INTO space_settings (model_id, dims, {names}) "
            "VALUES (%(model_id)s, %(dims)s, {values}) ON CONFLICT (model_id, dims) "
            "DO UPDATE SET updated_at = CURRENT_TIMESTAMP, {changes}"
        ).format(
            names=sql.SQL(", ").join(names),
            values=sql.SQL(", ").join(sql.Placeholder(name) for name in values),
            changes=sql.SQL(", ").join(
                sql.SQL("{0} = EXCLUDED.{0}").format(name) for name in names
            ),
        ),
        {"model_id": space.model_id, "dims": space.dims, **values},
    )


def forget(conn: psycopg.Connection[Any], space: Space) -> None:
    """Forget all settings of *space*: harca chooses again."""
    conn.execute(
        "DELETE FROM space_settings WHERE model_id = %s AND dims = %s",
        [space.model_id, space.dims],
    )
