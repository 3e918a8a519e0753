"""Verbs that go the whole road: demo and run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flarekd.options import (
    Device,
    Out,
    Preset,
    Seed,
    Settings,
)


def demo(
    out: Out = Path("flarekd-demo"),
    preset: Annotated[Preset, typer.Option(help="quick: minutes on two cores.")] = Preset.quick,
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """The whole road on a synthetic cohort; ends with scores and pictures."""
    from flarekd import config, road

    name = "quick" if preset is Preset.quick else "flare23"
    resolved = config.load(config.builtin(name), [f"seed={seed}", *(settings or [])])
    road.demo(out, preset.value, resolved)


def run(
    config_file: Annotated[Path, typer.Option("--config", help="YAML file with a section 'data'.")],
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """All stages in order on your own folders, only what is not done yet."""
    from flarekd import config, road

    road.run(config.load(config_file, settings or []), device)
