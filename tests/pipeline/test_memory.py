"""Freed memory stays with the process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import resource, sys
import torch
from pipeline.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(1 << 22) for _ in range(10)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    assert keep_freed_memory()
faults()
faults()
print(min(faults() for _ in range(3)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
@pytest.mark.parametrize(("how", "least", "most"), [("kept", 0, 500), ("given back", 5000, 10**6)])
def test_memory_is_used_again_without_faults(how: str, least: int, most: int) -> None:
    """160 MB are 40,960 pages, each a fault when it comes from the operating system."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert least <= int(done.stdout) <= most
