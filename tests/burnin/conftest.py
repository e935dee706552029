"""A burn-in's folder, made to measure."""

from collections.abc import Callable

import pytest
from tests.burnin.samples import BEGAN, EVERY, PROOF, SERVICES, platform_row, process_row

from k2.ops.burnin.folder import Folder, Parameters, PlatformRow, ProcessRow, Session, Sheet


@pytest.fixture
def recorded(tmp_path) -> Callable[..., Folder]:
    """A folder with a run of `hours` in it: `change(row)` gives a process's row, or None for no row at that look."""

    def make(hours=2.0, change=lambda row: row, look=lambda row: row, sessions=1, proof=PROOF) -> Folder:
        folder = Folder.create(tmp_path / "run", Parameters(hours, 500.0, 1, EVERY), {"cores": 2, "cpu": "a test"})
        folder.state.sessions += [Session(BEGAN, "c0ffee", BEGAN + hours * 3600, "finished") for _ in range(sessions)]
        folder.state.proof = proof
        folder.save()
        processes, platform = Sheet(folder.samples, ProcessRow), Sheet(folder.platform, PlatformRow)
        for number in range(int(hours * 3600 / EVERY) + 1):
            at = BEGAN + number * EVERY
            seen = look(platform_row(at))
            if seen is not None:
                rows = [change(process_row(at, service)) for service in (*SERVICES, "sim", "burnin")]
                processes.add([row for row in rows if row is not None])
                platform.add([seen])
        processes.close()
        platform.close()
        return folder

    return make
