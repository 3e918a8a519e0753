"""The command line in a process that is forked from one that has imported everything.

A verb starts in milliseconds, so it can be killed many times in its work and not in its imports.
The server that is forked has run no tensor operation: it has no threads that a fork would lose.
"""

import multiprocessing
import os
import sys
from pathlib import Path

import flarekd.cli
import flarekd.road  # what is imported here, a fork has

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def start(arguments, heard):
    """A process that runs the verb on one core and writes to the file `heard` what it says."""
    words = list(map(str, arguments))
    process = CONTEXT.Process(target=_run, args=(words, str(heard)))
    process.start()
    return process


def _run(words, heard):
    file = os.open(heard, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sys.argv = ["flarekd", *words]
    flarekd.cli.main()


def said(heard):
    return Path(heard).read_text(encoding="utf-8") if Path(heard).exists() else ""
