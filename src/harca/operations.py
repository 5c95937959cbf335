"""What revisions can do by ``op``: load a planned store, make and drop a space's index.

Each operation has its inverse, which ``reverse()`` gives. Importing this registers them
(see ``operation_plugins`` in Alembic's manual). It is imported with Alembic itself, so the
rest of harca is left until an operation runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from alembic.operations import MigrateOperation, Operations
from alembic.util import CommandError

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

    from harca.postgres.space_index import SpaceIndex


@Operations.register_operation("load_store")
class LoadStore(MigrateOperation):
    """Load a store, if it is as it was planned, and prove it."""

    def __init__(
        self,
        store: str,
        revision: str,
        requires_schema: str | None,
        pins: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> None:
        self.store, self.revision, self.requires_schema = store, revision, requires_schema
        self.pins, self.options = pins, options

    @classmethod
    def load_store(
        cls,
        operations: Operations,
        store: str,
        *,
        revision: str,
        requires_schema: str | None = None,
        pins: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Load the store at the path *store*; in harca's data environment only.

        Rows are committed batch by batch on a connection of their own. Returns, so that the
        revision is stamped, when every record is in and compared. Run again after a
        failure, it goes on.

        Args:
            store: ``-x store.<revision>=PATH`` takes its place.
            revision: The revision that calls; what it loads is taken back by this name.
            requires_schema: The schema revision that is needed; by default the first one
                that stores can be loaded into.
            pins: What the store held when it was planned. It is compared before anything
                is written, unless ``-x allow_drift=yes``. None: it is not.
            options: As `harca migrate` takes them: ``name``, ``on_conflict``, ``expired``,
                ``source``, ``model``, ``batch_rows``, ``max_rejects`` and so on.

        Raises:
            HarcaError: Nothing is stamped; see `harca.revisions.load_planned_store`.
            CommandError: In offline mode, and in another environment than harca's.
        """
        operations.invoke(cls(store, revision, requires_schema, pins, options))

    def reverse(self) -> "UnloadStore":
        """Return what takes the store back."""
        return UnloadStore(self.revision, self)


@Operations.register_operation("unload_store")
class UnloadStore(MigrateOperation):
    """Take back what a revision has loaded."""

    def __init__(self, revision: str, loaded: LoadStore | None = None) -> None:
        self.revision, self.loaded = revision, loaded

    @classmethod
    def unload_store(cls, operations: Operations, *, revision: str) -> None:
        """Take back the runs of *revision*: delete their rows, restore what these overwrote.

        Refuses if rows were changed since (``-x changed=keep`` or ``delete``).

        Raises:
            RowsChanged: Some were.
            CommandError: In offline mode, and in another environment than harca's.
        """
        operations.invoke(cls(revision))

    def reverse(self) -> LoadStore:
        """Return what loads the store again.

        Raises:
            ValueError: This is not the reverse of a `LoadStore`, so the store is not known.
        """
        if self.loaded is None:
            raise ValueError(f"which store revision {self.revision} loads is not known")
        return self.loaded


_PARAMETERS = {"hnsw": {"m", "ef_construction"}, "ivfflat": {"lists"}}
_EFFORT = {"hnsw": {"ef_search", "candidates", "k"}, "ivfflat": {"probes", "candidates", "k"}}
_TYPES = ("vector", "halfvec", "bit")


