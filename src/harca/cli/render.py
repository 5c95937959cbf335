"""Results as text for people."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from harca.errors import counted

if TYPE_CHECKING:
    from harca.apply import Applied, Step
    from harca.backup import Backup
    from harca.export import Exported
    from harca.inspect import Inspection, SpaceFound
    from harca.migrate import Migration
    from harca.model import StoreNotes
    from harca.plan import Planned
    from harca.postgres.search import Answer
    from harca.restore import Restored
    from harca.rollback import RolledBack
    from harca.verify import Verification

_SHOWN_MISMATCHES = 10
_SHOWN_CHANGES = 10
_SHOWN_CONTENT = 100


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as aligned columns; numbers to the right, wide characters counted."""
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(_width(row[column]) for row in [list(head), *texts]) for column in range(len(head))
    ]
    right = [
        bool(texts) and all(_is_number(row[column]) for row in texts) for column in range(len(head))
    ]
    lines = []
    for row in [list(head), *texts]:
        cells = []
        for cell, width, to_right in zip(row, widths, right, strict=True):
            pad = " " * (width - _width(cell))
            cells.append(pad + cell if to_right else cell + pad)
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def size(count: int) -> str:
    """Return a number of bytes in a unit that fits."""
    amount = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def inspection(found: "Inspection") -> str:
    """Return what `harca inspect` shows."""
    notes = found.notes
    parts = [
        f"{found.path}: format {found.format}, {counted(notes.files, 'file')}, {size(notes.bytes)}",
    ]
    if notes.why:
        parts.append(f"told by: {notes.why}")
    if notes.fields:
        parts.append("read as: " + ", ".join(f"{to} = {of}" for to, of in notes.fields.items()))
    parts += [
        f"{counted(found.records, 'record')} in {counted(len(found.spaces), 'space')}"
        + (f", {found.expired:,} of them expired" if found.expired else ""),
        table(
            ("model", "dims", "records", "length of the embeddings"),
            [
                (space.model_id, space.dims, space.records, _lengths(space))
                for space in found.spaces
            ],
        ),
    ]
    if notes.metric:
        parts.append(f"metric in the store: {notes.metric}")
    if found.conflicts:
        parts.append(f"{counted(len(found.conflicts), 'conflict')} (one key, different contents):")
        parts += [
            f"  {conflict.key}: {' and '.join(conflict.origins)}"
            for conflict in found.conflicts[:_SHOWN_MISMATCHES]
        ]
    if found.repeated:
        parts.append(f"{counted(found.repeated, 'record')} there twice, alike")
    if found.repeated_texts or found.repeated_vectors:
        parts.append(
            f"{counted(found.repeated_texts, 'text')} and "
            f"{counted(found.repeated_vectors, 'vector')} repeat an earlier one"
        )
    parts += _without_vectors(notes)
    parts += _left_out(notes)
    if found.rejected:
        parts.append(
            f"{counted(found.rejected.total(), 'record')} would be rejected: "
            f"{_counts(found.rejected)}"
        )
    if found.warnings:
        parts.append(f"odd, but loaded: {_counts(found.warnings)}")
    parts += [f"  {problem}" for problem in found.problems]
    about = found.estimate
    if about.rows:
        parts.append(
            f"in PostgreSQL about: {counted(about.rows, 'row')}, {size(about.table_bytes)} and "
            f"{size(about.index_bytes)} of indexes; {_duration(about.load_s)} to load"
            + (f", {_duration(about.index_s)} to index" if about.index_s else "")
        )
    return "\n".join(parts)


def _lengths(space: "SpaceFound") -> str:
    if space.unit == space.records:
        return "1"
    low, high = space.norms
    some = f"; {space.unit:,} of length 1" if space.unit else ""
    return f"{low:.3g} to {high:.3g}{some}"


def _left_out(notes: "StoreNotes") -> list[str]:
    """Return what of a store is not loaded, and why."""
    if not notes.left_out:
        return []
    listed = [f"  {what}: {why}" for what, why in notes.left_out[:_SHOWN_MISMATCHES]]
    return [f"{len(notes.left_out):,} not loaded:", *listed]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def plan(done: "Planned", allowed: int) -> str:
    """Return what `harca plan` shows; *allowed* rejections were asked for."""
    rejected = done.found.rejected.total()
    parts = [inspection(done.found), f"revision {done.revision}: {done.file}"]
    if rejected > allowed:
        parts.append(
            f"It will be refused as long as {counted(rejected, 'record')} would be rejected: plan "
            f"it again with --max-rejects {rejected} to accept them"
        )
    if done.is_read:
        parts.append("Review it, then: harca load")
    else:
        parts.append("harca load does not look there: see version_locations in alembic.ini")
    return "\n".join(parts)


def steps(done: "Applied", *, dry_run: bool) -> str:
    """Return what `harca load` shows."""
    if not done.steps:
        return f"nothing to load: the data are at {done.after or 'no revision'}, the head"
    parts = [_step(step, dry_run=dry_run) for step in done.steps]
    if not dry_run:
        parts.append("To take the last one back: alembic -n data downgrade -1")
    return "\n".join(parts)


