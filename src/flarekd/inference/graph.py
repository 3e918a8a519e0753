"""A network as an ONNX graph: what every runtime but torch reads, and where it is kept.

One format serves OpenVINO and ONNX Runtime. It is made once a model and kept, because tracing and
translating take longer than reading.
"""

from __future__ import annotations

import hashlib
import io
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flarekd import __version__
from flarekd.errors import NoRoomError
from flarekd.imaging.atomic import replacing, write_text

INPUT, OUTPUT = "image", "logits"
OPSET = 17
FORMAT = 2
"""Of the graphs that are kept; a new number makes old ones unused."""

RECORDS, MOST_RECORDS = "graphs.txt", 1000
"""In the user's cache: the graphs that this user made, a hash a line; the last so many count."""


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


def kept(model: Path, what: str, make: Callable[[], bytes], cache: Path | None) -> bytes:
    """The graph of a model file: one that this user made before, or a new one.

    It lies beside the model, or in the user's cache where that folder takes none. A model may come
    from a stranger, and a graph beside it that is not the model's could do anything: one is taken
    from there only where the cache has its SHA-256 on record as made by this user of this very
    model. The name of a kept graph holds a key (the model's hash, the versions of what made it) and
    its own hash, so that one of another model, of another version, or a damaged one is not read.

    Args:
        model: The model file.
        what: All that the graph depends on beside versions: the hash of its content, and more.
        make: Makes the graph.
        cache: The user's own folder (`user_cache`); None keeps nothing and takes nothing.

    Returns:
        The graph.
    """
    if cache is None:
        return make()
    known = f"{what} {FORMAT} {__version__} {torch.__version__}"
    key = f"{model.name}.graph-{_digest(known.encode())}-"
    made = set(_records(cache / RECORDS))
    for place in (model.parent, cache):
        for path in _matching(place, key):
            graph = _whole(path, key)
            if graph is not None and (place == cache or _mark(known, graph) in made):
                return graph
    graph = make()
    _keep(graph, f"{key}{_digest(graph)}.onnx", _mark(known, graph), model, cache)
    _drop_others(model, key)
    return graph


def _keep(graph: bytes, name: str, mark: str, model: Path, cache: Path) -> None:
    """Put a graph beside its model and on record, else into the cache; failing costs time alone."""
    try:
        _record(cache / RECORDS, mark)
        with replacing(model.parent / name) as temporary:
            temporary.write_bytes(graph)
    except (OSError, NoRoomError):  # read-only or full
        with suppress(OSError, NoRoomError), replacing(cache / name) as temporary:
            temporary.write_bytes(graph)


def _mark(known: str, graph: bytes) -> str:
    """What stands on record: the whole hash of a graph and of what it was made from."""
    return hashlib.sha256(hashlib.sha256(known.encode()).digest() + graph).hexdigest()


def _records(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _record(path: Path, mark: str) -> None:
    """Add a mark; of two processes that do so at once one may lose its own, and makes it again."""
    write_text(path, "\n".join([*_records(path), mark][-MOST_RECORDS:]) + "\n")


def user_cache() -> Path | None:
    """The folder for flarekd's caches, where the user has a home."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    folders = {"darwin": "Library/Caches", "win32": "AppData/Local"}
    return home / folders.get(sys.platform, ".cache") / "flarekd"


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


def _drop_others(model: Path, key: str) -> None:
    """Delete the graphs of earlier models of this name that lie beside it."""
    for path in _matching(model.parent, f"{model.name}.graph-"):
        if not path.name.startswith(key):
            with suppress(OSError):
                path.unlink(missing_ok=True)
