"""Local files that are on the disk, not in the system's cache, before a commit names them.

The catalog's commit survives a power failure, and after it the log may drop what was archived. So whatever the commit
refers to (data, manifests, metadata) has to survive one, too: a file is synced when it is closed, and so is the folder
that it is new in. Object stores need none of this.
"""

import os
from pathlib import Path

import pyarrow as pa
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO, PyArrowLocalFileSystem

IMPLEMENTATION = f"{__name__}.DurableFileIO"  # what a catalog's property `py-io-impl` says


class DurableFileIO(PyArrowFileIO):
    """PyIceberg's own, but for local files that are written."""

    def new_output(self, location: str) -> PyArrowFile:
        scheme, _, path = self.parse_location(location, self.properties)
        return _LocalOutput(location, Path(path)) if scheme == "file" else super().new_output(location)


class _LocalOutput(PyArrowFile):
    def __init__(self, location: str, path: Path) -> None:
        super().__init__(location, str(path), PyArrowLocalFileSystem())
        self._local = path

    def create(self, overwrite: bool = False) -> pa.NativeFile:
        if not overwrite and self._local.exists():
            raise FileExistsError(f"{self._local} exists already")
        _make_folder(self._local.parent)
        return _SyncedFile(str(self._local), "wb")


class _SyncedFile(pa.OSFile):  # type: ignore[misc]
    def __init__(self, path: str, mode: str) -> None:
        self._path = Path(path)

    def close(self) -> None:
        if not self.closed:
            super().close()
            _sync(self._path)
            _sync(self._path.parent)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
