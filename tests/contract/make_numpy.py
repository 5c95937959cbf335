"""Writes vectors as NumPy's files, with their texts beside them or in them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def npy_with_json(folder: Path, entries: Sequence[tuple[str, list[float]]]) -> Path:
    """Write an array, and a list of texts beside it."""
    store = folder / "store"
    store.mkdir()
    np.save(store / "embeddings.npy", np.array([vector for _, vector in entries], np.float32))
    (store / "chunks.json").write_text(json.dumps([text for text, _ in entries]))
    return store


def npz_with_texts(folder: Path, entries: Sequence[tuple[str, list[float]]]) -> Path:
    """Write arrays of vectors and texts into one file."""
    path = folder / "store.npz"
    np.savez(
        path,
        # A fixed-width text of NumPy loses NULs at its end, and nothing else.
        texts=np.array([text for text, _ in entries]),
        embeddings=np.array([vector for _, vector in entries], np.float32),
    )
    return path


def numpy_empty(folder: Path) -> Path:
    """Write an array without rows."""
    path = folder / "embeddings.npy"
    np.save(path, np.empty((0, 3), np.float32))
    return path
