"""What must survive a crash of the machine."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Makes sure of the names in it: a file that was renamed is on the disk when its directory is.
    Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
