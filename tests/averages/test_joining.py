"""Averages are joined where they show one kind."""

import numpy as np

from napari_rvae.averages.joining import _few_join_nearest


def test_an_average_of_few_members_is_no_bridge():
    distance = np.array([[0, 90, 5.0], [90, 0, 6], [5, 6, 0]])
    found = _few_join_nearest(distance, np.array([True, True, False]))
    assert found[0, 1] == 90
    assert found[0, 2] == found[2, 0] == 5
    assert found[1, 2] == found[2, 1] > 90
