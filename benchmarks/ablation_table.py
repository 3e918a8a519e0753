"""What an ablation found, beside what the paper says (Tables 6 and 7)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flarekd.labels import readable

Scores = Mapping[str, Mapping[str, float]]
"""Of one seed: run → ``organs`` and ``tumor``, DSC of 0 to 1; a teacher has tumours alone."""

MEASURES = ("tumor", "organs")


PAPER: Mapping[str, Mapping[str, float]] = {
    # its 88.97 of organs is a slip: the thirteen rows average 89.97 (method.md)
    "2d-simple": {"tumor": 25.18, "organs": 89.97},
    "2d-paper": {"tumor": 34.80, "organs": 89.72},
    "3d-paper": {"tumor": 24.81, "organs": 86.71},
    "3d-paper-all": {"tumor": 30.47, "organs": 88.53},
    "teacher-plain-full": {"tumor": 34.28},
    "teacher-attention-full": {"tumor": 36.75},
}
"""DSC % of Tables 6 and 7, by run."""


@dataclass(frozen=True)
class Question:
    """Two runs that differ in one thing.

    Attributes:
        asks: What is done otherwise.
        before: Run without it.
        after: Run with it.
        source: Where the paper has it.
    """

    asks: str
    before: str
    after: str
    source: str

    @property
    def paper(self) -> dict[str, float]:
        """What the paper found it to change, percentage points of DSC by measure."""
        before, after = (PAPER.get(run, {}) for run in (self.before, self.after))
        return {measure: after[measure] - before[measure] for measure in before if measure in after}


QUESTIONS = (
    Question(
        "Eq. 3 to 5 instead of simple fusion, 2D attention network, labelled cases",
        "2d-simple",
        "2d-paper",
        "Table 6",
    ),
    Question(
        "small 3D instead of 2D attention network, labelled cases",
        "2d-paper",
        "3d-paper",
        "Table 6",
    ),
    Question(
        "unlabelled cases too, small 3D network",
        "3d-paper",
        "3d-paper-all",
        "Table 6",
    ),
    Question(
        "attention instead of plain 2D U-Net, tumours alone",
        "teacher-plain-full",
        "teacher-attention-full",
        "Table 7",
    ),
    Question(
        "top-left probe instead of all windows, attention teacher",
        "teacher-attention-full",
        "teacher-attention-top-left",
        "Fig. 5",
    ),
    Question(
        "probe in the centre instead of the top left",
        "teacher-attention-top-left",
        "teacher-attention-center",
        "not in the paper",
    ),
)


def direction(differences: Sequence[float], paper: float) -> str:
    """Whether every seed agrees with the paper's sign, with the other, or they differ."""
    if all(value * paper > 0 for value in differences):
        return "same direction as the paper"
    if all(value * paper < 0 for value in differences):
        return "opposite to the paper"
    return "undecided: no sign that all seeds share"


def table(seeds: Mapping[int, Mapping[str, Any]]) -> str:
    """Markdown: the scores of every run, and of every question the differences.

    Args:
        seeds: Seed to its scores, as far as there are any.
    """
    lines = ["| run | tumour DSC %, each seed | paper | organs DSC %, each seed | paper |"]
    lines.append("|---|---|---|---|---|")
    runs = {run: None for scores in seeds.values() for run in scores}
    for run in runs:
        cells = [
            f"{spread(_values(seeds, run, measure))} | {_paper(run, measure)}"
            for measure in MEASURES
        ]
        lines.append(f"| {run} | {' | '.join(cells)} |")
    lines += ["", "| question | measure | paper | phantoms, each seed | outcome |"]
    lines.append("|---|---|---|---|---|")
    for question in QUESTIONS:
        for measure in MEASURES:
            found = differences(seeds, question, measure)
            if found:
                what = f"{question.asks} | {readable(measure)}"
                lines.append(f"| {what} | {_outcome(question, measure, found)} |")
    return "\n".join(lines) + "\n"


def differences(seeds: Mapping[int, Scores], question: Question, measure: str) -> list[float]:
    """Percentage points that the second run is ahead by, of each seed that has both."""
    return [
        100 * (scores[question.after][measure] - scores[question.before][measure])
        for scores in seeds.values()
        if measure in scores.get(question.after, {}) and measure in scores.get(question.before, {})
    ]


def spread(values: Sequence[float]) -> str:
    """Mean, standard deviation and the values themselves."""
    if not values:
        return "–"
    sd = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{sd} ({', '.join(f'{value:.1f}' for value in values)})"


def _values(seeds: Mapping[int, Scores], run: str, measure: str) -> list[float]:
    found = [scores.get(run, {}).get(measure) for scores in seeds.values()]
    return [100 * value for value in found if value is not None]


def _paper(run: str, measure: str) -> str:
    value = PAPER.get(run, {}).get(measure)
    return "–" if value is None else f"{value:.2f}"


def _outcome(question: Question, measure: str, found: Sequence[float]) -> str:
    paper = question.paper.get(measure)
    if paper is None:
        return f"– | {spread(found)} | the paper has no number"
    return f"{paper:+.2f} ({question.source}) | {spread(found)} | {direction(found, paper)}"
