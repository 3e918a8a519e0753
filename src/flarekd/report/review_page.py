"""The page of ``flarekd review``: a block a case, in the order in which to look at them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from flarekd import __version__
from flarekd.appearance import Measured
from flarekd.cohort import Case
from flarekd.decisions import DECISIONS
from flarekd.fusion_checks import shown
from flarekd.fusion_table import Sources
from flarekd.labels import IDS, LABELS, NAMES, TUMOR, readable
from flarekd.report.page import render
from flarekd.suspicion import KINDS, Kind, Reason, rank_key, score

KIND_TITLES: dict[Kind, str] = {
    "sides": "sides swapped",
    "missing": "organ missing",
    "volume": "unusual volume",
    "pieces": "in pieces",
    "shift": "off the scan",
    "intensity": "unusual HU",
    "tumour": "odd tumour",
    "sources": "sources disagree",
}

MOST_MASSES_SHOWN = 3


@dataclass(frozen=True)
class Reviewed:
    """One case and all that is known of it.

    Attributes:
        case: Of the cohort.
        measured: Of its label map and scan.
        reasons: Most points first.
        sources: What fusion says of it, None where the labels were not fused here.
        picture: Beside the page, None where it could not be drawn.
    """

    case: Case
    measured: Measured
    reasons: Sequence[Reason]
    sources: Sources | None = None
    picture: Path | None = None

    @property
    def score(self) -> float:
        """Its points."""
        return score(self.reasons)


def in_order(cases: Iterable[Reviewed]) -> list[Reviewed]:
    """Most suspicious first."""
    return sorted(cases, key=lambda one: rank_key(one.case.case, one.reasons))


def review_page(cases: Sequence[Reviewed], cohort: str) -> str:
    """The page.

    Args:
        cases: In order.
        cohort: Name of the cohort, for the title.
    """
    groups = {group_of(one.case): None for one in sorted(cases, key=_by_group)}
    return render(
        "review.html",
        scripts=("review.js",),
        title=f"Review of {cohort}",
        version=__version__,
        rows=[_row(one) for one in cases],
        groups=list(groups),
        classes=[(label.id, readable(label.name)) for label in LABELS],
        kinds=[(kind, KIND_TITLES[kind]) for kind in KINDS],
        decisions=DECISIONS,
        colors={label.id: "#{:02x}{:02x}{:02x}".format(*label.color) for label in LABELS},
        flagged=sum(bool(one.reasons) for one in cases),
    )


def group_of(case: Case) -> str:
    """The group of a case in words."""
    if case.label is None:
        return "unlabelled"
    return "no group" if case.group is None else f"group {case.group}"


def _by_group(one: Reviewed) -> tuple[bool, int]:
    return one.case.label is None, one.case.group or 99


def _row(one: Reviewed) -> dict[str, object]:
    case, measured = one.case, one.measured
    tumor = measured.extents.get(NAMES[TUMOR])
    return {
        "case": case.case,
        "group": group_of(case),
        "split": case.split,
        "score": f"{one.score:.1f}",
        "tumor_ml": f"{tumor.ml:.3f}" if tumor else "0",
        "picture": None if one.picture is None else _address(one.picture),
        "has": " ".join(str(IDS[name]) for name in measured.extents),
        "flags": " ".join(f"{r.kind}:{r.label or ''}" for r in one.reasons),
        "reasons": [(KIND_TITLES[r.kind], r.text, f"{r.points:.1f}") for r in one.reasons],
        "classes": [_numbers(name, measured, one.sources) for name in _present(measured)],
        "tumors": _tumors(measured),
        "files": _files(case),
        "fusion": one.sources.flags if one.sources else "",
        "note": case.note,
    }


def _address(path: Path) -> str:
    return "/".join(quote(part) for part in path.parts)


def _present(measured: Measured) -> list[str]:
    return [label.name for label in LABELS if label.name in measured.extents]


def _numbers(name: str, measured: Measured, sources: Sources | None) -> tuple[int, str]:
    """A class in one line: its volume, ≥ where the scan cuts it, HU, and who it comes from."""
    extent, look = measured.extents[name], measured.looks.get(name)
    text = f"{readable(name)} {'≥ ' if extent.cut_off else ''}{shown(extent.ml)}"
    if look:
        text += f" · {look.mean_hu:.0f} ± {look.sd_hu:.0f} HU"
    if sources:
        told = _told(sources.human_ml.get(name, 0.0), sources.pseudo_ml.get(name, 0.0))
        text += f" · {told}" if told else ""
    return IDS[name], text


def _told(human_ml: float, pseudo_ml: float) -> str:
    if not human_ml and not pseudo_ml:
        return ""
    if human_ml and pseudo_ml:
        return f"{human_ml / (human_ml + pseudo_ml):.0%} drawn, rest pseudo"
    return "drawn" if human_ml else "pseudo"


def _tumors(measured: Measured) -> str:
    masses = [
        f"{shown(mass.ml)}, {mass.diameter_mm:.0f} mm, {mass.mean_hu:.0f} HU, "
        + ("in no organ" if mass.organ == "none" else f"at {readable(mass.organ)}")
        for mass in measured.masses[:MOST_MASSES_SHOWN]
    ]
    more = measured.parts - len(masses)
    return "; ".join(masses) + (f"; {more} more" if masses and more else "")


def _files(case: Case) -> str:
    paths: Mapping[str, Path | None] = {
        "scan": case.image,
        "partial label": case.label,
        "organ pseudo-label": case.organ_pseudo,
    }
    return " · ".join(f"{name} {p.parent.name}/{p.name}" for name, p in paths.items() if p)
