"""The report: one page that needs nothing, says all, and keeps strange texts harmless."""

import importlib.util
import os
import re
import shutil
import stat
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from harca.errors import HarcaError, UsageError
from harca.migrate import migrate
from harca.options import LoadOptions
from harca.postgres import measurements
from harca.postgres.connect import database as resolve_database
from harca.report import write
from harca.report.collect import LISTED_RUNS, collect
from harca.report.cost import Prices
from harca.report.page import page
from tests import measured
from tests.page import Node, parsed
from tests.stores import record, write_record, write_store

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202etxt.exe"
SECTIONS = [
    "inventory", "throughput", "verification", "search", "recall", "scale", "soak", "sizes", "cost",
    "rejections", "history",
]  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip
REPORT = '<meta name="generator" content="harca report">'


@pytest.fixture(scope="module")
def full(shared_database, tmp_path_factory) -> str:
    """The page of a database with rows, rejections and measurements, some of them hostile."""
    store = tmp_path_factory.mktemp("stores") / "<b>bold & co"
    for number in range(12):
        text = f"text {number}" + " and more" * 60
        write_record(store, record(text, [1.0, number], model=f"モデル {EVIL}"))
    write_record(store, record(EVIL + "y" * 100_000, [None]))
    write_record(store, record("empty", []))
    migrate(store, lambda: shared_database, LoadOptions(batch_rows=4, source=EVIL))
    with shared_database.connect() as conn:
        for kind, make in measured.ALL.items():
            measurements.keep(conn, kind, make())
        measurements.keep(conn, "bench search", measured.search(numpy=2.0, harca=1.0))
        hostile = measured.search(numpy=2.0, harca=1.0)
        hostile["space"] = {"model_id": EVIL, "dims": 2, "records": 12}
        hostile["notes"] = [EVIL]
        measurements.keep(conn, "bench search", hostile)
        measurements.keep(conn, "soak", {"verdict": "steady"})
    return page(collect(shared_database, prices=Prices(disk=0.12, memory=4.0)))


@pytest.fixture(scope="module")
def root(full) -> Node:
    return parsed(full)


@pytest.mark.one_server
def test_the_page_needs_nothing_from_elsewhere(full, root):
    policy = root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]

    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not root.all("script", "link", "iframe", "object", "embed", "base", "form", "img")
    for node in root.all():
        for name, value in node.attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src", "xlink:href", "action", "srcset"):
                assert value is not None
                assert value.startswith("#"), value
    style = root.one("style").text
    assert "url(" not in style
    assert "@import" not in style
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<]*", full)) - {"http://www.w3.org/2000/svg"}
    assert all(one.startswith("postgresql://") for one in addresses)


@pytest.mark.one_server
def test_ids_are_unique_and_what_refers_to_one_finds_it(root):
    ids = [node.attributes["id"] for node in root.all() if "id" in node.attributes]
    referred: set[str | None] = set()
    for node in root.all():
        for name, value in node.attributes.items():
            if name == "href":
                referred.add((value or "")[1:])
            elif name == "aria-labelledby":
                referred.update((value or "").split())
            else:
                referred.update(re.findall(r"url\(#([^)]+)\)", value or ""))

    assert len(ids) == len(set(ids))
    assert referred <= set(ids)
    assert set(SECTIONS) <= set(ids)


@pytest.mark.one_server
def test_who_reads_by_ear_or_keyboard_finds_the_way(root):
    levels = [int(node.tag[1]) for node in root.all("h1", "h2", "h3", "h4", "h5", "h6")]
    first = root.one("body").children[0]

    assert root.one("html").attributes["lang"] == "en"
    assert root.one("title").text
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - before <= 1 for before, later in pairwise(levels))
    assert (first.tag, first.attributes["href"]) == ("a", "#content")
    for landmark in ("header", "main", "nav", "footer"):
        assert len(root.all(landmark)) == 1, landmark
    assert root.one("main").attributes["id"] == "content"
    assert ":focus-visible" in root.one("style").text


