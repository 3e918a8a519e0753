"""Programs, above all the command line, in processes forked from one that has imported everything.

A verb starts in milliseconds instead of seconds, so that many can be run, and killed in their work
and not in their imports. The server that is forked has run no tensor operation: it has no threads
that a fork would lose.
"""

import multiprocessing
import os
import sys
from pathlib import Path

import torch

import flarekd.cli
import flarekd.road  # what is imported here, a fork has

CORES = 1
"""More would mean worker processes, each of which takes longer to start than toy cases to do."""

CONTEXT = multiprocessing.get_context("forkserver")
LATE = ["torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg"]
"""What verbs import on their way: every optimizer, and every picture."""
CONTEXT.set_forkserver_preload([__name__, *LATE])


def start(arguments, stdout, stderr, main=flarekd.cli.main, environment=None, folder="."):
    """A process that runs a verb.

    Args:
        arguments: Of the verb.
        stdout: File for what it says there.
        stderr: Likewise.
        main: What is run: the command line, or the main function of another program.
        environment: Variables beside those of the tests.
        folder: Where it is run.
    """
    words = list(map(str, arguments))
    told = (main, words, environment or {}, Path(folder), Path(stdout), Path(stderr))
    process = CONTEXT.Process(target=_run, args=told)
    process.start()
    return process


def _run(main, words, environment, folder, stdout, stderr):
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, stdout), (2, stderr)):
        with path.open("a", encoding="utf-8") as file:
            os.dup2(file.fileno(), number)
    # the last cores: the first is that of `one_processor`, in the tests that run beside these
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-CORES:])
    torch.set_num_threads(CORES)
    sys.argv = ["flarekd", *words]
    main()
