"""The live preview of Find atoms: what follows what, how fast, and what is left alone."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel

from napari_rvae.layers import add_atoms
from napari_rvae.settings import FindSettings
from napari_rvae.widgets import find, preview
from napari_rvae.widgets.find import FindWidget

from .conftest import crystal


@pytest.fixture
def dock(viewer, opened):
    return opened(FindWidget(viewer))


@pytest.fixture
def rings(dock, qtbot):
    """Switch the preview on if it is off, and wait for as many rings as a condition wants."""

    def wait(condition=lambda data: True):
        dock.preview_box.setChecked(True)
        layer = lambda: dock.preview.layer  # noqa: E731
        qtbot.waitUntil(lambda: layer() is not None and condition(layer().data), timeout=20_000)
        return layer()

    return wait


@pytest.fixture
def filtered(monkeypatch):
    """How often an image was filtered."""
    count, function = [], preview._filtered

    def counted(*arguments):
        count.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(preview, "_filtered", counted)
    return count


def test_sliders_of_spacing_and_width_are_followed_and_points_are_left_alone(viewer, image, dock, rings, qtbot):
    atoms = add_atoms(viewer, pd.DataFrame({"atom_id": [0, 1], "y": [6.0, 18.0], "x": [6.0, 18.0]}), image)
    atoms.selected_data = {1}
    before, features = atoms.data.copy(), atoms.features.copy()
    many = len(rings().data)
    spacing, sigma = (dock.form.controls[name] for name in ("spacing", "sigma"))
    assert spacing.widget.text().startswith("auto (0.2")  # 12 px of 0.02 nm
    assert sigma.widget.text().startswith("auto (0.0")
    spacing.slider.setValue(round(0.75 * spacing.slider.maximum()))  # some 55 px: neighbours count for one
    rings(lambda data: len(data) < 0.3 * many)
    spacing.auto_button.click()
    rings(lambda data: len(data) == many)
    for value in np.linspace(0.3, 0.6, 7):
        sigma.slider.setValue(round(value * sigma.slider.maximum()))
    last = dock.form.value(FindSettings).sigma
    qtbot.waitUntil(lambda: dock.preview.layer.size[0] == pytest.approx(4 * last), timeout=20_000)
    np.testing.assert_array_equal(atoms.data, before)
    assert atoms.features.equals(features)
    assert atoms.selected_data == {1}


def test_another_threshold_filters_nothing_and_draws_no_region(viewer, image, dock, rings, filtered, monkeypatch):
    drawn = []
    mask = find.region_mask
    monkeypatch.setattr(find, "region_mask", lambda *given: drawn.append(given) or mask(*given))
    labels = viewer.add_labels(np.ones((64, 64), int), scale=(0.04, 0.04), translate=(0.01, 0.01))
    dock.region_box.choose(labels)
    many = len(rings().data)
    filtered.clear()
    drawn.clear()
    for value in (5.0, 20.0, 60.0):
        dock.form.controls["threshold"].set_value(value)
    assert len(dock.preview.layer.data) < many
    assert not filtered
    assert not drawn
    labels.data = np.eye(64, dtype=int)
    rings(lambda data: len(data) < 20)
    assert len(filtered) == 1


def test_rings_follow_the_image_that_is_chosen_and_what_becomes_of_it(viewer, image, dock, rings, filtered):
    other = viewer.add_image(np.stack([crystal(96)] * 2), name="movie", scale=(1, 0.5, 0.5))
    dock.image_box.choose(image)
    layer = rings()
    assert (layer.name, layer.ndim) == ("crystal preview", 2)
    dock.image_box.choose(other)
    assert dock.preview.layer is None
    layer = rings()
    assert (layer.name, layer.ndim) == ("movie preview", 3)
    np.testing.assert_allclose(layer.scale, (1, 0.5, 0.5))
    filtered.clear()
    other.scale, other.units = (1, 0.03, 0.03), ("pixel", "nm", "nm")
    np.testing.assert_allclose(rings().scale, (1, 0.03, 0.03))
    assert dock.form.controls["sigma"].widget.suffix() == " nm"
    assert not filtered
    before = len(rings().data)
    other.data = np.stack([crystal(96, spacing=24)] * 2)
    assert dock.preview.layer is None
    assert 0 < len(rings().data) < 0.8 * before
    viewer.layers.remove(other)
    assert rings().name == "crystal preview"
    viewer.layers.remove(image)
    assert dock.preview.layer is None
    assert not list(viewer.layers)


def test_what_cannot_be_shown_any_more_leaves_no_rings(viewer, image, dock, rings, qtbot):
    shapes = viewer.add_shapes([[[0, 0], [0, 2], [2, 2], [2, 0]]], shape_type="rectangle", name="window")
    dock.region_box.choose(shapes)
    rings()
    shapes.translate = (50, 50)
    assert dock.preview.layer is None
    assert "'window' covers no pixel of 'crystal'" in dock.count.text()
    shapes.translate = (0, 0)
    assert rings().name == "crystal preview"
    assert "About" in dock.count.text()
    image.data = np.zeros((128, 128))
    qtbot.waitUntil(lambda: "constant" in dock.count.text(), timeout=20_000)
    assert dock.preview.layer is None


def test_regions_of_frames_are_followed(viewer, dock, rings, qtbot):
    viewer.add_image(np.stack([crystal(96)] * 3), name="movie")
    labels = viewer.add_labels(np.zeros((3, 96, 96), int), name="mine")
    dock.region_box.choose(labels)
    viewer.dims.set_current_step(0, 1)
    labels.data[1, :48] = 1
    labels.refresh()
    data = rings().data
    assert set(data[:, 0]) == {1}
    assert data[:, 1].max() < 49
    labels.fill((1, 70, 70), 2)
    rings(lambda data: data[:, 1].max() > 80)
    labels.undo()
    rings(lambda data: data[:, 1].max() < 49)
    viewer.dims.set_current_step(0, 2)
    assert dock.preview.layer is None
    assert "'mine' covers no pixel of 'movie' in frame 2" in dock.count.text()


def test_lazy_stack_is_read_in_the_thread(viewer, pixels, dock, rings):
    stack = da.from_array(np.stack([pixels, pixels]), chunks=(1, 128, 128))
    viewer.add_image(stack, name="movie", contrast_limits=(0, 1))
    assert set(rings().data[:, 0]) == {0}


def test_two_viewers_have_a_preview_each(viewer, image, dock, rings, opened, qtbot):
    second = ViewerModel()
    second.add_layer(viewer.layers["crystal"])
    other = opened(FindWidget(second))
    rings()
    other.preview_box.setChecked(True)
    qtbot.waitUntil(lambda: other.preview.layer is not None, timeout=20_000)
    assert len(viewer.layers) == len(second.layers) == 2
    other.preview_box.setChecked(False)
    assert len(viewer.layers) == 2
    assert len(second.layers) == 1
