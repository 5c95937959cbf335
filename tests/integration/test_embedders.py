"""Searching by a text that is not stored, and keeping what embeds it; over HTTP, on loopback."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from harca.embedders.base import embedded_queries
from harca.embedders.choice import open_embedder
from harca.errors import EmbedderNotHere, HarcaError, OtherDims, UsageError
from harca.model import Space
from harca.postgres import space_settings
from harca.postgres.space_index import spaces
from harca.store import VectorStore
from harca.text_query import NoEmbedder, embed_text
from tests.embedding_server import (
    KEY,
    Answered,
    embedding_server,
    embeddings,
    refused,
    vector_of,
)

NAME = "openai:some-model"
TEXTS = ["one", "two", "three", "four"]

pytestmark = pytest.mark.one_server


@pytest.fixture
def api(monkeypatch):
    with embedding_server() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def rows(conn):
    """Make a space; its embeddings are the server's, unless *made* says otherwise."""

    def insert(model: str = "m", dims: int = 4, made: Callable[..., Any] = vector_of) -> None:
        conn.cursor().executemany(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
            "VALUES (%s, %s::real[]::vector, '{}', %s)",
            [(text, made(text, dims), model) for text in TEXTS],
        )

    return insert


def without_key(*texts: str) -> None:
    """Fail if the key, or a part of it that would help anybody, is in one of *texts*."""
    for text in texts:
        assert not re.search(r"c4nary|0123456789", text), text


@pytest.mark.parametrize("encoding", [None, "float"], ids=["base64", "whatever it is asked"])
def test_a_text_that_is_not_stored_is_embedded(encoding, rows, api, database, run_harca):
    rows()
    api.encoding = encoding

    done = run_harca(
        "search", "--text", "unheard of", "--embedder", NAME, "-k", "4", "-v", "--json",
        database=database,
    )  # fmt: skip

    assert done.code == 0, done.err
    query = np.array(vector_of("unheard of", 4))
    expected = sorted(TEXTS, key=lambda text: -float(query @ vector_of(text, 4)))
    assert [hit["content"] for hit in done.json["results"]] == expected
    assert done.json["embedded_by"] == NAME
    (asked,) = api.requests
    assert (asked["model"], asked["input"]) == ("some-model", ["unheard of"])
    assert "dimensions" not in asked
    assert asked["authorization"] == f"Bearer {KEY}"
    without_key(done.out, done.err)


def test_a_text_that_is_stored_is_asked_of_nobody(rows, api, database, run_harca):
    rows()

    done = run_harca("search", "--text", "two", "--embedder", NAME, "--json", database=database)

    assert done.json["results"][0]["content"] == "two"
    assert done.json["embedded_by"] is None
    assert api.requests == []


def test_a_server_of_one_s_own_needs_no_key(rows, api, database, run_harca, monkeypatch):
    rows()
    monkeypatch.delenv("OPENAI_API_KEY")

    done = run_harca("search", "--text", "new", "--embedder", NAME, database=database)

    assert done.code == 0, done.err
    assert KEY not in api.requests[0]["authorization"]


def test_what_passes_is_tried_again(rows, api, database, run_harca):
    rows()
    api.answers = [refused(429, "slow down"), refused(503, "overloaded")]

    done = run_harca("search", "--text", "new", "--embedder", NAME, database=database)

    assert done.code == 0, done.err
    assert len(api.requests) == 3


