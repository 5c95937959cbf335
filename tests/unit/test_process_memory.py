"""Memory that a process holds for itself, where the system tells."""

import os
import sys

import pytest

from harca.process_memory import private_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@linux
def test_what_is_allocated_is_seen():
    before = private_bytes()
    assert before is not None

    held = bytearray(os.urandom(1)) * (64 * 2**20)
    after = private_bytes(os.getpid())

    assert after is not None
    assert after - before > 0.9 * len(held)


@linux
def test_a_process_of_another_kind_is_not_taken_for_the_server():
    assert private_bytes(os.getpid(), titled="postgres: user database") is None


def test_a_process_that_is_not_there_has_none():
    assert private_bytes(2**31 - 1) is None
