"""What a processor computes natively, and how memory is kept. Nothing here imports torch before it
is asked."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""How Linux names the instructions: of Intel and AMD, of Intel's matrix units, of ARM."""

BF16_PAYS_FROM = 1_000_000
"""Networks of fewer parameters may be slower in bfloat16 on a CPU: with few channels it cannot fill
the processor's registers. A step of small-cnn (22 k) took between 0.7 and 3 times as long, of
preact-resnet18 (11 M) some half."""


def native_bf16(device: str) -> bool:
    """Does a device of this kind ("cpu", "cuda", ...) multiply bfloat16 by itself? Where it does
    not, bfloat16 is slower than float32."""
    if device == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and not BF16_FLAGS.isdisjoint(cpu_flags())


def why_not_bf16(device: str, parameters: Callable[[], int]) -> str:
    """Why a network would not be faster in bfloat16 on a device of this kind; empty if it would.
    `parameters` counts it, and is asked only where that matters: its size does on CPUs."""
    if not native_bf16(device):
        return f"{device} does not compute bfloat16 natively here"
    if device == "cpu" and parameters() < BF16_PAYS_FROM:
        return f"networks of less than {BF16_PAYS_FROM:,} parameters may be slower in bfloat16"
    return ""


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets of the processor, as Linux names them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(flags.split())
    return frozenset()


ALLOCATOR = {
    -3: 32 * 1024**2,  # M_MMAP_THRESHOLD: larger blocks are mapped one by one; the most allowed
    -1: 1024**3,  # M_TRIM_THRESHOLD: free memory at the end of the heap that is not given back
}
"""Of `mallopt(3)`: numbers as in glibc's malloc.h, and values in bytes."""

ALLOCATOR_OF_USERS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """In this process, freed memory is kept for the next tensors of the size.

    glibc gives blocks of some hundred kilobytes back to the system and asks for them again, page by
    page, at every operation: a tenth of a training step of a small network on color images, on a
    CPU. No figure changes; a process may hold memory that it no longer uses. Nothing is done where
    the user has set these values, or the C library (of musl, macOS, Windows) has none. For programs
    of our own only: a library leaves the process to its host.
    """
    if sys.platform != "linux" or any(name in os.environ for name in ALLOCATOR_OF_USERS):
        return
    import ctypes

    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ALLOCATOR.items():
            mallopt(parameter, value)
