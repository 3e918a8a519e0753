"""An exported network: a graph that says of itself what a model file's card says.

The card is the whole of what must be done before and after the network, so that another program
needs nothing else (docs/runtimes.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flarekd.errors import InputError, UsageError
from flarekd.modelfile import KEY, ModelCard, parse_card

FACTS = (KEY, "flarekd.divisor", "flarekd.model_sha256", "flarekd.precision")
"""Keys of an exported file's metadata: the card as JSON, what sizes must be divisible by, the
SHA-256 of the model file, ``float32`` or ``int8``."""


def facts(card: ModelCard, divisor: Sequence[int], sha256: str, precision: str) -> dict[str, str]:
    """What an exported file says of itself, by the keys `FACTS`.

    The orientation is LPS whatever the model's: the graph turns its axes round within.
    """
    told = card.model_copy(update={"orientation": "LPS"}).model_dump_json()
    return dict(zip(FACTS, (told, " ".join(map(str, divisor)), sha256, precision), strict=True))


def need(*modules: str) -> None:
    """Make sure of optional modules.

    Raises:
        UsageError: If one is not installed.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(
                f"{module!r} is needed and cannot be imported: {error}",
                "pip install 'flarekd[cpu]'",
            ) from error


def with_facts(graph: bytes, told: dict[str, str]) -> bytes:
    """The graph with `told` among its metadata, an earlier telling replaced."""
    import onnx

    model = onnx.load_from_string(graph)
    onnx.helper.set_model_props(model, told)
    result: bytes = model.SerializeToString()
    return result


def read_card(path: Path) -> ModelCard:
    """The card of an exported ``.onnx`` file.

    Raises:
        InputError: If it is no such file.
        UsageError: If onnx is not installed.
    """
    need("onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise InputError(
            f"{str(path)!r} is not an exported network: {error}", "give what flarekd export wrote"
        ) from error
    properties = {entry.key: entry.value for entry in model.metadata_props}
    return parse_card(properties.get(KEY), path)


def save_openvino(graph: bytes, told: dict[str, str], path: Path) -> None:
    """Write a graph as OpenVINO IR: `path` (``.xml``), and its weights beside it (``.bin``)."""
    import openvino

    model: Any = openvino.Core().read_model(graph)
    for key, value in told.items():
        model.set_rt_info(value, ["flarekd", key.removeprefix(f"{KEY}.").replace(KEY, "card")])
    openvino.save_model(model, path, compress_to_fp16=False)
