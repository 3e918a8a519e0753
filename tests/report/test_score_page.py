"""report.html: its numbers are those of scores.json, and a browser shows it whole."""

from __future__ import annotations

import math
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import LABELS
from flarekd.metrics.lesions import Lesion
from flarekd.metrics.protocols import ClassScore
from flarekd.metrics.summary import summary_of
from flarekd.report.manifest import manifest
from flarekd.report.overlay import overlay
from flarekd.report.run_charts import training_of
from flarekd.report.score_files import without_nan
from flarekd.report.score_page import Material, write_page

LESIONS = [Lesion(True, 4.2, 0.5), Lesion(True, 0.3, 0.0), Lesion(False, 0.1, 0.0)]
PNG = b"\x89PNG not looked into "


def scores_of(values, reference_ml=10.0):
    return [
        ClassScore(label.id, float(dsc), float(dsc) ** 2, 3.0, reference_ml, 12.0)
        for label, dsc in zip(LABELS, values, strict=True)
    ]


def many(count):
    values = np.random.default_rng(3).beta(8, 2, (count, 14))
    return {f"case_{number:04}": scores_of(row) for number, row in enumerate(values)}


def material(scores, errors=None, lesions=LESIONS, traits=None, **more):
    found = dict.fromkeys(scores, lesions)
    summary = without_nan(summary_of(scores, found, errors or {}, "flare23", traits or {}))
    facts = manifest(summary, {"predictions": Path("p"), "references": Path("r"), "images": None})
    return Material(summary, scores, found, facts, **more)


def page_of(out, made):
    return unescape(write_page(out, made).read_text(encoding="utf-8"))


def draw(out, *cases):
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    for case in cases:
        (out / "overlays" / f"{case}.png").write_bytes(PNG + case.encode())


def test_its_numbers_are_those_of_the_score_files(tmp_path):
    scores = many(5)
    made = material(scores, traits={"phase": {"case_0000": "late"}})
    text = page_of(tmp_path, made)
    dsc = [records[0].dsc for records in scores.values()]
    assert f"<td>{100 * np.mean(dsc):.2f} ± {100 * np.std(dsc, ddof=1):.2f}</td>" in text
    organs = [np.mean([score.nsd for score in records[:13]]) for records in scores.values()]
    assert f"{100 * made.summary['organs']['nsd']:.2f} ± {100 * np.std(organs, ddof=1):.2f}" in text
    assert f"<b>{100 * made.summary['tumor']['dsc']:.2f}</b> DSC %" in text
    assert "Tumours one by one" in text
    assert "By phase" in text
    assert "protocol flare23" in text


def test_case_rows_have_means_tumours_and_classes(tmp_path):
    scores = many(2)
    text = page_of(tmp_path, material(scores))
    row = text.split("<tr><td>case_0001</td>")[1].split("</tr>")[0]
    cells = [cell.split("<")[0] for cell in row.replace(">", "\n>").split("\n>") if cell]
    shown = [cell for cell in cells if cell.strip() and not cell.startswith("<")]
    dsc = [score.dsc for score in scores["case_0001"]]
    assert shown[0] == f"{100 * np.mean(dsc):.1f}"
    assert shown[2] == f"{100 * np.mean(dsc[:13]):.1f}"
    assert shown[4] == f"{100 * dsc[13]:.1f}"
    assert shown[6:10] == ["2", "1", "1", "+20"]
    assert shown[10:] == [f"{100 * value:.1f}" for value in dsc[:13]]