class _VectorIndex(MigrateOperation):
    """An index on one space's embeddings, where harca's search looks for it."""

    def __init__(
        self,
        model_id: str,
        dims: int,
        method: str,
        type: str | None = None,
        *,
        measured: Mapping[str, Any] | None = None,
        **given: int | None,
    ) -> None:
        numbers = {name: value for name, value in given.items() if value is not None}
        if method not in _PARAMETERS:
            raise CommandError(f'index method is "{method}", expected hnsw or ivfflat')
        if type not in (None, *_TYPES):
            raise CommandError(f'index type is "{type}", expected {" or ".join(_TYPES)}')
        if unknown := sorted(numbers.keys() - _PARAMETERS[method] - _EFFORT[method]):
            raise CommandError(f'an {method} index has no parameter "{unknown[0]}"')
        self.model_id, self.dims, self.method, self.type = model_id, dims, method, type
        self.parameters = {name: numbers[name] for name in numbers if name in _PARAMETERS[method]}
        self.effort = {name: numbers[name] for name in numbers if name in _EFFORT[method]}
        self.measured = dict(measured or {})

    @property
    def given(self) -> dict[str, Any]:
        """What it was made of, but for the space."""
        return {
            "method": self.method,
            "type": self.type,
            **self.parameters,
            **self.effort,
            "measured": self.measured,
        }

    def index(self) -> "SpaceIndex":
        """Return the index.

        Raises:
            CommandError: No index takes so many dimensions.
        """
        from harca.model import Space
        from harca.postgres import space_index

        kind = self.type or space_index.indexed_type(self.dims)
        if kind is None or self.dims > space_index.MOST_DIMS[kind]:
            what = f"an index on {kind}" if kind else "an index"
            most = space_index.MOST_DIMS[kind or "bit"]
            raise CommandError(f"{what} takes {most:,} dimensions, not {self.dims:,}")
        space = Space(self.model_id, self.dims, 0)
        return space_index.SpaceIndex(
            space_index.index_name(space), space, self.method, kind, self.parameters
        )


@Operations.register_operation("create_vector_index")
class CreateVectorIndex(_VectorIndex):
    """Make a space's index, while readers and writers go on."""

    @classmethod
    def create_vector_index(
        cls,
        operations: Operations,
        model_id: str,
        dims: int,
        *,
        method: str = "hnsw",
        type: str | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        ef_search: int | None = None,
        probes: int | None = None,
        candidates: int | None = None,
        k: int | None = None,
        measured: Mapping[str, Any] | None = None,
    ) -> None:
        """Make an index for the embeddings of *model_id* with *dims* dimensions, by cosine.

        It has the name, expression and condition that `harca search` looks for, and it is
        left alone when harca adapts its own indexes after a load. An INVALID one of an
        interrupted build is dropped first; one that is made otherwise answers searches until
        this one takes its place; one that is made so already is kept. Built ``CONCURRENTLY``,
        outside the transaction: what the revision did before this is committed. All of it is
        kept with the space's settings too, and searches take their effort from there.

        Args:
            method: ``hnsw`` or ``ivfflat``.
            type: ``vector``, ``halfvec`` or ``bit``: the signs, whose nearest are compared
                exactly; by default the first of them that takes so many dimensions.
            m, ef_construction: Of HNSW; pgvector's own by default.
            lists: Of ivfflat; by default for the number of rows, as pgvector advises.
            ef_search: Of searches by HNSW: candidates that are kept on the way.
            probes: Of searches by ivfflat: lists that are looked through.
            candidates: Rows that a search takes from the index, to compare them exactly.
            k: For how many results these are enough; 10 by default.
            measured: What `harca index advise` found, such as ``recall``; for people.

        Raises:
            CommandError: No such index can be made, or the server refused.
        """
        operations.invoke(
            cls(
                model_id,
                dims,
                method,
                type,
                m=m,
                ef_construction=ef_construction,
                lists=lists,
                ef_search=ef_search,
                probes=probes,
                candidates=candidates,
                k=k,
                measured=measured,
            )
        )

    def reverse(self) -> "DropVectorIndex":
        """Return what drops it."""
        return DropVectorIndex(self.model_id, self.dims, **self.given)


@Operations.register_operation("drop_vector_index")
class DropVectorIndex(_VectorIndex):
    """Drop a space's index, while readers and writers go on."""

    @classmethod
    def drop_vector_index(
        cls,
        operations: Operations,
        model_id: str,
        dims: int,
        *,
        method: str = "hnsw",
        type: str | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        ef_search: int | None = None,
        probes: int | None = None,
        candidates: int | None = None,
    ) -> None:
        """Drop the index for the embeddings of *model_id* with *dims* dimensions, if there.

        What the space's settings say of an index goes too. *method*, *type* and the numbers
        are for the inverse only. If the space is large enough for an index of harca's own, the
        next load builds that one.

        Raises:
            CommandError: The server refused.
        """
        operations.invoke(
            cls(
                model_id,
                dims,
                method,
                type,
                m=m,
                ef_construction=ef_construction,
                lists=lists,
                ef_search=ef_search,
                probes=probes,
                candidates=candidates,
            )
        )

    def reverse(self) -> CreateVectorIndex:
        """Return what makes it."""
        return CreateVectorIndex(self.model_id, self.dims, **self.given)


