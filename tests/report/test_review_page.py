"""The page of review in a browser: it opens, sorts, filters, ticks, downloads, and runs no data."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from flarekd.appearance import Look, Mass, Measured
from flarekd.cohort import Case
from flarekd.decisions import read_decisions
from flarekd.extents import Extent
from flarekd.fusion_table import Sources
from flarekd.labels import NAMES, ORGANS
from flarekd.report.review_page import Reviewed, group_of, in_order, review_page
from flarekd.suspicion import Reason

EVIL = '<img src=x onerror="document.title=1">,"q'
LARGE = 4000


def measured(*ids, tumor_ml=0.0):
    extents = {NAMES[label]: Extent(10, 1200.0, 0, 60, 30, ()) for label in ids}
    masses = ()
    if tumor_ml:
        extents["tumor"] = Extent(10, tumor_ml, 0, 60, 30, ("head",))
        masses = (Mass(1, tumor_ml, 31.0, 44.0, 12.0, 2.0, "liver", 0.0),)
    looks = {name: Look(101.6, 21.2) for name in extents}
    return Measured(400.0, extents, looks, masses, len(masses), (), {})


def reviewed(name, *reasons, group=None, picture=None, **content):
    label = None if group is None else Path(f"labelsTr/{name}.nii.gz")
    case = Case(name, Path(f"imagesTr/{name}_0000.nii.gz"), group=group, label=label)
    return Reviewed(case, measured(1, 3, **content), reasons, None, picture)


SIDES = Reason("sides", 4.0, "right kidney lies farther to the left", 2)
SPLEEN = Reason("volume", 1.5, "spleen 12 ml, usually 180 ml", 3)
LIVER = Reason("volume", 2.0, "liver 90 ml, usually 1,500 ml", 1)
TUMOR = Reason("tumour", 3.0, "tumour of 20 ml in no organ", 14)


def cohort():
    return in_order(
        [
            reviewed("case_2", group=3),
            reviewed("case_10", SPLEEN, group=4, tumor_ml=20.0),
            reviewed(EVIL, SIDES, LIVER, group=4),
            reviewed("case_1", TUMOR, tumor_ml=90.0),
        ]
    )


@pytest.fixture
def opened(browser, tmp_path):
    """The page of four cases, most suspicious first: EVIL 6, case_1 3, case_10 1.5, case_2 0."""
    path = tmp_path / "review.html"
    path.write_text(review_page(cohort(), "cohort.csv"), encoding="utf-8")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    yield tab
    tab.close()


def shown(tab):
    # inner text is empty where a block out of sight is not laid out yet
    return tab.locator(".case:visible .name").all_text_contents()


def tick(tab, name, decision):
    entry = tab.locator(".case").filter(has_text=name)
    entry.get_by_role("button", name=decision).click()


def test_the_most_suspicious_come_first_and_no_word_of_the_data_is_code(opened):
    assert shown(opened) == [EVIL, "case_1", "case_10", "case_2"]
    assert opened.title() == "Review of cohort.csv"
    entry = opened.locator(".case").nth(2)
    assert (
        entry.locator(".reasons").inner_text()
        == "unusual volume spleen 12 ml, usually 180 ml (1.5)"
    )
    assert entry.locator(".numbers li").all_inner_texts() == [
        "liver 1200 ml · 102 ± 21 HU",
        "spleen 1200 ml · 102 ± 21 HU",
        "tumour ≥ 20 ml · 102 ± 21 HU",
    ]
    assert "scan imagesTr/case_10_0000.nii.gz · partial label labelsTr/case_10.nii.gz" in (
        entry.inner_text()
    )
    assert "tumours: 20 ml, 31 mm, 44 HU, at liver" in entry.inner_text()


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("case", [EVIL, "case_1", "case_2", "case_10"]),
        ("group", ["case_2", EVIL, "case_10", "case_1"]),
        ("tumor", ["case_1", "case_10", EVIL, "case_2"]),
    ],
)
def test_it_sorts_and_back(opened, order, names):
    opened.select_option("#sort", order)
    assert shown(opened) == names
    opened.select_option("#sort", "score")
    assert shown(opened) == [EVIL, "case_1", "case_10", "case_2"]


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({"group": "group 4"}, [EVIL, "case_10"]),
        ({"group": "unlabelled"}, ["case_1"]),
        ({"flag": "any"}, [EVIL, "case_1", "case_10"]),
        ({"flag": "volume"}, [EVIL, "case_10"]),
        ({"flag": "volume", "class": "3"}, ["case_10"]),  # the flag is about the class
        ({"flag": "any", "class": "1"}, [EVIL]),
        ({"class": "14"}, ["case_1", "case_10"]),  # the case has the class
        ({"class": "2"}, []),
        ({"group": "group 4", "flag": "sides"}, [EVIL]),
    ],
)
def test_it_filters(opened, chosen, names):
    for name, value in chosen.items():
        opened.select_option(f"#{name}", value)
    assert shown(opened) == names
    assert opened.locator("#count").inner_text().startswith(f"{len(names)} of 4 shown")
    for name in chosen:
        opened.select_option(f"#{name}", "")
    assert len(shown(opened)) == 4


def test_it_searches_by_name(opened):
    opened.fill("#search", " CASE_1")
    assert shown(opened) == ["case_1", "case_10"]


def test_what_is_ticked_downloads_as_what_fuse_reads(opened, tmp_path):
    tick(opened, "case_2", "keep")
    tick(opened, EVIL, "drop")
    tick(opened, "in no organ", "fix")
    tick(opened, "case_10", "drop")
    tick(opened, "case_10", "drop")  # a second click takes it back
    assert opened.locator("#count").inner_text() == "4 of 4 shown · 1 keep · 1 drop · 1 fix"
    with opened.expect_download() as waiting:
        opened.get_by_role("button", name="download").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.name == "review.csv"
    assert read_decisions(path) == {EVIL: "drop", "case_1": "fix", "case_2": "keep"}


def test_ticks_outlive_a_reload_and_can_be_filtered_by(opened):
    tick(opened, "case_2", "keep")
    tick(opened, EVIL, "drop")
    opened.reload()
    pressed = opened.locator("[aria-pressed=true]").all_inner_texts()
    assert pressed == ["drop", "keep"]
    opened.select_option("#ticked", "open")
    assert shown(opened) == ["case_1", "case_10"]
    opened.select_option("#ticked", "drop")
    assert shown(opened) == [EVIL]


def test_pictures_are_addressed_whatever_the_name_of_the_case():
    html = review_page([reviewed("a#b c", picture=Path("pictures/a#b c.webp"))], "cohort.csv")
    assert 'loading="lazy" src="pictures/a%23b%20c.webp"' in html


def test_numbers_say_who_they_come_from():
    one = reviewed("a", group=4)
    sources = Sources({"liver": 900.0}, {"liver": 300.0, "spleen": 1200.0}, 0.1, "a flag", "")
    html = review_page([replace(one, sources=sources)], "cohort.csv")
    assert "liver 1200 ml · 102 ± 21 HU · 75% drawn, rest pseudo" in html
    assert "spleen 1200 ml · 102 ± 21 HU · pseudo" in html
    assert "fusion: a flag" in html


def test_groups_have_names():
    case = Case("a", Path("a"))
    assert group_of(case) == "unlabelled"
    assert group_of(replace(case, label=Path("b"))) == "no group"
    assert group_of(replace(case, label=Path("b"), group=3)) == "group 3"


def renderers_s():
    """Processor seconds of the browser's renderers: what others do meanwhile is not in it."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "--type=renderer" in process.cmdline():
                times = process.cpu_times()
                total += times.user + times.system
    return total


@pytest.mark.slow
def test_a_page_of_4000_cases_opens_in_two_seconds_of_work(browser, tmp_path):
    cases = [
        replace(
            reviewed(
                f"FLARE23_{number:04d}",
                *[SIDES, SPLEEN, LIVER, TUMOR][: number % 5],
                group=number % 7 + 1,
                picture=Path(f"pictures/FLARE23_{number:04d}.webp"),
            ),
            measured=measured(*ORGANS, tumor_ml=float(number % 3)),
        )
        for number in range(LARGE)
    ]
    path = tmp_path / "review.html"
    path.write_text(review_page(in_order(cases), "cohort.csv"), encoding="utf-8")
    tab = browser.new_page()
    tab.set_default_timeout(120_000)
    tab.goto("about:blank")
    before = renderers_s()
    tab.goto(path.as_uri())
    assert tab.locator("#count").inner_text().startswith(f"{LARGE} of {LARGE} shown")
    assert renderers_s() - before < 2
    asked = tab.evaluate("[...document.images].filter((one) => one.complete).length")
    assert asked < 100  # pictures that are not in sight are not fetched
    tab.close()