GARBAGE = b'{"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": "%%%"}]}'
BROKEN = {
    "a key that is refused": (
        [refused(401, f"Incorrect API key provided: {KEY[:6]}***{KEY[-10:]}")],
        "answered with status 401",
    ),
    "a key that is quoted": (
        [refused(403, f"{KEY} has no access to some-model\nat all")],
        r"answered with status 403: \*\*\* has no access to some-model at all",
    ),
    "an unknown model": (
        [refused(404, "The model `some-model` does not exist")],
        "answered with status 404: The model `some-model` does not exist",
    ),
    "too much": ([refused(429, "no quota")] * 3, "answered with status 429: no quota"),
    "another server": ([Answered(200, b"<html>")], "something else than embeddings"),
    "another error": ([Answered(502, b"<html>", {"retry-after-ms": "1"})] * 3, "with status 502"),
    "no JSON": ([Answered(200, b"{")], "something else than embeddings"),
    "no data": ([Answered(200, b"{}")], "something else than embeddings"),
    "a list": ([Answered(200, b"[1]")], "something else than embeddings"),
    "no base64": ([Answered(200, GARBAGE)], "answered with no embeddings"),
    "none": ([embeddings([])], "something else than embeddings"),
    "two": ([embeddings([[1.0] * 4] * 2)], "answered with 2 embeddings, expected 1"),
    "three dimensions": (
        [embeddings([[1.0] * 3])],
        "makes embeddings of 3 dimensions, the space has 4",
    ),
    "null": ([embeddings([[None] * 4])], "not finite|something else than embeddings"),
    "infinite": ([embeddings([[1e300] * 4])], "not finite"),
    "not a number": ([embeddings([[np.nan] * 4], encoding="base64")], "not finite"),
    "words": ([embeddings([["a", "b", "c", "d"]])], "something else than embeddings"),
}


@pytest.mark.parametrize(("answers", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_embedding_is_refused(answers, message, api):
    api.answers = list(answers)

    with pytest.raises(HarcaError) as failed:
        embedded_queries(open_embedder(NAME), ["new"], dims=4)[0]

    assert re.search(message, str(failed.value))
    assert failed.value.hint
    assert "\n" not in str(failed.value)
    without_key(str(failed.value), failed.value.hint)


def test_a_refused_key_is_shown_nowhere(rows, api, database, run_harca):
    rows()
    for status in (401, 403, 400):
        api.answers = [refused(status, f"what of {KEY}?")]

        done = run_harca(
            "search", "--text", "new", "--embedder", NAME, "-v", "--json", database=database
        )

        assert done.code == 1
        assert f'"{NAME}": {api.url} answered with status {status}' in done.json["error"]
        without_key(done.out, done.err)


def test_a_server_that_is_not_there_is_told_with_its_address(rows, database, run_harca):
    rows()
    env = {"OPENAI_BASE_URL": "http://me:c4nary@127.0.0.1:1/v1", "OPENAI_API_KEY": KEY}

    done = run_harca("search", "--text", "new", "--embedder", NAME, "-v", database=database, **env)

    assert done.code == 1
    assert f'"{NAME}" cannot be reached at http://127.0.0.1:1/v1: connection error' in done.err
    without_key(done.out, done.err)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (" ", '"openai:some-model" needs the key of the API, and OPENAI_API_KEY is not set'),
        (f"{KEY}\u00e9", "OPENAI_API_KEY has characters that no key has"),
        (f"{KEY}\nX: y", "OPENAI_API_KEY has characters that no key has"),
    ],
    ids=["no key", "no ASCII", "two lines"],
)
def test_without_a_usable_key_nothing_is_sent(key, message, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)

    with pytest.raises(EmbedderNotHere) as failed:
        open_embedder(NAME)

    assert str(failed.value) == message


def test_a_guess_from_the_label_is_told_before_the_text_goes_out(rows, api, database, run_harca):
    rows("text-embedding-3-small", 8)

    done = run_harca("search", "--text", "new", "--json", database=database)

    assert done.code == 0, done.err
    assert (
        'the text goes to openai:text-embedding-3-small, guessed from the label "text-embedding-3-'
        'small"; to settle it: harca embedder openai:text-embedding-3-small'
    ) in done.err
    assert done.json["embedded_by"] == "openai:text-embedding-3-small"
    assert api.requests[0]["dimensions"] == 8  # as many as the space has


REFUSED = (
    (["--text", "new"], 'this text is not in the table, and no embedder is known for "m/4"'),
    (["--text", " "], "the text to search by is empty"),
    (["--text", "new", "--embedder", "m"], '"m" names no embedder'),
    (["--text", "new", "--embedder", NAME, "--model", "x"], 'no space fits "x/any dimension"'),
    (["--like", "1", "--embedder", NAME], "--embedder is for --text"),
)


def test_a_text_that_cannot_be_embedded_is_refused(rows, api, database, run_harca):
    rows()
    for arguments, message in REFUSED:
        done = run_harca("search", *arguments, database=database)

        assert done.code == 2
        assert message in done.err
        assert "hint:" in done.err
    assert api.requests == []


