"""Every command that any page names exists with the options it is given there.

The pages for newcomers are followed to the letter in ``test_pages.py`` and
``tests/docker/test_page.py``, some for reference in ``test_reference_pages.py``; the others name
files that nobody has here, or measure for hours.
"""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from flarekd.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
VERBS = get_command(app).commands
BENCHMARK = re.compile(r"add_argument\(\s*\"(--[\w-]+)\"")


def commands(page):
    """The command lines of a page, in blocks and within sentences, as words."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    spoken = re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*lines, *(" ".join(words.split()) for words in spoken)]:
        try:
            yield shlex.split(line, comments=True)
        except ValueError:  # an apostrophe: no command
            continue


def unknown(words):
    """What of a command there is not, if it is one of ours."""
    if "bench" in words and "--" in words:  # the command that is measured is another
        at = words.index("--")
        return unknown(words[:at]) + unknown(words[at + 1 :])
    for place, word in enumerate(words[:-1]):
        options = {word.partition("=")[0] for word in words[place + 2 :] if word.startswith("--")}
        verb = words[place + 1]
        if Path(word).name == "flarekd" and re.fullmatch("[a-z][a-z-]+", verb):
            if verb not in VERBS:
                return [verb]
            known = {name for option in VERBS[verb].params for name in option.opts}
            return sorted(options - known - {"--help"})
        if word == "-m" and verb.startswith("benchmarks."):
            module = importlib.util.find_spec(verb)
            if module is None:
                return [verb]
            code = Path(module.origin).read_text(encoding="utf-8")
            return sorted(options - {*BENCHMARK.findall(code), "--help"})
    return []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_commands_of_a_page_exist(page):
    assert [(words, lacks) for words in commands(page) if (lacks := unknown(words))] == []


def test_commands_are_found_in_blocks_and_sentences():
    found = [" ".join(words) for words in commands(Path("README.md"))]
    assert any(line.startswith("flarekd infer scan.nii.gz --model") for line in found)


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("flarekd infer scan --model m --out o --fast", ["--fast"]),
        ("flarekd segment scan", ["segment"]),
        ("flarekd bench --out b -- flarekd infer scan --fast", ["--fast"]),
        ("python -m benchmarks.none --out x", ["benchmarks.none"]),
        ("python -m benchmarks.load --quickly", ["--quickly"]),
        ("flarekd infer scan --model m --runtime=torch", []),
        ("grep flarekd --color", []),
    ],
)
def test_what_there_is_not_is_told(line, lacks):
    assert unknown(shlex.split(line)) == lacks
