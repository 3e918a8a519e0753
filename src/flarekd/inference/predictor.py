"""A model file made ready to run: network, intensity, grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from flarekd.device import choose as choose_device
from flarekd.errors import InputError
from flarekd.imaging.resampling import resample, target_shape
from flarekd.imaging.volume import Geometry, Shape, Volume
from flarekd.inference import exported
from flarekd.inference.accumulate import Network
from flarekd.inference.graph import divisors, kept, to_onnx, user_cache
from flarekd.inference.head import Features, Head
from flarekd.inference.runtimes import ALL, Runtime, choose, start
from flarekd.layers import Unfilled
from flarekd.modelfile import ModelCard, Orientation, read_card, read_weights

Role = Literal["teacher", "student"]
CANONICAL: Orientation = "LPS"
_NO_NETWORK = (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
"""What building a network may raise for a card that nobody in his senses wrote."""

MOST_VOXELS = 1 << 30
"""Of a scan at a network's spacing: 4.3 GB. The longest scans have half as many at 0.7 mm."""

MOST_AT_ONCE = 1 << 29
"""Numbers of the largest tensor of a window: 2.1 GB. The largest nnU-Nets come near to it."""

AIR_HU = -300.0
"""What is below is air, lung or padding: a window of nothing else holds no organ and no tumour."""


@dataclass(frozen=True)
class Predictor:
    """A network on its device and what its model file says of it.

    Attributes:
        network: A module in eval mode, or what another runtime made of it. Where `head` is apart,
            without it.
        card: Of the model file.
        device: Where windows go and logits come from.
        sha256: Of the model file.
        runtime: What runs the network: ``torch``, ``openvino`` or ``onnx``.
        head: Makes logits of what the network gives, where that is features.
    """

    network: Network
    card: ModelCard
    device: torch.device
    sha256: str
    runtime: str = "torch"
    head: Head | None = None

    def require(self, sha256: str) -> None:
        """See to it that this is the file that somebody else means.

        Raises:
            InputError: If it is another.
        """
        if self.sha256 != sha256:
            raise InputError(
                "the model file is another one on this machine than where the verb was called",
                "give a path that all machines share",
            )

    @property
    def channels(self) -> int:
        """Outputs of `network`."""
        return len(self.card.labels) if self.head is None else self.head.weight.shape[1]

    def grid(self, geometry: Geometry) -> Shape:
        """Shape (z, y, x) of a scan at the network's spacing.

        Raises:
            InputError: If no machine would hold that.
        """
        own = geometry.spacing_zyx
        z, y, x = (wanted or have for wanted, have in zip(self.card.spacing, own, strict=True))
        shape = target_shape(geometry.shape_zyx, own, (z, y, x))
        if prod(shape) > MOST_VOXELS:
            raise InputError(
                f"at the model's spacing of {self.card.spacing} mm (z, y, x) this scan has "
                f"{prod(shape):,} voxels, more than {MOST_VOXELS:,}",
                "take a model of coarser spacing, or a part of the scan",
            )
        return shape

    def network_input(self, volume: Volume) -> Tensor:
        """The scan at the network's spacing, clipped and z-scored.

        Float32 (z, y, x) on the device.
        """
        shape, statistics = self.grid(volume.geometry), self.card.statistics
        if self.card.clip_first:
            seen = resample(volume.array, shape, first=statistics.normalize)
        else:
            seen = statistics.normalize(resample(volume.array, shape))
        return torch.from_numpy(seen).to(self.device)

    @property
    def air(self) -> float:
        """`AIR_HU` on the network's intensity scale."""
        # by the same float32 arithmetic as the scan, or clipped air would lie above its own
        # threshold
        return float(self.card.statistics.normalize(np.asarray([AIR_HU]))[0])


class Reoriented(nn.Module):
    """A network trained on arrays whose axes run otherwise: turns windows round and logits back.

    Windows, their rules and labels stay in LPS; flipping is exact, so nothing else changes.

    Args:
        network: Maps (n, 1, …) to (n, C, …).
        orientation: Axes x, y, z of its arrays.
        axes: Axes of its windows: 3, or 2 for slices.
    """

    def __init__(self, network: nn.Module, orientation: Orientation, axes: int) -> None:
        super().__init__()
        self.network = network
        self.divisor = network.divisor
        self.flips = [-1 - axis for axis in range(axes) if orientation[axis] != CANONICAL[axis]]

    def forward(self, windows: Tensor) -> Tensor:
        """Logits (n, C, …) of (n, 1, …), both along LPS."""
        logits: Tensor = self.network(windows.flip(self.flips))
        return logits.flip(self.flips)


