"""What a result was made with and of what: the facts that let somebody else make it again."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from flarekd import __version__, plain_json
from flarekd.labels import LABELS

PACKAGES = ("numpy", "scipy", "SimpleITK", "torch")

Facts = list[tuple[str, str]]

_OF_MODEL = {
    "model": "model",
    "model_sha256": "model SHA-256",
    "flarekd": "segmented by flarekd",
    "device": "device",
    "runtime": "runtime",
    "windows": "windows",
    "step": "step",
}
"""Keys of infer's report.json, and what they are called here."""


def manifest(summary: Mapping[str, Any], folders: Mapping[str, Path | None]) -> Facts:
    """The facts of an evaluation, in order: what each is called and what it is.

    Args:
        summary: What ``scores.json`` holds.
        folders: What was given, by name, ``predictions`` among them; None was left out.
    """
    how = summary["intervals"]
    tolerances = ", ".join(f"{label.short} {label.tolerance_mm:g}" for label in LABELS)
    return [
        ("flarekd", __version__),
        ("written", datetime.now(timezone.utc).isoformat(timespec="seconds")),
        ("versions", ", ".join(_versions())),
        ("system", platform.platform()),
        ("protocol", summary["protocol"]),
        ("NSD tolerances, mm", tolerances),
        (
            "confidence intervals",
            f"{100 * how['level']:g} %, bootstrap over cases, {how['resamples']:,} resamples,"
            f" seed {how['seed']}",
        ),
        ("cases scored", str(summary["cases"])),
        ("cases failed", str(len(summary["failed"]))),
        *((name, str(path)) for name, path in folders.items() if path is not None),
        *_model_facts(folders.get("predictions")),
    ]


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for package in PACKAGES:
        try:
            yield f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:  # scoring does without some of them
            continue


def _model_facts(predictions: Path | None) -> Facts:
    """What infer wrote beside its label maps; nothing where something else made them."""
    if predictions is None:
        return []
    try:
        report = plain_json.read(predictions / "report.json")
        return [(name, str(report[key])) for key, name in _OF_MODEL.items() if report.get(key)]
    except (OSError, ValueError, TypeError, AttributeError):
        return []