@pytest.mark.one_server
def test_each_plot_has_a_name_a_description_and_its_numbers(root):
    plots = root.all("svg")

    assert len(plots) >= 10
    for svg in plots:
        assert svg.attributes["role"] == "img"
        assert len(svg.one("title").text) > 5
        assert len(svg.one("desc").text) > 5
    for figure in root.all("figure"):
        caption = figure.one("figcaption").text
        assert figure.all("table") or "table below" in caption


@pytest.mark.one_server
def test_each_table_says_what_it_is_about_and_what_its_cells_are(root):
    tables = root.all("table")

    assert len(tables) >= 20
    for table in tables:
        assert table.one("caption").text.strip()
        for head in table.all("th"):
            assert head.attributes["scope"] in ("col", "row")
        widths = {len(row.children) for row in table.all("tr")}
        assert len(widths) == 1, table.one("caption").text
    for scrolled in root.all("div"):
        if scrolled.attributes.get("class") == "scroll":
            assert scrolled.attributes["tabindex"] == "0"


@pytest.mark.one_server
def test_strange_texts_are_shown_and_do_nothing(full, root):
    shown = EVIL.replace("\u202e", "\\u202e")

    assert "\u202e" not in full
    assert "<script>" not in full
    assert "y" * 1_000 not in full
    texts = [node.text for node in root.all("bdi")]
    assert f"モデル {shown}" in texts
    assert shown in texts  # the source
    assert any("<b>bold & co" in text for text in texts)
    assert any('"text": "<script>' in text for text in texts)  # a rejected record


@pytest.mark.one_server
def test_what_was_measured_is_there(root):
    outcomes = [node.one("span").text for node in root.one("ul", class_="criteria").children]
    text = root.one("main").text

    assert outcomes == ["✗ not met", "✓ met", "✓ met", "✓ met"]
    assert "hnsw halfvec m 32 at ef_search 100: recall 0.991" in text
    assert "From 1,000 to 10,000 rows of 1536 dimensions, made up" in text
    assert "non-finite" in text
    assert "empty-vector" in text
    assert "left out: soak, number" in text


def test_a_database_without_anything_says_which_command_gives_each_part(empty_database):
    root = parsed(page(collect(empty_database)))

    commands = {}
    for section in root.all("section"):
        for node in section.all("p"):
            if node.attributes.get("class") == "missing":
                commands[section.attributes["aria-labelledby"]] = node.one("code").text
    outcomes = {node.one("span").text for node in root.one("ul", class_="criteria").children}
    assert outcomes == {"○ not measured"}
    assert commands == {
        "inventory": "harca migrate STORE",
        "throughput": "harca migrate STORE",
        "verification": "harca migrate STORE",
        "search": "alembic upgrade head",
        "recall": "alembic upgrade head",
        "scale": "alembic upgrade head",
        "soak": "alembic upgrade head",
        "sizes": "harca migrate STORE",
        "cost": "harca migrate STORE",
        "rejections": "harca migrate STORE",
        "history": "alembic upgrade head",
    }


def test_before_anything_is_measured_the_commands_are_named(database):
    text = parsed(page(collect(database))).one("main").text

    for command in ("harca bench search STORE", "harca index advise", "harca bench scale",
                    "harca soak --minutes 1440"):  # fmt: skip
        assert f"{command} gives it." in text


