"""What the tests of readers have in common."""

import pytest

from harca.readers import files


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look as often, but not as long, at what may be half written: nobody writes here."""
    monkeypatch.setattr(files, "_REREAD_PAUSES_S", (0.0001,) * len(files._REREAD_PAUSES_S))
