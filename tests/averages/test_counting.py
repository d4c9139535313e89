"""The number of classes is the largest one that other patches show again."""

import numpy as np
import pandas as pd
import pytest

from napari_rvae.averages.counting import class_stability, stability_in_words, stable_count
from napari_rvae.errors import InputDataError, SettingsError, Stopped
from napari_rvae.patches import patches_from_array
from napari_rvae.samples import cards
from napari_rvae.settings import CountSettings

FEW = CountSettings(most=5, resamples=3)


@pytest.fixture(scope="module")
def patches():
    return patches_from_array(cards(3, 240, 24)[0])


def test_four_suits_are_found_again_and_five_classes_are_not(patches):
    told = []
    table = class_stability(patches, FEW, progress=lambda *one: told.append(one))
    assert table["classes"].tolist() == [2, 3, 4, 5]
    assert (table["lowest"] <= table["stability"]).all()
    assert (table["stability"] <= table["highest"]).all()
    assert table["stability"].iloc[2] > 0.95
    assert table["stability"].iloc[3] < 0.7
    assert stable_count(table) == 4
    assert stability_in_words(table).startswith("4 classes")
    assert told[0] == (0.0, "Resample 1 of 3")


def test_one_kind_has_no_classes():
    noise = np.random.default_rng(0).standard_normal((120, 16, 16)).astype(np.float32)
    table = class_stability(patches_from_array(noise), FEW)
    assert stable_count(table) is None
    assert "but one kind" in stability_in_words(table)


def test_patches_that_are_all_the_same_have_no_classes():
    spot = np.exp(-np.square(np.mgrid[:16, :16] - 7.5).sum(0) / 8)
    patches = patches_from_array(np.repeat(spot[None], 60, 0).astype(np.float32))
    assert (class_stability(patches, CountSettings(most=3, resamples=2))["stability"] == 0).all()


def test_the_most_stable_number_is_named_where_none_is_firm():
    words = stability_in_words(pd.DataFrame({"classes": [2, 3, 4], "stability": [0.2, 0.6, 0.1]}))
    assert "3 is the most stable (0.60 of 0.85)" in words


def test_bad_input_and_stop(patches):
    with pytest.raises(InputDataError, match="14 patches are too few to try 5 classes"):
        class_stability(patches.select(np.arange(14)), FEW)
    with pytest.raises(InputDataError, match="30 patches are too few to try 20 classes"):
        class_stability(patches, CountSettings(most=20, sample=30))
    with pytest.raises(Stopped):
        class_stability(patches, FEW, stop=lambda: True)
    with pytest.raises(SettingsError):
        CountSettings(most=1)