def test_of_a_label_s_spaces_the_embedding_s_dimensions_tell_which(rows, api, conn):
    rows("m", 4)
    rows("m", 3)
    api.dims = 3

    assert embed_text(conn, "new", model_id="m", embedder=NAME).space.dims == 3
    assert embed_text(conn, "new", model_id=None, embedder=NAME).space.dims == 3
    four, three = sorted(spaces(conn), key=lambda space: -space.dims)
    space_settings.keep(conn, three, embedder=NAME)
    assert embed_text(conn, "new", model_id=None).space.dims == 3
    space_settings.keep(conn, four, embedder=NAME)
    with pytest.raises(UsageError, match="several spaces fit, and each has an embedder: m/3, m/4"):
        embed_text(conn, "new", model_id="m")
    api.dims = 5
    with pytest.raises(OtherDims, match="5 dimensions"):
        embed_text(conn, "new", model_id="m", embedder=NAME)


def test_an_application_s_own_embedder_is_taken(rows, conn):
    class Own:
        name = "own"

        def embed(self, texts):
            return np.array([vector_of(text, 4) for text in texts], dtype=np.float32)

    rows()

    found = embed_text(conn, "new", model_id="m", embedder=Own())

    assert found.embedded_by == "own"
    assert found.embedding.tolist() == vector_of("new", 4)


def test_an_embedder_is_kept_once_it_has_made_what_is_stored(rows, api, database, run_harca):
    rows()

    kept = run_harca("embedder", NAME, "--check", "3", "--json", database=database)
    shown = run_harca("embedder", database=database)
    found = run_harca("search", "--text", "new", "--json", database=database)
    forgotten = run_harca("embedder", "--forget", "--json", database=database)
    lost = run_harca("search", "--text", "new", database=database)

    assert kept.code == 0, kept.err
    assert kept.json["spaces"] == [{"model_id": "m", "dims": 4, "embedder": NAME, "origin": "kept"}]
    assert (kept.json["texts"], kept.json["agreeing"]) == (3, 3)
    assert kept.json["lowest"] == pytest.approx(1)
    assert api.requests[0]["input"] == ["one", "two", "four"]  # the two oldest and the newest
    assert re.search(rf"m +4 +{NAME} +kept", shown.out)
    assert (found.json["embedded_by"], found.err) == (NAME, "")
    assert forgotten.json["spaces"][0]["embedder"] is None
    assert lost.code == 2


def test_an_embedder_that_makes_other_embeddings_is_refused(rows, api, database, conn, run_harca):
    rows(made=lambda text, dims: vector_of(f"by another model: {text}", dims))

    refusal = run_harca("embedder", NAME, "--json", database=database)
    nothing = run_harca("embedder", "--json", database=database)
    forced = run_harca("embedder", NAME, "--force", database=database)

    assert refusal.code == 4
    assert f'"{NAME}" embeds 4 of 4 stored texts of space "m/4" otherwise' in refusal.json["error"]
    assert "--force" in refusal.json["hint"]
    assert nothing.json["spaces"][0]["embedder"] is None
    assert forced.code == 0
    assert "0 of 4 stored texts embedded as stored, lowest cosine -" in forced.out
    assert space_settings.settings_of(conn, Space("m", 4, 4)).embedder == NAME


def test_other_lengths_are_kept_and_told(rows, api, database, run_harca):
    rows(made=lambda text, dims: [2 * value for value in vector_of(text, dims)])

    done = run_harca("embedder", NAME, database=database)

    assert done.code == 0, done.err
    assert "4 of 4 stored texts embedded as stored" in done.out
    assert "the lengths differ" in done.out


def test_what_cannot_be_compared_is_kept_only_by_force(rows, api, database, run_harca):
    rows()
    answers = [refused(401, "no")]

    api.answers = list(answers)
    failed = run_harca("embedder", NAME, database=database)
    api.answers = list(answers)
    forced = run_harca("embedder", NAME, "--force", "--json", database=database)
    api.dims = 5
    never = run_harca("embedder", NAME, "--force", database=database)

    assert failed.code == 1
    assert "status 401" in forced.json["unchecked"]
    assert forced.json["spaces"][0]["embedder"] == NAME
    assert never.code == 2
    assert "makes embeddings of 5 dimensions, the space has 4" in never.err