def _step(step: "Step", *, dry_run: bool) -> str:
    head = f"{step.revision} {step.message}:"
    if step.passed_over:
        what = "would be passed over" if dry_run else "passed over, nothing was loaded"
        return f"{head} {what}: no store is named for it"
    if step.done:
        return f"{head} {step.shown_store}\n{migration(step.done)}"
    if not step.pins:
        return f"{head} {step.shown_store or 'no planned store'}"
    options = "".join(f", {name} {value}" for name, value in step.options.items())
    rejected = sum(step.pins.rejected.values())
    return "\n".join(
        (
            f"{head} {step.shown_store}",
            f"format {step.pins.format}, {counted(step.pins.records, 'record')}, "
            f"{rejected:,} rejected{options}",
            table(
                ("model", "dims", "records"),
                [(*space, count) for space, count in step.pins.spaces.items()],
            ),
        )
    )


def migration(done: "Migration") -> str:
    """Return what `harca migrate` shows at its end."""
    result, notes = done.result, done.reader.notes
    parts = [_run(one) for one in (*done.earlier, done)]
    if chosen := len(result.outlived) - len(result.kept):
        parts.append(
            f"{chosen:,} rows of earlier runs stay instead of the store's records, "
            f"as --on-conflict {done.options.on_conflict} asks"
        )
    if result.kept:
        parts.append(
            "1 row of an earlier run stays, as the server refused its new contents"
            if len(result.kept) == 1
            else f"{len(result.kept):,} rows of earlier runs stay, as the server refused their "
            "new contents"
        )
    if result.skipped:
        parts.append(f"{result.skipped:,} expired records skipped, as asked")
    parts += _without_vectors(notes)
    parts += _left_out(notes)
    if result.rejected:
        parts.append(
            f"rejected: {_counts(result.rejected)}; see `harca rejections list --run {done.run_id}`"
        )
    if result.warnings:
        parts.append(f"odd, but loaded: {_counts(result.warnings)}")
    if done.indexes_built:
        parts.append(f"indexes built: {', '.join(done.indexes_built)}")
    parts.append(verification(done.verification))
    if done.written_since:
        parts.append(_written_since(done))
    if done.backup is not None:
        parts.append(f"What was there before is in {done.backup.folder}")
    took = [one.run_id for one in (done, *done.earlier[::-1]) if one.result.tally.loaded]
    if took and done.revision is None:
        parts.append(f"To take it back: harca rollback {', then '.join(map(str, took))}")
    return "\n".join(parts)


def _run(done: "Migration") -> str:
    tally, seconds = done.result.tally, done.result.seconds
    return (
        f"run {done.run_id}{' (resumed)' if done.resumed else ''}: read {tally.read:,} = "
        f"{tally.loaded:,} loaded + {tally.unchanged:,} unchanged + "
        f"{tally.superseded:,} superseded + {tally.rejected:,} rejected, "
        f"in {seconds:.1f} s ({tally.read / seconds if seconds else 0:,.0f} rows/s)"
    )


def _written_since(done: "Migration") -> str:
    was = "was" if done.written_since == 1 else "were"
    written = f"{counted(done.written_since, 'file')} {was} written to since the last pass began"
    if done.complete:
        return f"{written}: what stood there then is in; run again to take in the rest"
    return f"{written}, which may be all that differs: stop what writes to the store, and run again"


def run_status(run: "dict[str, Any]") -> str:
    """Return a run's status, as `harca status` lists it."""
    return f"{run['status']}, paused" if run["paused_at"] else str(run["status"])


def backup(done: "Backup") -> str:
    """Return what `harca backup` shows."""
    contents = done.contents
    by = contents.method + (f" ({contents.note})" if contents.note else "")
    parts = [
        f"{counted(contents.rows, 'row')} of {counted(len(contents.tables), 'table')} written to "
        f"{done.folder}: by {by}, {size(done.bytes)}",
        table(
            ("table", "rows", "fingerprint"),
            [(one.label, one.rows, one.fingerprint) for one in contents.tables],
        ),
    ]
    if store := contents.store:
        parts.append(f"{counted(store['files'], 'file')} of the store listed with their digests")
        if store["failed"]:
            parts.append(
                f"{counted(store['failed'], 'file')} could not be read: "
                f"{'; '.join(store['unreadable'])}"
            )
    return "\n".join([*parts, f"To bring it back: harca restore {done.folder}"])


def restored(done: "Restored") -> str:
    """Return what `harca restore` shows."""
    contents, lost = done.contents, done.replaced.lost
    what = "were so already" if done.replaced.unchanged else "restored"
    parts = [
        f"{counted(contents.rows, 'row')} of {counted(len(contents.tables), 'table')} {what}, "
        f"as of {contents.made_at}",
        f"proved: {counted(len(contents.tables), 'fingerprint')} equal, every column of every row",
    ]
    if lost:
        listed = ", ".join(f"{count:,} of {name}" for name, count in lost.items())
        parts.append(f"rows that came or changed after the backup are gone: {listed}")
    if done.revision != contents.revision:
        parts.append(
            f"the schema is at revision {done.revision}; the backup was made at "
            f"{contents.revision or 'none'}"
        )
    if done.indexes_built:
        parts.append(f"indexes built: {', '.join(done.indexes_built)}")
    return "\n".join(parts)


