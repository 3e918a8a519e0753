"""export: a model file → the same network as ONNX or OpenVINO, checked against torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flarekd import console
from flarekd.errors import FAILURES, FlarekdError, InputError, UsageError, reason
from flarekd.imaging.atomic import replacing
from flarekd.imaging.files import list_scans, read_volume
from flarekd.imaging.listing import is_scan
from flarekd.imaging.volume import Geometry, Volume
from flarekd.inference import exported, parity, predictor
from flarekd.inference.graph import divisors, to_onnx
from flarekd.inference.int8 import quantise
from flarekd.inference.predictor import Predictor, window_size
from flarekd.inference.runtimes import MODULES, is_installed, start
from flarekd.inference.windows import pad_to_patch, positions
from flarekd.lock import alone_on_file
from flarekd.modelfile import read_card
from flarekd.phantom.case import make_case
from flarekd.phantom.plan import plan_cohort
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet

SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}
PER_SCAN = 4
"""Windows taken from a scan."""

CHECKED = 3
"""Realistic windows that the check runs, beside a random one."""

CALIBRATION = 48
"""Windows that int8 takes its ranges from, at most."""

LEAST_INT8 = 0.95
"""Share of labels that an int8 network must share with its float one to be of any use."""


@alone_on_file(console.warn)
def export(model: Path, out: Path, *, form: str | None, int8: bool, calibrate: Path | None) -> None:
    """Write a model's network with all that is needed before and after it, once it is checked.

    Args:
        model: Model file.
        out: ``*.onnx``, or ``*.xml`` for OpenVINO, whose weights go to ``*.bin`` beside it.
        form: ``onnx`` or ``openvino``; None goes by the suffix of `out`.
        int8: Store and multiply weights in 8 bits.
        calibrate: Scans that int8 takes its ranges from, a folder or one alone; their windows
            serve the check too. What cannot be read is named and passed over. None checks on a
            phantom.

    Raises:
        UsageError: If format and suffix do not go together, int8 has no scans, a library is
            missing, or another run writes `out`.
        InputError: If the model or all scans cannot be used, or an int8 network is too far from
            torch; then nothing is left behind.
        FlarekdError: If another one is; then neither.
    """
    kind = _kind(out, form)
    if int8 and calibrate is None:
        raise UsageError("int8 takes its ranges from scans", "give some: --calibrate DIR")
    exported.need("onnx", *(["onnxruntime"] if int8 or kind == "onnx" else []))
    exported.need(*(["openvino"] if kind == "openvino" else []))
    ready = _load(model)
    network: Any = ready.network  # torch's, so a module
    graph = to_onnx(network)
    windows = _windows(ready, calibrate)
    realistic = list(islice(windows, CHECKED))
    if int8:
        others = list(islice(windows, CALIBRATION))  # than those of the check
        if not others:
            raise InputError(f"{str(calibrate)!r} holds too little for int8", "give more scans")
        graph = quantise(graph, others)
    precision = "int8" if int8 else "float32"
    facts = exported.facts(ready.card, divisors(network), ready.sha256, precision)
    with _written(out, kind, exported.with_facts(graph, facts), facts) as temporary:
        for runtime in filter(is_installed, exported.RUNNERS[out.suffix]):
            try:
                exported.need(MODULES[runtime])
            except UsageError as error:  # what is asked for was needed above
                console.warn(f"not held against {runtime}: {error.what}")
                continue
            _check(ready, _started(runtime, temporary, ready), realistic, int8=int8)
    console.info(f"{out}: {ready.card.role}, {precision}, {out.stat().st_size / 1e6:.1f} MB")


def _kind(out: Path, form: str | None) -> str:
    kind = SUFFIXES.get(out.suffix)
    if kind is None or form not in (None, kind):
        wanted = {name: suffix for suffix, name in SUFFIXES.items()}
        raise UsageError(
            f"{str(out)!r} is no name for {form or 'an exported network'}",
            f"end --out in {wanted.get(form or '', '.onnx or .xml (OpenVINO)')}",
        )
    return kind


def _load(model: Path) -> Predictor:
    role = read_card(model).role
    build: type[nn.Module] = StudentUNet if role == "student" else TeacherUNet
    return predictor.load(model, role, build, torch.device("cpu"))


def _random(ready: Predictor) -> Tensor:
    """A window of noise: what no scan holds must come out alike too."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 1, *window_size(ready.card), generator=generator)


