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
from flarekd.training.log import LOG

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
    report = _report(predictions) if predictions else {}
    return [(name, str(report[key])) for key, name in _OF_MODEL.items() if report.get(key)]


def student_run(predictions: Path) -> Path | None:
    """The run folder of the model that infer made predictions with.

    None where it is not known or gone, or another model lies there by now.
    """
    report = _report(predictions)
    model = Path(str(report.get("model", "")))
    try:
        if not (model.is_file() and (model.parent / LOG).is_file()):
            return None
        # comes with torch, which scoring alone does without
        from flarekd.modelfile import file_hash

        return model.parent if file_hash(model) == report.get("model_sha256") else None
    except OSError:
        return None


def _report(predictions: Path) -> dict[str, Any]:
    """What infer wrote beside its label maps; nothing where something else made them."""
    try:
        report = plain_json.read(predictions / "report.json")
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
