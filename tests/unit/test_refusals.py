"""Which of the server's errors are a record's fault, and records as lines of JSON."""

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import psycopg
import pytest

from harca.canonical import object_parts
from harca.fingerprint import digest
from harca.model import Record
from harca.postgres.refused import LeftOut, is_about_a_record
from harca.row_line import record_line, record_of

OF_A_RECORD = (
    "22000", "22003", "22021", "22P02", "22P05", "23502", "23503", "23505", "23514", "23P01",
    "38000", "44000", "54000", "54001", "P0001", "P0004", "HQ042", "23ZZZ",
)  # fmt: skip
OF_EVERYTHING = (
    "08006", "0A000", "25006", "26000", "40001", "40P01", "42501", "42703", "42804", "42P01",
    "53100", "53200", "53300", "54011", "55P03", "57014", "57P01", "58030", "XX000", "XX001",
)  # fmt: skip


class Refused(psycopg.Error):
    def __init__(self, code):
        super().__init__("said")
        self.sqlstate = code


@pytest.mark.parametrize("code", OF_A_RECORD)
def test_what_one_row_has_and_another_has_not_is_about_a_record(code):
    assert is_about_a_record(Refused(code))


@pytest.mark.parametrize("code", OF_EVERYTHING)
def test_what_would_stop_any_row_is_about_everything(code):
    assert not is_about_a_record(Refused(code))


def test_an_error_without_a_code_is_about_everything_but_a_row_that_was_left_out():
    assert is_about_a_record(LeftOut("COPY took 1 of 2 rows"))
    assert not is_about_a_record(psycopg.OperationalError("the connection is lost"))
    assert not is_about_a_record(psycopg.DataError("cannot adapt"))


DATES = {
    "none": None,
    "UTC": datetime(2025, 3, 16, 3, 8, 2, 864001, UTC),
    "an offset with seconds": datetime(
        1880, 1, 1, tzinfo=timezone(timedelta(minutes=-4, seconds=-56))
    ),
    "the first": datetime(1, 1, 1, tzinfo=UTC),
    "the last": datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
}


@pytest.mark.parametrize("created_at", DATES.values(), ids=DATES)
def test_a_record_comes_back_from_its_line_bit_by_bit(created_at):
    smallest = np.nextafter(np.float32(0), np.float32(1))
    values = [smallest, -0.0, 1 / 3, np.finfo(np.float32).max, math.pi, 16_777_217.0, 1e-45]
    numbers = [1e23, 0.1, -0.0, 5e-324, 1.7976931348623157e308, 2**70, -(10**40), 1.0, True, None]
    record = Record(
        key="k\u2028\U0001f600\x01",
        content='"\\ \x7f\ufffe',
        embedding=np.array(values, np.float32),
        metadata=object_parts({"numbers": numbers, "a": {"é": ["\\u0000", "\t"]}, "": {}}),
        model_id="m",
        created_at=created_at,
        source="s",
        origin="o",
    )

    line = record_line(record)
    again = record_of(line, origin="o")

    assert b"\n" not in line
    assert digest(again) == digest(record)
    assert (again.source, again.metadata) == (record.source, record.metadata)


@pytest.mark.parametrize(
    "line",
    [b"", b"no JSON", b"[]", b"{}", b'{"store_key": 1}', b"\xff", b"null"],
    ids=["empty", "text", "a list", "an object", "a part", "no UTF-8", "null"],
)
def test_what_is_no_record_is_told(line):
    with pytest.raises(ValueError, match=r"."):
        record_of(line, origin="o")
