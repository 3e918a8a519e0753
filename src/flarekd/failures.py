"""How a verb that fails ends: with a message and an exit status, never with a traceback of ours."""

from __future__ import annotations

import errno
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from flarekd import interrupts
from flarekd.errors import FlarekdError, InputError, is_out_of_memory, reason

NOT_OURS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO,
    errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ESTALE, errno.EMFILE,
}  # fmt: skip
"""What a system refuses, and no bug of ours: no permission, no room, a broken disk, paths that
lead nowhere."""


class Verbs(TyperGroup):
    """The one place where a failure becomes a message and an exit status."""

    def invoke(self, ctx: Any) -> Any:  # typer brought click before, now its own copy
        """Run the verb."""
        with interrupts.handled(_abandon):
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FlarekdError as error:
            from flarekd import console

            console.error(str(error))
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.errno not in NOT_OURS:
                raise
            from flarekd import console

            console.error(reason(error))
            raise typer.Exit(InputError.exit_code) from None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            from flarekd import console

            console.error(reason(error))
            raise typer.Exit(InputError.exit_code) from None
        except KeyboardInterrupt as error:
            # what was going on is ended now, not when the process is: its frames hold the workers
            traceback.clear_frames(error.__traceback__)
            from flarekd import console

            what = "ended by SIGTERM" if isinstance(error, interrupts.Terminated) else "interrupted"
            console.error(f"{what} · run the same command again to go on, a training with --resume")
            raise typer.Exit(interrupts.status(error)) from None


def _abandon() -> None:
    from flarekd import lock
    from flarekd.imaging import atomic

    atomic.abandon()
    lock.abandon()
