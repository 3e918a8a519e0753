"""A graph in 8-bit integers, its ranges taken from windows of real scans."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from flarekd.inference.graph import INPUT

QUANTISED = ["Conv", "ConvTranspose"]
"""Where the time goes; norms and activations stay float."""


def quantise(graph: bytes, windows: Iterable[Tensor]) -> bytes:
    """Store and multiply the weights of all convolutions as int8, one scale a channel.

    Activations get one scale each, from the largest and smallest values that `windows` bring forth
    (ONNX Runtime's static quantisation, QDQ form, which OpenVINO reads too).

    Args:
        graph: As `graph.to_onnx` makes it.
        windows: float32 (1, 1, …) each, as the network sees them.

    Returns:
        The graph with int8 weights.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self.left = iter(windows)

        def get_next(self) -> Any:
            window = next(self.left, None)
            return None if window is None else {INPUT: window.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(graph)
        # it tells the root logger of shared biases and of preparations that change nothing here
        logging.disable(logging.WARNING)
        try:
            quantization.quantize_static(
                before,
                after,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                op_types_to_quantize=QUANTISED,
            )
        finally:
            logging.disable(logging.NOTSET)
        return after.read_bytes()
