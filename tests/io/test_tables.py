"""Tables keep every number, and those made by hand are completed or refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_rvae.errors import InputDataError, OutputError
from napari_rvae.io import add_physical_positions, column_units, load_atoms, load_table, save_table


@settings(max_examples=50)
@given(values=arrays(np.float64, (7, 2), elements=st.floats(allow_nan=True, width=64)))
def test_every_digit_comes_back(tmp_path, values):
    table = pd.DataFrame(values, columns=["y", "x"]).assign(atom_id=np.arange(7) + 2**60, flag=["", "edge"] * 3 + [""])
    save_table(table, tmp_path / "a.csv")
    again = load_table(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(again, table, check_exact=True, check_dtype=False)
    assert again["atom_id"].dtype == np.int64


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"atom_id": [0, 1], "y": [0.1, np.nan], "flag": ["", "edge"]})
    table.attrs["napari_rvae"] = {"spacing": np.float64(3)}
    save_table(table, tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(load_table(tmp_path / "a.parquet"), table)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_rvae.io.tables.find_spec", lambda name: None)
    with pytest.raises(OutputError, match="pip install pyarrow"):
        save_table(pd.DataFrame({"a": [1]}), tmp_path / "a.parquet")


def test_unknown_kind_of_table(tmp_path):
    with pytest.raises(OutputError, match=r"\.csv or \.parquet"):
        save_table(pd.DataFrame({"a": [1]}), tmp_path / "a.xls")


# Atoms made by hand ---------------------------------------------------------------------------------------------------


def hand_made(tmp_path, text):
    path = tmp_path / "atoms.csv"
    path.write_text(text)
    return load_atoms(path)


@pytest.mark.parametrize("text", ["y,x\n1.5,2\n3,4.25\n", "x,y\n2,1.5\n4.25,3\n", "\ufeffX, Y\n2, 1.5\n4.25, 3\n"])
def test_two_columns_are_enough(tmp_path, text):
    atoms = hand_made(tmp_path, text)
    assert atoms[["y", "x"]].to_numpy().tolist() == [[1.5, 2.0], [3.0, 4.25]]
    assert atoms["atom_id"].tolist() == [0, 1]
    assert atoms["sublattice"].tolist() == [0, 0]
    assert atoms["flag"].tolist() == ["", ""]
    assert atoms[["amplitude", "background", "sigma", "snr", "error"]].isna().to_numpy().all()
    assert atoms["atom_id"].dtype == np.int64


def test_what_is_there_is_kept(tmp_path):
    atoms = hand_made(tmp_path, "atom_id,y,x,amplitude,sublattice,flag,colour\n7,1,2,3.5,1,edge,red\n3,1,2,,0,,blue\n")
    assert atoms["atom_id"].tolist() == [7, 3]
    assert atoms["sublattice"].tolist() == [1, 0]
    assert atoms["flag"].tolist() == ["edge", ""]
    assert atoms["colour"].tolist() == ["red", "blue"]
    assert atoms["amplitude"].isna().tolist() == [False, True]
    assert "frame" not in atoms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column y and x"),
        ("y,a\n1,2\n", "no column x"),
        ("y,x\n", "holds no atoms"),
        ("y,x\n1,two\n", "no number in column x"),
        ("y,x\n1,\n2,3\n", "no position in row 1"),
        ("y,x\n1,inf\n", "no position in row 1"),
        ("atom_id,y,x\n1,1,1\n1,2,2\n", "same atom_id"),
        ("atom_id,y,x\n1.5,1,1\n", "whole numbers"),
        ("atom_id,y,x\n-1,1,1\n", "whole numbers"),
        ("frame,y,x\nfirst,1,1\n", "no number in column frame"),
        ("y,x,X\n1,2,3\n", "two columns named x"),
        ("", "is empty"),
    ],
)
def test_bad_atoms(tmp_path, text, message):
    with pytest.raises(InputDataError, match=message):
        hand_made(tmp_path, text)


def test_missing_atoms(tmp_path):
    with pytest.raises(InputDataError, match="there is no file"):
        load_atoms(tmp_path / "atoms.csv")


# Units ----------------------------------------------------------------------------------------------------------------


def test_physical_positions():
    table = pd.DataFrame({"atom_id": [0, 1], "y": [1.0, 2.0], "x": [3.0, 4.0], "snr": [5.0, 6.0]})
    with_nm = add_physical_positions(table, (0.1, 0.2), "nm")
    assert list(with_nm) == ["atom_id", "y", "x", "y_nm", "x_nm", "snr"]
    np.testing.assert_allclose(with_nm["y_nm"], [0.1, 0.2])
    np.testing.assert_allclose(with_nm["x_nm"], [0.6, 0.8])
    assert list(add_physical_positions(with_nm, (0.1, 0.2), "nm")) == list(with_nm)
    assert "y_1_nm" in add_physical_positions(table, (0.1, 0.2), "1/nm")
    assert add_physical_positions(table, None, None) is table
    assert column_units(with_nm, "nm") == {"y": "px", "x": "px", "y_nm": "nm", "x_nm": "nm"}
