"""Memory that was freed is used again: seen from the kernel, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from flarekd.memory import keep_freed_memory

if "keep" in sys.argv:
    print(keep_freed_memory())
for _ in range(20):  # until the allocator has the few places it needs for one size
    torch.ones(2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 20 * 2**22 * 4 // 4096
"""What twenty tensors of 16 MiB lie on."""


def fresh_pages(*arguments):
    call = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone")
def test_a_freed_tensors_memory_is_used_again():
    kept, pages = fresh_pages("keep")
    assert kept == "True"
    assert int(pages) < PAGES / 100


@pytest.mark.skipif(platform.libc_ver()[0] == "glibc", reason="elsewhere than with glibc")
def test_elsewhere_nothing_is_done():
    assert fresh_pages("keep")[0] == "False"
