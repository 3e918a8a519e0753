"""Names and ids of an imported network's outputs."""

from __future__ import annotations

from collections.abc import Sequence

from flarekd.foreign import ALIASES, alias
from flarekd.labels import BACKGROUND, NAMES


def label_outputs(names: Sequence[str], classes: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Label names and ids of a network's outputs.

    All or nothing: where every foreground name is one of flarekd's classes, the outputs get
    flarekd's names and ids; otherwise names and ids stay those the network was trained with, since
    a half-translated map would give one id two meanings.

    Args:
        names: Of the outputs, background first; empty for ``label_1`` and so on.
        classes: Outputs of the network.

    Returns:
        Names and ids, background first.

    Raises:
        ValueError: If there are not as many names as outputs, or two are the same class.
    """
    if not names:
        names = (NAMES[BACKGROUND], *(f"label_{index}" for index in range(1, classes)))
    if len(names) != classes:
        message = f"{len(names) - 1} names for {classes - 1} outputs beside the background"
        raise ValueError(message)
    ids = [_known(name) for name in names[1:]]
    if None in ids:
        return (NAMES[BACKGROUND], *names[1:]), tuple(range(classes))
    known = [label for label in ids if label is not None]
    twice = sorted({NAMES[label] for label in known if known.count(label) > 1})
    if twice:
        message = f"two outputs are called {twice[0]!r}"
        raise ValueError(message)
    return (NAMES[BACKGROUND], *(NAMES[label] for label in known)), (BACKGROUND, *known)


def _known(name: str) -> int | None:
    return ALIASES.get(alias(name))
