"""Packed and remote stores: what they give, what is refused, what is left behind."""

import bz2
import functools
import gzip
import http.server
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from contextlib import suppress
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest
import zstandard

from harca.errors import LfsPointer, MissingLibrary, SourceError, StoreNotFound
from harca.readers import staging
from harca.readers.staging import address, archives_in, is_url, shown, staged

FILES = {"store/items.jsonl": b'{"a": 1}\n' * 400, "store/inner/日本.txt": b"text", "store/e": b""}


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where everything is unpacked; nothing may stay there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def content_of(folder):
    return {
        str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()
    }


def tar(files, *, kind="", **more):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{kind}", **more) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def zipped(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def zstd(data):
    return zstandard.ZstdCompressor().compress(data)


ARCHIVES = {
    "tar": tar(FILES),
    "old tar": tar(FILES, format=tarfile.GNU_FORMAT),
    "tar.gz": tar(FILES, kind="gz"),
    "tar.bz2": tar(FILES, kind="bz2"),
    "tar.xz": tar(FILES, kind="xz"),
    "tar.zst": zstd(tar(FILES)),
    "zip": zipped(FILES),
}


@pytest.mark.parametrize("data", ARCHIVES.values(), ids=ARCHIVES)
@pytest.mark.parametrize("name", ["store.x", "items.jsonl"])
def test_an_archive_gives_its_top_folder_whatever_its_name(data, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)

    with staged(str(path)) as folder:
        found = content_of(folder)

        assert folder.name == "store"
    assert found == {name.removeprefix("store/"): one for name, one in FILES.items()}


@pytest.mark.parametrize("data", ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_cut_short_anywhere_is_refused(data, tmp_path):
    path = tmp_path / "store.zip"  # else a ZIP without its end is no archive
    ends = {len(data) * step // 12 for step in range(1, 12)} | {512, len(data) - 1}
    whole = {name.removeprefix("store/"): one for name, one in FILES.items()}
    refused = 0
    for end in ends:
        path.write_bytes(data[: min(end, len(data) - 1)])

        try:
            with staged(str(path)) as folder:
                assert content_of(folder) == whole, end  # only what fills the last record is gone
        except SourceError:
            refused += 1
    assert refused > len(ends) / 2


def test_several_entries_at_the_top_give_the_folder_around_them(tmp_path):
    (tmp_path / "s.zip").write_bytes(zipped({"a.txt": b"a", "b.txt": b"b"}))

    with staged(str(tmp_path / "s.zip")) as folder:
        assert content_of(folder) == {"a.txt": b"a", "b.txt": b"b"}


def test_what_macos_adds_does_not_count(tmp_path):
    files = {"s/a.txt": b"a", "__MACOSX/s/._a.txt": b"", ".DS_Store": b"", "._s": b""}
    (tmp_path / "s.zip").write_bytes(zipped(files))

    with staged(str(tmp_path / "s.zip")) as folder:
        assert content_of(folder) == {"a.txt": b"a"}


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)],
)
def test_a_compressed_file_gives_the_file(suffix, compress, tmp_path):
    path = tmp_path / f"items.jsonl.{suffix}"
    path.write_bytes(compress(b"line\n" * 100_000) + compress(b"end"))  # parts can follow

    with staged(str(path)) as file:
        assert (file.name, file.read_bytes()) == ("items.jsonl", b"line\n" * 100_000 + b"end")


def test_layers_are_unpacked_one_after_the_other(tmp_path):
    inner = tar({"items.jsonl.gz": gzip.compress(b"line")}, kind="gz")
    (tmp_path / "s.zip").write_bytes(zipped({"store.tar.gz": inner}))

    with staged(str(tmp_path / "s.zip")) as file:
        assert (file.name, file.read_bytes()) == ("items.jsonl", b"line")