def test_thousands_of_runs_and_batches_fit_on_a_page(database, conn):
    conn.execute(
        "INSERT INTO load_runs (store, format, status, read, loaded, started_at, finished_at) "
        "SELECT 'store ' || n, 'harca', 'verified', 60, 60, now(), now() + interval '1 minute' "
        "FROM generate_series(1, 3000) n"
    )
    conn.execute(
        "INSERT INTO load_batches SELECT 3000, 1, n, 1, 1, 0, 0, 0, 'a', 'b', "
        "now() + n * interval '10 milliseconds' FROM generate_series(1, 6000) n"
    )
    conn.execute(
        "INSERT INTO rejections (run_id, attempt, origin, reason, detail, payload) "
        "SELECT 3000, 1, 'f' || n, 'no-vector', 'd', repeat('x', 1000)::bytea "
        "FROM generate_series(1, 5000) n"
    )

    found = collect(database)
    text = page(found)

    assert len(found.runs) == LISTED_RUNS
    assert len(found.pace[3000]) == 60
    assert sum(step.read for step in found.pace[3000]) == 6_000
    assert [(one.records, len(one.examples)) for one in found.rejected] == [(5_000, 3)]
    assert "2,950 more not listed" in text
    assert len(text) < 400_000


def test_the_command_writes_a_file_that_can_be_read_and_tells_the_outcome(
    tmp_path, database, run_unbacked
):
    store = write_store(tmp_path / "store", 5)
    run_unbacked("migrate", store, database=database)
    before = os.umask(0o022)
    try:
        done = run_unbacked("report", database=database)
    finally:
        os.umask(before)

    file = tmp_path / "harca-report.html"
    assert done.code == 0, done.err
    assert done.out.startswith("harca-report.html: ")
    assert re.search(r"Counts and contents are equal +met +1 of 1 store verified", done.out)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert not list(tmp_path.glob(".harca-report*"))
    assert REPORT in file.read_text("utf-8")
    write.check(file)  # to be written again, in place of this one


def test_a_file_that_is_no_report_is_left_alone(tmp_path, empty_database, run_harca):
    file = tmp_path / "notes.html"
    file.write_text("my notes")

    refused = run_harca("report", "--output", "notes.html", database=empty_database)
    left = file.read_text()
    forced = run_harca("report", "--output", "notes.html", "--force", database=empty_database)

    assert (refused.code, refused.err) == (
        4,
        'error: "notes.html" is there already, and is no report of harca\n'
        "hint:  Nothing was changed. Name another file with --output, or give --force.\n",
    )
    assert left == "my notes"
    assert forced.code == 0
    assert REPORT in file.read_text("utf-8")


def test_a_place_where_no_file_can_be_is_told_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        write.check(tmp_path)
    with pytest.raises(UsageError, match=r'no folder ".*/no"'):
        write.check(tmp_path / "no" / "r.html")
    with pytest.raises(UsageError, match="with a password or a token"):
        write.check(Path("postgresql://user:word@host/db"))


