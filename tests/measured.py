"""Results of measuring commands, in the forms that these document, as they could have come out."""

from collections.abc import Callable
from typing import Any

from harca.report.measured import ADVISE, SCALE, SEARCH, SOAK

SPACE = {"model_id": "text-embedding-3-small", "dims": 1536, "records": 10_000}


def search(**p50_ms: float) -> dict[str, Any]:
    """Return a result of `harca bench search`, with a contestant for each name."""
    given = p50_ms or {"files": 812.0, "numpy": 1.31, "harca": 0.42, "sql": 0.39}
    titles = {
        "files": "file store, cold files: all are read for each search",
        "numpy": "file store in memory: exact, NumPy float32",
        "harca": "harca, as an application calls it",
        "sql": "SQL written by hand: a prepared statement on the same index",
        "langchain-postgres": "langchain-postgres, PGVectorStore",
    }
    return {
        "space": SPACE,
        "k": 10,
        "queries": 100,
        "rounds": 5,
        "seconds": 3.0,
        "index": {
            "name": "vector_embeddings_ann_0123456789ab_idx",
            "method": "hnsw",
            "type": "halfvec",
            "parameters": {"m": 16},
            "effort": {"ef_search": 40},
            "bytes": 41_000_000,
        },
        "table_bytes": 83_000_000,
        "contestants": [
            {
                "name": name,
                "title": titles.get(name, name),
                "answered": 500,
                "p50_ms": value,
                "p95_ms": value * 1.6,
                "p99_ms": value * 2.2,
                "rounds_p50_ms": [value] * 5,
                "recall": 1.0 if name in ("files", "numpy") else 0.9946,
                "client_cpu_ms": value * 0.7,
                "server_cpu_ms": None if name in ("files", "numpy") else value * 0.4,
                "client_mb": 140.0,
                "server_mb": None if name in ("files", "numpy") else 31.5,
                "clients": [
                    {"clients": many, "qps": 800 / value * many**0.4} for many in (1, 4, 16)
                ],
                "notes": [],
            }
            for name, value in given.items()
        ],
        "skipped": [{"name": "vecs", "why": "not installed"}],
        "ratios": {},
        "server": {},
        "machine": {"cores": 2},
        "notes": ["3 of the store's 10,003 records are not among the rows"],
    }


def advise(goal: dict[str, float] | None = None, *, reached: bool = True) -> dict[str, Any]:
    """Return a result of `harca index advise`."""
    curve = [_point("exact", None, {}, {}, 1.0, 9.7)]
    for m, gain in ((16, 0.0), (32, 0.012)):
        for ef, recall, ms in ((40, 0.951, 0.44), (100, 0.979, 0.71), (250, 0.994, 1.32)):
            effort = {"ef_search": ef}
            curve.append(
                _point(
                    "hnsw",
                    "halfvec",
                    {"m": m},
                    effort,
                    min(1.0, recall + gain),
                    ms * (1 + gain * 9),
                )
            )
    for probes, recall, ms in ((1, 0.62, 0.51), (4, 0.91, 1.1), (8, 0.985, 2.0)):
        curve.append(_point("ivfflat", "vector", {"lists": 10}, {"probes": probes}, recall, ms))
    return {
        "model_id": SPACE["model_id"],
        "dims": SPACE["dims"],
        "rows": 10_000,
        "sampled_rows": 10_000,
        "k": 10,
        "queries": 100,
        "repetitions": 3,
        "truth": "exact",
        "curve": curve,
        "left_out": ["hnsw bit m 64: it was slower than what was measured"],
        "goal": goal or {"recall": 0.98},
        "reached": reached,
        "recommended": curve[5],
        "reason": "hnsw halfvec m 32 at ef_search 100 is the fastest of what reaches recall 0.98.",
    }  # fmt: skip


