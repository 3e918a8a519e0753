"""What is found amiss in a file, and what becomes of it.

The readers find, ``flarekd check`` shows the same findings, and a refusal is the ``InputError`` of
every other verb: one mechanism, so that no verb takes what another would not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flarekd.errors import InputError

Severity = Literal["refused", "doubtful", "mended"]
"""Cannot be used; is used as it stands but a person should look; was put right on reading."""

GREY = "give one number a voxel: the grey scan, or the ids of a label map, not colours or vectors"
"""How to mend a file of several numbers a voxel; its header does not say what it should be."""


@dataclass(frozen=True)
class Finding:
    """One thing amiss in a file.

    Attributes:
        severity: What becomes of it.
        what: What is wrong, values by repr and numbers with units, without the file's name.
        mend: What to do about it, or what was done where it is mended.
    """

    severity: Severity
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.what} · {self.mend}" if self.mend else self.what


def refused(path: Path, error: InputError) -> Finding:
    """The refusal that a reader raised, as a finding; the file is told apart from it."""
    return Finding("refused", error.what.removeprefix(f"{path}: "), error.mend)


def admitted(where: Path | str, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that a scan may be used with.

    Args:
        where: Its file, or what it is called, for the message.
        findings: Of any severity.

    Raises:
        InputError: If one of them is a refusal.
    """
    findings = tuple(findings)
    for finding in findings:
        if finding.severity == "refused":
            raise InputError(f"{where}: {finding.what}", finding.mend)
    return findings
