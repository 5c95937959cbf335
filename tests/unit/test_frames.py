"""Binary COPY, against rows laid out by hand after the manual's "COPY", "Binary Format"."""

from datetime import UTC, datetime

import numpy as np
import pytest

from harca.model import Record
from harca.postgres import frames

HEADER = b"PGCOPY\n\xff\r\n\x00" + b"\x00\x00\x00\x00" + b"\x00\x00\x00\x00"
TRAILER = b"\xff\xff"

RECORD = Record(
    key="k",
    content="日",
    embedding=np.array([1.0, -0.0, 1e-45], dtype=np.float32),
    metadata={"b": "1", "aa": '"é"'},
    model_id="m",
    created_at=None,
    source="s",
    origin="o",
)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (frames.text("日\n"), b"\xe6\x97\xa5\n"),
        (frames.text(""), b""),
        (frames.text(None), None),
        (frames.int4(1), b"\x00\x00\x00\x01"),
        (frames.int4(-2), b"\xff\xff\xff\xfe"),
        (frames.int4(None), None),
        (frames.int8(2**40), b"\x00\x00\x01\x00\x00\x00\x00\x00"),
        (frames.int8(None), None),
        (frames.timestamptz(None), None),
        (frames.timestamptz(datetime(2000, 1, 1, tzinfo=UTC)), bytes(8)),
        (
            frames.timestamptz(datetime(2000, 1, 1, 0, 0, 1, 2, tzinfo=UTC)),
            b"\x00\x00\x00\x00\x00\x0f\x42\x42",
        ),
        (frames.timestamptz(datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)), b"\xff" * 8),
        (
            frames.vector(RECORD),
            b"\x00\x03\x00\x00" + b"\x3f\x80\x00\x00" + b"\x80\x00\x00\x00" + b"\x00\x00\x00\x01",
        ),
        (frames.jsonb(RECORD), b'\x01{"b": 1, "aa": "\xc3\xa9"}'),
    ],
    ids=[
        "text", "empty text", "null text", "int4", "negative int4", "null int4", "int8",
        "null int8", "null timestamp", "2000", "after 2000", "before 2000", "vector", "jsonb",
    ],
)  # fmt: skip
def test_a_field_is_laid_out_as_the_server_reads_it(field, expected):
    assert field == expected


def test_a_row_is_a_count_and_fields_with_their_lengths():
    laid_out = (
        b"\x00\x03"
        b"\x00\x00\x00\x02ab"
        b"\xff\xff\xff\xff"  # NULL
        b"\x00\x00\x00\x00"  # empty, which is not NULL
    )

    assert frames.row(b"ab", None, b"") == laid_out


def test_a_stream_is_header_rows_and_trailer():
    rows = [frames.row(b"a"), frames.row(None)]

    assert b"".join(frames.stream(rows)) == HEADER + rows[0] + rows[1] + TRAILER
    assert b"".join(frames.stream([])) == HEADER + TRAILER


def test_a_stream_comes_in_pieces_as_its_rows_are_made():
    made = []

    def rows():
        for number in range(100):
            made.append(number)
            yield frames.row(b"x" * 10_000)

    pieces = frames.stream(rows())
    first = next(pieces)

    assert 256 * 1024 <= len(first) < 300 * 1024
    assert len(made) < 40
    assert sum(map(len, pieces)) + len(first) == 19 + 2 + 100 * (2 + 4 + 10_000)


def test_the_server_reads_what_was_laid_out(conn):
    conn.execute(
        "CREATE TABLE copied (t text, i int, b bigint, at timestamptz, j jsonb, v vector, n text)"
    )
    moment = datetime(1969, 7, 20, 20, 17, 40, 123457, tzinfo=UTC)
    row = frames.row(
        frames.text("日\t\\N\n"),
        frames.int4(-7),
        frames.int8(-(2**62)),
        frames.timestamptz(moment),
        frames.jsonb(RECORD),
        frames.vector(RECORD),
        None,
    )

    with conn.cursor() as cursor:
        with cursor.copy("COPY copied FROM STDIN (FORMAT BINARY)") as copy:
            for piece in frames.stream([row]):
                copy.write(piece)
        assert cursor.rowcount == 1

    found = conn.execute("SELECT t, i, b, at, j::text, v::real[], n FROM copied").fetchone()
    assert found == (
        "日\t\\N\n",
        -7,
        -(2**62),
        moment,
        '{"b": 1, "aa": "é"}',
        [1.0, 0.0, pytest.approx(1e-45, abs=1e-45)],
        None,
    )
