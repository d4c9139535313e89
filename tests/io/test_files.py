"""Results appear whole or not at all, and nothing is replaced unasked."""

import os
import sys

import pytest

from napari_rvae.errors import ExistsError, OutputError
from napari_rvae.io import check_outputs, replacing, written_together
from napari_rvae.io.files import sha256


def test_files_appear_together(tmp_path):
    folder = tmp_path / "new" / "result"
    with written_together(folder) as place:
        (place / "a.txt").write_text("a")
        (place / "b.txt").write_text("b")
        assert not (folder / "a.txt").exists()
    assert sorted(file.name for file in folder.iterdir()) == ["a.txt", "b.txt"]


def half_a_file(folder, interruption):
    with written_together(folder) as place:
        (place / "a.txt").write_text("half")
        raise interruption


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
def test_interrupted_writing_leaves_no_trace(tmp_path, interruption):
    with pytest.raises(interruption):
        half_a_file(tmp_path / "new" / "result", interruption)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OutputError, match="No space left"):
        half_a_file(tmp_path, OSError(28, "No space left on disk"))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_replaced_file_is_the_new_one(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with replacing(tmp_path / "a.txt") as file:
        file.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_existing_outputs_need_force(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(ExistsError, match="exists already"):
        check_outputs([tmp_path / "a.csv"])
    check_outputs([tmp_path / "a.csv"], force=True)
    check_outputs([tmp_path / "b.csv", tmp_path / "deep" / "down" / "c.csv"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_outputs([tmp_path / "file" / "a.csv"])
    with pytest.raises(OutputError, match="is a folder"):
        check_outputs([tmp_path], force=True)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a folder that may not be written")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"):
        check_outputs([tmp_path / "a.csv"])
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")  # noqa: PTH112
def test_folder_that_takes_no_files():
    from pathlib import Path

    with pytest.raises(OutputError, match="cannot write to /proc"):
        check_outputs([Path("/proc/self/a.csv")])


def test_hash_of_a_folder_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, sha256(tmp_path)}) == 3
