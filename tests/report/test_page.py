"""Pages hold no code that comes from data."""

import base64
import hashlib
import re
from pathlib import Path

import pytest
from jinja2 import DictLoader, UndefinedError

from flarekd.report import page

BODY = '{% extends "base.html" %}{% block main %}<p>{{ name }}</p>{% endblock %}'


@pytest.fixture(autouse=True)
def small_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template of this test beside those of the package."""
    environment = page._environment()
    packaged = environment.loader
    assert packaged is not None
    base = packaged.get_source(environment, "base.html")[0]
    monkeypatch.setattr(environment, "loader", DictLoader({"base.html": base, "t.html": BODY}))


def test_what_comes_from_data_is_escaped() -> None:
    evil = '<script>alert("1")</script>'
    html = page.render("t.html", title=evil, name=evil, version="1")
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;") == 3


def test_the_policy_admits_the_scripts_of_the_page_and_no_other() -> None:
    html = page.render("t.html", title="", name="", version="1")
    allowed = re.search(r"script-src ([^\"]*)\"", html.replace("&#39;", "'"))
    assert allowed
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert scripts
    hashes = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts}
    assert set(allowed[1].split()) == {f"'sha256-{digest}'" for digest in hashes}
    assert "http://" not in html
    assert "https://" not in html


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        page.render("t.html", title="", version="1")


def test_a_picture_is_its_own_address() -> None:
    assert page.png_uri(b"\x89PNG") == "data:image/png;base64,iVBORw=="


TABLE = """{% extends "base.html" %}{% block main %}
<table data-sort><thead><tr><th>case</th><th>DSC</th></tr></thead><tbody>
{% for case, dsc in rows %}<tr><td>{{ case }}</td><td>{{ dsc }}</td></tr>{% endfor %}
</tbody></table><img src="x" onerror="document.title = 'run'">{% endblock %}"""


def test_a_table_sorts_and_no_other_script_runs(browser, tmp_path: Path, monkeypatch) -> None:
    loader = page._environment().loader
    assert isinstance(loader, DictLoader)
    monkeypatch.setitem(loader.mapping, "table.html", TABLE)
    rows = [("b", "0.9"), ("a", "0.10"), ("c", ""), ("a10", "-0.2"), ("d", "–")]
    html = page.render("table.html", title="scores", rows=rows, version="1")
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    tab = browser.new_page()
    tab.goto(file.as_uri())
    first = tab.locator("tbody td:first-child")
    tab.get_by_role("button", name="DSC").click()
    assert first.all_inner_texts() == ["a10", "a", "b", "c", "d"]
    tab.get_by_role("button", name="DSC").click()
    assert first.all_inner_texts() == ["b", "a", "a10", "c", "d"]
    tab.get_by_role("button", name="case").click()
    assert first.all_inner_texts() == ["a", "a10", "b", "c", "d"]
    assert tab.title() == "scores"
    tab.close()
