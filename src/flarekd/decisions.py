"""What a person decided of each case: review.csv, from the page of ``flarekd review``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal, get_args

from flarekd.cohort import read_traits
from flarekd.errors import InputError, counted, listed

Decision = Literal["keep", "drop", "fix"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
COLUMN = "decision"


def read_decisions(path: Path) -> dict[str, Decision]:
    """Read which cases are to be kept, dropped or mended first.

    Any table with the columns ``case`` and ``decision`` will do, also one that a spreadsheet saved;
    cases without a decision are left out.

    Args:
        path: The file.

    Raises:
        InputError: If it cannot be read, holds another decision, or two for one case; all such
            cases are named.
    """
    if not path.is_file():
        raise InputError(f"no such file: {str(path)!r}", "download it from `flarekd review`'s page")
    told = read_traits(path, [COLUMN])[COLUMN]
    decided: dict[str, Decision] = {}
    wrong = []
    for case, text in told.items():
        decision = _decision(text)
        if decision is None:
            wrong.append(f"{case}: {text!r}")
        else:
            decided[case] = decision
    if wrong:
        what = f"{str(path)!r}: no decision: {'; '.join(wrong)}"
        raise InputError(what, f"write one of {', '.join(DECISIONS)}, or leave it empty")
    return decided


def read_unused(
    path: Path | None, warn: Callable[[str], None] = lambda _: None
) -> dict[str, Decision]:
    """The cases that are not used: those dropped, and those that have yet to be mended.

    Args:
        path: As `read_decisions`; None takes out nothing.
        warn: Told where nothing is decided: the ticks may have been lost on their way.
    """
    decided = {} if path is None else read_decisions(path)
    if path is not None and not decided:
        warn(f"{path} decides nothing: no case in it has a decision, so all are used")
    return {case: decision for case, decision in decided.items() if decision != "keep"}


def tell_strangers(unused: Mapping[str, Decision], known: Collection[str]) -> str:
    """A sentence about decisions on cases that are not there, empty where there are none.

    A spreadsheet makes 1 of a case ``0001``, and what was decided on it would be lost in silence.

    Args:
        unused: As `read_unused` gives them.
        known: All cases.
    """
    strangers = sorted(unused.keys() - known)
    if not strangers:
        return ""
    named = listed([repr(case) for case in strangers])
    return (
        f"the review leaves out {counted(strangers, 'case')} not to be found here: {named}"
        " · right if they were left out before; else write their ids as cohort.csv has them"
    )


def tell_unused(unused: Mapping[str, Decision]) -> str:
    """A sentence about the cases that are not used; those to be mended are named."""
    mend = sorted(case for case, decision in unused.items() if decision == "fix")
    told = f"the review leaves out {counted(unused, 'case')}"
    if mend:
        told += f"; to be mended: {', '.join(mend)}"
    return told


def _decision(text: str) -> Decision | None:
    return next((one for one in DECISIONS if one == text.strip().lower()), None)
