"""What is taken out of messages and logs, and what is left as it is."""

import logging

import pytest

from harca.errors import UsageError
from harca.options import LoadOptions
from harca.redact import Redacting, has_secret, redacted, without_login


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:secret@h:5432/d", "postgresql://***@h:5432/d"),
        ("(postgresql+psycopg://u:se cr@et/x@h/d)", "(postgresql+psycopg://***@h/d)"),
        ("postgresql:/u:secret@h/d", "postgresql:/***@h/d"),
        ("postgres://h/d?user=u&password=secret", "postgres://h/d?***"),
        ("GET https://h/p?X-Amz-Signature=secret failed", "GET https://h/p?*** failed"),
        ('"https://me:secret@h/p" is gone', '"https://***@h/p" is gone'),
        ("https://h/p?sv=1&sig=secret", "https://h/p?***"),
        ("host=h password=secret user=u", "host=h password=*** user=u"),
        ("password = 'se cr\\'et' user=u", "password = *** user=u"),
        ("sslpassword=secret", "sslpassword=***"),
        ("aws_secret_access_key=secret, region=x", "aws_secret_access_key=***, region=x"),
    ],
)
def test_passwords_and_tokens_are_taken_out(text, shown):
    assert redacted(text) == shown
    assert has_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u@h:5432/d",
        "https://h/p?page=2#top",
        "/data/a@b:c/store.jsonl:41",
        "s3://bucket/a b/c",
        'key "a:b@c" has different contents in x.json and y.json',
        "PostgreSQL: password authentication failed for user u",
        "text-embedding-ada-002",
    ],
)
def test_what_is_not_secret_stays(text):
    assert redacted(text) == text
    assert not has_secret(text)


def test_an_address_is_shown_without_what_leads_in():
    assert without_login("https://me:se/cr@et@h:1/p?token=x#y") == "https://h:1/p"
    assert without_login("https://[bad?secret") == "https://..."


def test_what_is_logged_is_redacted_with_its_values():
    record = logging.LogRecord(
        "x", logging.INFO, "x", 1, "fetching %s", ("http://u:secret@h",), None
    )

    assert Redacting("%(message)s").format(record) == "fetching http://***@h"


@pytest.mark.parametrize("name", ["name", "source", "model"])
def test_a_label_with_a_password_is_refused(name):
    with pytest.raises(UsageError, match="has a password or a token in it") as caught:
        LoadOptions.from_text({name: "https://u:c4nary@h/store"})

    assert "c4nary" not in str(caught.value)