def test_a_link_stays_a_link_and_rights_stay_as_they_were(tmp_path):
    real, link = tmp_path / "real.html", tmp_path / "link.html"
    real.write_text(f"<!doctype html>{REPORT}")
    real.chmod(0o640)
    link.symlink_to("real.html")

    write.check(link)
    write.write(link, "new")

    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(tmp_path.iterdir()) == [link, real]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_takes_no_file_is_told_in_words(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(HarcaError, match="cannot write to"):
        write.write(tmp_path / "r.html", "new")


def test_without_matplotlib_a_hint_says_how_to_get_it_and_json_needs_none(
    database, run_harca, monkeypatch, tmp_path
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "harca.report.plots.find_spec", lambda name: None if name == "matplotlib" else found(name)
    )

    done = run_harca("report", database=database)
    figures = run_harca("report", "--json", database=database)

    assert done.code == 1
    assert done.err == (
        "error: the plots are drawn with matplotlib, which is not installed\n"
        'hint:  Install it with `pip install "harca[report]"`, or take the figures alone with '
        "--json.\n"
    )
    assert figures.code == 0
    assert figures.json["output"] is None
    assert [one["outcome"] for one in figures.json["criteria"]] == ["not measured"] * 4
    assert not (tmp_path / "harca-report.html").exists()


def test_comparing_anew_tells_what_differs_and_what_is_away(tmp_path, database, conn, run_unbacked):
    for name in ("one", "two"):
        migrate(write_store(tmp_path / name, 5), lambda: database, LoadOptions(name=name))
    shutil.rmtree(tmp_path / "two")

    away = run_unbacked("report", "--verify", "--json", database=database)
    conn.execute("UPDATE vector_embeddings SET content = 'x' WHERE store = 'one' AND "
                 "content = 'テキスト 1'")  # fmt: skip
    differs = run_unbacked("report", "--verify", "--output", "r.html", "--json", database=database)

    assert away.code == 1
    assert "not compared: no store at" in away.err
    assert differs.code == 3
    assert differs.json["output"] == "r.html"
    assert [one["outcome"] and one["outcome"]["ok"] for one in differs.json["reverified"]] == [
        False, None,
    ]  # fmt: skip
    assert differs.json["verification"][1]["failed"] == 1
    text = parsed((tmp_path / "r.html").read_text("utf-8")).one("main").text
    assert "Compared anew for this report" in text
    assert "What differs in one" in text
    assert "not compared" in text


def test_no_password_and_no_text_that_is_not_wanted_gets_into_it(tmp_path, database):
    secret = str(conninfo_to_dict(database.conninfo).get("password") or "s3cret-w0rd")
    known = resolve_database(make_conninfo(database.conninfo, password=secret))
    write_record(tmp_path / "store", record("password=s3cret-w0rd private words", [None]))
    write_store(tmp_path / "store", 2)
    migrate(tmp_path / "store", lambda: database, LoadOptions())

    shown = page(collect(known))
    silent = str(collect(known, texts=False).as_dict())

    # A server of the tests may have a user, and databases, called as its password.
    assert f":{secret}@" not in shown
    assert f"password={secret}" not in shown
    assert "s3cret-w0rd" not in shown
    assert "private words" in shown
    assert "private words" not in silent


def test_a_database_of_an_older_schema_is_reported_too(database, run_alembic):
    run_alembic("downgrade", "f06b2d81c9e7", database=database)

    text = parsed(page(collect(database))).one("main").text

    assert "not the newest: alembic upgrade head" in text
    assert "The schema has no table for measurements yet: alembic upgrade head gives it." in text


def test_measurements_in_another_form_are_left_out_and_named(database, conn):
    for result in ({}, {"space": 3}, {"contestants": None, "space": {"model_id": "m", "dims": 1}}):
        conn.execute(
            "INSERT INTO measurements (kind, harca, server, result) VALUES ('bench search', '9', "
            "'s', %s)",
            [Jsonb(result)],
        )

    found = collect(database)

    assert found.parities == []
    assert len(found.unreadable) == 3
    assert "left out: bench search, number" in page(found)


@pytest.mark.one_server
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_it_in_the_dark_and_on_a_narrow_screen_without_complaint(full, tmp_path):
    from PIL import Image

    (tmp_path / "report.html").write_text(full, encoding="utf-8")
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars",
            "--enable-logging=stderr", "--window-size=500,900", f"--screenshot={picture}",
            "--blink-settings=preferredColorScheme=0", (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )  # fmt: skip

    assert "CONSOLE" not in done.stderr, done.stderr
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L"))
    edge = set(pixels[:, -3].tolist())
    assert len(edge) == 1, "something sticks out to the right"
    assert edge.pop() < 40
    assert len(np.unique(pixels)) > 20


def test_the_style_keeps_its_contrast_in_both_schemes():
    style = Path(__file__).parents[2].joinpath("src/harca/report/report.css").read_text("utf-8")
    light, dark, paper = re.findall(r":root \{(.*?)\}", style, re.DOTALL)

    for block in (light, dark, paper):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for name in ("ink", "muted", "accent", "good", "bad", "open"):
            for ground in ("paper", "ground"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for number in range(1, 7):
            assert contrast(colours[f"series-{number}"], colours["paper"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
