"""The ``flarekd`` command, also as ``python -m flarekd``."""

import atexit
import os
import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded ends it without a traceback."""
    try:
        from flarekd.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            _leave(leaving.code or 0)
        raise


def _leave(status: int) -> None:
    """End this process now.

    Python would take torch's thousands of objects apart first, which takes half a second and is of
    no use to anybody: files are closed and workers have ended by now.
    """
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # whoever reads it is gone: Python says so in its own way
        return
    os._exit(status)


if __name__ == "__main__":
    main()