def _point(
    method: str,
    kind: str | None,
    parameters: dict[str, int],
    effort: dict[str, int],
    recall: float,
    p50_ms: float,
) -> dict[str, Any]:
    return {
        "method": method,
        "type": kind,
        "parameters": parameters,
        "effort": effort,
        "recall": recall,
        "p50_ms": round(p50_ms, 3),
        "p95_ms": round(p50_ms * 1.5, 3),
        "build_s": 0.0 if method == "exact" else 12.4,
        "size_bytes": 0 if method == "exact" else 41_000_000,
    }


def scale(growth: float = 1.07, *, rows: int = 1_000, recall: float = 0.991) -> dict[str, Any]:
    """Return a result of `harca bench scale`."""

    def size(factor: int, harca: float, numpy: float) -> dict[str, Any]:
        return {
            "rows": rows * factor,
            "load_s": 1.0,
            "build_s": 2.0,
            "table_bytes": 8_000_000,
            "index": None,
            "p50_ms": harca,
            "recall": recall,
            "sql": {"p50_ms": harca * 0.93, "recall": recall},
            "numpy": {"p50_ms": numpy, "recall": 1.0},
            "tried": [],
            "pages": 90.0,
        }

    return {
        "rows": rows,
        "factor": 10,
        "dims": 1536,
        "k": 10,
        "queries": 100,
        "rounds": 5,
        "recall_goal": 0.98,
        "growth_goal": 1.1,
        "sizes": [size(1, 0.51, 0.2), size(10, 0.51 * growth, 1.9)],
        "growth": growth,
        "rounds_growth": [growth] * 5,
        "growth_sql": growth,
        "growth_numpy": 9.5,
        "reached": growth <= 1.1 and recall >= 0.98,
        "why": ["a search looks at 90 pages among 1,000 rows, at 120 among 10,000"],
        "server": {},
        "machine": {"cores": 2},
    }


def soak(
    minutes: float = 1_440, verdict: str = "steady", *, windows: int = 240, **fields: Any
) -> dict[str, Any]:
    """Return a result of `harca soak`."""
    window_s = minutes * 60 / windows
    latencies = {"answered": 1_000, "p50_ms": 0.6, "p95_ms": 1.4, "p99_ms": 3.0, "max_ms": 61.0}
    trend = {
        "points": windows,
        "per_hour": 0.0,
        "growth": 0.01,
        "first": 0.6,
        "last": 0.61,
        "by_chance": 0.4,
        "between_thirds": 0.0167,
    }
    return {
        "verdict": verdict,
        "reasons": [] if verdict == "steady" else ["p95 of reads grew by 40%, at most 25% may"],
        "interrupted": False,
        **SPACE,
        "minutes": minutes,
        "seconds": minutes * 60,
        "requests": 172_800,
        "errors": {"connection-lost": 3},
        "unserved": 0,
        "error_share": 3 / 172_800,
        "connections_lost": 3,
        "reads": latencies,
        "writes": latencies,
        "kinds": dict.fromkeys(("search", "filtered search", "insert", "update"), latencies),
        "drift": {
            "reads_p50_ms": trend,
            "client_bytes": {**trend, "first": 48_000_000, "last": 48_400_000},
            "server_bytes": None,
            "bytes_per_row": {**trend, "first": 8_300, "last": 8_350},
        },
        "window_s": window_s,
        "windows": [
            {
                "at_s": number * window_s,
                "requests": 720,
                "errors": {"connection-lost": 3} if number == 100 else {},
                "connections_lost": 0,
                "reads": {**latencies, "p50_ms": 0.6 + (number * 7 % 11) / 100,
                          "p95_ms": 1.4 + (number * 5 % 17) / 20},
                "writes": latencies,
                "client_bytes": 48_000_000 + number * 1_700,
                "server_bytes": 21_000_000 + (number * 3 % 7) * 10_000,
                "live_rows": 10_000,
                "dead_rows": number * 13 % 900,
                "table_bytes": 83_000_000,
                "index_bytes": 41_000_000,
            }
            for number in range(windows)
        ],
        **fields,
    }  # fmt: skip


ALL: dict[str, Callable[[], dict[str, Any]]] = {
    SEARCH: search,
    ADVISE: advise,
    SCALE: scale,
    SOAK: soak,
}