@Operations.implementation_for(LoadStore)
def _load_store(operations: Operations, operation: LoadStore) -> None:
    _require_environment(operations, "load_store")
    from harca import revisions

    revisions.load_planned_store(
        operations,
        operation.store,
        revision=operation.revision,
        requires_schema=operation.requires_schema,
        pins=operation.pins,
        options=operation.options,
    )


@Operations.implementation_for(UnloadStore)
def _unload_store(operations: Operations, operation: UnloadStore) -> None:
    _require_environment(operations, "unload_store")
    from harca import revisions

    revisions.unload(operations, revision=operation.revision)


@Operations.implementation_for(CreateVectorIndex)
def _create_vector_index(operations: Operations, operation: CreateVectorIndex) -> None:
    from harca.postgres import indexes, space_index, space_settings

    index = operation.index()
    settings: dict[str, Any] = {
        "method": index.method,
        "type": index.type,
        "parameters": operation.parameters,
        "effort": operation.effort,
        "measured": operation.measured,
    }
    if operations.get_context().as_sql:
        if index.method == "ivfflat" and not index.parameters:
            raise CommandError("lists must be given: as SQL, the number of rows is not known")
        _write(
            operations,
            [
                space_index.dropping(index.name),
                space_index.creating(index),
                space_index.keeping(index.name),
                space_settings.keeping(index.space, **settings),
            ],
        )
        return
    with _connected(operations) as conn:
        indexes.create(conn, index)
        if space_settings.are_there(conn):
            space_settings.keep(conn, index.space, **settings)


@Operations.implementation_for(DropVectorIndex)
def _drop_vector_index(operations: Operations, operation: DropVectorIndex) -> None:
    from harca.postgres import indexes, space_index, space_settings

    index = operation.index()
    if operations.get_context().as_sql:
        _write(
            operations,
            [
                *space_settings.forgetting_index(index.space),
                space_index.dropping(index.name),
            ],
        )
        return
    with _connected(operations) as conn:
        if space_settings.are_there(conn):
            space_settings.forget_index(conn, index.space)
        indexes.drop(conn, index.name)


def _require_environment(operations: Operations, name: str) -> None:
    context = operations.get_context()
    if context.as_sql:
        raise CommandError(
            f"{name} cannot be written as SQL: it reads a store and verifies its rows"
        )
    if context.config is None or "database" not in context.config.attributes:
        raise CommandError(
            f"{name} runs in harca's data environment only\n"
            "  hint: Run it by `alembic -n data`, or call harca.migrations.run in env.py."
        )


def _write(operations: Operations, statements: Sequence["sql.Composable"]) -> None:
    """Write a script's statements. Not by ``execute``, which changes ``%`` and tabs in labels."""
    context = operations.get_context()
    settings = ("lock_timeout", "statement_timeout")
    with context.autocommit_block():
        for text in (
            *(f"SET {name} = 0" for name in settings),
            *(statement.as_string(None) for statement in statements),
            *(f"RESET {name}" for name in settings),
        ):
            context.impl.static_output(f"{text};")


@contextmanager
def _connected(operations: Operations) -> Iterator["psycopg.Connection[Any]"]:
    """Give the revision's own connection, outside a transaction.

    Raises:
        CommandError: It is another driver's, or the server refused.
    """
    import psycopg

    from harca.errors import HarcaError
    from harca.postgres.connect import translated

    with operations.get_context().autocommit_block():
        connection = operations.get_bind().connection.driver_connection
        if not isinstance(connection, psycopg.Connection):
            raise CommandError(
                f"the driver is {type(connection).__module__}, expected psycopg\n"
                "  hint: Have the environment connect to postgresql+psycopg://."
            )
        try:
            with translated():
                yield connection
        except HarcaError as exc:
            raise CommandError(f"{exc}\n  hint: {exc.hint}" if exc.hint else str(exc)) from exc
