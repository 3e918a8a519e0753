"""report.html: what evaluate found, on one page that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flarekd import __version__
from flarekd.errors import counted
from flarekd.imaging.atomic import write_text
from flarekd.labels import LABELS, TUMOR, readable
from flarekd.metrics.lesions import Lesion
from flarekd.metrics.protocols import ClassScore
from flarekd.metrics.statistics import case_means
from flarekd.report import page
from flarekd.report.charts import Box, box
from flarekd.report.manifest import Facts
from flarekd.report.run_charts import Efficiency, Training
from flarekd.report.score_tables import number, tables

PAGE_NAME, PICTURES = "report.html", "overlays"

Scores = Mapping[str, Sequence[ClassScore]]


@dataclass(frozen=True)
class Material:
    """What the page is made of.

    Attributes:
        summary: What ``scores.json`` holds.
        scores: The scores of each case, as ``scores.csv`` has them.
        lesions: The lesions of each case.
        facts: The manifest.
        trainings: Those that the run has.
        efficiency: What benches say, where there are any.
    """

    summary: Mapping[str, Any]
    scores: Scores
    lesions: Mapping[str, Sequence[Lesion]]
    facts: Facts
    trainings: Sequence[Training] = ()
    efficiency: Efficiency | None = None


@dataclass(frozen=True)
class _Cell:
    """A score of the case table: fraction, what is shown, and whether anybody has the class."""

    value: float | None
    is_present: bool = True

    @property
    def text(self) -> str:
        return number(self.value, 100, 1) if self.value is not None else ""


@dataclass(frozen=True)
class _BoxRow:
    """One class in a box plot; outliers with the case they are of."""

    name: str
    box: Box | None
    inside: tuple[float, ...] = ()
    outliers: tuple[tuple[float, str], ...] = ()


def write_page(out: Path, material: Material) -> Path:
    """Write ``report.html`` beside the score files whose numbers it shows, whole or not at all.

    The pictures are those that evaluate drew to ``overlays/<case>.png``.

    Args:
        out: The folder of the scores.
        material: What to show.

    Returns:
        The page.
    """
    summary, scores = material.summary, material.scores
    pictures = {case: out / PICTURES / f"{case}.png" for case in scores}
    # an older evaluation may have left the picture of a prediction that is gone
    drawn = {
        case: path
        for case, path in pictures.items()
        if case not in summary["errors"] and path.exists()
    }
    main, *others = tables(summary)
    html = page.render(
        "scores.html",
        title="Segmentation scores",
        version=__version__,
        summary=summary,
        scored=f"{counted(summary['cases'], 'case')} scored",
        figures=_figures(summary),
        main=main,
        tables=others,
        absent=_absent(scores),
        boxes={key.upper(): _box_rows(scores, key) for key in ("dsc", "nsd")} if scores else {},
        labels=[(label.short, readable(label.name)) for label in LABELS],
        cases=_case_rows(material, drawn),
        pictures=_pictures(scores, drawn),
        trainings=material.trainings,
        efficiency=material.efficiency,
        facts=material.facts,
    )
    path = out / PAGE_NAME
    write_text(path, html)
    return path


def _figures(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers to see first: of what, DSC and NSD in percent."""
    return [
        (name, number(summary[key]["dsc"], 100, 2), number(summary[key]["nsd"], 100, 2))
        for name, key in (("Organs", "organs"), ("Tumour", "tumor"), ("All", "all"))
    ]


def _absent(scores: Scores) -> list[str]:
    """The classes that no reference holds."""
    volumes: dict[int, list[float]] = {}
    for records in scores.values():
        for score in records:
            if not math.isnan(score.reference_ml):
                volumes.setdefault(score.label, []).append(score.reference_ml)
    return [
        readable(label.name)
        for label in LABELS
        if label.id in volumes and not any(volumes[label.id])
    ]


def _box_rows(scores: Scores, key: str) -> list[_BoxRow]:
    rows = []
    for index, label in enumerate(LABELS):
        known = [
            (getattr(records[index], key), case)
            for case, records in scores.items()
            if not math.isnan(getattr(records[index], key))
        ]
        found = box([value for value, _ in known])
        far = set(found.outliers) if found else set()
        inside = tuple(value for place, (value, _) in enumerate(known) if place not in far)
        outliers = tuple(known[place] for place in sorted(far))
        rows.append(_BoxRow(readable(label.name), found, inside, outliers))
    return rows


def _case_rows(material: Material, drawn: Mapping[str, Path]) -> list[dict[str, Any]]:
    """One row a scored case: its means, its tumours, the DSC of each class."""
    rows = []
    for case, means in case_means(material.scores).items():
        records = material.scores[case]
        lesions = material.lesions[case]
        tumor = records[TUMOR - 1]
        rows.append(
            {
                "case": case,
                "picture": f"{PICTURES}/{quote(case)}.png" if case in drawn else None,
                "error": material.summary["errors"].get(case),
                "means": [
                    _Cell(_known(means[name][key]), name != "tumor" or _is_present(tumor))
                    for name in ("all", "organs", "tumor")
                    for key in ("dsc", "nsd")
                ],
                "volume": number(_known(tumor.volume_bias), 100, 0, "+"),
                "drawn": sum(one.is_reference for one in lesions),
                "found": sum(one.is_reference and one.is_found for one in lesions),
                "false": sum(one.is_false_positive for one in lesions),
                "classes": [_Cell(_known(one.dsc), _is_present(one)) for one in records[:-1]],
            }
        )
    return rows


def _is_present(score: ClassScore) -> bool:
    """Whether either map holds the class; so it is taken where volumes are not known."""
    return not (score.reference_ml == 0 and score.prediction_ml == 0)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _pictures(scores: Scores, drawn: Mapping[str, Path]) -> list[dict[str, str]]:
    """The best, the middle and the worst case by the mean DSC of all classes, with what it is."""
    means = {
        case: entry["all"]["dsc"] for case, entry in case_means(scores).items() if case in drawn
    }
    order = sorted(
        (case for case, mean in means.items() if not math.isnan(mean)),
        key=lambda case: -means[case],
    )
    if len(order) == 1:
        chosen = {"The only case": order[0]}
    elif len(order) == 2:
        chosen = {"Better case": order[0], "Worse case": order[1]}
    elif order:
        middle = order[(len(order) - 1) // 2]
        chosen = {"Best case": order[0], "Median case": middle, "Worst case": order[-1]}
    else:
        chosen = {}
    return [
        {
            "rank": rank,
            "case": case,
            "dsc": number(means[case], 100, 1),
            "source": page.png_uri(drawn[case].read_bytes()),
        }
        for rank, case in chosen.items()
    ]
