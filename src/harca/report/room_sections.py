"""What it takes: sizes of tables and indexes, room and cost before and after."""

from harca.errors import counted
from harca.postgres.overview import IndexSize, TableSize
from harca.report import figures, plots
from harca.report.collect import Report
from harca.report.cost import Room
from harca.report.data_sections import space
from harca.report.markup import Child, Html, foreign, joined
from harca.report.parts import (
    Column,
    Section,
    code,
    figure,
    missing,
    number,
    paragraph,
    side_by_side,
    table,
)

_MOST_BARS = 12
# VACUUM leaves tables alone that have fewer.
_TELLING_ROWS = 1_000
_NAMES = {
    "before": "Before: the file store",
    "after": "After: PostgreSQL",
    "meanwhile": "Meanwhile: both",
}


def sizes(report: Report) -> Section:
    """Return what tables and indexes take."""
    title = "Sizes of tables and indexes"
    if not report.tables:
        return Section("sizes", title, missing("There are no tables.", "harca migrate STORE"))
    total = sum(one.total_bytes for one in report.tables)
    main = report.tables[0]
    parts = [
        side_by_side(_size_plot(main)),
        table(
            "indexes",
            f"Indexes of {main.name}",
            [
                Column("Index"), Column("Method"), Column("For"), number("Size"),
                number("Share of the table's"), number("Scans"),
            ],
            [_index(report, main, index) for index in main.indexes],
        ),
        table(
            "tables",
            "Tables, with what lies out of line (TOAST) and their indexes",
            [
                Column("Table"), number("Rows in line"), number("Out of line"), number("Indexes"),
                number("Total"), number("Dead rows"),
            ],
            [
                (
                    foreign(one.name if one.schema == main.schema else f"{one.schema}.{one.name}"),
                    figures.size(one.bytes),
                    figures.size(one.toast_bytes),
                    figures.size(one.index_bytes),
                    figures.size(one.total_bytes),
                    figures.percent(_dead(one)),
                )
                for one in report.tables
            ],
            total=(
                "All", *(
                    figures.size(sum(values)) for values in (
                        [one.bytes for one in report.tables],
                        [one.toast_bytes for one in report.tables],
                        [one.index_bytes for one in report.tables],
                    )
                ), figures.size(total), "",
            ),
        ),
        paragraph(
            "Scans are counted since the server's statistics were reset. Dead rows are those "
            "that were changed or deleted and that VACUUM has not cleared away yet, by the "
            "server's own estimate; where it is more than a fifth for long, autovacuum does not "
            "keep up."
        ),
    ]  # fmt: skip
    return Section("sizes", title, joined(parts))


def _dead(one: TableSize) -> float | None:
    rows = one.live_rows + one.dead_rows
    return one.dead_rows / rows if rows >= _TELLING_ROWS else None


def _size_plot(main: TableSize) -> Html:
    parts = [("rows in line", main.bytes, 0), ("out of line (TOAST)", main.toast_bytes, 0)]
    parts += [
        (_short(index), index.bytes, 1 if index.is_on_embeddings else 2) for index in main.indexes
    ]
    parts = sorted((one for one in parts if one[1]), key=lambda one: -one[1])
    rest = parts[_MOST_BARS:]
    if rest:
        parts = [
            *parts[:_MOST_BARS],
            (f"{counted(len(rest), 'other')}", sum(one[1] for one in rest), 2),
        ]
    most = max((size for _, size, _ in parts), default=0)
    unit, name = next((pair for pair in ((1e9, "GB"), (1e6, "MB")) if most >= pair[0]), (1e3, "kB"))
    return figure(
        plots.bars(
            plots.Plot(
                "plot-sizes",
                f"What {main.name} takes, part by part",
                "; ".join(f"{what}: {figures.size(size)}" for what, size, _ in parts),
            ),
            [
                plots.Bar(what, size / unit, figures.size(size), series)
                for what, size, series in parts
            ],
            plots.Axis(name),
        ),
        "Parts of the table of embeddings; the table below has the numbers.",
    )


def _short(index: IndexSize) -> str:
    name = index.name.removeprefix("vector_embeddings_").removesuffix("_idx")
    return f"{index.method} {name}" if index.is_on_embeddings else f"index {name}"