def _windows(ready: Predictor, scans: Path | None) -> Iterator[Tensor]:
    """Windows (1, 1, …) of scans as the network sees them, a few from each scan in turn."""
    for seen in _inputs(ready, scans):
        patch = (*ready.card.patch,) if ready.card.role == "student" else (1, *ready.card.patch[1:])
        padded, _ = pad_to_patch(seen, patch)
        starts = [positions(n, p, 0.5) for n, p in zip(padded.shape, patch, strict=True)]
        grid = list(product(*starts))
        # the middle of evenly long parts: never the same corner of every patient
        for index in range(min(PER_SCAN, len(grid))):
            start_zyx = grid[(2 * index + 1) * len(grid) // (2 * min(PER_SCAN, len(grid)))]
            window = padded[tuple(slice(s, s + p) for s, p in zip(start_zyx, patch, strict=True))]
            yield window.reshape(1, 1, *window_size(ready.card)).contiguous()


def _inputs(ready: Predictor, scans: Path | None) -> Iterator[Tensor]:
    """Scans as the network sees them; one that cannot be used is named and passed over.

    Raises:
        InputError: If there is none, or none can be used.
    """
    if scans is None:
        plan = plan_cohort(4, "quick", 0)[0]
        grid = plan.grid()
        (z, y, x), (dz, dy, dx) = grid.shape, grid.spacing
        phantom = Volume(make_case(plan).rendering.image, Geometry((x, y, z), (dx, dy, dz)))
        yield ready.network_input(phantom)
        return
    if scans.is_dir():
        paths = list(list_scans(scans).values())
    else:
        paths = [scans] if scans.exists() and is_scan(scans) else []
    if not paths:
        raise InputError(f"no scan in {str(scans)!r}", "give a folder of scans, or a scan")
    failed = 0
    for path in paths:
        try:
            seen = ready.network_input(read_volume(path))
        except FAILURES as error:
            failed += 1
            console.warn(f"{path}: passed over: {reason(error)}")
            continue
        yield seen
    if failed == len(paths):
        raise InputError(f"no scan in {str(scans)!r} can be used", "give scans that `check` passes")


@contextmanager
def _written(out: Path, kind: str, graph: bytes, facts: dict[str, str]) -> Iterator[Path]:
    """Write the file or files, to be renamed into place unless the body raises."""
    if kind == "onnx":
        with replacing(out) as temporary:
            temporary.write_bytes(graph)
            yield temporary
        return
    with replacing(out) as temporary, replacing(out.with_suffix(".bin")):
        try:
            exported.save_openvino(graph, facts, temporary)
        except RuntimeError as error:
            mend = "is there space on the disk, and may you write there?"
            raise InputError(f"{out}: cannot be written: {error}", mend) from error
        yield temporary
        # the weights are renamed first; killed in between, an old .xml would run with new weights
        out.unlink(missing_ok=True)


def _started(runtime: str, path: Path, ready: Predictor) -> Predictor:
    """What was written, in one of the runtimes that `infer` may run it in."""
    graph = path if path.suffix == exported.OPENVINO else path.read_bytes()
    network = start(runtime, graph, window_size(ready.card), len(ready.card.labels))
    return replace(ready, network=network, runtime=runtime)


def _check(ready: Predictor, written: Predictor, realistic: list[Tensor], *, int8: bool) -> None:
    """Run what was written beside torch.

    Raises:
        InputError: If too few labels of an int8 network agree.
        FlarekdError: If too few of another one do.
    """
    runtime = written.runtime
    least = LEAST_INT8 if int8 else parity.LEAST_AGREEMENT
    for name, windows in (("scan", realistic), ("noise", [_random(ready)])):
        found = parity.compare(ready.network, written.network, windows)
        console.info(f"{runtime} against torch, {name}: {found}")
        # of noise an int8 network says what it likes: its ranges are those of scans
        if found.agreement >= least or (int8 and name == "noise"):
            continue
        what = (
            f"the exported network agrees with torch on {found.agreement:.4%} of the labels of "
            f"{name} windows in {runtime}, {least:.2%} are needed; nothing was written"
        )
        if int8:  # the scans, or a network that does not bear it: no fault of the program
            mend = "give more and other scans with --calibrate, or leave out --int8"
            raise InputError(what, mend)
        raise FlarekdError(what, "report it as a bug")
