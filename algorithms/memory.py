"""Keep freed memory in the process: training allocates the same large temporaries at every step.

glibc gives freed blocks back to the kernel and faults them in again, page by page, at the next
step; on a CPU this can cost as much as the arithmetic between.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc refuses more where it limits itself to half a heap
_TRIM_THRESHOLD = 2**31 - 1
_LARGEST_OWN_TRIM_THRESHOLD = 64 << 20  # where glibc's own moving threshold ends


def keep_freed_memory() -> bool:
    """Ask the C library not to return freed memory; the whole process, once, is affected.

    Returns:
        whether it agreed: False with another C library than glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    agreed = mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(
        _M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD
    )
    return bool(agreed and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD))


def give_freed_memory_back() -> None:
    """Undo `keep_freed_memory`, as near to glibc's moving thresholds as can be set."""
    try:
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_OWN_TRIM_THRESHOLD)
        library.malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
