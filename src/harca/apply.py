"""Apply the data revisions that are pending, or say what they would load."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from alembic.script import Script

from harca import migrations, revisions
from harca.errors import UsageError
from harca.migrate import Migration
from harca.migrations import DATA
from harca.options import LoadOptions
from harca.pins import Pins, require_as_planned
from harca.postgres.connect import Database
from harca.readers.staging import shown
from harca.redact import redacted
from harca.retry import Reached, retried
from harca.watcher import Watcher

# The one that comes with harca: its store is named where it is run, not in its file.
FIRST = "7d3e5a1f0c84"


@dataclass(frozen=True, slots=True)
class Step:
    """A data revision that is pending, or was applied.

    Attributes:
        store: Where its store is; None if that is named nowhere.
        options: How the store is loaded, as far as it is not as by default.
        pins: What the store held when it was planned.
        passed_over: It is the first one and no store is named: it is stamped only.
        done: What was loaded, if it was applied.
    """

    revision: str
    message: str
    requires_schema: str | None
    store: str | None
    options: Mapping[str, Any]
    pins: Pins | None
    passed_over: bool
    done: Migration | None = None

    @property
    def shown_store(self) -> str | None:
        """Where its store is, for people: of an address, without password and query."""
        return None if self.store is None else shown(self.store)

    def as_dict(self) -> dict[str, Any]:
        """Return the step as ``--json`` shows it."""
        pins, run = None, None
        if self.pins:
            pins = {**self.pins.as_dict(), "spaces": self.pins.listed()}
        if self.done:
            run = {
                "run_id": self.done.run_id,
                **self.done.result.tally.as_dict(),
                "verified": self.done.verification.ok,
                "seconds": round(self.done.result.seconds, 3),
            }
        return {
            "revision": self.revision,
            "message": self.message,
            "store": self.shown_store,
            "passed_over": self.passed_over,
            "options": dict(self.options),
            "pins": pins,
            "run": run,
        }


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did, or would do.

    Attributes:
        before, after: The data revision that the database was at, and is at.
    """

    before: str | None
    after: str | None
    steps: list[Step]


def apply(
    target: Database,
    *,
    stores: Iterable[str] = (),
    allow_drift: bool = False,
    max_rejects: int | None = None,
    dry_run: bool = False,
    watcher: Watcher | None = None,
) -> Applied:
    """Load what the pending data revisions plan, one after the other, and stamp each.

    All of them are compared with their stores before the first one is applied, so that
    nothing is written if one is refused. Harca's own first revision is passed over if its
    store is named nowhere. Run again after a failure, it goes on.

    Args:
        stores: ``REVISION=PATH``, where a store is if not where it was planned.
        allow_drift: Load stores as they are, whatever was planned.
        max_rejects: Accept this many rejected records of each, whatever was planned.
        dry_run: Change nothing, and read no store.

    Raises:
        UsageError: One of *stores* is about no pending revision.
        StoreChanged: A store is not as it was planned.
        HarcaError: As `harca.revisions.load_planned_store` raises them; the revisions before
            are applied.
    """
    files = migrations.pending(target, DATA)
    places = dict(_place(given, files) for given in stores)
    steps = [_step(file, places) for file in files]
    before = migrations.current(target, DATA)
    if dry_run or not steps:
        return Applied(before, before, steps)
    for step in steps:
        if step.requires_schema:
            migrations.require_schema(target, step.requires_schema)
    if not allow_drift:
        for step in steps[1:]:  # the first one compares just before it writes
            if step.store and step.pins:
                options = LoadOptions.from_text(revisions.texts(step.options))
                if max_rejects is not None:
                    options = replace(options, max_rejects=max_rejects)
                if watcher:
                    watcher.stage(f"compare the store of revision {step.revision} with the plan")
                require_as_planned(step.store, step.pins, options, revision=step.revision)
    arguments = {revisions.place_of(revision): path for revision, path in places.items()}
    if allow_drift:
        arguments["allow_drift"] = "yes"
    if max_rejects is not None:
        arguments["max_rejects"] = str(max_rejects)
    done: dict[str, Migration | None] = {}

    def attempt(reached: Reached) -> str | None:
        """Go on with the revision that is not stamped, which is with its run if it has one."""
        reached(len(done))
        _, after = migrations.upgrade(
            target,
            DATA,
            arguments=arguments,
            pass_over=FIRST,
            report=done.__setitem__,
            watcher=watcher,
        )
        return after

    # Loading is tried again by itself, but not on the connection that stamps.
    after = retried(attempt, told=watcher.trouble if watcher else lambda message: None)
    return Applied(before, after, [replace(step, done=done.get(step.revision)) for step in steps])


def _place(given: str, files: list[Script]) -> tuple[str, str]:
    named, _, path = given.partition("=")
    found = [file.revision for file in files if named and file.revision.startswith(named)]
    if len(found) != 1 or not path:
        listed = ", ".join(file.revision for file in files) or "none"
        raise UsageError(
            f'--store is "{redacted(given)}", expected REVISION=PATH with a pending revision',
            hint=f"Pending: {listed}. `harca load --dry-run` lists them with their stores.",
        )
    return found[0], path


def _step(file: Script, places: Mapping[str, str]) -> Step:
    module = file.module
    store = places.get(file.revision, getattr(module, "store", None))
    if file.revision == FIRST:
        store = revisions.named_store(migrations.config(DATA), store)
    passed_over = file.revision == FIRST and (not store or store == revisions.NO_STORE)
    pins = getattr(module, "pins", None)
    return Step(
        file.revision,
        file.doc,
        getattr(module, "requires_schema", None),
        None if passed_over else store,
        getattr(module, "options", {}),
        Pins.from_dict(pins) if pins else None,
        passed_over,
    )
