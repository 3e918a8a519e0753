"""Verbs that turn model files into others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flarekd.options import (
    Calibrate,
    Form,
    Orientation,
    OutputNames,
    Plans,
    Trained,
)


def export(
    model: Trained,
    out: Annotated[Path, typer.Option("--out", help="File to write: *.onnx or *.xml (OpenVINO).")],
    form: Form = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights; needs --calibrate.")] = False,
    calibrate: Calibrate = None,
) -> None:
    """Write a model's network for other programs, checked against torch."""
    from flarekd.stages.export import export as stage

    stage(model, out, form=form, int8=int8, calibrate=calibrate)


def import_nnunet(
    checkpoint: Annotated[Path, typer.Option(help="checkpoint_final.pth (v2) or *.model (v1).")],
    out: Annotated[Path, typer.Option("--out", help="Model file to write (*.safetensors).")],
    plans: Plans = None,
    labels: OutputNames = None,
    orientation: Orientation = None,
) -> None:
    """Turn a plain U-Net of nnU-Net v1 or v2 into a model file; no code in it is run."""
    from flarekd.stages.import_nnunet import import_nnunet as stage

    stage(checkpoint, plans, out, labels=labels, orientation=orientation)
