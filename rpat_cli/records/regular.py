"""Is this a file that can be read to its end? Devices and pipes have none."""

import stat
from pathlib import Path

KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def irregular(path: Path) -> str:
    """What stands at `path` instead of a file: "a device", "a folder" ...; "" for a file, and where
    there is nothing or nothing can be seen."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return ""
    return KINDS.get(stat.S_IFMT(mode), "")