def taken_back(done: "RolledBack") -> str:
    """Return what `harca rollback` shows."""
    run = f"run {done.run_id}"
    if done.before:
        finished = "indexes are adapted now, which was left to do" if done.finished else ""
        return f"{run} was taken back at {done.before}; {finished or 'nothing was changed'}"
    counts = f"{counted(done.deleted, 'row')} deleted, {done.restored:,} restored"
    if not done.dry_run:
        kept = f", {done.kept:,} changed since and kept" if done.kept else ""
        return f"{run} taken back: {counts}{kept}"
    lines = [f"{run} would be taken back: {counts}"]
    if done.changed:
        refused = "this is refused, --changed keep or --changed delete decides"
        fate = "kept" if done.kept else refused if done.refused else "discarded"
        lines.append(f"{len(done.changed):,} changed since: {fate}")
        lines += [f"  {change}" for change in done.changed[:_SHOWN_CHANGES]]
        if len(done.changed) > _SHOWN_CHANGES:
            lines.append("  ... (all with --json)")
    return "\n".join([*lines, "nothing was changed: this is a dry run"])


def exported(done: "Exported") -> str:
    """Return what `harca export` shows."""
    return "\n".join(
        [
            f"{counted(done.rows, 'row')} of {counted(len(done.stores), 'store')} written to "
            f"{done.folder}: {done.format}, {counted(done.files, 'file')}, {size(done.bytes)}",
            table(
                ("model", "dims", "records"),
                [(space.model_id, space.dims, space.records) for space in done.spaces],
            ),
        ]
    )


def verification(outcome: "Verification") -> str:
    """Return what `harca verify` shows."""
    failed = [check for check in outcome.checks if not check.ok]
    if outcome.ok:
        touched = (
            f"; {outcome.touched} records were read by the application since, which changes "
            "their bookkeeping"
            if outcome.touched
            else ""
        )
        rejected = (
            f"; {counted(outcome.rejected, 'record')} rejected, in no row"
            if outcome.rejected
            else ""
        )
        return (
            f"verified: {counted(len(outcome.checks), 'check')}, every vector, text and metadata "
            f"equal (fingerprint {outcome.fingerprint}){rejected}{touched}"
        )
    parts = [f"DIFFERENT: {len(failed)} of {len(outcome.checks)} checks failed"]
    parts += [f"  {check.name}: expected {check.expected}, found {check.found}" for check in failed]
    parts += [
        f"  {mismatch.store_key}: {mismatch.difference} ({mismatch.detail})"
        for mismatch in outcome.mismatches[:_SHOWN_MISMATCHES]
    ]
    if any(mismatch.difference == "extra" for mismatch in outcome.mismatches):
        parts.append(
            "  extra rows stay when their records leave the store; delete them if that is meant"
        )
    if outcome.mismatch_count > _SHOWN_MISMATCHES:
        parts.append(f"  ... {outcome.mismatch_count} records differ in all")
    return "\n".join(parts)


def answer(found: "Answer", *, seen: int = 0) -> str:
    """Return what `harca search` shows; *seen* results came before."""
    nothing = "nothing further found" if seen else "nothing found"
    return "\n".join([*(_hits(found, seen) or [nothing]), f"{_space(found)}, {_how(found)}"])


def answers(found: "Sequence[Answer]") -> str:
    """Return what `harca search --batch` shows."""
    lines = []
    for number, one in enumerate(found, 1):
        lines += [f"query {number}, {_how(one)}", *(_hits(one) or ["nothing found"])]
    return "\n".join([*lines, _space(found[0])])


def _hits(found: "Answer", seen: int = 0) -> list[str]:
    width = max((len(str(hit.id)) for hit in found.hits), default=0) + 1
    return [
        f"{rank:3}. {hit.similarity:7.4f}  {f'#{hit.id}':>{width}}  {_line(hit.content)}"
        for rank, hit in enumerate(found.hits, seen + 1)
    ]


def _line(content: str) -> str:
    """Return a text's beginning on one line, without what could steer a terminal."""
    line = " ".join(content[: 10 * _SHOWN_CONTENT].split())
    if len(line) > _SHOWN_CONTENT:
        line = line[: _SHOWN_CONTENT - 1] + "…"
    return "".join(char if char.isprintable() else "\ufffd" for char in line)


def _how(found: "Answer") -> str:
    # A hybrid search is answered in two ways.
    return " + ".join(
        f"index {way}" if way.startswith("vector_embeddings_") else way
        for way in found.answered_by.split(" + ")
    )


def _space(found: "Answer") -> str:
    return f"{found.space.model_id}/{found.space.dims}"


def _without_vectors(notes: "StoreNotes") -> list[str]:
    if not notes.without_vectors:
        return []
    return [f"{counted(len(notes.without_vectors), 'document')} without vectors (not loaded)"]


def _counts(counts: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").isdigit() or cell == "-"


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)
