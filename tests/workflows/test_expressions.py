"""Choosing atoms by an expression that can do no harm."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_rvae.errors import InputDataError
from napari_rvae.workflows import atoms_where

ATOMS = pd.DataFrame(
    {
        "atom_id": [0, 1, 2, 3],
        "y": [1.0, 2.0, 3.0, 4.0],
        "x": [4.0, np.nan, 2.0, 1.0],
        "sublattice": [0, 1, 0, 1],
        "flag": ["", "edge", "", "unsupported"],
        "class": [0, 0, 1, 2],
    }
)


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        (None, [0, 1, 2, 3]),
        ("  ", [0, 1, 2, 3]),
        ("sublattice == 0", [0, 2]),
        ("sublattice != 0 and y > 2", [3]),
        ("sublattice == 0 or y >= 4", [0, 2, 3]),
        ("not sublattice == 0", [1, 3]),
        ("(sublattice == 0) & ~(y == 1)", [2]),
        ("(y == 1) | (y == 4)", [0, 3]),
        ("flag == ''", [0, 2]),
        ("flag in ['edge', 'unsupported']", [1, 3]),
        ("flag not in ('edge',)", [0, 2, 3]),
        ("sublattice in [1]", [1, 3]),
        ("1 < y <= 3", [1, 2]),
        ("x > 0", [0, 2, 3]),
        ("x != x", [1]),
        ("2 * y + x % 3 - 1 > 4", [2, 3]),
        ("-y < -3.5", [3]),
        ("y / 0 > 1", [0, 1, 2, 3]),
        ("class == 1", [2]),
        ("class in [0, 2] and not flag == 'edge'", [0, 3]),
        ("0 == sublattice", [0, 2]),
    ],
)
def test_expression(expression, rows):
    assert np.flatnonzero(atoms_where(ATOMS, expression)).tolist() == rows


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sublatice == 0", "no column 'sublatice'; there are atom_id"),
        ("y", "no condition"),
        ("y + 1", "no condition"),
        ("True", "no condition"),
        ("y and x", "joins what is no condition"),
        ("flag + 1 > 0", "no number"),
        ("flag * 1000000000 == ''", "no number"),
        ("sublattice = 0", "cannot be understood"),
        ("sublattice ==", "cannot be understood"),
        ("flag < 3", "cannot be understood"),
        ("__import__('os').system('true')", "leave out"),
        ("y.max() > 1", "leave out"),
        ("y[0] > 1", "leave out"),
        ("(lambda: 1)() == 1", "leave out"),
        ("[v for v in y] == 1", "leave out"),
        ("9 ** 9 ** 9 > y", "leave out"),
        ("y is x", "not known"),
        ("f'{y}' == 'a'", "leave out"),
        ("(" * 300 + "y > 1" + ")" * 300, "cannot be understood"),
        ("-" * 1900 + "y > 1", "cannot be understood"),
        ("y > 1 or " * 400 + "y > 2", "longer than"),
        ("y > 1\x00", "cannot be understood"),
        ("y > 1; y", "cannot be understood"),
    ],
)
def test_refused(expression, message):
    with pytest.raises(InputDataError, match=message):
        atoms_where(ATOMS, expression)


WORDS = [
    "y",
    "x",
    "flag",
    "class",
    "0",
    "1.5",
    "'edge'",
    "==",
    "<",
    "and",
    "or",
    "not",
    "in",
    "(",
    ")",
    "[",
    "]",
    "+",
    "*",
    "/",
    "%",
    ",",
    "~",
    "&",
    "-",
    ".",
    "**",
    "@",
    "lambda",
    ":",
    "if",
    "else",
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_any_text_gives_a_mask_or_an_error(words):
    try:
        mask = atoms_where(ATOMS, " ".join(words))
    except InputDataError:
        return
    assert mask.shape == (4,)
    assert mask.dtype == bool
