"""How long the page of review takes to open, sort and filter in headless Chromium.

`python -m benchmarks.review_page --cohort COHORT.csv --labels FUSED --out OUT [--cases 4000]`. The
page is the verb's own of a cohort, its blocks repeated under other names until there are as many as
asked for. Medians over `--runs` openings, each in a new tab: wall seconds from the call until the
first content is painted and until the script has counted the cases (from then on everything can be
used), processor seconds of the renderer, and wall seconds until the sorted or filtered page is laid
out. Beside other work wall time says more about that: the load is printed. `--picture` saves what
is seen.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from flarekd import console
from flarekd.stages.review import PAGE, review

LAID_OUT = """async ([id, value]) => {
  const began = performance.now(), box = document.getElementById(id);
  box.value = value;
  box.dispatchEvent(new Event("input", {bubbles: true}));
  box.dispatchEvent(new Event("change", {bubbles: true}));
  document.body.getBoundingClientRect();
  await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  return (performance.now() - began) / 1000;
}"""
PAINTED = """() => performance.getEntriesByName("first-contentful-paint")[0].startTime / 1000"""
COUNTED = (
    """() => performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart"""
)


def repeat(html: str, cases: int) -> str:
    """The page with its cases again and again under other names, `cases` in all."""
    first = html.index('<article class="case"')
    last = html.rindex("</article>") + len("</article>")
    blocks = re.findall(r'<article class="case".*?</article>', html[first:last], re.DOTALL)
    many = []
    for number in range(cases):
        block = blocks[number % len(blocks)]
        name = re.search(r'data-case="([^"]*)"', block)
        assert name is not None  # every block has one
        renamed = block.replace(f'data-case="{name[1]}"', f'data-case="{name[1]}_{number}"')
        many.append(renamed.replace(f">{name[1]}<", f">{name[1]}_{number}<"))
    return html[:first] + "\n".join(many) + html[last:]


def renderers_s() -> float:
    """Processor seconds of the browser's renderers so far."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                times = process.cpu_times()
                total += times.user + times.system
        except psutil.Error:
            continue
    return total


def opened(browser: Any, page: Path, picture: Path | None) -> list[float]:
    """One opening: seconds to paint, to count, of the processor, to sort, to filter."""
    tab = browser.new_page(viewport={"width": 1300, "height": 900})
    tab.set_default_timeout(120_000)
    tab.goto("about:blank")
    before = renderers_s()
    tab.goto(page.as_uri())
    shown = tab.locator("#count").inner_text()
    work = renderers_s() - before
    told = [tab.evaluate(PAINTED), tab.evaluate(COUNTED) / 1000, work]
    if picture:
        tab.screenshot(path=picture)
        console.info(shown)
    told += [tab.evaluate(LAID_OUT, ["sort", "tumor"]), tab.evaluate(LAID_OUT, ["flag", "any"])]
    tab.close()
    return told


def main() -> None:
    """Make the page, open it, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    review(options.cohort, options.labels, options.out)
    page = (options.out / f"{options.cases}.html").resolve()
    page.write_text(repeat((options.out / PAGE).read_text("utf-8"), options.cases), "utf-8")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        runs = [opened(browser, page, None if n else options.picture) for n in range(options.runs)]
        version = browser.version
        browser.close()
    columns = ["painted s", "usable s", "renderer CPU s", "sorted s", "filtered s"]
    rows = [[f"{v:.2f}" for v in figures(np.array(runs), 0)] for figures in (np.median, np.min)]
    size = f"{page.stat().st_size / 1e6:.1f} MB, Chromium {version}, load {os.getloadavg()[0]:.1f}"
    table = [[name, *row] for name, row in zip(("median", "fastest"), rows, strict=True)]
    console.table(f"{options.cases} cases, {size}", ["", *columns], table)


if __name__ == "__main__":
    main()
