"""An exported network: a graph that says of itself what a model file's card says.

The card is the whole of what must be done before and after the network, so that another program
needs nothing else (docs/runtimes.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flarekd.errors import InputError, UsageError, said
from flarekd.inference.runtimes import imported, openvino_core
from flarekd.modelfile import KEY, ModelCard, file_hash, parse_card

OPENVINO = ".xml"
RUNNERS = {".onnx": ("openvino", "onnx"), OPENVINO: ("openvino",)}
"""What can run an exported file, by its suffix."""

OPERATORS = {
    "Add", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "DequantizeLinear",
    "Div", "Flatten", "Gather", "Gemm", "Identity", "InstanceNormalization", "LeakyRelu",
    "MatMul", "MaxPool", "Mod", "Mul", "QuantizeLinear", "ReduceMax", "ReduceMean", "Relu",
    "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Squeeze", "Sub", "Transpose",
    "Unsqueeze",
}  # fmt: skip
"""Of ONNX: what our networks are made of, some of them by another version of torch. No loops, which
might not end, no branches and no functions."""

ENDLESS = {"If", "Loop", "TensorIterator"}
"""Operations of OpenVINO that are refused likewise; its names of others change by version."""

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
            imported(module)
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
    """The card of an exported ``.onnx`` or ``.xml`` file.

    Raises:
        InputError: If it is no such file.
        UsageError: If what reads it is not installed.
    """
    read = _openvino_card if path.suffix == OPENVINO else _onnx_card
    return parse_card(read(path), path)


def content_hash(path: Path) -> str:
    """SHA-256 of an exported network; of OpenVINO's two files, that of both hashes."""
    if path.suffix != OPENVINO:
        return file_hash(path)
    both = file_hash(path) + file_hash(path.with_suffix(".bin"))
    return hashlib.sha256(both.encode("ascii")).hexdigest()


def _onnx_card(path: Path) -> str | None:
    need("onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise _not_exported(path, said(error)) from error
    nodes = model.graph.node
    odd = {node.op_type for node in nodes if node.op_type not in OPERATORS or node.domain}
    if odd or model.functions:
        named = ", ".join(sorted(map(str, odd))[:5]) or "functions of its own"
        raise _not_exported(path, f"no network of flarekd has {named}")
    tensors = _tensors(model.graph)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise _not_exported(
            path, "its weights lie in other files, which may be any of this machine"
        )
    return {entry.key: entry.value for entry in model.metadata_props}.get(KEY)


def _tensors(graph: Any) -> Iterator[Any]:
    """All constants of an ONNX graph, and of the graphs within it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of(graph.node)


def _tensors_of(nodes: Iterable[Any]) -> Iterator[Any]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _tensors(graph)


def _openvino_card(path: Path) -> str | None:
    need("openvino")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise InputError(f"{str(weights)!r} is missing", "keep the .bin beside its .xml")
    try:
        model: Any = openvino_core().read_model(path)
    except RuntimeError as error:
        raise _not_exported(path, " ".join(str(error).split())[:300]) from error
    odd = {operation.get_type_name() for operation in model.get_ops()} & ENDLESS
    if odd:
        raise _not_exported(path, f"no network of flarekd has {', '.join(sorted(odd))}")
    place = ["flarekd", _openvino_key(KEY)]
    return str(model.get_rt_info(place).astype(str)) if model.has_rt_info(place) else None


def _openvino_key(fact: str) -> str:
    return fact.removeprefix(f"{KEY}.").replace(KEY, "card")


def _not_exported(path: Path, error: object) -> InputError:
    what = f"{str(path)!r} is not an exported network: {error}"
    return InputError(what, "give what flarekd export wrote")


def save_openvino(graph: bytes, told: dict[str, str], path: Path) -> None:
    """Write a graph as OpenVINO IR: `path` (``.xml``), and its weights beside it (``.bin``).

    Raises:
        RuntimeError: If they are not whole.
    """
    model: Any = openvino_core().read_model(graph)
    for key, value in told.items():
        model.set_rt_info(value, ["flarekd", _openvino_key(key)])
    imported("openvino").save_model(model, path, compress_to_fp16=False)
    openvino_core().read_model(path)  # versions before 2026.4 say nothing of a full disk
