"""YAML as values and nothing else, within limits: the file may come from a stranger.

No tags, so no objects; anchors may be used again (``configs/quick.yaml`` does), but not until a
page of text has become more than memory holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 1 << 20
"""Two hundred times the longest configuration that comes with flarekd."""

MOST_VALUES = 100_000
DEEPEST = 40

LONGEST_NUMBER = 300
"""Letters. Numbers to the base of 60 (``1:30``) take yaml the square of their length."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read(path: Path) -> Any:
    """Read a file.

    Raises:
        ValueError: If it is no YAML of plain values, or beyond the limits.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        message = f"the file is longer than {MOST_BYTES:,} bytes"
        raise ValueError(message)
    return parse(content.decode())


def parse(text: str) -> Any:
    """Read values from text; None where there are none.

    Raises:
        ValueError: As `read`.
    """
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        if tree is None:
            return None
        _weigh(tree, {})
        return loader.construct_document(tree)
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(str(error)) from error


class _Loader(yaml.SafeLoader):
    """Composes nodes as yaml does, and refuses tags and what is too deep."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # its stub's own gap
        if getattr(event, "tag", None) is not None:
            message = f"the tag {event.tag!r} is not allowed: only plain values are"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)
        self._depth += 1
        self._values += 1
        if self._values > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES:,} values")
        if self._depth > DEEPEST:
            message = f"values are nested more than {DEEPEST} deep"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        if node is not None and node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            message = f"a number of more than {LONGEST_NUMBER} letters"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)
        self._depth -= 1
        return node


def _weigh(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node is with every anchor written out, and how deep it is.

    Args:
        node: Its parts may be shared, or hold it.
        known: What was found, by identity; grows.

    Raises:
        ValueError: If it is beyond the limits.
    """
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, yaml.MappingNode):
        _refuse_twins(node)
    known[id(node)] = (0, DEEPEST)  # a node within itself is deeper than any limit
    size, depth = 1, 0
    for part in _parts(node):
        more, below = _weigh(part, known)
        size, depth = size + more, max(depth, below + 1)
        if size > MOST_VALUES or depth > DEEPEST:
            message = f"more than {MOST_VALUES:,} values or {DEEPEST} levels once anchors are used"
            raise ValueError(message)
    known[id(node)] = (size, depth)
    return size, depth


def _refuse_twins(node: yaml.MappingNode) -> None:
    """Refuse a key that stands twice: yaml would take the last one and say nothing."""
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
