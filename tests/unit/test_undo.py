"""How a change to a run's rows is told."""

import pytest

from harca.postgres.undo import Change

TOLD = {
    "an edit": (Change("k", "edited", "2026-01-01", None), '"k" (edited)'),
    "one that was overwritten": (
        Change("k", "edited", None, 7),
        '"k" (edited, then overwritten by run 7)',
    ),
    "a row without a key": (Change(None, "edited", None, None), "a row without a key (edited)"),
}


@pytest.mark.parametrize(("change", "expected"), TOLD.values(), ids=TOLD)
def test_a_change_is_told_in_words(change, expected):
    assert str(change) == expected


def test_a_change_has_every_field_in_json():
    assert Change("k", "deleted", None, 7).as_dict() == {
        "key": "k", "change": "deleted", "changed_at": None, "overwritten_by": 7,
    }  # fmt: skip