def test_failed_cases_are_named_with_why_and_nothing_of_them_is_code(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    zeros = [ClassScore(label.id, 0.0, 0.0) for label in LABELS]
    made = material({**many(2), "gone": zeros}, {"gone": "no prediction", evil: "torn"})
    raw = write_page(tmp_path, made).read_text(encoding="utf-8")
    assert evil not in raw
    assert "<dt>gone</dt><dd>no prediction</dd>" in raw
    assert "2 failed" in raw
    assert "&lt;img src=x onerror=alert(1)&gt;</dt><dd>torn</dd>" in raw


def test_a_class_in_no_reference_is_named_and_faint_where_nobody_has_it(tmp_path):
    scores = many(3)
    for records in scores.values():
        records[8] = ClassScore(9, 1.0, 1.0, math.nan, 0.0, 0.0)
    text = page_of(tmp_path, material(scores))
    assert "No reference holds gallbladder: there a case scores 100" in text
    assert text.count('title="in neither label map">100.0<') == 3
    assert "No reference holds" not in page_of(tmp_path, material(many(3)))


def test_best_median_and_worst_are_shown_of_what_was_predicted(tmp_path):
    scores = {f"c{n}": scores_of([n / 10] * 14) for n in (3, 9, 1, 7, 5)}
    scores["gone"] = scores_of([0.0] * 14)
    draw(tmp_path, *scores)
    text = page_of(tmp_path, material(scores, {"gone": "no prediction"}))
    shown = [part.split(",")[0] for part in text.split("<figcaption>")[1:]]
    assert shown == ["<b>Best case</b>: c9", "<b>Median case</b>: c5", "<b>Worst case</b>: c1"]
    assert text.count("data:image/png;base64,") == 3
    assert '<a href="overlays/c7.png">c7</a>' in text
    assert '<a href="overlays/gone.png">' not in text


@pytest.mark.parametrize(
    ("count", "ranks"), [(0, []), (1, ["The only case"]), (2, ["Better case", "Worse case"])]
)
def test_few_cases_make_a_page_too(tmp_path, count, ranks):
    scores = many(count)
    draw(tmp_path, *scores)
    text = page_of(tmp_path, material(scores))
    assert [part.split("</b>")[0] for part in text.split("<figcaption><b>")[1:]] == ranks
    assert ("No case could be scored" in text) == (count == 0)
    if count == 1:
        assert " ± " not in text.split("Tumours one by one")[0].split("<tbody>")[1].split("<p")[0]


def hundred(out):
    """A page of 100 cases with pictures as evaluate draws them, and two trainings."""
    scores = many(100)
    rng = np.random.default_rng(0)
    geometry = Geometry((120, 100, 60), (3.0, 3.0, 5.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    labels = np.zeros((60, 100, 120), np.uint8)
    for label in range(1, 15):
        labels[10:50, 5 * label : 5 * label + 4, 20:90] = label
    image = Volume(rng.normal(40, 60, labels.shape).astype(np.float32), geometry)
    overlay(image, LabelMap(labels, geometry), LabelMap(labels, geometry), out / "one.png")
    (out / "overlays").mkdir()
    for case in scores:
        shutil.copy(out / "one.png", out / "overlays" / f"{case}.png")
    log = [
        {"iteration": n, "loss": 1 / n + rng.normal(0, 0.01), "lr": 0.01, "dsc": [1 - 1 / n]}
        for n in range(1, 1501)
    ]
    trainings = [training_of(name, log, "seed: 1\n" * 100) for name in ("Teacher", "Student")]
    return write_page(out, material(scores, {"gone": "torn"}, trainings=trainings))


@pytest.fixture(scope="module")
def big_page(tmp_path_factory):
    return hundred(tmp_path_factory.mktemp("big"))


@pytest.fixture
def tab(browser):
    opened = browser.new_page()
    opened.set_default_timeout(120_000)
    yield opened
    opened.close()


def processor_seconds(tab):
    """What the page has cost its process; a clock would measure the other work of the machine."""
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable")
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(entry["value"] for entry in metrics if entry["name"] == "ProcessTime")


def test_a_hundred_cases_open_in_two_seconds_without_a_network(big_page, tab):
    assert big_page.stat().st_size < 8e6
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    problems = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(big_page.as_uri())
    assert tab.locator("#cases tbody tr").count() == 100
    assert processor_seconds(tab) < 2
    assert [url for url in asked if not url.startswith("data:")] == [big_page.as_uri()]
    assert problems == []
    broken = "[...document.images].filter((one) => !(one.complete && one.naturalWidth)).length"
    assert tab.evaluate(broken) == 0
    assert tab.locator("img").count() == 3


def test_cases_sort_by_any_score(big_page, tab):
    tab.goto(big_page.as_uri())
    tab.get_by_role("button", name="tumour DSC").click()
    column = "#cases tbody tr td:nth-child(6)"
    values = [float(text) for text in tab.locator(column).all_inner_texts()]
    assert values == sorted(values)
    assert len(set(values)) > 50
    tab.get_by_role("button", name="tumour DSC").click()
    assert float(tab.locator(column).first.inner_text()) == max(values)


def test_a_phone_scrolls_wide_parts_and_not_the_page(big_page, tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.goto(big_page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate("document.querySelector('#cases .wide').scrollWidth") > 390
    tab.evaluate("document.querySelector('#cases .wide').scrollLeft = 300")
    for place in ("thead th", "tbody td"):  # whose numbers they are stays in sight
        assert tab.locator(f"#cases {place}").first.bounding_box()["x"] >= 0
    assert tab.locator("#cases caption").bounding_box()["width"] <= 390
    assert tab.locator("#cases thead th").nth(3).bounding_box()["x"] < 0


def test_the_last_number_of_an_axis_is_whole(big_page, tab):
    tab.goto(big_page.as_uri())
    chart, ticks = tab.locator("#training .chart").first, "text.middle"
    box, last = chart.bounding_box(), chart.locator(ticks).last.bounding_box()
    assert last["x"] + last["width"] <= box["x"] + box["width"]


def test_print_is_dark_on_light_also_where_the_screen_is_dark(big_page, browser):
    opened = browser.new_page(color_scheme="dark")
    opened.set_default_timeout(120_000)
    opened.goto(big_page.as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    assert opened.evaluate(ground) == "rgb(20, 23, 27)"
    opened.emulate_media(media="print")
    assert opened.evaluate(ground) == "rgb(255, 255, 255)"
    opened.close()
