"""Why a case is in its group: what lacks and why, and what is unlike the rest of the cohort.

Arithmetic on what was measured of each case and nothing else. What is usual is learnt from the
cohort itself (``norms.py``); it tells whether an organ that nobody drew is one that the scan does
not reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flarekd.extents import Extent
from flarekd.grouping import assign_group, names
from flarekd.labels import BY_ID, GROUPS, ORGANS, TUMOR
from flarekd.norms import LOWER, UPPER, End, Facts, Norms, Offset, Organs, Typical, ends_mm

CUT, INSIDE = 0.25, 0.5
"""Share of an organ's usual height that is expected in the scan: below `CUT` the scan ends before
it, from `INSIDE` on it should be there."""

SHOWN = 0.1
"""Share of the typical volume from which on a pseudo-label shows an organ."""

PSEUDO = "organ pseudo-label"
Verdict = Literal["not annotated", "scan ends", "perhaps removed", "unclear", "contradicted"]


@dataclass(frozen=True)
class Lacking:
    """An organ that is not in the label file, and why."""

    label: int
    name: str
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Outlier:
    """An organ of an unusual volume.

    Attributes:
        label: Its id.
        name: Its name.
        source: ``label`` or ``organ pseudo-label``.
        ml: Its volume.
        typical: What is usual.
    """

    label: int
    name: str
    source: str
    ml: float
    typical: Typical


@dataclass(frozen=True)
class Evidence:
    """What there is to say of a case's group.

    Attributes:
        group: As ``Assignment``.
        annotated: λ: the ids present, or those that its data set vouches for.
        exact: As ``Assignment``.
        why: A sentence.
        is_ambiguous: Whether a person should decide.
        lacking: Every organ that its label file has not; none where that is empty.
        outliers: Volumes of its label file and its organ pseudo-label far from the typical ones.
        note: What a person should know, empty where there is nothing.
    """

    group: int | None
    annotated: tuple[int, ...]
    exact: bool
    why: str
    is_ambiguous: bool
    lacking: tuple[Lacking, ...]
    outliers: tuple[Outlier, ...]
    note: str


def weigh(
    case: Facts, norms: Norms, groups: Mapping[int, frozenset[int]] = GROUPS
) -> Evidence | None:
    """Say which group a case is in and why; None where it has no label file.

    Args:
        case: What was measured of it.
        norms: What is usual.
        groups: As ``assign_group``.
    """
    if case.drawn is None:
        return None
    present = frozenset(case.drawn)
    found = assign_group(case.vouched if case.dataset else present, groups)
    doubtful = case.vouched - present - {TUMOR} if case.dataset else set(found.doubtful)
    missing = (set(ORGANS) | set(doubtful)) - present if found.annotated else set()
    lacking = tuple(_explain(label, case, norms, label in doubtful) for label in sorted(missing))
    doubts = [one for one in lacking if one.label in doubtful]
    open_doubts = [one for one in doubts if one.verdict in _unsettled(case)]
    outliers = (*_outliers(case.drawn, "label", norms), *_outliers(case.pseudo, PSEUDO, norms))
    told = [f"{one.name} {one.verdict}: {one.why}" for one in doubts if one.why]
    if case.dataset:
        head = f"data set {case.dataset!r} has annotated {names(found.annotated)}"
        note = []
    else:
        head = f"its ids are those of group {found.group}" if found.exact else found.note
        note = [found.note] if found.note and (open_doubts or not found.exact) else []
    outlying = [_tell(one) for one in outliers]
    return Evidence(
        group=found.group if found.exact or not case.dataset else None,
        annotated=found.annotated,
        exact=found.exact,
        why="; ".join([head, *told, *outlying]),
        is_ambiguous=bool(open_doubts) or not found.annotated,
        lacking=lacking,
        outliers=outliers,
        note="; ".join([*note, *told, *outlying]),
    )


def _unsettled(case: Facts) -> frozenset[Verdict]:
    # who vouches for a class says by its absence that it is not there
    return frozenset({"contradicted"} if case.dataset else {"perhaps removed", "unclear"})


def _explain(label: int, case: Facts, norms: Norms, is_doubtful: bool) -> Lacking:
    verdict, why = _verdict(label, case, norms, is_doubtful)
    return Lacking(label, BY_ID[label].name, verdict, why)


def _verdict(label: int, case: Facts, norms: Norms, is_doubtful: bool) -> tuple[Verdict, str]:
    guess = case.pseudo.get(label) if case.pseudo is not None else None
    if guess is not None:
        return _by_guess(guess, norms.volumes.get(label), label in case.vouched)
    share, where = expected(label, case, norms)
    if share is not None and share < CUT:
        return "scan ends", where
    if not is_doubtful:
        return "not annotated", f"no case of its {'data set' if case.dataset else 'group'} has it"
    if share is None or share < INSIDE:
        return "unclear", ""
    if case.pseudo is None:
        return "unclear", f"{where}: removed or not annotated"
    return "perhaps removed", f"{where}, and the {PSEUDO} has none either"


def _by_guess(guess: Extent, usual: Typical | None, is_vouched: bool) -> tuple[Verdict, str]:
    """What a pseudo-label says of an organ that the label file lacks."""
    if not guess.is_whole_in_z and usual is not None and guess.ml < SHOWN * usual.median_ml:
        return "scan ends", f"no more than {_ml(guess.ml)} ml of it are in the scan"
    verdict: Verdict = "contradicted" if is_vouched else "not annotated"
    return verdict, f"the {PSEUDO} shows {_ml(guess.ml)} ml of it"


def expected(label: int, case: Facts, norms: Norms) -> tuple[float | None, str]:
    """The share of an organ that should be in the scan, and where that is known from.

    Args:
        label: The organ.
        case: What was measured of the other organs of the case.
        norms: What is usual.

    Returns:
        0..1, and a few words. Of an organ of which only one end is known the share is 1 or 0; None
        where nothing is known.
    """
    seen = ends_mm(case)
    guesses = {end: _place((label, end), seen, norms) for end in (LOWER, UPPER)}
    lower, upper = (guess and guess[0] for guess in guesses.values())
    if lower is None and upper is None:
        return None, ""
    height = case.height_mm
    above = -1.0 if lower is None else lower - height
    below = -1.0 if upper is None else -upper
    if above >= 0:
        return 0.0, f"expected {above:.0f} mm beyond the end at the head, {_by(guesses[LOWER])}"
    if below >= 0:
        return 0.0, f"expected {below:.0f} mm beyond the end at the feet, {_by(guesses[UPPER])}"
    share = 1.0
    if lower is not None and upper is not None and upper > lower:
        share = (min(upper, height) - max(lower, 0.0)) / (upper - lower)
    best = min((one for one in guesses.values() if one), key=lambda one: one[1].spread_mm)
    return share, f"{share:.0%} of it expected in the scan, {_by(best)}"


_Guess = tuple[float, Offset, End]


def _place(wanted: End, seen: Mapping[End, float], norms: Norms) -> _Guess | None:
    """Where an end of an organ should lie: mm, and by which end of another one."""
    known = [end for end in seen if (end, wanted) in norms.offsets]
    if not known:
        return None
    anchor = min(known, key=lambda end: (norms.offsets[end, wanted].spread_mm, end))
    offset = norms.offsets[anchor, wanted]
    return seen[anchor] + offset.mm, offset, anchor


def _by(guess: _Guess | None) -> str:
    assert guess is not None
    _, offset, (label, end) = guess
    where = f"the {end} end of the {BY_ID[label].name}"
    return f"by {where} (±{offset.spread_mm:.0f} mm in {offset.cases} cases)"


def _outliers(organs: Organs | None, source: str, norms: Norms) -> tuple[Outlier, ...]:
    found = []
    for label, one in sorted((organs or {}).items()):
        usual = norms.volumes.get(label)
        # what the scan cuts is smaller than usual for a reason
        if usual is None or (one.cut_off and one.ml < usual.median_ml):
            continue
        if not usual.low_ml <= one.ml <= usual.high_ml:
            found.append(Outlier(label, BY_ID[label].name, source, one.ml, usual))
    return tuple(found)


def _tell(outlier: Outlier) -> str:
    usual = outlier.typical
    of = "" if outlier.source == "label" else f" of the {outlier.source}"
    return (
        f"{outlier.name}{of} {_ml(outlier.ml)} ml, typical {_ml(usual.median_ml)} "
        f"({_ml(usual.low_ml)} to {_ml(usual.high_ml)})"
    )


def _ml(volume: float) -> str:
    return f"{volume:,.0f}" if volume >= 10 else f"{volume:.2g}"
