"""TensorBoard's event files, for those who ask for them (extra ``track``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flarekd.errors import InputError
from flarekd.training.validation import mean

Track = Callable[[dict[str, Any]], None]

SCALARS = ("loss", "lr", "iterations_per_s", "data_wait_share")
DSC = ("dsc", "validation_dsc", "volumes_dsc")


def _nothing(_record: dict[str, Any]) -> None:
    """Track nothing."""


@contextmanager
def events(folder: Path, wanted: bool, iteration: int) -> Iterator[Track]:
    """Write the records of log.jsonl as events too.

    Args:
        folder: Of the event files.
        wanted: Whether to; otherwise what is yielded does nothing.
        iteration: Where the training stands; later events of an earlier run are taken back.

    Yields:
        Takes a record.

    Raises:
        InputError: If TensorBoard is wanted and not installed.
    """
    if not wanted:
        yield _nothing
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "TensorBoard is not installed", "pip install 'flarekd[track]', or leave --tensorboard"
        ) from None

    with SummaryWriter(str(folder), purge_step=iteration + 1) as writer:

        def track(record: dict[str, Any]) -> None:
            step = record["iteration"]
            for name in SCALARS:
                writer.add_scalar(name, record[name], step)
            for name in DSC:
                values = record.get(name, ())
                average = mean(values)
                if average is None:
                    continue
                writer.add_scalar(f"{name}/mean", average, step)
                for label, value in enumerate(values, 1):
                    if value is not None:
                        writer.add_scalar(f"{name}/{label}", value, step)
            writer.flush()

        yield track
