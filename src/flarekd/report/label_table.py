"""What the ids of the label maps mean, as the files that viewers load: ITK-SNAP and 3D Slicer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flarekd.imaging.atomic import write_text
from flarekd.labels import color_of

SNAP, SLICER = "labels.txt", "labels.ctbl"


def write_label_tables(folder: Path, names: Mapping[int, str]) -> None:
    """Write ``labels.txt`` for ITK-SNAP and ``labels.ctbl`` for 3D Slicer.

    Args:
        folder: Beside the label maps.
        names: Id to name, background left out.

    Raises:
        OSError: If a file cannot be written.
    """
    rows = [(label, name, *color_of(label, name)) for label, name in sorted(names.items())]
    snap = [
        "# ITK-SnAP Label Description File",
        "# IDX -R- -G- -B- -A- VIS MSH LABEL",
        f'{0:5d} {0:5d} {0:4d} {0:4d} {0:8d} {0:3d} {0:3d}    "Clear Label"',
    ]
    slicer = ["# Color table file of flarekd", f"# {len(rows) + 1} values", "0 background 0 0 0 0"]
    for label, name, red, green, blue in rows:
        quoted = name.replace('"', "'")
        snap.append(f'{label:5d} {red:5d} {green:4d} {blue:4d} {1:8d} {1:3d} {1:3d}    "{quoted}"')
        # columns are parted by white space, so a name must have none
        slicer.append(f"{label} {'_'.join(name.split())} {red} {green} {blue} 255")
    write_text(folder / SNAP, "\n".join(snap) + "\n")
    write_text(folder / SLICER, "\n".join(slicer) + "\n")