def load(
    path: Path,
    role: Role,
    build: Callable[..., nn.Module],
    device: torch.device,
    runtime: Runtime = "torch",
    *,
    head_apart: bool = False,
) -> Predictor:
    """Read a model file and make its network ready to run.

    Args:
        path: The model file, or the ``.onnx`` or ``.xml`` that ``flarekd export`` made of one.
        role: What it must be.
        build: Makes the network from the card's arguments.
        device: Where it runs.
        runtime: What runs it; ``auto`` as `runtimes.choose` says.
        head_apart: Set the head apart where that takes less memory; graphs stay whole.

    Raises:
        InputError: If the file is not a model, of another role, or its weights do not fit its card.
        UsageError: If the runtime is not installed, or cannot run this here.
    """
    is_graph = path.suffix in exported.RUNNERS
    chosen = choose(runtime, device, exported.RUNNERS.get(path.suffix, ALL))
    card = card_of(path, role)
    sha256 = exported.content_hash(path)
    head = _head(path) if head_apart and not is_graph else None
    network: Network
    if chosen == "torch":
        network = _restore(path, card, build, head is not None).to(device)
    else:
        graph: bytes | Path = path
        if not is_graph:
            # kept, which spares building the network
            made = partial(_restore, path, card, build, head is not None)
            what = f"{sha256} {'whole' if head is None else 'headless'}"
            graph = kept(path, what, lambda: to_onnx(made()), user_cache())
        elif path.suffix != exported.OPENVINO:  # which lies in two files
            graph = path.read_bytes()
        outputs = len(card.labels) if head is None else head.weight.shape[1]
        if (taken := outputs * prod(window_size(card))) > MOST_AT_ONCE:
            raise InputError(
                f"{str(path)!r}: a window of {card.patch} gives {taken:,} numbers",
                f"no more than {MOST_AT_ONCE:,} are held at once; give a model of smaller windows",
            )
        network = start(chosen, graph, window_size(card), outputs)
    return Predictor(network, card, device, sha256, chosen, head)


def card_of(path: Path, role: Role) -> ModelCard:
    """What a model file, or a graph that was exported of one, says of itself.

    Raises:
        InputError: If the file is not a model, or of another role.
    """
    card = exported.read_card(path) if path.suffix in exported.RUNNERS else read_card(path)
    if card.role != role:
        raise InputError(
            f"{str(path)!r} is a {card.role}, a {role} is needed",
            "pseudo-tumor takes a teacher, of train-teacher; infer and pseudo-organs take a "
            "student, of train-student or train-teacher --task organs; import-nnunet makes both",
        )
    return card


def device_for(model: Path, name: str) -> torch.device:
    """The device called `name`; ``auto`` is the CPU for an exported graph, which runs nowhere else.

    Raises:
        UsageError: If it is not there.
    """
    is_graph = model.suffix in exported.RUNNERS
    return choose_device("cpu" if name == "auto" and is_graph else name)


def window_size(card: ModelCard) -> tuple[int, ...]:
    """Axes of the windows a network runs on: (z, y, x) of a student, (y, x) of a teacher."""
    return card.patch if card.role == "student" else card.patch[1:]


def _head(path: Path) -> Head | None:
    try:
        return Head.of(read_weights(path))
    except _NO_NETWORK as error:
        raise _unfit(path, error) from error


def _restore(
    path: Path, card: ModelCard, build: Callable[..., nn.Module], is_headless: bool
) -> nn.Module:
    """The network of a model file, in eval mode on the CPU, windows and what it gives along LPS."""
    try:
        _check(path, card, build)
        with Unfilled():
            network = build(**card.network)
        network.load_state_dict(read_weights(path))
    except _NO_NETWORK as error:
        raise _unfit(path, error) from error
    if is_headless:
        heads: Any = network.heads
        heads[0] = Features()
    if card.orientation != CANONICAL:
        network = Reoriented(network, card.orientation, len(window_size(card)))
    return network.eval()


def _unfit(path: Path, error: Exception) -> InputError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(
        f"the weights of {str(path)!r} do not fit its card: {first}", "the file is damaged"
    )


def _check(path: Path, card: ModelCard, build: Callable[..., nn.Module]) -> None:
    """Refuse a network larger than its file, or than a machine, before it takes memory."""
    with torch.device("meta"), Unfilled():
        network: Any = build(**card.network)
    wanted = sum(tensor.numel() for tensor in network.state_dict().values())
    if wanted > path.stat().st_size:
        message = f"it asks for {wanted:,} weights, more than the file holds"
        raise ValueError(message)
    window, by = window_size(card), divisors(network)
    if any(size % step for size, step in zip(window, by, strict=True)) or prod(window) <= prod(by):
        message = f"patch {card.patch} is no multiple of {by}, or no larger"
        raise ValueError(message)
    taken = network.most_numbers(window)
    if taken > MOST_AT_ONCE:
        message = f"a window of {card.patch} takes {taken:,} numbers at once"
        raise ValueError(message)
