"""What nnU-Net calls a network's tensors, and what flarekd calls them.

nnU-Net numbers its decoder from the bottleneck up, flarekd from the full resolution down. Plain
U-Nets get the names of StudentUNet, which `teacher_name` turns into those of TeacherUNet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from flarekd.errors import InputError

Names = dict[str, str]
"""flarekd's name of a tensor → nnU-Net's."""


def refused(reason: str) -> InputError:
    """The error that says why a network cannot be imported."""
    return InputError(f"the network is refused: {reason}", "only plain U-Nets can be imported")


def _unknown(name: str) -> InputError:
    if re.match(r"encoder\.(stem|stages\.\d+\.blocks)", name):
        return refused(f"it has a residual encoder ({name!r})")
    if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
        return refused(f"it has batch norm ({name!r})")
    return refused(f"it holds {name!r}, which no plain U-Net has")


_V1_BLOCK = re.compile(
    r"conv_blocks_(context|localization)\.(\d+)\.(?:([01])\.)?blocks\.(\d+)\."
    r"(conv|instnorm)\.(weight|bias)"
)
_V1_OTHER = re.compile(r"(tu|seg_outputs)\.(\d+)\.(weight|bias)")


def v1_names(found: Iterable[str]) -> Names:
    """Generic_UNet: bottleneck and decoder levels keep their last convolution in a second group."""
    found = list(found)
    levels = _count(found, r"seg_outputs\.\d+\.weight")
    if levels and not _count(found, r"tu\.\d+\.weight"):
        raise refused("it upsamples without weights, as nnU-Net v1 did before its trainer V2")
    names: Names = {}
    for name in found:
        if match := _V1_BLOCK.fullmatch(name):
            side, stage, group, index, layer, what = match.groups()
            place = int(stage) if side == "context" else levels - 1 - int(stage)
            before = 0
            if group == "1":
                prefix = f"conv_blocks_{side}.{stage}.0.blocks."
                before = sum(n.startswith(prefix) and n.endswith(".conv.weight") for n in found)
            half = "encoder" if side == "context" else "decoder"
            block = f"{half}.{place}.{before + int(index)}"
            names[f"{block}.{'0' if layer == 'conv' else '1'}.{what}"] = name
        elif match := _V1_OTHER.fullmatch(name):
            kind, stage, what = match.groups()
            names[f"{'up' if kind == 'tu' else 'heads'}.{levels - 1 - int(stage)}.{what}"] = name
        else:
            raise _unknown(name)
    return names


_V2_BLOCK = re.compile(
    r"(en|de)coder\.stages\.(\d+)\.(?:0\.)?convs\.(\d+)\.(conv|norm)\.(weight|bias)"
)
_V2_OTHER = re.compile(r"decoder\.(transpconvs|seg_layers)\.(\d+)\.(weight|bias)")


def v2_names(found: Iterable[str]) -> Names:
    """PlainConvUNet: each block is there again as ``all_modules``, the encoder in the decoder."""
    found = list(found)
    levels = _count(found, r"decoder\.transpconvs\.\d+\.weight")
    names: Names = {}
    for name in found:
        if ".all_modules." in name or name.startswith("decoder.encoder."):
            continue
        if match := _V2_BLOCK.fullmatch(name):
            side, stage, index, layer, what = match.groups()
            place = int(stage) if side == "en" else levels - 1 - int(stage)
            layer = "0" if layer == "conv" else "1"
            names[f"{side}coder.{place}.{index}.{layer}.{what}"] = name
        elif match := _V2_OTHER.fullmatch(name):
            kind, stage, what = match.groups()
            part = "up" if kind == "transpconvs" else "heads"
            names[f"{part}.{levels - 1 - int(stage)}.{what}"] = name
        else:
            raise _unknown(name)
    return names


def teacher_name(name: str) -> str:
    """The name in TeacherUNet of what StudentUNet calls `name`."""
    name = re.sub(r"^up\.(\d+)", r"decoder.\1.up", name)
    return re.sub(r"^decoder\.(\d+)\.(\d)", r"decoder.\1.block.\2", name)


_ATTENTION_LEVELS = {
    "nonlocal4_2": "decoder.5.nonlocal_",
    **{f"attentionblock{i}": f"decoder.{i + 1}.gate" for i in (3, 2, 1)},
    **{f"up{i}": f"decoder.{i + 1}.block" for i in (4, 3, 2, 1, 0)},
    "up01": "decoder.0.block",
    **{f"up_concat{i}": f"decoder.{i + 1}" for i in (4, 3, 2, 1, 0)},
    "up_concat01": "decoder.0",
}
"""The published teacher's attention modules and where they stand here (method.md §3.2)."""

_ATTENTION_LAYERS: dict[str, tuple[tuple[str, str], ...]] = {
    "nonlocal_": (
        ("theta", "query"), ("phi.0", "key"), ("g.0", "value"), ("W.0", "out"), ("W.1", "norm"),
    ),
    "gate": (
        ("gate_block_1.W", "first.project"), ("gate_block_2.W", "second.project"),
        ("gate_block_1", "first"), ("gate_block_2", "second"), ("combine_gates", "mix"),
    ),
    "block": (
        ("conv1", "body.0"), ("bn1", "body.1"), ("conv2", "body.3"), ("bn2", "body.4"),
        ("fc1", "squeeze.0"), ("fc2", "squeeze.2"), ("downchannel", "shortcut"),
        ("conv3", "out.0"), ("bn3", "out.1"),
    ),
}  # fmt: skip


def published_names(found: Iterable[str]) -> tuple[Names, tuple[str, ...]]:
    """The attention U-Net of the paper's own release, with the names of TeacherUNet.

    It carries nnU-Net's whole decoder, of which only the deepest level ever runs (method.md §3).

    Returns:
        Names, and nnU-Net's names of what never runs.
    """
    found = list(found)
    attention = [name for name in found if name.partition(".")[0] in _ATTENTION_LEVELS]
    plain = v1_names(name for name in found if name not in set(attention))
    dropped = tuple(name for name in found if _NEVER_RUN.fullmatch(name))
    names = {_attention_name(name): name for name in attention}
    names |= {teacher_name(ours): name for ours, name in plain.items() if name not in set(dropped)}
    return names, dropped


_NEVER_RUN = re.compile(r"(conv_blocks_localization|tu)\.[1-9]\d*\..*")


def _attention_name(name: str) -> str:
    module, _, rest = name.partition(".")
    place = _ATTENTION_LEVELS[module]
    for theirs, ours in _ATTENTION_LAYERS.get(place.rpartition(".")[2], ()):
        if rest.startswith(f"{theirs}."):
            return f"{place}.{ours}.{rest[len(theirs) + 1 :]}"
    return f"{place}.{rest}"


def _count(found: Iterable[str], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in found)