def test_what_is_no_archive_is_given_as_it_is(tmp_path):
    np.savez(tmp_path / "v.npz", v=np.ones(3))
    (tmp_path / "a.docx").write_bytes(zipped({"[Content_Types].xml": b"", "word/a.xml": b""}))
    (tmp_path / "m.pt").write_bytes(zipped({"m/data.pkl": b"", "m/version": b"3"}))
    (tmp_path / "cut.docx").write_bytes(zipped(FILES)[:100])
    (tmp_path / "p.parquet").write_bytes(b"PAR1" + bytes(600) + b"PAR1")
    (tmp_path / "s.db").write_bytes(b"SQLite format 3\0" + bytes(600))
    (tmp_path / "zeros").write_bytes(bytes(2000))
    (tmp_path / "empty").touch()
    for path in [*tmp_path.iterdir(), tmp_path / "nothing"]:
        with staged(str(path)) as given:
            assert given == path


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def device(name, kind):
    member = tarfile.TarInfo(name)
    member.type = kind
    return member


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([tarfile.TarInfo("../out")], 'a member "../out", which is a path that leads out'),
        ([tarfile.TarInfo("a/../../out")], "which is a path that leads out"),
        ([tarfile.TarInfo("/tmp/out")], 'a member "/tmp/out", which is an absolute path'),
        ([link("l", "/etc/passwd")], 'a member "l", which is a link to an absolute path'),
        ([link("l", "../../out")], "which is a link that leads out"),
        ([link("h", "../out", tarfile.LNKTYPE)], "which is a link that leads out"),
        ([link("l", ".."), tarfile.TarInfo("l/out")], "which is a link that leads out"),
        ([device("d", tarfile.CHRTYPE)], "which is a device or a pipe"),
        ([device("p", tarfile.FIFOTYPE)], "which is a device or a pipe"),
    ],
)
def test_a_tar_that_reaches_outside_is_refused(members, why, tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for member in members:
            archive.addfile(member)

    with pytest.raises(SourceError) as caught, staged(str(tmp_path / "s.tar")):
        pass

    assert why in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "mode", "why"),
    [
        ("../out", 0, 'a member "../out", which is a path that leads out'),
        ("a/../../out", 0, "which is a path that leads out"),
        ("..\\out", 0, "which is a path that leads out"),
        ("/tmp/out", 0, "which is an absolute path"),
        ("C:\\out", 0, "which is an absolute path"),
        ("l", 0o120777, "which is a link, a device or a pipe"),
        ("d", 0o020666, "which is a link, a device or a pipe"),
    ],
)
def test_a_zip_that_reaches_outside_is_refused(name, mode, why, tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, "/etc/passwd")

    with pytest.raises(SourceError) as caught, staged(str(tmp_path / "s.zip")):
        pass

    assert why in str(caught.value)