def _index(report: Report, main: TableSize, index: IndexSize) -> tuple[Child, ...]:
    spaces = [one for one in report.status.spaces if one["index"].split(" ")[0] == index.name]
    purpose: Child = _PURPOSES.get(index.name.removeprefix("vector_embeddings_"), "")
    if spaces:
        purpose = joined(["searches in ", space(spaces[0]["model_id"], spaces[0]["dims"])])
    elif index.is_on_embeddings and not purpose:
        purpose = "searches"
    return (
        code(index.name),
        index.method if index.is_valid else f"{index.method}, INVALID",
        purpose or "–",
        figures.size(index.bytes),
        figures.percent(index.bytes / main.total_bytes if main.total_bytes else None),
        figures.whole(index.scans),
    )


_PURPOSES = {
    "pkey": "numbers of rows",
    "store_store_key_key": "keys of records, each once",
    "metadata_idx": "filters on metadata",
    "source_idx": "filters on the source",
    "model_id_dims_idx": "which rows are of a space",
    "run_id_idx": "rows of a run",
    "embedding_idx": "searches among 1536-d rows, the plan's own",
}


def room(report: Report) -> Section:
    """Return room and cost before and after."""
    title = "Room and cost, before and after"
    if not report.rooms:
        return Section("cost", title, missing("There is nothing to count.", "harca migrate STORE"))
    by_disk = any(one.disk_month is not None for one in report.rooms)
    by_memory = any(one.memory_month is not None for one in report.rooms)
    columns = [Column("State"), number("On disk"), number("In memory")]
    columns += [number("Disk, a month")] if by_disk else []
    columns += [number("Memory, a month")] if by_memory else []
    columns += [number("Both, a month")] if by_disk and by_memory else []
    parts: list[Html] = [
        side_by_side(_room_plot(report.rooms, memory=False), _room_plot(report.rooms, memory=True)),
        table(
            "room",
            "Room before, after, and while both are kept",
            columns,
            [
                (
                    _NAMES[one.name],
                    figures.size(one.disk_bytes),
                    figures.size(one.memory_bytes),
                    *([figures.money(one.disk_month)] if by_disk else []),
                    *([figures.money(one.memory_month)] if by_memory else []),
                    *([figures.money(one.month)] if by_disk and by_memory else []),
                )
                for one in report.rooms
            ],
        ),
        paragraph(
            "The model: on disk, before, are the bytes of the stores' files as their latest run "
            "found them; after, all of harca's tables with their indexes, without WAL and "
            "backups. In memory is what fast searches need: before, all vectors as float32; "
            "after, the index of each space that has one, else its vectors. "
            + (
                "Money is bytes / 10⁹ times the price that was given, in its currency."
                if by_disk or by_memory
                else "No price was given, so there is no money in it: "
            ),
            *(
                []
                if by_disk or by_memory
                else [code("--price-gb-month"), " and ", code("--price-memory-gb-month"),
                      " give one."]
            ),
        ),
    ]  # fmt: skip
    unknown = report.rooms[0].unknown_stores
    if unknown:
        parts.append(
            paragraph(
                f"Of {counted(unknown, 'store')} it is not known how large the files were: a "
                "table that was consolidated has none."
            )
        )
    return Section("cost", title, joined(parts))


def _room_plot(rooms: list[Room], *, memory: bool) -> Html | None:
    values = [
        (one, one.memory_bytes if memory else one.disk_bytes)
        for one in rooms
        if one.name != "meanwhile"
    ]
    known = [(one, value) for one, value in values if value is not None]
    if len(known) < 2:
        return None
    most = max(value for _, value in known)
    unit, name = next((pair for pair in ((1e9, "GB"), (1e6, "MB")) if most >= pair[0]), (1e3, "kB"))
    where = "In memory" if memory else "On disk"
    return figure(
        plots.bars(
            plots.Plot(
                "plot-memory" if memory else "plot-disk",
                f"{where}, before and after",
                "; ".join(f"{_NAMES[one.name]}: {figures.size(value)}" for one, value in known),
            ),
            [
                plots.Bar(one.name, value / unit, figures.size(value), 0 if place else 1)
                for place, (one, value) in enumerate(known)
            ],
            plots.Axis(name),
        ),
        f"{where}; the table below has the numbers.",
    )
