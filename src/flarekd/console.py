"""The one place that prints: progress, tables and messages, on stderr; results on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

Advance = Callable[[int, int, str], None]
"""Called with (done, total, note) as work goes on; library code takes one and never prints."""

PLAIN_INTERVAL_S = 5.0
PIPE_WIDTH = 160
"""Columns where there is no terminal: rich assumes 80 and would cut tables."""

out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, soft_wrap=True)


def plain(text: str) -> str:
    """Text without what would move a terminal's cursor or cannot be encoded; lines stay.

    File names may hold anything.
    """
    return "".join(
        sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text
    )


def _shown(text: str) -> str:
    return escape(plain(text))


def heading(text: str) -> None:
    """Announce a stage."""
    err.print(f"[bold]{_shown(text)}[/bold]")


def info(text: str) -> None:
    """Say something a person may want to know."""
    err.print(_shown(text), highlight=False)


def warn(text: str) -> None:
    """Say something a person should look at; the result is right all the same."""
    err.print(f"[yellow]note:[/yellow] {_shown(text)}", highlight=False)


def error(text: str) -> None:
    """Say what went wrong, where, and how to mend it."""
    err.print(f"[bold red]error:[/bold red] {_shown(text)}", highlight=False)


def result(text: str) -> None:
    """Print a result line on stdout."""
    out.print(_shown(text), highlight=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout, first column left, the others right."""
    # one space between columns, so that the fifteen of Table 1 fit on a screen of 100
    grid = Table(title=_shown(title), title_justify="left", padding=(0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        grid.add_column(_shown(column), justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*(_shown(cell) for cell in row))
    out.print(grid)


@contextmanager
def progress(title: str) -> Iterator[Advance]:
    """Show progress with a rate and an end time.

    A live bar on a terminal, plain lines otherwise.
    """
    if err.is_terminal:
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=err,
        )
        with bar:
            task = bar.add_task(_shown(title), total=None, note="")

            def advance(done: int, total: int, note: str) -> None:
                bar.update(task, completed=done, total=total, note=_shown(note))

            yield advance
        return
    yield _plain_lines(title)


def _plain_lines(title: str) -> Advance:
    start = time.monotonic()
    last = [start - PLAIN_INTERVAL_S]

    def advance(done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if now - last[0] < PLAIN_INTERVAL_S and done < total:
            return
        last[0] = now
        elapsed_s = now - start
        left = f", {elapsed_s / done * (total - done):.0f} s left" if 0 < done < total else ""
        err.print(
            _shown(f"{title} {done}/{total} · {elapsed_s:.0f} s{left} {note}".rstrip()),
            highlight=False,
        )

    return advance
