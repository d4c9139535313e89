"""Semi-supervised models that learn a quantity of which some patches' values are known, and predict all others'."""

import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError
from napari_rvae.latent import encode
from napari_rvae.models import load_model
from napari_rvae.patches import patches_from_array
from napari_rvae.settings import TrainSettings
from napari_rvae.training import train
from napari_rvae.workflows import train_ensemble
from napari_rvae.workflows.given import given_by

N = 400


@pytest.fixture(scope="module")
def stretched():
    """Pairs of spots, turned at random; their distance is the quantity, their brightness is not."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] - 11.5
    distance, bright, angle = rng.uniform(3, 7, N), 1 + 0.2 * rng.standard_normal(N), rng.uniform(0, np.pi, N)
    data = np.zeros((N, 24, 24))
    for side in (-0.5, 0.5):
        dx, dy = (side * distance * turn(angle) for turn in (np.cos, np.sin))
        data += np.exp(-((x - dx[:, None, None]) ** 2 + (y - dy[:, None, None]) ** 2) / 4)
    data = bright[:, None, None] * data + 0.05 * rng.standard_normal(data.shape)
    return patches_from_array(data.astype(np.float32)), distance


def test_a_quantity_is_predicted_with_its_error(stretched, tmp_path):
    patches, distance = stretched
    known = np.arange(N) % 10 == 0
    settings = TrainSettings(model="ssrvae", invariance=("rotation",), epochs=25, hidden=32, threads=1)
    *_, last = train(patches, settings, labels=np.where(known, distance, np.nan))
    last.model.save(tmp_path / "model.safetensors")
    table = encode(load_model(tmp_path / "model.safetensors"), patches)
    off = (table["predicted"] - distance)[~known]
    assert np.sqrt((off**2).mean()) < 0.3 * distance.std()
    assert 0.5 < (off.abs() < table["predicted_error"][~known]).mean() < 0.95
    assert "class" not in table
    assert last.model.recipe["value"]["spread"] == pytest.approx(distance[known].std(), rel=1e-4)


@pytest.mark.parametrize("labels", [np.full(N, np.nan), np.where(np.arange(N) < 20, 1.5, np.nan), np.full(N, np.inf)])
def test_labels_that_tell_no_quantity_are_explained(stretched, labels):
    with pytest.raises(InputDataError, match="Decimal labels are a quantity"):
        next(train(stretched[0], TrainSettings(model="ssvae"), labels=labels))


def test_classes_as_decimal_numbers_are_no_quantity(stretched):
    labels = np.where(np.arange(N) % 3, -1.0, np.arange(N) % 2)
    with pytest.raises(InputDataError, match="give classes as integers"):
        next(train(stretched[0], TrainSettings(model="ssvae"), labels=labels))


def test_an_ensemble_predicts_a_quantity_with_its_dispersion(stretched, tmp_path):
    patches, distance = stretched
    known = np.arange(N) % 5 == 0
    settings = TrainSettings(
        model="ssrvae", invariance=("rotation",), epochs=12, hidden=32, threads=1, members=2, batch_size=30
    )
    model, _ = train_ensemble(patches, settings, labels=np.where(known, distance, np.nan))
    assert len(model.members) == 1
    assert model.members[0].recipe["patches"] > N // 2  # all that are labelled are among them
    model.save(tmp_path / "model.safetensors")
    table = encode(load_model(tmp_path / "model.safetensors"), patches)
    each = [encode(one, patches)["predicted"] for one in model.members]
    first = 2 * table["predicted"] - each[0]
    assert table["predicted_dispersion"].to_numpy() == pytest.approx(np.std([first, each[0]], 0), abs=1e-5)
    off = (table["predicted"] - distance)[~known]
    assert np.sqrt((off**2).mean()) < 0.5 * distance.std()


def test_a_column_of_decimal_numbers_is_a_quantity_and_of_whole_ones_with_gaps_classes():
    settings = TrainSettings(model="ssrvae", label_column="told")
    told = given_by(settings, pd.DataFrame({"told": [0.5, np.nan, 1.25, 2.0]}))
    assert told.labels.dtype.kind == "f"
    np.testing.assert_array_equal(told.labels, [0.5, np.nan, 1.25, 2.0])
    assert told.noted == {"value_column": "told"}
    classes = given_by(settings, pd.DataFrame({"told": [0.0, np.nan, 1.0, 1.0]}))
    np.testing.assert_array_equal(classes.labels, [0, -1, 1, 1])
