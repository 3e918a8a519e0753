"""What runs a network: torch, or on CPUs OpenVINO or ONNX Runtime (docs/runtimes.md)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flarekd.errors import InputError, UsageError, is_out_of_memory
from flarekd.inference.accumulate import Network
from flarekd.inference.graph import INPUT

Runtime = Literal["auto", "torch", "openvino", "onnx"]
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

MODULES = {"openvino": "openvino", "onnx": "onnxruntime"}
ALL = ("torch", "openvino", "onnx")

SMALL = 64 * 64
"""Voxels of a window up to which OpenVINO runs `TOGETHER` at once: the steps of a network are so
short then that what comes between them counts. A larger window takes as long alone."""

TOGETHER = 4


def is_installed(runtime: str) -> bool:
    """Whether a runtime other than torch can be imported."""
    return importlib.util.find_spec(MODULES[runtime]) is not None


def choose(runtime: Runtime, device: torch.device, able: Sequence[str] = ALL) -> str:
    """The runtime to take.

    ``auto`` is OpenVINO on CPUs where it is installed, else torch: a window takes it half the time,
    which from the second window on outweighs its start (docs/runtimes.md). ONNX Runtime is never
    chosen where torch can run: it hardly gains on it.

    Args:
        runtime: What is asked for.
        device: Where it shall run.
        able: Those that can run the model; an exported graph is nothing for torch.

    Returns:
        ``torch``, ``openvino`` or ``onnx``.

    Raises:
        UsageError: If what is asked for is not installed, does not run there, or cannot run that.
    """
    name = _preferred(device, able) if runtime == "auto" else runtime
    if name not in ALL:
        raise UsageError(f"no runtime is called {name!r}", f"use auto, {', '.join(ALL)}")
    if name not in able:
        raise UsageError(
            f"{name} cannot run an exported graph of this format",
            f"use --runtime {able[0]}, or the model file",
        )
    if name == "torch":
        return name
    if not is_installed(name):
        raise UsageError(
            f"runtime {name!r} asked for, {MODULES[name]!r} is not installed",
            "pip install 'flarekd[cpu]', or use --runtime torch",
        )
    if device.type != "cpu":
        raise UsageError(
            f"runtime {name!r} runs on the CPU, not on {str(device)!r}",
            "use --device cpu" + (", or --runtime torch" if "torch" in able else ""),
        )
    return name


def _preferred(device: torch.device, able: Sequence[str]) -> str:
    if "torch" in able:
        return "openvino" if device.type == "cpu" and is_installed("openvino") else "torch"
    return next((name for name in able if is_installed(name)), able[0])


def imported(module: str) -> Any:
    """Import an optional module: the one place that OpenVINO is imported from.

    Raises:
        ImportError: If it is not installed.
    """
    # its import would report to its makers, from a fork of this process and with an id kept in the
    # user's home; it goes without where that module cannot be had
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None bars it
    return importlib.import_module(module)


@cache
def openvino_core() -> Any:
    """The one OpenVINO of this process.

    Each would give the thread that makes it a stack of its own for signals, and take it away with
    itself: after two that do not end in the reverse order of their making the thread is left with
    one that is no more, and the next signal ends the process without a word (2026.4.1).
    """
    return imported("openvino").Core()


def start(runtime: str, graph: bytes | Path, window: Sequence[int], outputs: int) -> Network:
    """Make a graph ready to run.

    Windows are run one by one, but for small ones: on CPUs a batch takes as long as its windows,
    and more memory. As many threads are used as torch has.

    Args:
        runtime: ``openvino`` or ``onnx``.
        graph: As `graph.to_onnx` makes it, or a file of it; OpenVINO takes its own ``.xml`` too.
        window: Size of a window, its 2 or 3 axes.
        outputs: Channels of what it gives.

    Returns:
        Maps float32 (n, 1, *window) to (n, outputs, *window), on the CPU; raises an InputError
        where the graph gives something else, or fails.

    Raises:
        InputError: If the runtime refuses the graph.
        UsageError: If the runtime cannot be imported.
    """
    counts = (1, TOGETHER) if runtime != "onnx" and prod(window) <= SMALL else (1,)
    with _refusing(runtime):
        if runtime == "onnx":
            runs = {1: _onnx(graph)}
        else:
            runs = {count: _openvino(graph, (count, 1, *window)) for count in counts}
    return _in_parts(runtime, runs, (outputs, *window))


@contextmanager
def _refusing(runtime: str) -> Iterator[None]:
    """Make what a runtime raises over a graph say that it is the graph.

    Raises:
        InputError: If the graph cannot be run.
        UsageError: If the runtime is there and cannot be imported.
        MemoryError: If memory is short.
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{MODULES[runtime]!r} cannot be imported: {error}",
            "install it again, or use another --runtime",
        ) from error
    except _errors(runtime) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        if is_out_of_memory(RuntimeError(str(error))):
            raise MemoryError(said) from error
        raise InputError(
            f"{runtime} cannot run the graph: {said}",
            "export the model again, use another --runtime, or the model file itself",
        ) from error


def _errors(runtime: str) -> tuple[type[Exception], ...]:
    """What a runtime raises; ONNX Runtime has classes of its own."""
    usual = (RuntimeError, ValueError, TypeError, LookupError)
    if runtime != "onnx":
        return usual
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type)]
    return (*usual, *(kind for kind in own if issubclass(kind, Exception)))


def _in_parts(runtime: str, runs: Mapping[int, Run], shape: tuple[int, ...]) -> Network:
    """Any number of windows, by what runs so many at once: as many as it can, the rest singly."""

    def network(windows: Tensor) -> Tensor:
        given = windows.detach().contiguous().numpy()
        logits: list[Tensor] = []
        done = 0
        while done < len(given):
            count = max(count for count in runs if done + count <= len(given))
            with _refusing(runtime):
                found = runs[count](given[done : done + count])
                if found.shape != (count, *shape) or found.dtype != np.float32:
                    message = f"it gives {found.dtype} {found.shape}, not {(count, *shape)}"
                    raise ValueError(message)
            logits.append(torch.from_numpy(found))
            done += count
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    return network


def _openvino(graph: bytes | Path, shape: Sequence[int]) -> Run:
    core = openvino_core()
    model = core.read_model(graph)
    # one fixed size: the plan for it is made at once, with the least memory
    model.reshape(list(shape))
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # where the processor has it, bf16 would be taken unasked, and labels would differ
        "INFERENCE_PRECISION_HINT": "f32",
        # two processes would be pinned to the same cores
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def run(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        # the result is a copy: the request writes its next one over the last
        logits = request.infer([windows], share_inputs=True)[0]
        return np.asarray(logits)

    return run


def _onnx(graph: bytes | Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # threads that wait by spinning would slow what comes between two windows
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what is wrong it raises too
    session = onnxruntime.InferenceSession(
        graph,
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,  # it would say so on the screen, and try the same again
    )

    def run(window: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = session.run(None, {INPUT: window})[0]
        return np.asarray(logits)  # of a graph of something else: a list, text

    return run
