"""Ctrl-C and SIGTERM: one exception, put off where something must be whole, and a limit."""

import subprocess
import sys
import time

import pytest

BEGIN = """
import hashlib, os, signal, sys
from flarekd import interrupts

def say(text):
    print(text, flush=True)

def ask(number):
    signal.raise_signal(getattr(signal, number))
"""


def run(body, **changes):
    lines = [f"interrupts.{name} = {value!r}" for name, value in changes.items()]
    code = "\n".join([BEGIN, *lines, body])
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [("SIGINT", "KeyboardInterrupt", 130), ("SIGTERM", "Terminated", 143)],
)
def test_a_signal_becomes_an_exception_with_its_status(name, kind, status):
    done = run(f"""
try:
    with interrupts.handled(lambda: say("abandoned")):
        ask({name!r})
        say("went on")
except KeyboardInterrupt as error:
    say(type(error).__name__)
    sys.exit(interrupts.status(error))
""")
    assert (done.stdout, done.returncode) == (f"{kind}\n", status)


def test_an_interruption_waits_for_the_end_of_what_must_be_whole():
    done = run("""
with interrupts.handled(lambda: None):
    try:
        with interrupts.held() as is_asked:
            say(is_asked())
            ask("SIGTERM")
            ask("SIGTERM")
            say(is_asked())
            with interrupts.held():
                say("inner")
            say("whole")
        say("went on")
    except interrupts.Terminated:
        say("left")
""")
    assert done.stdout.split() == ["False", "True", "inner", "whole", "left"]
    assert done.returncode == 0


def test_an_ignored_signal_stays_ignored():
    done = run("""
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interrupts.handled(lambda: None):
    ask("SIGINT")
    say("went on")
say(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
""")
    assert done.stdout.split() == ["went", "on", "True"]


def test_what_does_not_leave_is_ended_by_force():
    """One long call of a library: Python's own handlers wait until it comes back."""
    began = time.monotonic()
    done = run(
        """
with interrupts.handled(lambda: say("abandoned")):
    import threading
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    hashlib.pbkdf2_hmac("sha512", b"a", b"b", 200_000_000)
""",
        GRACE_S=0.5,
    )
    assert (done.stdout, done.returncode) == ("abandoned\n", 143)
    assert time.monotonic() - began < 30


def test_signals_passed_on_have_no_limit():
    done = run(
        """
import time
with interrupts.handled(lambda: say("abandoned")):
    signal.signal(signal.SIGTERM, lambda *_: say("passed on"))
    with interrupts.passed_on():
        ask("SIGTERM")
    time.sleep(0.6)
    say("went on")
""",
        GRACE_S=0.1,
    )
    assert done.stdout == "passed on\nwent on\n"
    assert done.returncode == 0


DROPS = """
import time, weakref

class Watched:
    pass

def go_on_after(number):
    watched = Watched()
    kept = weakref.ref(watched, lambda _: ask(number))
    del watched
    say("dropped")
    for _ in range(1000):
        time.sleep(0.01)
    say("never asked again")
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_exception_that_python_drops_is_raised_again(name, status):
    done = run(f"""
{DROPS}
try:
    with interrupts.handled(lambda: None):
        go_on_after({name!r})
except KeyboardInterrupt as error:
    sys.exit(interrupts.status(error))
""")
    assert (done.stdout, done.stderr, done.returncode) == ("dropped\n", "", status)


def test_a_worker_leaves_whose_exception_was_dropped():
    done = run(f"""
{DROPS}
interrupts.leave_quietly()
go_on_after("SIGTERM")
""")
    assert (done.stdout, done.stderr, done.returncode) == ("dropped\n", "", 143)


def test_a_worker_that_leaves_is_not_asked_twice():
    done = run("""
interrupts.leave_quietly()
try:
    ask("SIGTERM")
finally:
    ask("SIGTERM")
    say("put away")
""")
    assert (done.stdout, done.stderr, done.returncode) == ("put away\n", "", 143)


def test_an_import_is_not_interrupted_but_what_comes_after_it(tmp_path):
    """A compiled module that begins would make an ImportError of it, or crash."""
    lines = ["import __main__, time", "__main__.ask('SIGINT')", "time.sleep(0.1)"]
    lines.append("__main__.say('imported')")
    (tmp_path / "module.py").write_text("\n".join(lines), encoding="utf-8")
    done = run(f"""
import time
sys.path.insert(0, {str(tmp_path)!r})
try:
    with interrupts.handled(lambda: None):
        import module
        for _ in range(1000):
            time.sleep(0.01)
        say("never asked again")
except KeyboardInterrupt as error:
    sys.exit(interrupts.status(error))
""")
    assert (done.stdout, done.stderr, done.returncode) == ("imported\n", "", 130)


def test_what_else_is_dropped_is_told_as_ever():
    done = run(f"""
{DROPS}
def ask(_):
    raise ValueError("of a callback")
time.sleep = lambda _: None
with interrupts.handled(lambda: None):
    go_on_after(0)
""")
    assert "ValueError: of a callback" in done.stderr
    assert done.stdout.endswith("never asked again\n")
