"""What stands on disk outlives whoever writes it."""

import pytest
from tests.burnin.samples import BEGAN, platform_row, process_row

from k2.ops.burnin import BurninError
from k2.ops.burnin.folder import Folder, Parameters, PlatformRow, ProcessRow, Sheet

ASKED = Parameters(2.0, 500.0, 1, 10.0)


def test_a_line_that_a_kill_tore_is_cut_off_and_the_next_one_is_whole(recorded):
    folder = recorded(hours=0.05)
    rows = folder.processes()
    with folder.samples.open("a") as torn:
        torn.write("1800000190.0,0,sto")
    assert folder.processes() == rows
    sheet = Sheet(folder.samples, ProcessRow)
    sheet.add([process_row(BEGAN + 190, "store")])
    sheet.close()
    assert folder.processes() == [*rows, process_row(BEGAN + 190, "store")]


def test_a_kill_within_a_field_changes_no_number(recorded):
    folder = recorded(hours=0.05)
    looks = folder.looks()
    whole = folder.platform.read_text().splitlines(keepends=True)
    folder.platform.write_text("".join(whole[:-1]) + whole[-1][:-2])
    assert folder.looks() == looks[:-1]


def test_time_run_is_that_within_sessions(recorded):
    folder = recorded(hours=0.05)
    sheet = Sheet(folder.platform, PlatformRow)
    sheet.add([platform_row(at, session=1) for at in (BEGAN + 9000, BEGAN + 9060)])
    sheet.close()
    assert folder.seconds_run() == 180 + 60


def test_a_folder_that_holds_something_is_left_alone(tmp_path, recorded):
    folder = recorded(hours=0.05)
    with pytest.raises(BurninError, match=f"--resume {folder.path}"):
        Folder.create(folder.path, ASKED, {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(BurninError, match="not an empty folder"):
        Folder.create(tmp_path / "other", ASKED, {})


def test_what_is_no_burn_in_cannot_be_resumed(tmp_path):
    with pytest.raises(BurninError, match="holds no burn-in"):
        Folder.open(tmp_path)
    (tmp_path / "burnin-state.json").write_text('{"parameters": 1')
    with pytest.raises(BurninError, match="cannot be read"):
        Folder.open(tmp_path)


def test_samples_of_another_version_are_not_mixed(recorded):
    folder = recorded(hours=0.05)
    text = folder.samples.read_text()
    folder.samples.write_text(text.replace("at,session,service", "at,session,name", 1))
    with pytest.raises(BurninError, match="other columns"):
        folder.processes()
    with pytest.raises(BurninError, match="other columns"):
        Sheet(folder.samples, ProcessRow)