def test_an_encrypted_zip_is_refused(tmp_path):
    data = bytearray(zipped({"a": b"a"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    (tmp_path / "s.zip").write_bytes(data)

    with pytest.raises(SourceError, match="is encrypted"), staged(str(tmp_path / "s.zip")):
        pass


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(bytes(8 << 20)),
        tar({"zeros": bytes(8 << 20)}, kind="gz"),
        zstd(tar({"zeros": bytes(8 << 20)})),
        zipped({"zeros": bytes(8 << 20)}),
        tar({f"{number}": b"" for number in range(9_000)}, kind="xz"),
    ],
    ids=["gz", "tar.gz", "tar.zst", "zip", "many files"],
)
def test_what_blows_up_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_SMALL_BYTES", 1 << 20)
    path = tmp_path / "bomb"
    path.write_bytes(data)

    with (
        pytest.raises(SourceError, match="expected no more than 200 times as many"),
        staged(str(path)),
    ):
        pass


def test_what_does_not_fit_on_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_ROOM_LEFT_BYTES", 1 << 60)
    (tmp_path / "s.zip").write_bytes(ARCHIVES["zip"])

    with (
        pytest.raises(SourceError, match="does not fit on the disk"),
        staged(str(tmp_path / "s.zip")),
    ):
        pass


def test_nothing_stays_after_an_error_of_the_caller(tmp_path):
    (tmp_path / "s.zip").write_bytes(ARCHIVES["zip"])

    with pytest.raises(KeyError), staged(str(tmp_path / "s.zip")):
        raise KeyError


def test_a_git_lfs_pointer_is_named(tmp_path):
    (tmp_path / "s.tar.gz").write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(LfsPointer), staged(str(tmp_path / "s.tar.gz")):
        pass


def test_archives_in_a_folder_are_named(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.tar.gz").write_bytes(ARCHIVES["tar.gz"])
    (folder / "a.zip").write_bytes(ARCHIVES["zip"])
    (folder / "c.zip").write_text("no archive")
    (folder / "notes.md").write_text("notes")

    assert archives_in(folder) == ["a.zip", "b.tar.gz"]
    assert archives_in(folder / "notes.md") == []


# Remote stores


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


def test_a_file_and_a_folder_are_fetched(memory):
    memory.pipe({"/bucket/store/a.json": b"a", "/bucket/store/in/b.json": b"b"})

    with staged("memory://bucket/store/a.json") as file:
        assert (file.name, file.read_bytes()) == ("a.json", b"a")
    with staged("memory://bucket/store") as folder:
        assert folder.name == "store"
        assert content_of(folder) == {"a.json": b"a", "in/b.json": b"b"}


def test_a_packed_store_is_fetched_and_unpacked(memory):
    memory.pipe("/bucket/store.tar.zst", ARCHIVES["tar.zst"])

    with staged("memory://bucket/store.tar.zst") as folder:
        assert "items.jsonl" in content_of(folder)


def test_what_is_not_there_is_said(memory):
    with (
        pytest.raises(StoreNotFound, match='no store at "memory://bucket/none"'),
        staged("memory://bucket/none"),
    ):
        pass


def test_a_file_has_one_name_however_it_is_given(tmp_path):
    path = tmp_path / "a store"

    assert address(path.as_uri()) == address(str(path)) == str(path)
    assert address(path.as_uri().replace("file:", "FILE:")) == str(path)


def test_a_url_of_a_file_is_that_file(tmp_path):
    path = tmp_path / "日本 a.txt"
    path.write_text("a")

    with staged(path.as_uri()) as given:
        assert given == path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def web(tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_store_is_fetched_from_a_web_server(web):
    folder, host = web
    (folder / "store.zip").write_bytes(ARCHIVES["zip"])
    (folder / "s" / "in").mkdir(parents=True)
    (folder / "s" / "a.json").write_text("a")
    (folder / "s" / "in" / "b.json").write_text("b")

    with staged(f"http://{host}/store.zip") as unpacked:
        assert "items.jsonl" in content_of(unpacked)
    with staged(f"http://{host}/s/") as fetched:
        assert content_of(fetched) == {"a.json": b"a", "in/b.json": b"b"}


def test_no_message_has_a_password_or_a_token(web):
    _, host = web
    for url in (f"http://me:secret@{host}/none.zip?token=secret", "http://me:secret@127.0.0.1:9/a"):
        with pytest.raises(SourceError) as caught, staged(url):
            pass

        assert "secret" not in f"{caught.value} {caught.value.hint}"
        assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://key:secret@bucket/a b", "s3://bucket/a b"),
        ("https://h/p?X-Amz-Signature=secret#x", "https://h/p"),
        ("https://[bad?secret", "https://..."),
        ("plain/path?x", "plain/path?x"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url, expected):
    assert shown(url) == expected


def test_a_path_is_no_url():
    assert not any(map(is_url, ["a/b", "/a", "C:\\a", "C:/a", "a:b", "://a"]))
    assert is_url("s3://a")


def test_a_protocol_that_nobody_knows_is_refused():
    with (
        pytest.raises(SourceError, match=r'"nosuch://a" cannot be fetched: ValueError: Protocol'),
        staged("nosuch://a"),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "missing", "extra"),
    [("s3://b/a", "fsspec", "s3"), ("gs://b/a", "gcsfs", "gcs"), ("x.zst", "zstandard", "zstd")],
)
def test_a_library_that_is_missing_is_named(url, missing, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    if not is_url(url):
        url = str(tmp_path / url)
        Path(url).write_bytes(zstd(b"a"))

    with pytest.raises(MissingLibrary) as caught, staged(url):
        pass

    assert (caught.value.library, caught.value.extra) == (missing, extra)


def test_the_module_needs_no_library_to_be_imported():
    code = "import sys; sys.modules |= {'fsspec': None, 'zstandard': None}; " \
           "import harca.readers.staging"  # fmt: skip

    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def folder_in(name):
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


def beyond_what_a_path_can_hold(out):
    """CVE-2025-4517: links that realpath gives up on, which Python's own filter relied on."""
    members, path, long = [], "", "d" * 247
    for step in "abcdefghijklmnop":
        members += [folder_in(path + long), link(path + step, long)]
        path += f"{long}/"
    chain = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    return [
        *members,
        link(chain, "../" * 16),
        link("escape", f"{chain}/../../../../../../..{out}"),
        tarfile.TarInfo("escape/out"),
    ]


LINKS = {
    "through a link to its parent": lambda out: [
        folder_in("deep"), link("deep/s", "."), link("deep/l", "s/../.."),
        tarfile.TarInfo("deep/l/out"),
    ],
    "a link over which a file is written": lambda out: [
        link("a", "b"), tarfile.TarInfo("a"),
    ],
    "a file in a link": lambda out: [folder_in("a"), link("l", "a"), tarfile.TarInfo("l/out")],
    "a hard link to a link": lambda out: [link("a", "b"), link("h", "a", tarfile.LNKTYPE)],
    "a hard link through a link": lambda out: [
        folder_in("a"), tarfile.TarInfo("a/f"), link("l", "a"), link("h", "l/f", tarfile.LNKTYPE),
    ],
    "a hard link to a folder around": lambda out: [link("h", "..", tarfile.LNKTYPE)],
    "beyond what a path can hold": beyond_what_a_path_can_hold,
}  # fmt: skip


@pytest.mark.parametrize("members", LINKS.values(), ids=LINKS)
def test_links_that_could_be_used_to_get_out_are_refused(members, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for member in members(outside):
            archive.addfile(member)

    with pytest.raises(SourceError, match="has a member"), staged(str(tmp_path / "s.tar")):
        pass

    assert list(outside.iterdir()) == []
    assert sorted(one.name for one in tmp_path.iterdir()) == ["outside", "s.tar", "temporary"]


def test_links_within_a_store_are_kept(tmp_path):
    """As caches of models have them: names that point to where the bytes are."""
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        data = tarfile.TarInfo("s/blobs/1")
        data.size = 4
        archive.addfile(data, io.BytesIO(b"data"))
        archive.addfile(link("s/snapshot/items.jsonl", "../blobs/1"))
        archive.addfile(link("s/again", "s/blobs/1", tarfile.LNKTYPE))
        archive.addfile(link("s/all", "blobs"))

    with staged(str(tmp_path / "s.tar")) as folder:
        assert (folder / "snapshot" / "items.jsonl").read_bytes() == b"data"
        assert (folder / "again").read_bytes() == b"data"
        assert (folder / "all" / "1").read_bytes() == b"data"


def test_more_files_than_the_disk_has_places_for_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_ENTRIES_LEFT", 1 << 60)
    for name in ("zip", "tar.xz"):
        (tmp_path / "s").write_bytes(ARCHIVES[name])

        with (
            pytest.raises(SourceError, match="it has no place for as many files"),
            staged(str(tmp_path / "s")),
        ):
            pass


def test_layers_that_blow_up_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_SMALL_BYTES", 1 << 16)
    part = random.Random(1).randbytes(300) + bytes(30_000)
    inner = gzip.compress(part) * 300  # repeats itself, so that it can be packed once more
    path = tmp_path / "items.jsonl.gz.gz"
    path.write_bytes(gzip.compress(inner))
    assert len(inner) < 200 * path.stat().st_size < 300 * len(part) < 200 * len(inner)

    with pytest.raises(SourceError, match="expected no more than 200 times"), staged(str(path)):
        pass


def with_name(name: bytes) -> bytes:
    """Return a tar whose only member has *name*, whatever tarfile makes of it."""
    header = bytearray(tarfile.TarInfo("x" * len(name)).tobuf(tarfile.USTAR_FORMAT))
    header[: len(name)] = name
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


@pytest.mark.parametrize(
    "name", [b"a\0/../../out", b"\xff\xfe.json", b"\xed\xa0\x80.json", b"line\nbreak\x1b[2J"]
)
def test_odd_names_in_a_tar_stay_in_the_folder(name, tmp_path):
    (tmp_path / "s.tar").write_bytes(with_name(name))

    with staged(str(tmp_path / "s.tar")) as given:
        found = [given] if given.is_file() else list(given.rglob("*"))
        assert [os.fsencode(one.name) for one in found] == [name.partition(b"\0")[0]]


@pytest.mark.parametrize("path", ["a\0/../../out", "\udcff"])
def test_a_name_that_no_file_can_have_leads_nowhere(path, tmp_path):
    member = tarfile.TarInfo("a")
    member.pax_headers = {"path": path}
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member)
    raw = (tmp_path / "s.tar").read_bytes()
    assert b"path=" in raw

    with suppress(SourceError), staged(str(tmp_path / "s.tar")) as given:
        assert given.is_relative_to(tmp_path / "temporary")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a\0../../out", "日本\\..\\..\\out", ".", "a/./b", "a//b"])
def test_odd_names_in_a_zip_stay_in_the_folder_or_are_refused(name, tmp_path):
    (tmp_path / "s.zip").write_bytes(zipped({name: b"x"}))

    with suppress(SourceError), staged(str(tmp_path / "s.zip")) as given:
        assert given.resolve().is_relative_to(tmp_path / "temporary")
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "s.zip").write_bytes(zipped({"a": b"x", "a/b": b"y"}))

    with pytest.raises(SourceError, match="cannot be unpacked"), staged(str(tmp_path / "s.zip")):
        pass


def test_what_is_unpacked_is_the_owner_s_alone(tmp_path):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        member = tarfile.TarInfo("s/open")
        member.mode = 0o4777
        archive.addfile(member)
        archive.addfile(tarfile.TarInfo("s/other"))
    (tmp_path / "s.tar").write_bytes(data.getvalue())

    with staged(str(tmp_path / "s.tar")) as folder:
        assert folder.parent.stat().st_mode & 0o777 == 0o700  # whatever is in it
        assert (folder / "open").stat().st_mode & 0o6022 == 0
