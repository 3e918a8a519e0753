"""A network as an ONNX graph: what every runtime but torch reads, and where it is kept.

One format serves OpenVINO and ONNX Runtime. It is made once a model and kept, because tracing and
translating take longer than reading.
"""

from __future__ import annotations

import hashlib
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flarekd import __version__
from flarekd.errors import NoRoomError
from flarekd.imaging.atomic import replacing

INPUT, OUTPUT = "image", "logits"
OPSET = 17
FORMAT = 2
"""Of the graphs that are kept; a new number makes old ones unused."""


def to_onnx(network: nn.Module) -> bytes:
    """Trace a network and write it as ONNX, sizes of all axes but the channels left open.

    The trace runs on the smallest input that the network takes, so it costs little time and memory
    whatever the patch.

    Args:
        network: Maps float32 (n, 1, …) to (n, C, …), on the CPU in eval mode; its ``divisor`` says
            what the axes must be divisible by.

    Returns:
        The graph with its weights; input ``image``, output ``logits``.
    """
    divisor = divisors(network)
    # twice: instance norm needs more than one voxel at the deepest level
    example = torch.zeros(1, 1, *(2 * step for step in divisor))
    axes = {0: "n"} | {2 + axis: f"axis_{axis}" for axis in range(len(divisor))}
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # torch calls this exporter legacy; the other needs onnxscript and takes many times longer
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            file,  # type: ignore[arg-type]  # the legacy exporter takes files, its annotation does not say so
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axes, OUTPUT: axes},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()


def divisors(network: nn.Module) -> tuple[int, ...]:
    """What each axis of a network's input must be divisible by: three axes, or two of slices."""
    by: Any = network.divisor
    return (by, by) if isinstance(by, int) else tuple(by)


def kept(model: Path, what: str, make: Callable[[], bytes], places: Sequence[Path]) -> bytes:
    """The graph of a model file, from one of `places` or made and put into the first that takes it.

    The name of a kept graph holds a key (the model's hash, the versions of what made the graph) and
    the graph's own hash: a graph of another model, of another version, or a damaged one is made
    anew. Whoever may write there may also write a graph that is not the model's; a place is as
    trustworthy as the folder of the model, or the user's own.

    Args:
        model: The model file.
        what: All that the graph depends on beside versions: the hash of its content, and more.
        make: Makes the graph.
        places: Folders, the preferred one first; where none can be written, nothing is kept.

    Returns:
        The graph.
    """
    known = f"{what} {FORMAT} {__version__} {torch.__version__}"
    key = f"{model.name}.graph-{_digest(known.encode())}-"
    for place in places:
        for path in _matching(place, key):
            if (graph := _whole(path, key)) is not None:
                return graph
    graph = make()
    for place in places:
        try:
            with replacing(place / f"{key}{_digest(graph)}.onnx") as temporary:
                temporary.write_bytes(graph)
        except (OSError, NoRoomError):
            continue  # read-only or full: the next place, or none, which costs time alone
        if place == model.parent:
            _drop_others(place, model, key)
        break
    return graph


def places(model: Path) -> list[Path]:
    """Where the graph of `model` may be kept: beside it, else with the user's other caches."""
    return [model.parent, *user_cache()]


def user_cache() -> list[Path]:
    """The folder for flarekd's caches, where the user has a home."""
    try:
        home = Path.home()
    except RuntimeError:
        return []
    folders = {"darwin": "Library/Caches", "win32": "AppData/Local"}
    return [home / folders.get(sys.platform, ".cache") / "flarekd"]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _matching(place: Path, start: str) -> list[Path]:
    try:
        return [path for path in place.iterdir() if path.name.startswith(start)]
    except OSError:
        return []


def _whole(path: Path, key: str) -> bytes | None:
    """The content of a kept graph, where it is what its name says."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if path.name == f"{key}{_digest(content)}.onnx" else None


def _drop_others(place: Path, model: Path, key: str) -> None:
    """Delete the graphs of earlier models of this name."""
    for path in _matching(place, f"{model.name}.graph-"):
        if not path.name.startswith(key):
            path.unlink(missing_ok=True)
