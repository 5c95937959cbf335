"""Reading a large store takes the memory of a small one, in the formats that are streamed."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.contract.test_readers import CASES

FEW, RECORDS, DIMS = 1_000, 3_000, 384
# The vectors in between would take 3.1 MB as float32, and 25 MB as Python's numbers.
MOST_GROWTH_KB = 2_400
# The allocator keeps some of what it has once given out, whatever is read.
MOST_PROCESS_GROWTH_KB = 18_000
# How much more than that, is the luck of threads.
FEW_ARENAS = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}

READ = """
import sys, tracemalloc
from pathlib import Path
from harca.readers.base import open_store

def private_kb():
    # Without the pages of mapped files, which the system takes back when it needs them.
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])

def read(path):
    tracemalloc.reset_peak()
    count = sum(1 for item in open_store(path).items())
    return count, tracemalloc.get_traced_memory()[1] // 1000, private_kb()

tracemalloc.start()
_, before, process_before = read(sys.argv[1])
count, peak, process = read(sys.argv[2])
print(count, peak - before, process - process_before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.streams])
def test_memory_does_not_grow_with_the_store(name, tmp_path):
    numbers = np.random.default_rng(7).random((RECORDS, DIMS)).round(4).tolist()
    entries = [(f"text {number}", vector) for number, vector in enumerate(numbers)]
    paths = []
    for size in (FEW, RECORDS):
        (tmp_path / str(size)).mkdir()
        paths.append(CASES[name].make(tmp_path / str(size), entries[:size]))
    del numbers, entries

    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)],
        env={**os.environ, **FEW_ARENAS},
        capture_output=True,
        text=True,
        check=True,
    )

    count, growth_kb, process_growth_kb = map(int, done.stdout.split())
    assert count == RECORDS
    assert growth_kb < MOST_GROWTH_KB
    assert process_growth_kb < MOST_PROCESS_GROWTH_KB
