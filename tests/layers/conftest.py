"""A viewer without a window, and a few atoms on an image that lies anywhere but at the origin."""

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def image(viewer):
    return viewer.add_image(
        np.zeros((40, 60), np.float32),
        name="crystal",
        scale=(0.02, 0.02),
        translate=(3.0, -1.0),
        rotate=30,
        affine=[[1, 0.1, 0.5], [0, 1.2, 0], [0, 0, 1]],
        units=("nm", "nm"),
        axis_labels=("row", "column"),
    )


@pytest.fixture
def atoms():
    table = pd.DataFrame(
        {
            "atom_id": np.array([4, 7, 9, 12], np.int64),
            "y": [5.0, 10.0, 15.0, 20.0],
            "x": [6.0, 12.5, 18.0, 24.0],
            "amplitude": [1.0, 2.0, 3.0, 4.0],
            "sublattice": [0, 1, 0, 1],
            "flag": ["", "edge", "", ""],
        }
    )
    table.attrs["napari_rvae"] = {"spacing": 8.0}
    return table


@pytest.fixture
def results():
    return pd.DataFrame(
        {
            "atom_id": [12, 4, 9],
            "y": [20.0, 5.0, 15.0],
            "x": [24.0, 6.0, 18.0],
            "z1": [0.3, 0.1, 0.2],
            "angle": [3.0, 1.0, 2.0],
            "dy": [0.0, 0.1, -0.1],
            "dx": [0.2, 0.0, 0.0],
        }
    )
