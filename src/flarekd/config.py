"""The configuration: frozen models filled from YAML and ``--set``, every problem told at once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from flarekd import plain_yaml
from flarekd.errors import InputError, said
from flarekd.protocol import Section, Student, Teacher


class Phantoms(Section):
    """The synthetic cohort of ``demo``."""

    preset: Literal["quick", "full"]
    cases: int = Field(ge=4)


class Data(Section):
    """The user's folders, for ``run``. Relative paths are relative to the configuration file.

    Attributes:
        images: Scans with (partial) labels.
        labels: Their label maps.
        unlabeled: Folder of scans without labels, or a list of such folders.
        organ_pseudo: Organ pseudo-labels of all of them.
        groups: groups.yaml, where there are other groups than Table 1's or other data sets' ids.
        review: review.csv of the page that ``review`` writes; cases ticked drop or fix are not
            fused, and so not learned from.
        against: Model file of another teacher, whose labels those of this one are compared with
            (``quality.figures``).
        previous: Folders of tumour pseudo-labels of earlier rounds, oldest first, likewise.
        out: Where everything goes.
        test_images: Held-out scans to segment at the end.
        test_labels: Complete labels of them, to score against.
    """

    images: Path
    labels: Path | None = None
    unlabeled: tuple[Path, ...] = ()
    organ_pseudo: Path | None = None
    groups: Path | None = None
    review: Path | None = None
    against: Path | None = None
    previous: tuple[Path, ...] = ()
    out: Path
    test_images: Path | None = None
    test_labels: Path | None = None

    @field_validator("unlabeled", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if value is None:
            return ()
        return value if isinstance(value, (list, tuple)) else (value,)


class Quality(Section):
    """What `run` asks of labels beside making them; nothing where it is left out.

    Attributes:
        strict: Whether cases that a person should decide on are left out (``group-data --strict``).
        probability: Whether the tumour probability is written (``pseudo-tumor --probability``).
        figures: Whether the figures of how far each tumour pseudo-label can be trusted are
            (``pseudo-tumor --quality``, the teacher then runs twice), and those of organs.
        drop: Rules by these figures that leave pseudo-labels out (``fuse --drop``); those that
            they ask for are made.
        ignore_mm: Contradictions over a ball of this radius are left open (``fuse --ignore``).
        provenance: Whether volumes of sources are written (``fuse --provenance``).
    """

    strict: bool = False
    probability: bool = False
    figures: bool = False
    drop: tuple[str, ...] = ()
    ignore_mm: float | None = Field(default=None, ge=0)
    provenance: bool = False


class Config(Section):
    """Everything a run can be told, apart from what belongs to the machine."""

    seed: int = 0
    teacher: Teacher
    student: Student
    fusion: Literal["paper", "simple"] = "paper"
    quality: Quality = Quality()
    protocol: Literal["flare23", "corrected"] = "flare23"
    phantoms: Phantoms | None = None
    data: Data | None = None


def builtin(name: str) -> Path:
    """The path of a configuration that comes with flarekd: ``quick`` or ``flare23``."""
    inside = Path(__file__).parent / "configs" / f"{name}.yaml"
    beside = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
    return inside if inside.exists() else beside


def load(path: Path, settings: Sequence[str] = ()) -> Config:
    """Read a configuration and change single keys of it.

    A file may begin with ``base: quick`` or ``base: flare23`` and state only what differs from
    that.

    Args:
        path: YAML file.
        settings: ``section.key=value`` strings; values are YAML.

    Returns:
        The configuration.

    Raises:
        InputError: If the file or a setting is unusable; all problems at once, each with its key.
    """
    tree = _read(path)
    if isinstance(tree.get("data"), dict):
        folder = path.resolve().parent
        tree["data"] = {key: _below(folder, value) for key, value in tree["data"].items()}
    for setting in settings:
        _set(tree, setting)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise InputError(
            f"configuration {path.name}: {_explain(error)}", "correct these keys"
        ) from None


def dump(config: Config) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = plain_yaml.read(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read configuration {str(path)!r}: {said(error)}") from error
    if not isinstance(tree, dict):
        raise InputError(
            f"configuration {str(path)!r} is not a mapping of keys to values",
            "for example two lines 'base: quick' and 'seed: 1'",
        )
    base = tree.pop("base", None)
    if base is None:
        return tree
    if base not in ("quick", "flare23"):
        raise InputError(
            f"{path}: base {base!r} is neither 'quick' nor 'flare23'",
            "quick trains in minutes, flare23 as the paper does",
        )
    return _merge(_read(builtin(base)), tree)


def _below(folder: Path, value: Any) -> Any:
    """Paths relative to a folder; what is none is left for the model to judge."""
    if isinstance(value, list):
        return [_below(folder, one) for one in value]
    return str(folder / value) if isinstance(value, str) else value


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value) if both and isinstance(old, dict) else value
    return merged


def _set(tree: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        raise InputError(
            f"--set {setting!r} is not key=value", "for example --set student.epochs=10"
        )
    try:
        value = plain_yaml.parse(text)
    except ValueError as error:
        raise InputError(f"--set {setting!r}: {error}") from error
    for parent in parents:
        branch = tree.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise InputError(f"--set {setting!r}: {parent!r} holds a value, not keys")
        tree = branch
    tree[last] = value


def _explain(error: ValidationError) -> str:
    return "; ".join(_explain_one(dict(problem)) for problem in error.errors())


def _explain_one(problem: dict[str, Any]) -> str:
    key = ".".join(map(str, problem["loc"])) or "configuration"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(
            str(problem["loc"][-1]), _known_keys(problem["loc"][:-1]), 1
        )
        return f"{key} is unknown" + (f", did you mean {near[0]!r}?" if near else "")
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    if isinstance(given, str) and problem["type"].startswith(("float", "int")):
        message += " (YAML reads 1e-2 as text: write 0.01 or 1.0e-2)"
    return f"{key}: {message}" if isinstance(given, dict) else f"{key}: {message}, got {given!r}"


def _known_keys(location: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] = Config
    for name in location:
        field = model.model_fields.get(str(name))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