NOT_KEPT = (
    ([NAME, "--forget"], "expected a name or --forget, found both"),
    ([NAME, "--model", "nobody"], 'no space fits "nobody/any dimension"'),
    (["--model", "nobody"], 'no space fits "nobody/any dimension"'),
    (["nobody"], '"nobody" names no embedder'),
    ([f"openai:{'m' * 3000}"], "the embedder's name is longer than"),
    (["openai:m?api_key=c4nary"], "the embedder's name has a password or a token in it"),
    ([NAME], '"m/4" has no texts to compare the embedder by'),
)


def test_what_cannot_be_kept_is_refused(api, conn, database, run_harca):
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "VALUES (' ', '[1, 0, 0, 0]', '{}', 'm'), ('a', '[0, 0, 0, 0]', '{}', 'm')"
    )
    for arguments, message in NOT_KEPT:
        done = run_harca("embedder", *arguments, database=database)

        assert done.code == 2
        assert message in done.err
        assert "hint:" in done.err
        without_key(done.err)
    assert api.requests == []


def test_a_space_has_an_embedder_only_where_there_are_settings(database, conn, rows, api):
    rows()
    conn.execute("DROP TABLE space_settings")  # as before its revision

    assert embed_text(conn, "new", model_id=None, embedder=NAME).space.dims == 4
    with pytest.raises(NoEmbedder, match="no embedder is known"):
        embed_text(conn, "new", model_id=None)


def test_many_texts_go_in_requests_that_an_api_takes(api):
    texts = [f"text {number}" for number in range(130)]

    found = open_embedder(NAME).embed(texts)

    assert [len(asked["input"]) for asked in api.requests] == [64, 64, 2]
    assert json.dumps(found.tolist()) == json.dumps([vector_of(text, 4) for text in texts])


def test_an_application_searches_by_texts_and_embeddings_alike(rows, api, database):
    rows()
    texts = ["new", "newer"]

    with VectorStore(database, embedder=NAME) as store:
        by_text = store.search("new", k=3)
        by_both = store.search_many(["new", vector_of("new", 4), "newer"], model_id="m", k=3)
        by_embedding = store.search_many([vector_of(text, 4) for text in texts], k=3)

    assert by_text.hits == by_embedding[0].hits
    assert [found.hits for found in by_both] == [by_embedding[number].hits for number in (0, 0, 1)]
    assert [asked["input"] for asked in api.requests] == [["new"], ["new", "newer"]]


def test_an_application_s_texts_go_to_the_kept_embedder_which_stays_open(
    rows, api, conn, database, monkeypatch
):
    rows()
    space_settings.keep(conn, Space("m", 4, 4), embedder=NAME)
    opened = []

    def opening(name, *, dims):
        opened.append(name)
        return open_embedder(name, dims=dims)

    monkeypatch.setattr("harca.store_texts.open_embedder", opening)

    with VectorStore(database) as store, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: store.search(f"new {number}", k=1), range(8)))

    assert all(answer.hits for answer in found)
    assert opened == [NAME]
    assert len(api.requests) == 8


def test_an_application_is_told_of_a_guess_once(rows, api, database, caplog):
    rows("text-embedding-3-small", 8)

    with VectorStore(database) as store:
        for text in ("new", "newer"):
            assert store.search(text).hits

    assert [
        record.getMessage() for record in caplog.records if record.name == "harca.embedders"
    ] == [
        'the text goes to openai:text-embedding-3-small, guessed from the label "text-embedding-3-'
        'small"; to settle it: harca embedder openai:text-embedding-3-small'
    ]


def test_without_an_embedder_an_application_finds_by_stored_texts(rows, database):
    rows()

    with VectorStore(database) as store:
        found = store.search("three", k=1)
        with pytest.raises(UsageError, match="this text is not in the table, and no embedder is"):
            store.search("new")
        with pytest.raises(UsageError, match="not all of these texts are in the table, and no"):
            store.search_many(["three", "new"])
        with pytest.raises(UsageError, match="the text to search by is empty"):
            store.search("")

    assert [hit.content for hit in found.hits] == ["three"]
