"""Measure the ways to search a space, recommend one, and write the revision that makes it."""

import shlex
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harca import advise as judge
from harca.advise import EXACT, IVFFLAT, Choice, Goal, Point
from harca.errors import UsageError, counted
from harca.migrations import MEASUREMENTS, SCHEMA, require_schema
from harca.postgres import measurements, trial
from harca.postgres.connect import Database, translated
from harca.postgres.index_choice import cannot
from harca.postgres.indexes import COULD_REFUSE, is_written_by_others
from harca.postgres.search import MAX_K, find_space
from harca.postgres.space_index import capabilities, ivfflat_lists
from harca.postgres.trial import Measured
from harca.revision_file import NextRevision, RevisionFile, call, message_of
from harca.watcher import Watcher

KIND = "index advise"


QUERIES = 100
# The whole takes minutes with so many rows, and hours with ten times as many.
MAX_ROWS = 100_000
_MOST_QUERIES = 10_000


@dataclass(frozen=True, slots=True)
class Advice:
    """What was measured, and what follows from it.

    Attributes:
        recommended: The point to take, as it is to be for all rows of the space.
        choice: Of the measured points.
        revision: What was written, if that was asked for.
    """

    measured: Measured
    k: int
    goal: Goal
    choice: Choice
    recommended: Point
    revision: RevisionFile | None = None

    @property
    def is_sample(self) -> bool:
        """Whether the space has more rows than were measured."""
        return self.measured.sampled_rows < self.measured.space.records

    @property
    def command(self) -> str:
        """What has the space searched so."""
        space, point = self.measured.space, self.recommended
        what = "--exact"
        if not point.is_exact:
            given = {"type": point.type, **point.parameters, **point.effort}
            if "candidates" in given:  # which are said for ten results
                given["candidates"] = -(-10 * point.effort["candidates"] // self.k)
            what = f"--method {point.method} " + " ".join(
                f"--{name.replace('_', '-')} {value}" for name, value in given.items()
            )
        model = shlex.quote(space.model_id)
        return f"harca index build --model {model} --dims {space.dims} {what}"

    def as_dict(self) -> dict[str, Any]:
        """Return the advice as ``--json`` shows it.

        All but the last three is kept as a measurement of kind ``index advise``, for
        `harca report`::

            model_id, dims    the space
            rows              rows of the space
            sampled_rows      rows taken to measure; the queries are among them
            k                 results of a search
            queries           rows that were searched for, and were not among those searched
            repetitions       how often each was searched for, by each way
            truth             "exact": what recall is measured against
            curve             the points measured: method, type, parameters, effort, recall,
                              p50_ms, p95_ms, build_s, size_bytes; the exact search first, then
                              index by index, the least effort first
            left_out          what could not be measured, and why
            goal              recall or latency_ms
            reached           false if nothing is as fast as was asked
            recommended       the point of the curve to take; parameters and effort are those
                              for all rows of the space, where only a sample was measured
            reason            why, in a few sentences
            command           what has the space searched so
            revision, file    what --write has written, else null
        """
        return {
            **self.measurement(),
            "command": self.command,
            "revision": self.revision.revision if self.revision else None,
            "file": str(self.revision.path) if self.revision else None,
        }

    def measurement(self) -> dict[str, Any]:
        """Return what is kept."""
        measured = self.measured
        return {
            "model_id": measured.space.model_id,
            "dims": measured.space.dims,
            "rows": measured.space.records,
            "sampled_rows": measured.sampled_rows,
            "k": self.k,
            "queries": measured.queries,
            "repetitions": trial.REPETITIONS,
            "truth": EXACT,
            "curve": [point.as_dict() for point in measured.points],
            "left_out": measured.left_out,
            "goal": self.goal.as_dict(),
            "reached": self.choice.reached,
            "recommended": self.recommended.as_dict(),
            "reason": self.choice.why,
        }


def advise(
    database: Database,
    *,
    model_id: str | None = None,
    dims: int | None = None,
    recall: float | None = None,
    latency_ms: float | None = None,
    k: int = 10,
    queries: int = QUERIES,
    max_rows: int = MAX_ROWS,
    write: bool = False,
    message: str = "",
    to: str | Path | None = None,
    watcher: Watcher | None = None,
) -> Advice:
    """Measure the ways to search the one space that fits, and recommend one.

    The measurement is kept in the database. With *write*, the revision that makes the index is
    written, as the next of the schema, unless nothing is as fast as was asked or no index is
    needed.

    Raises:
        UsageError: A value cannot be used, no space fits or several do, or it has too few rows.
        SchemaNotReady: There is no table for measurements.
        SeveralHeads: The schema's revisions have no one head.
        TargetError: The disk is full, or the server refused.
    """
    goal = _goal(recall, latency_ms)
    _check(k=k, queries=queries, max_rows=max_rows)
    words, place = "", None
    if write:
        words = message_of(message, what="what the revision is for")
        place = NextRevision(SCHEMA, to=to)
    require_schema(database, MEASUREMENTS)
    with translated():
        with database.connect() as conn:
            measurements.require_writable(conn)
            space = trial.counted(conn, find_space(conn, model_id=model_id, dims=dims))
            can = capabilities(conn)
            by_others = is_written_by_others(conn, space)
        rows = min(space.records, max_rows)
        candidates, left_out = judge.candidates(
            k,
            lists={kind: ivfflat_lists(rows, kind) for kind in ("vector", "bit")},
            cannot=lambda method, kind: (
                COULD_REFUSE
                if kind == "halfvec" and by_others
                else cannot(space.dims, can, method, kind)
            ),
        )
        measured = trial.measure(
            database, space, candidates, k=k, queries=queries, max_rows=max_rows, watcher=watcher
        )
        measured.left_out[:0] = left_out
        choice = judge.choose(measured.points, goal, growth=space.records / rows)
        advice = Advice(measured, k, goal, choice, _for_all_rows(choice.point, measured))
        with database.connect() as conn:
            measurements.keep(conn, KIND, advice.measurement())
    if place is not None and choice.reached and not choice.point.is_exact:
        advice = replace(advice, revision=_written(place, words, advice))
    return advice


def _goal(recall: float | None, latency_ms: float | None) -> Goal:
    if recall is not None and latency_ms is not None:
        raise UsageError(
            "--recall and --latency-ms were both given",
            hint="Ask for one of them; the table shows the other for every way to search.",
        )
    if recall is not None and not 0 < recall <= 1:
        raise UsageError(
            f"recall is {recall:g}, expected more than 0 and at most 1",
            hint="It is the share of the true neighbours that a search finds: 0.98, say.",
        )
    if latency_ms is not None and not latency_ms > 0:
        raise UsageError(
            f"the latency is {latency_ms:g} ms, expected more than 0",
            hint="Give the milliseconds that half of the searches may take: 5, say.",
        )
    return Goal(recall if recall is not None else judge.RECALL, latency_ms)


def _check(*, k: int, queries: int, max_rows: int) -> None:
    if not 1 <= k <= MAX_K:
        raise UsageError(
            f"k is {k}, expected 1 to {MAX_K}", hint="Ask for a number of results in that range."
        )
    if not 1 <= queries <= _MOST_QUERIES:
        raise UsageError(
            f"there are {queries} queries, expected 1 to {_MOST_QUERIES:,}",
            hint=f"{QUERIES} tell recalls apart that differ by a hundredth.",
        )
    if max_rows < 1:
        raise UsageError(
            f"at most {max_rows} rows are measured, expected 1 at least",
            hint=f"Leave --max-rows out: it is {MAX_ROWS:,} then.",
        )


def _for_all_rows(point: Point, measured: Measured) -> Point:
    """Return *point* as it is to be where only a sample was measured."""
    if point.method != IVFFLAT or measured.sampled_rows == measured.space.records:
        return point
    assert point.type is not None
    lists = ivfflat_lists(measured.space.records, point.type)
    # The same share of the lists: of one centre's rows, as many lie on the wrong side.
    probes = -(-point.effort["probes"] * lists // point.parameters["lists"])
    effort = {**point.effort, "probes": min(probes, lists)}
    return replace(point, parameters={"lists": lists}, effort=effort)


def _written(place: NextRevision, message: str, advice: Advice) -> RevisionFile:
    measured, point, found = advice.measured, advice.recommended, advice.choice.point
    space = measured.space
    sample = f" of {space.records:,}" if advice.is_sample else ""
    given: dict[str, Any] = {
        "method": point.method, "type": point.type, **point.parameters, **point.effort,
        "k": advice.k,
    }  # fmt: skip
    result = {
        "recall": round(found.recall, 4),
        "p50_ms": round(found.p50_ms, 3),
        "rows": measured.sampled_rows,
    }
    parts = {
        "about": f"Measured by harca index advise on {datetime.now(UTC):%Y-%m-%d}, with "
        f"{counted(measured.sampled_rows, 'row')}{sample}:\nrecall@{advice.k} {found.recall:.3f}, "
        f"p50 {found.p50_ms:.2f} ms, p95 {found.p95_ms:.2f} ms; asked for: {advice.goal}.",
        "phase": "contract, after the rows are loaded.",
        "locks": "SHARE UPDATE EXCLUSIVE on vector_embeddings; reads and writes continue.",
        "reverse": "drops the index; harca chooses for itself again.",
        "upgrades": call(
            "op.create_vector_index", space.model_id, space.dims, **given, measured=result
        ),
        "downgrades": call("op.drop_vector_index", space.model_id, space.dims),
    }
    return place.write(message, parts)
