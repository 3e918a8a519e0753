"""What a case may be called: its id is the stem of every file that is written for it."""

from __future__ import annotations

import re
import unicodedata

from flarekd.tables import FORMULA

LONGEST = 200
"""Bytes of UTF-8: file systems take 255, and endings are put after it."""

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that are no files on Windows, whatever ending they are given."""


def why_no_case_id(name: str) -> str | None:
    """Why a name cannot be a case id, and so the stem of files, or None where it can.

    >>> why_no_case_id("a/b")
    "holds '/'"
    """
    if not name or name.startswith("."):
        return "is empty" if not name else "begins with a dot"
    odd = re.search(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029]", name)
    if odd:
        return f"holds {odd.group()!r}"
    if name.startswith(FORMULA):
        return f"begins with {name[0]!r}, as a formula or an option does"
    if _DEVICE.fullmatch(name):
        return "is the name of a device on Windows"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    return f"is longer than {LONGEST} bytes" if length > LONGEST else None


def on_disk(case: str) -> str:
    """What two case ids share that are one file name on many disks.

    >>> on_disk("Case1") == on_disk("case1")
    True
    """
    return unicodedata.normalize("NFC", case).casefold()
