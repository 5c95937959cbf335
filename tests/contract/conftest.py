"""What the tests of readers have in common."""

import pytest

from harca.readers import files, json_files


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look as often, but not as long, at what may be half written: nobody writes here."""
    for module in (files, json_files):
        monkeypatch.setattr(module, "REREAD_PAUSES_S", (0.0001,) * len(files.REREAD_PAUSES_S))
