"""The Train rVAE dock: from points to coloured points, and everything that may go wrong between."""

from copy import copy
from threading import Event
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from napari.layers import Labels, Points, Vectors
from qtpy.QtGui import QTextDocumentFragment
from qtpy.QtWidgets import QLabel

from napari_rvae import cli
from napari_rvae.averages.counting import stable_count
from napari_rvae.errors import DeviceError
from napari_rvae.layers import (
    MODEL,
    RECIPE,
    add_atoms,
    add_reconstruction,
    atoms_table,
    color_points,
    coloring_of,
    model_of,
    undo_results,
)
from napari_rvae.settings import PatchSettings, TrainSettings
from napari_rvae.widgets.parts import image_under
from napari_rvae.widgets.patch_cursor import NAME
from napari_rvae.widgets.pictures import Picture
from napari_rvae.widgets.train import TrainWidget
from napari_rvae.widgets.train_view import LossCurve
from napari_rvae.widgets.work import State
from napari_rvae.workflows.averaging import AVERAGE_FILES

from .conftest import crystal

PLACES = np.stack(np.meshgrid(np.arange(6, 128, 12), np.arange(6, 128, 12), indexing="ij"), -1).reshape(-1, 2)
QUICK = TrainSettings(epochs=2, hidden=16, start="scratch", threads=1)
RESULTS = ["z1", "z1_error", "z2", "z2_error", "angle", "angle_error", "symmetry", "dy", "dx", "reconstruction_error"]


def atoms():
    """The atoms of the crystal, numbered from 100."""
    inner = ((PLACES > 16) & (PLACES < 110)).all(1)
    table = pd.DataFrame(
        {
            "atom_id": np.arange(100, 100 + len(PLACES)),
            "y": PLACES[:, 0].astype(float),
            "x": PLACES[:, 1].astype(float),
            "snr": np.linspace(5, 50, len(PLACES)),
            "sublattice": (PLACES // 12).sum(1) % 2,
            "flag": np.where(inner, "", "edge"),
        }
    )
    table.attrs["napari_rvae"] = {"spacing": 12.0}
    return table


@pytest.fixture
def points(viewer, image):
    return add_atoms(viewer, atoms(), image, {"command": "find", "settings": {"find": {"contrast": "bright"}}})


@pytest.fixture
def make_dock(viewer, opened, qtbot):
    def make():
        dock = opened(TrainWidget(viewer))
        dock.form.set_value(QUICK)
        qtbot.waitUntil(lambda: bool(dock.device.devices), timeout=60_000)  # torch is imported in a thread
        return dock

    return make


@pytest.fixture
def dock(points, make_dock):
    return make_dock()


def refreshed(dock):
    """Do at once what the dock does when it is idle."""
    dock._refresh()
    return dock


# The way through ------------------------------------------------------------------------------------------------------


def test_training_colours_every_atom_by_what_it_learned(viewer, image, points, dock, press, qtbot):
    assert dock.points_box.layer is points
    assert dock.image_box.layer is image
    with qtbot.waitSignal(dock.trained, timeout=120_000) as trained:
        press(dock.work.start_button, dock.work)
    assert trained.args == [points]
    assert set(RESULTS) <= set(points.features)
    assert points.features["z1"].notna().all()  # those at the edge too
    assert points.features["amplitude" if "amplitude" in points.features else "snr"].notna().all()
    assert coloring_of(points).column == "z1"
    assert points.face_color_mode == "colormap"
    assert points.metadata[RECIPE]["settings"]["train"]["epochs"] == 2
    assert points.metadata[RECIPE]["settings"]["find"]["contrast"] == "bright"
    assert dock.curve.epochs == [1, 2]
    assert np.isfinite(dock.curve.values["loss"]).all()
    assert dock.results.color_box.currentText() == "z1"
    assert dock.results.legend.texts()[2] == "z1"
    assert "121 of 121 atoms have results" in dock.work.label.text()


def test_loss_curve_counts_epochs_where_there_are_some(qtbot):
    curve = LossCurve()
    qtbot.addWidget(curve)
    curve.restart()
    axes = [curve._plot.getAxis(side) for side in ("bottom", "left")]
    assert not any(axis.style["showValues"] for axis in axes)
    told = {"loss": 1.0, "held_out": 2.0, "losses": (), "terms": {"data": 1.0, "divergence": 0.1}, "notes": ()}
    curve.add(SimpleNamespace(member=1, phase="training", epoch=1, **told))
    assert all(axis.style["showValues"] for axis in axes)
    low, high = curve._plot.viewRange()[0]
    assert low >= 0
    assert high - low >= 5  # so that ticks are whole epochs
    curve.restart()
    assert not any(axis.style["showValues"] for axis in axes)


def test_loss_curve_names_only_the_terms_of_this_training(qtbot):
    curve = LossCurve()
    qtbot.addWidget(curve)
    told = {"loss": 1.0, "held_out": 2.0, "losses": (), "notes": (), "member": 1, "phase": "training", "epoch": 1}
    terms = {"data": 1.0, "divergence": 0.1}
    for more, words in (({"supervised": 0.5}, ["labels"]), ({}, []), ({"physics": 0.2}, ["physics"])):
        curve.restart()
        curve.add(SimpleNamespace(terms=terms | more, **told))
        expected = ["learned from", "held out", "misfit", "information in z", *words]
        assert [drawn.name() for drawn in curve._plot.listDataItems()] == expected
        text = QTextDocumentFragment.fromHtml(curve.legend.text()).toPlainText()
        assert text == " ".join(f"\u25a0 {word}" for word in expected)


def shown_averages(dock):
    labels = [label.text() for label in dock.averages.findChildren(QLabel) if label.text()]
    return dock.averages.findChildren(Picture), labels


def test_class_averages_are_the_first_look(points, dock, press, qtbot):
    dock.form.set_value(QUICK.model_copy(update={"start": "averages"}))
    with qtbot.waitSignal(dock.trained, timeout=120_000):
        press(dock.work.start_button, dock.work)
    pictures, counts = shown_averages(dock)
    assert dock.averages.isVisibleTo(dock)
    assert len(pictures) == len(counts) > 0
    assert sum(map(int, counts)) == (atoms()["flag"] != "edge").sum()
    assert "fold" in pictures[0].toolTip()


def test_averages_without_training_are_results_that_can_be_saved_and_undone(points, dock, press, qtbot, tmp_path):
    assert dock.averages.save_button.isHidden()
    press(dock.averages.button, dock.work)
    assert {"class", "angle", "dy", "dx"} <= set(points.features)
    assert "z1" not in points.features
    kinds, sublattice = points.features["class"], points.features["sublattice"]
    assert kinds.notna().all()
    assert kinds[sublattice == 0].nunique() == kinds[sublattice == 1].nunique() == 1  # two sorts of column
    assert kinds.nunique() == 2
    assert coloring_of(points).column == "class"
    assert len(shown_averages(dock)[0]) == 2
    assert points.metadata[RECIPE]["command"] == "average"
    refreshed(dock)
    assert dock.averages.save_button.isEnabled()
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.averages.save(tmp_path / "kinds")
    assert {file.name for file in (tmp_path / "kinds").iterdir()} == set(AVERAGE_FILES)
    undo_results(points)
    assert "class" not in points.features
    dock.averages.save(tmp_path / "kinds")
    qtbot.waitUntil(lambda: dock.work.state is State.FAILED)
    assert "already" in dock.work.label.text()


def test_averages_of_one_sublattice_are_results_of_so_many_atoms(points, dock, press):
    dock.choice.mode_box.setCurrentText("sublattice 1")
    press(dock.averages.button, dock.work)
    count = points.features["class"].notna().sum()
    assert count == (points.features["sublattice"] == 1).sum()
    assert f"{count} of 121 atoms have results" in dock.work.label.text()


def test_kinds_that_find_no_room_are_counted(dock):
    counts = np.arange(13, 0, -1) * 1000
    dock.averages.show_averages(
        SimpleNamespace(images=np.zeros((13, 1, 8, 8)), counts=counts, symmetry=np.ones(13, int))
    )
    pictures, labels = shown_averages(dock)
    assert len(pictures) == 10
    assert labels[0] == "13,000"
    assert labels[-1] == "and 3 more kinds, 6,000 patches"


def test_window_stays_alive_while_it_trains(qtbot, dock):
    ticks = []
    dock.form.controls["epochs"].set_value(5)
    with qtbot.waitSignal(dock.work.done, timeout=120_000):
        dock.work.start_button.click()
        qtbot.waitUntil(lambda: ticks.append(1) or len(dock.curve.epochs) >= 2, timeout=120_000)
    assert len(ticks) > 2


def test_colour_cells_and_arrows(viewer, image, points, dock, press, qtbot):
    press(dock.work.start_button, dock.work)
    dock.results.color_box.setCurrentIndex(dock.results.color_box.findData("angle"))
    dock.results.color_box.activated.emit(dock.results.color_box.currentIndex())
    assert coloring_of(points).kind == "cyclic"
    assert dock.results.legend.texts()[2] == "angle (deg)"
    press(dock.results.cells_button, dock.work)
    (cells,) = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    assert cells.data[18, 18] == 113 == points.features["atom_id"].iloc[12] + 1
    np.testing.assert_allclose(cells.scale, image.scale)
    np.testing.assert_allclose(cells.colormap.map(113), points.face_color[12], atol=0.05)
    before = cells.colormap
    dock.results.color_by("z1")
    qtbot.waitUntil(lambda: cells.colormap is not before, timeout=20_000)
    np.testing.assert_allclose(cells.colormap.map(113), points.face_color[12], atol=0.05)
    refreshed(dock).results.angles_button.click()
    dock.results.offsets_button.click()
    assert len([layer for layer in viewer.layers if isinstance(layer, Vectors)]) == 2
    assert viewer.layers.selection.active is points


def test_reconstruction_and_difference_lie_on_the_image(viewer, image, points, dock, press):
    assert not dock.results.decoded_button.isEnabled()
    press(dock.work.start_button, dock.work)
    press(refreshed(dock).results.decoded_button, dock.work)
    names = [layer.name for layer in viewer.layers]
    assert names[:3] == ["crystal", "crystal difference", "crystal reconstruction"]
    assert dock.work.label.text().startswith("The reconstruction lies on the image")
    difference, decoded = viewer.layers[1:3]
    assert decoded.visible
    assert not difference.visible
    np.testing.assert_allclose(decoded.scale, image.scale)
    assert decoded.units == image.units
    np.testing.assert_allclose(decoded.data + difference.data, image.data, atol=1e-6)
    assert viewer.layers.selection.active is points


def test_nothing_is_learned_from_a_reconstruction_unless_it_is_chosen(viewer, image, points, dock, press, told):
    decoded, _ = add_reconstruction(viewer, image.data - 1, np.ones_like(image.data), image)
    viewer.layers.selection.active = decoded  # to look at it
    assert dock.image_box.layer is image
    viewer.layers.remove(image)
    assert dock.image_box.layer is None
    assert image_under(viewer.add_points(np.zeros((1, 2))), viewer) is None
    dock.points_box.choose(points)
    dock.train()
    assert "There is no image" in told()[-1]
    dock.image_box.setCurrentText("crystal reconstruction")
    assert dock.image_box.layer is decoded


def test_stop_and_keep_gives_a_model(points, dock, qtbot):
    dock.form.controls["epochs"].set_value(100_000)
    dock.form.controls["early_stopping"].set_value(False)
    with qtbot.waitSignals([dock.work.done, dock.settling.done], timeout=120_000, order="strict"):
        dock.work.start_button.click()
        qtbot.waitUntil(lambda: len(dock.curve.epochs) >= 2, timeout=60_000)
        dock.work.keep_button.click()
    assert points.features["z1"].notna().all()
    assert 2 <= len(dock.curve.epochs) < 100_000


def test_ensemble_stopped_half_way_uses_the_members_that_are_done(points, dock, qtbot):
    dock.form.controls["members"].set_value(100)
    with qtbot.waitSignal(dock.settling.done, timeout=120_000):
        dock.work.start_button.click()
        qtbot.waitUntil(lambda: dock.curve.member >= 3, timeout=60_000)
        dock.work.keep_button.click()
    count = 1 + len(model_of(points).members)
    assert 2 <= count < 100
    assert {"z1_dispersion", "angle_dispersion"} <= set(points.features)
    assert f"{count} of 100 members are used" in dock.work.label.text()


def test_cancel_leaves_the_atoms_as_they_were(points, dock, qtbot):
    before = points.features.copy()
    dock.form.controls["epochs"].set_value(100_000)
    dock.form.controls["early_stopping"].set_value(False)
    with qtbot.waitSignal(dock.work.done, timeout=120_000):
        dock.work.start_button.click()
        qtbot.waitUntil(lambda: len(dock.curve.epochs) >= 1, timeout=60_000)
        dock.work.cancel_button.click()
    pd.testing.assert_frame_equal(points.features, before)
    assert model_of(points) is None


def test_second_training_can_be_undone(points, dock, press):
    press(dock.work.start_button, dock.work)
    first = points.features.copy()
    dock.form.controls["seed"].set_value(1)
    press(dock.work.start_button, dock.work)
    assert not np.allclose(points.features["z1"], first["z1"])
    refreshed(dock).results.undo_button.click()
    pd.testing.assert_frame_equal(points.features, first)


def test_layers_and_colours_go_and_come_with_their_results(viewer, image, points, dock, press, qtbot):
    press(dock.work.start_button, dock.work)
    dock.results.color_by("z2")
    for button in (dock.results.cells_button, dock.results.decoded_button):
        press(button, refreshed(dock).work)
    dock.results.angles_button.click()
    cells = next(layer for layer in viewer.layers if isinstance(layer, Labels))
    viewer.layers.selection.active = viewer.layers["crystal reconstruction"]
    shown, colors = list(viewer.layers), points.face_color.copy()
    dock.results.undo_button.click()
    assert list(viewer.layers) == [image, points]
    assert dock.work.label.text() == ""
    assert (dock.image_box.layer, dock.points_box.layer) == (image, points)
    assert coloring_of(points).column == "sublattice"
    assert viewer.layers.selection.active is points
    dock.results.undo_button.click()
    assert list(viewer.layers) == shown
    assert refreshed(dock).results.color_box.currentText() == "z2"
    np.testing.assert_array_equal(points.face_color, colors)
    np.testing.assert_allclose(cells.colormap.map(113), points.face_color[12], atol=0.05)


# Which atoms ----------------------------------------------------------------------------------------------------------


def test_one_sublattice_is_learned_from_and_the_other_stays_grey(points, dock, press):
    dock.choice.mode_box.setCurrentText("sublattice 1")
    refreshed(dock)
    assert dock.choice.count.text().startswith("60 of 121 atoms; ")
    press(dock.work.start_button, dock.work)
    has = points.features["z1"].notna()
    assert (has == (points.features["sublattice"] == 1)).all()
    assert (points.face_color[:, 3] == 1).all()
    assert points.metadata[RECIPE]["where"] == "sublattice == 1"


def test_selected_atoms(points, dock, press):
    chosen = set(np.flatnonzero((PLACES[:, 0] > 20) & (PLACES[:, 0] < 80)))
    points.selected_data = chosen
    dock.choice.mode_box.setCurrentText("selected atoms")
    assert refreshed(dock).choice.count.text().startswith(f"{len(chosen)} of 121")
    press(dock.work.start_button, dock.work)
    assert set(np.flatnonzero(points.features["z1"].notna())) == chosen
    assert dock.analysis.recipe.where == "used"  # the atoms in the recipe say which ones
    assert sum(dock.analysis.recipe.atoms["used"]) == len(chosen)


def test_atoms_inside_a_drawn_region(viewer, points, dock):
    corners = np.array([[0, 0], [0, 128], [64, 128], [64, 0]]) * 0.02  # in nm, as the image lies
    viewer.add_shapes([corners], shape_type="rectangle")
    dock.choice.mode_box.setCurrentText("atoms inside shapes")
    *_, table, where = dock.chosen()
    np.testing.assert_array_equal(table[where], PLACES[:, 0] < 64)


def test_expression_on_the_features(points, dock):
    dock.choice.mode_box.setCurrentText("atoms for which ...")
    dock.choice.expression.setText("snr > 20 and sublattice == 0")
    *_, table, where = dock.chosen()
    assert where == "snr > 20 and sublattice == 0"
    points.features = points.features.assign(z1=np.linspace(-1, 1, len(points.data)))
    dock.choice.expression.setText("z1 > 0")
    *_, table, where = dock.chosen()
    assert "z1" not in table
    np.testing.assert_array_equal(table[where], points.features["z1"] > 0)


@pytest.mark.parametrize(
    ("mode", "words", "message"),
    [
        ("selected atoms", "", "No atom is selected"),
        ("atoms inside shapes", "", "No atom lies inside a shape"),
        ("atoms for which ...", "snr > 1000", "No atom satisfies snr > 1000"),
        ("atoms for which ...", "sublatice == 0", "sublatice"),
        ("atoms for which ...", "snr >", "snr >"),
        ("atoms for which ...", "__import__('os')", "__import__"),
    ],
)
def test_choice_of_no_atoms_is_explained(points, dock, told, mode, words, message):
    dock.choice.mode_box.setCurrentText(mode)
    dock.choice.expression.setText(words)
    dock.work.start_button.click()
    assert message in dock.work.label.text()
    assert len(told()) == 1
    assert message in refreshed(dock).choice.count.text()
    assert not dock.work.working


# Corrections by hand --------------------------------------------------------------------------------------------------


def test_corrections_survive_training_and_are_used(viewer, points, dock, press):
    points.selected_data = {0}
    points.remove_selected()
    points.add([60.5, 61.5])
    points._move({5}, points.data[5])
    points._move({5}, points.data[5] + 0.5)
    press(dock.work.start_button, dock.work)
    assert points.features["atom_id"].tolist() == [*range(101, 221), 221]
    assert points.features["z1"].notna().all()
    np.testing.assert_allclose(points.data[-1], [60.5, 61.5])
    assert points.features["flag"].iloc[-1] == "added"


def test_edits_while_it_trains_are_kept_and_results_still_fit(points, dock, qtbot):
    with qtbot.waitSignal(dock.work.done, timeout=120_000):
        dock.work.start_button.click()
        points.selected_data = {0}
        points.remove_selected()
        points.add([60.5, 61.5])
        points._move({5}, points.data[5])
        points._move({5}, points.data[5] + 3.0)
    table = points.features.set_index("atom_id")
    assert 100 not in table.index
    assert np.isnan(table.loc[221, "z1"])  # came too late
    assert np.isnan(table.loc[106, "z1"])  # is elsewhere now
    assert table["z1"].notna().sum() == 119
    expected = dock.analysis.table.set_index("atom_id")["z1"]
    np.testing.assert_array_equal(table["z1"].dropna(), expected.loc[table["z1"].dropna().index])


def test_points_removed_while_it_trains_come_back_in_a_new_layer(viewer, points, dock, qtbot):
    with qtbot.waitSignal(dock.work.done, timeout=120_000):
        dock.work.start_button.click()
        viewer.layers.remove(points)
    (new,) = [layer for layer in viewer.layers if isinstance(layer, Points)]
    assert new is not points
    assert new.features["z1"].notna().all()
    assert dock.points_box.layer is new
    assert "new layer" in dock.work.label.text()


def test_image_removed_and_points_renamed_while_it_trains(viewer, image, points, dock, qtbot):
    with qtbot.waitSignal(dock.work.done, timeout=120_000):
        dock.work.start_button.click()
        points.name = "corrected by hand"
        viewer.layers.remove(image)
    assert points.features["z1"].notna().all()
    assert dock.points_box.currentText() == "corrected by hand"


def test_users_own_points_on_an_image_that_lies_elsewhere(viewer, pixels, make_dock, press):
    image = viewer.add_image(pixels, name="turned", scale=(0.02, 0.02), rotate=30, translate=(5, 5))
    mine = viewer.add_points(np.array([image.data_to_world(place) for place in PLACES]), size=0.1, name="mine")
    dock = make_dock()
    dock.image_box.choose(image)
    press(dock.work.start_button, dock.work)
    assert mine.features["z1"].notna().all()
    np.testing.assert_allclose(dock.analysis.table[["y", "x"]], PLACES, atol=1e-9)


# What cannot be trained -----------------------------------------------------------------------------------------------


def test_dock_opened_alone_says_what_to_do(viewer, make_dock, told):
    dock = make_dock()
    dock.work.start_button.click()
    assert "There is no image" in told()[-1]
    viewer.add_image(np.eye(32), name="image")
    dock.work.start_button.click()
    assert "There are no atoms" in told()[-1]


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (slice(0, 1), PatchSettings()),
        (slice(40, 45), PatchSettings(size=16)),  # fewer than can be learned from
        (slice(None), PatchSettings(size=200)),  # larger than the image
        (slice(None), PatchSettings(size=126)),  # every patch reaches beyond it
    ],
    ids=["one atom", "few atoms", "patch too large", "all at the edge"],
)
def test_what_cannot_be_trained_is_explained(viewer, image, make_dock, press, told, rows, settings):
    layer = add_atoms(viewer, atoms().iloc[rows].reset_index(drop=True), image)
    dock = make_dock()
    dock.form.set_value(settings)
    press(dock.work.start_button, dock.work)
    assert len(told()) == 1
    assert "Failed with" not in told()[0]
    assert "--" not in told()[0]  # no option of the command line
    assert not [name for name in layer.features if name in RESULTS]
    add_atoms(viewer, atoms(), image)
    dock.form.set_value(PatchSettings())
    press(dock.work.start_button, dock.work)
    assert dock.points_box.layer.features["z1"].notna().all()


def test_fewer_atoms_than_a_batch(viewer, image, make_dock, press):
    table = atoms()
    layer = add_atoms(viewer, table[table["flag"] == ""].iloc[:20].reset_index(drop=True), image)
    dock = make_dock()
    dock.form.controls["batch_size"].set_value(100)
    press(dock.work.start_button, dock.work)
    assert layer.features["z1"].notna().all()


def test_points_outside_the_image_are_explained(points, dock, press, told):
    points.add([500.0, 500.0])
    press(dock.work.start_button, dock.work)
    assert "outside the image" in told()[0]
    points.remove_selected()
    press(dock.work.start_button, dock.work)
    assert points.features["z1"].notna().all()


@pytest.mark.parametrize("error", [MemoryError("9 TiB"), DeviceError("The graphics card is full: choose cpu.")])
def test_no_memory_is_said_and_nothing_lost(points, dock, press, told, monkeypatch, error):
    def greedy(*args, **options):
        raise error

    before = points.features.copy()
    with monkeypatch.context() as patch:
        patch.setattr("napari_rvae.training.train", greedy)
        press(dock.work.start_button, dock.work)
    assert len(told()) == 1
    pd.testing.assert_frame_equal(points.features, before)
    press(dock.work.start_button, dock.work)
    assert points.features["z1"].notna().all()


def test_invariances_of_the_model_are_shown(dock):
    def checked():
        return [name for name, box in dock.invariance._boxes.items() if box.isChecked()]

    refreshed(dock)
    assert checked() == ["rotation", "translation"]
    assert dock.form.value(TrainSettings).invariance is None
    dock.form.controls["model"].set_value("vae")
    refreshed(dock)
    assert checked() == []
    dock.invariance.set_value(("rotation", "scale"))
    dock.form.controls["model"].set_value("rvae")
    refreshed(dock)
    assert checked() == ["rotation", "scale"]  # what the user chose stays
    assert dock.form.value(TrainSettings).invariances == ("rotation", "scale")


def test_joint_model_asks_for_the_number_of_classes(points, dock, told):
    assert not dock.form.controls["classes"].widget.isVisible()
    dock.form.controls["model"].set_value("jrvae")
    assert refreshed(dock).form.controls["classes"].widget.isVisible()
    dock.work.start_button.click()
    assert "number of classes" in told()[0]


def test_number_of_classes_is_counted_and_drawn(points, dock, press, qtbot):
    assert not dock.joint.isVisible()
    dock.form.controls["model"].set_value("jrvae")
    refreshed(dock)
    press(dock.joint.button, dock.work)
    assert dock.joint.stability["classes"].tolist() == [2, 3, 4, 5, 6, 7, 8]
    qtbot.waitUntil(dock.joint.plot.isVisible)
    (curve,) = dock.joint.plot.listDataItems()
    np.testing.assert_array_equal(curve.yData, dock.joint.stability["stability"])
    assert "classes" in dock.work.label.text()
    assert dock.form.controls["classes"].value() == stable_count(dock.joint.stability)


def test_capacity_of_classes_ends_at_the_logarithm_of_those_that_are_labelled(points, dock):
    names = np.array(["a", "b", "c", "d"], object)[np.arange(len(points.features)) % 4]
    points.features = points.features.assign(annotation=names)
    dock.form.controls["model"].set_value("ssrvae")
    dock.form.controls["class_capacity"].set_value(10.0)
    (curve,) = refreshed(dock).joint.capacities.listDataItems()
    assert curve.getData()[1].max() == pytest.approx(np.log(4))


def test_schedule_of_the_capacities_is_drawn(points, dock):
    dock.form.controls["model"].set_value("jrvae")
    assert refreshed(dock).joint.capacities is None
    dock.form.controls["latent_capacity"].set_value(6.0)
    dock.form.controls["latent_capacity_epochs"].set_value(10)
    (curve,) = refreshed(dock).joint.capacities.listDataItems()
    np.testing.assert_allclose(np.interp([0, 5, 10, 12], curve.xData, curve.yData), [0, 3, 6, 6], atol=0.1)
    dock.form.controls["class_capacity"].set_value(1.0)
    assert [one.name() for one in refreshed(dock).joint.capacities.listDataItems()] == ["latents", "classes"]
    dock.form.controls["model"].set_value("rvae")
    assert not refreshed(dock).joint.isVisible()


def test_labels_come_from_the_classes_given_by_hand(points, dock, press, told):
    form = dock.form.controls
    assert not form["label_column"].widget.isVisible()
    form["model"].set_value("ssrvae")
    assert refreshed(dock).form.controls["label_column"].widget.currentText() == "annotation (no classes yet)"
    press(dock.work.start_button, dock.work)
    assert "no column annotation" in told()[-1]
    kind = np.where(PLACES.sum(1) // 12 % 2, "light", "heavy").astype(object)
    kind[40:] = None
    points.features = points.features.assign(annotation=pd.Categorical(kind))
    assert refreshed(dock).form.controls["label_column"].widget.currentText() == "annotation (40 atoms)"
    press(dock.work.start_button, dock.work)
    assert points.features["class"].nunique() == 2
    drawn = [curve.name() for curve in dock.curve._plot.listDataItems() if np.isfinite(curve.yData).all()]
    assert drawn == ["learned from", "misfit", "information in z", "labels"]  # nothing was held out
    assert dock.curve.legend.text().endswith("labels")
    assert dock.analysis.recipe.used["class_names"] == ["heavy", "light"]
    assert refreshed(dock).results.legend.texts() == ["0: heavy", "1: light"]
    assert dock.analysis.recipe.atoms["annotation"][38:42] == [kind[38], kind[39], None, None]


def test_labels_may_be_a_quantity_that_is_predicted_for_all(points, dock, press):
    known = np.where(np.arange(len(PLACES)) % 3 == 0, PLACES[:, 0] / 7, np.nan)
    points.features = points.features.assign(composition=known)
    form = dock.form.controls
    form["model"].set_value("ssrvae")
    box = refreshed(dock).form.controls["label_column"].widget
    row = box.findData("composition")
    assert box.itemText(row).startswith("composition")
    assert f"({np.isfinite(known).sum()} atoms)" in box.itemText(row)
    box.setCurrentIndex(row)
    box.activated.emit(row)
    press(dock.work.start_button, dock.work)
    assert points.features[["predicted", "predicted_error"]].notna().all(axis=None)
    np.testing.assert_array_equal(points.features["composition"], known)
    assert dock.analysis.recipe.used["value_column"] == "composition"


def test_condition_is_a_choice_of_columns(points, dock, press, told, qtbot):
    dock.form.controls["model"].set_value("crvae")
    column = refreshed(dock).form.controls["condition_columns"]
    assert column.widget.width() > 100  # it can be seen, whatever its text
    press(dock.work.start_button, dock.work)
    assert "name the columns" in told()[-1]
    offered = {action.text(): action for action in column.widget.menu().actions()}
    assert {"snr", "sublattice"} <= set(offered)
    assert "z1" not in offered
    offered["snr"].trigger()
    offered["sublattice"].trigger()
    assert column.widget.text() == "snr, sublattice"
    press(dock.work.start_button, dock.work)
    assert points.features["z1"].notna().all()
    refreshed(dock)
    with qtbot.waitSignal(dock.work.done, timeout=120_000):
        dock.files.apply_action.trigger()  # the model asks for the same columns
    assert points.features["z1"].notna().all()


def test_colour_image_is_explained(viewer, points, dock, told):
    dock.image_box.choose(viewer.add_image(np.zeros((64, 64, 3), np.uint8), rgb=True, name="photo"))
    dock.points_box.choose(points)
    dock.image_box.choose(viewer.layers["photo"])
    dock.work.start_button.click()
    assert "'photo' is a colour image" in told()[0]


# Stacks, pixels, devices ----------------------------------------------------------------------------------------------


def test_stack_is_trained_as_a_whole(viewer, pixels, make_dock, press):
    movie = viewer.add_image(np.stack([pixels, pixels[::-1]]), name="movie")
    table = pd.concat([atoms().assign(frame=0), atoms().assign(frame=1)], ignore_index=True)
    points = add_atoms(viewer, table.assign(atom_id=np.arange(len(table))), movie)
    dock = make_dock()
    press(dock.work.start_button, dock.work)
    assert points.features["z1"].notna().all()
    press(refreshed(dock).results.cells_button, dock.work)
    assert viewer.layers[-1].data.shape == (2, 128, 128)


def test_oblong_pixels_are_said(viewer, pixels, make_dock):
    image = viewer.add_image(pixels, scale=(0.02, 0.03), units=("nm", "nm"), name="oblong")
    add_atoms(viewer, atoms(), image)
    dock = refreshed(make_dock())
    assert dock.pixels.isVisible()
    assert "0.02 x 0.03 nm" in dock.pixels.text()
    assert "square physical grid" in dock.pixels.text()
    image.scale = (0.02, 0.0201)
    assert not refreshed(dock).pixels.isVisible()


def test_device_that_will_be_used_is_said(dock):
    dock.device.devices = []
    gpu = SimpleNamespace(name="cuda:0", label="NVIDIA H100, 78 GB free", note="")
    cpu = SimpleNamespace(name="cpu", label="processor, 1 thread", note="No graphics card was found.")
    dock._on_devices([gpu, cpu])
    words = refreshed(dock).device_label.text()
    assert words.startswith("Will train on: NVIDIA H100, 78 GB free")
    assert "as fast on the processor" in words  # 121 patches
    dock.device.set_value("cpu")
    words = refreshed(dock).device_label.text()
    assert words.startswith("Will train on: processor, 1 thread")
    assert "No graphics card was found." in words
    assert dock.form.value(TrainSettings).device == "cpu"


def test_note_on_small_work_counts_the_chosen_atoms(viewer, image, make_dock):
    many = pd.DataFrame({"y": np.linspace(5, 100, 3000), "x": np.linspace(5, 100, 3000), "sublattice": 0})
    many.loc[:99, "sublattice"] = 1
    add_atoms(viewer, many.assign(atom_id=np.arange(3000)), image)
    dock = make_dock()
    dock._on_devices([SimpleNamespace(name="cuda:0", label="NVIDIA H100, 78 GB free", note="")])
    assert "as fast on the processor" not in refreshed(dock).device_label.text()
    dock.choice.mode_box.setCurrentText("sublattice 1")
    assert "as fast on the processor" in refreshed(dock).device_label.text()


def test_free_memory_is_looked_up_again_when_a_training_ends(dock, press, qtbot, monkeypatch):
    def there_is(text):
        device = SimpleNamespace(name="cpu", label=text, note="")
        monkeypatch.setattr("napari_rvae.widgets.train.devices_here", lambda: [device])

    def offered():
        return dock.device.widget.itemText(1)

    dock.device.set_value("cpu")
    there_is("3 GB free")
    press(dock.work.start_button, dock.work)
    qtbot.waitUntil(lambda: offered() == "cpu: 3 GB free")
    there_is("2 GB free")
    dock.hide()
    dock.show()
    qtbot.waitUntil(lambda: offered() == "cpu: 2 GB free")
    assert dock.device.value() == "cpu"  # what the user chose stays


def test_preferences_are_the_start(points, make_dock, monkeypatch, tmp_path):
    from napari.settings import get_plugin_settings
    from npe2 import PluginManager

    PluginManager.instance().discover()
    saved = get_plugin_settings("napari-rvae").training
    monkeypatch.setattr(saved, "device", "cpu")
    monkeypatch.setattr(saved, "threads", 3)
    monkeypatch.setattr(saved, "cache", str(tmp_path / "mine"))
    dock = make_dock()
    assert dock.device.value() == "cpu"
    assert dock.form.controls["threads"].value() == 1  # what the fixture has set
    assert TrainWidget(dock.viewer).form.value(TrainSettings).threads == 3
    assert dock.cache == tmp_path / "mine"
    dock.form.set_value(TrainSettings(threads=2, epochs=7))
    dock.form.reset_button.click()
    assert (dock.form.controls["threads"].value(), dock.device.value()) == (3, "cpu")
    assert dock.form.value(TrainSettings).epochs == TrainSettings().epochs


def test_preferred_colours_are_used(points, monkeypatch):
    from napari.settings import get_plugin_settings
    from napari.utils.colormaps import ensure_colormap
    from npe2 import PluginManager

    PluginManager.instance().discover()
    saved = get_plugin_settings("napari-rvae").colors
    monkeypatch.setattr(saved, "numbers", "gray")
    monkeypatch.setattr(saved, "angles", "twilight")
    points.features = points.features.assign(angle=np.linspace(0, 6, len(points.data)))
    np.testing.assert_allclose(
        color_points(points, "snr").colormap.map(0.3), ensure_colormap("gray").map(0.3), atol=0.01
    )
    expected = ensure_colormap("twilight").map(0.3)
    np.testing.assert_allclose(color_points(points, "angle").colormap.map(0.3), expected, atol=0.02)


# The patch under the cursor -------------------------------------------------------------------------------------------


def hover(viewer, image, place):
    for callback in viewer.mouse_move_callbacks:
        callback(viewer, SimpleNamespace(position=image.data_to_world(place)))


def test_patch_of_the_atom_under_the_cursor(viewer, image, points, dock, qtbot):
    qtbot.waitUntil(lambda: dock.form.controls["size"].widget.text() == "auto (36 px)", timeout=20_000)
    hover(viewer, image, (55, 53))
    shapes = viewer.layers[NAME]
    square, circle = shapes.data
    np.testing.assert_allclose(square.mean(0), [54, 54])
    np.testing.assert_allclose(square.max(0) - square.min(0), 36)  # three neighbour distances
    np.testing.assert_allclose(circle, square)
    assert list(shapes.shape_type) == ["rectangle", "ellipse"]
    np.testing.assert_allclose(shapes.scale, image.scale)
    assert viewer.layers.selection.active is points
    dock.invariance.set_value(("rotation", "translation", "strain"))
    qtbot.waitUntil(lambda: dock.form.controls["size"].widget.text() == "auto (60 px)", timeout=20_000)
    dock.form.controls["size"].set_value(20)
    refreshed(dock)
    hover(viewer, image, (67, 65))
    square, _ = shapes.data
    np.testing.assert_allclose(square.mean(0), [66, 66])
    np.testing.assert_allclose(square.max(0) - square.min(0), 20)
    assert list(shapes.shape_type) == ["rectangle", "ellipse"]
    hover(viewer, image, (300, 300))
    assert not shapes.visible
    dock.cursor_box.setChecked(False)
    refreshed(dock)
    assert NAME not in viewer.layers


def test_patch_on_oblong_pixels_is_square_in_the_world(viewer, pixels, make_dock):
    image = viewer.add_image(pixels, scale=(0.02, 0.04), name="oblong")
    add_atoms(viewer, atoms(), image)
    dock = make_dock()
    dock.form.set_value(PatchSettings(size=20))
    refreshed(dock)
    hover(viewer, image, (54, 54))
    square = viewer.layers[NAME].data[0]
    np.testing.assert_allclose(square.max(0) - square.min(0), [40, 20])


# A clean image --------------------------------------------------------------------------------------------------------


def test_clean_image_is_chosen_among_those_of_the_same_shape(viewer, image, points, make_dock, press, told):
    calm = viewer.add_image(10 * crystal(seed=1) + 5, name="calm", scale=image.scale, units=image.units)
    viewer.add_image(np.zeros((64, 64)), name="small")
    viewer.add_image(np.zeros((128, 128, 3)), name="colours")
    viewer.layers.selection.active = points
    dock = refreshed(make_dock())
    assert dock.clean_box.isVisibleTo(dock.form.folded.content())
    assert [dock.clean_box.itemText(k) for k in range(dock.clean_box.count())] == ["none", "calm"]
    press(dock.work.start_button, dock.work)
    alone = points.features["z1"].copy()
    assert "clean" not in points.metadata[RECIPE]["inputs"]
    dock.clean_box.choose(calm)
    viewer.layers.selection.active = calm  # to look at it
    assert (dock.image_box.layer, dock.clean_box.layer) == (image, calm)
    press(dock.work.start_button, dock.work)
    assert not np.allclose(points.features["z1"], alone)
    assert dock.analysis.clean.name == "calm"
    assert points.metadata[RECIPE]["inputs"]["clean"]["path"].endswith("calm")
    calm.data = np.random.default_rng(0).random((128, 128))
    press(dock.work.start_button, dock.work)
    assert "does not show what the noisy one shows" in told()[-1]
    dock.form.reset_button.click()
    assert dock.clean_box.layer is None
    dock.clean_box.choose(calm)
    viewer.layers.remove(calm)
    assert dock.clean_box.layer is None
    dock.image_box.choose(viewer.layers["small"])
    assert dock.clean_box.count() == 1


# Models and results on disk -------------------------------------------------------------------------------------------


def test_the_legend_names_grey_only_where_something_is(points, dock):
    legend = dock.results.legend

    def told(column):
        dock.results.color_by(column)
        legend.grab()
        return legend.texts()

    assert told("sublattice") == ["0", "1"]
    assert told("snr")[2] == "snr"
    points.add([60.5, 61.5])
    assert told("sublattice") == ["0", "1", "no value"]
    assert told("snr")[2] == "snr · grey: no value"


def test_results_are_saved_with_later_corrections(viewer, image, points, dock, press, tmp_path, qtbot):
    press(dock.work.start_button, dock.work)
    points.add([60.5, 61.5])
    refreshed(dock)
    assert dock.files.save_button.isEnabled()
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_results(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "latent.csv", "model.safetensors", "recipe.json", "summary.png", "cells.ome.tif", "image.npy",
    }  # fmt: skip
    table = pd.read_csv(tmp_path / "out" / "latent.csv")
    assert table["atom_id"].tolist() == points.features["atom_id"].tolist()
    np.testing.assert_allclose(table["y_nm"], 0.02 * table["y"])
    np.testing.assert_allclose(table["z1"], points.features["z1"])
    assert dock.work.label.text() == f"Saved in {tmp_path / 'out'}"
    add_atoms(viewer, atoms(), image)  # becomes the chosen one
    assert dock.points_box.layer is not points
    assert dock.work.label.isHidden()


def test_results_that_cannot_be_saved_say_why(points, dock, press, qtbot):
    button = refreshed(dock).files.save_button
    assert not button.isEnabled()
    assert "no results to save yet" in button.toolTip()
    press(dock.work.start_button, dock.work)
    assert "Table, model, recipe" in refreshed(dock).files.save_button.toolTip()
    points.metadata = {RECIPE: None, MODEL: copy(model_of(points))}  # as a script may leave them
    assert not refreshed(dock).files.save_button.isEnabled()
    assert "not known how" in button.toolTip()


def test_results_that_undo_brought_back_are_saved(points, dock, press, tmp_path, qtbot):
    for name in ("first", "second"):
        press(dock.work.start_button, dock.work)
        with qtbot.waitSignal(dock.work.done, timeout=60_000):
            dock.files.save_results(tmp_path / name)
        dock.form.controls["seed"].set_value(5)
    dock.results.undo_button.click()
    assert refreshed(dock).files.save_button.isEnabled()
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_results(tmp_path / "undone")
    for name in ("latent.csv", "model.safetensors"):
        first, second, undone = ((tmp_path / folder / name).read_bytes() for folder in ("first", "second", "undone"))
        assert undone == first != second


def test_results_that_are_there_are_not_replaced_unasked(points, dock, press, tmp_path, qtbot, told):
    press(dock.work.start_button, dock.work)
    (tmp_path / "latent.csv").write_text("mine")
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_results(tmp_path)
    assert "latent.csv" in told()[0]
    assert (tmp_path / "latent.csv").read_text() == "mine"


def test_model_is_saved_loaded_and_applied(viewer, image, points, dock, press, tmp_path, qtbot):
    press(dock.work.start_button, dock.work)
    file = tmp_path / "model.safetensors"
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_model(file)
    other = add_atoms(viewer, atoms(), image)
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.load_model(file)
    assert "rvae, 2 latent dimensions" in dock.work.label.text()
    dock.points_box.choose(other)
    refreshed(dock)
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.apply_action.trigger()
    np.testing.assert_allclose(other.features["z1"], points.features["z1"], atol=1e-4)
    assert model_of(other) is dock.files.loaded
    press(dock.work.start_button, dock.work)
    assert dock.files.model is dock.analysis.model  # not the one that was loaded before


def test_model_is_applied_to_another_image(viewer, points, dock, press, tmp_path, qtbot, pixels):
    press(dock.work.start_button, dock.work)
    np.save(tmp_path / "other.npy", pixels[::-1][:64])
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.apply_to_image(tmp_path / "other.npy")
    new = viewer.layers["other atoms"]
    assert viewer.layers["other"].data.shape == (64, 128)
    assert [layer for layer in viewer.layers if layer.visible] == [viewer.layers["other"], new]
    camera = getattr(viewer, "scene", viewer).camera
    np.testing.assert_allclose(camera.center[-2:], [31.5, 63.5], atol=2)  # of pixels without a unit; the first are nm
    assert new.features["z1"].notna().all()
    assert coloring_of(new).column == "z1"
    assert dock.points_box.layer is new
    assert "atoms have results" in dock.work.label.text()
    assert refreshed(dock).files.save_button.isEnabled()
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_results(tmp_path / "out")
    saved = pd.read_csv(tmp_path / "out" / "latent.csv")
    np.testing.assert_allclose(saved["z1"], new.features["z1"])
    assert cli.main(["repeat", str(tmp_path / "out" / "recipe.json"), "-o", str(tmp_path / "again")]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "again" / "latent.csv"), saved, check_exact=True)


def test_results_of_an_applied_model_are_saved_and_repeated(image, points, dock, press, tmp_path, qtbot):
    press(dock.work.start_button, dock.work)
    dock.choice.mode_box.setCurrentText("sublattice 1")
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        refreshed(dock).files.apply_action.trigger()
    assert points.features["z1"].notna().sum() == (points.features["sublattice"] == 1).sum()
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_results(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "latent.csv", "model.safetensors", "recipe.json", "summary.png", "cells.ome.tif", "image.npy",
    }  # fmt: skip
    saved = pd.read_csv(tmp_path / "out" / "latent.csv")
    np.testing.assert_allclose(saved["z1"], points.features["z1"])
    assert cli.main(["repeat", str(tmp_path / "out" / "recipe.json"), "-o", str(tmp_path / "again")]) == 0
    again = pd.read_csv(tmp_path / "again" / "latent.csv")
    pd.testing.assert_frame_equal(again[saved.columns], saved, check_exact=True)
    image.data = image.data + 1
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_results(tmp_path / "out", force=True)
    assert "other pixels" in dock.work.label.text()


def test_model_is_applied_to_a_folder(points, dock, press, tmp_path, qtbot, pixels):
    press(dock.work.start_button, dock.work)
    for name, data in (("a", pixels), ("b", np.zeros((40, 40))), ("c", pixels.T)):
        np.save(tmp_path / f"{name}.npy", data)
    refreshed(dock).files.folder_action.trigger()
    batch = dock.files.batch
    batch.work.start_button.click()
    assert "Choose a folder" in batch.work.label.text()
    batch.choose_folder(tmp_path)
    batch.choose_output(tmp_path / "out")
    with qtbot.waitSignal(batch.work.done, timeout=60_000):
        batch.work.start_button.click()
    states = [batch.table.item(row, 1).text() for row in range(3)]
    assert states[::2] == ["done", "done"]
    assert "constant" in states[1]
    assert batch.table.item(0, 2).text() == "121 of 121"
    assert batch.summary.text().startswith("2 done, 1 failed; ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.csv", "c.csv", "summary.csv"]
    press(batch.work.start_button, batch.work)
    assert batch.work.label.text().endswith("exists already; choose another place or have it replaced")
    assert batch.replace_box.text() == "Replace what is there"
    batch.replace_box.click()
    press(batch.work.start_button, batch.work)
    assert batch.summary.text().startswith("2 done, 1 failed; ")
    with qtbot.waitSignal(batch.destroyed):
        batch.close()


def test_folder_that_is_cancelled_says_what_was_done(points, dock, press, tmp_path, qtbot, pixels, monkeypatch):
    from napari_rvae.workflows import applying

    at_last, go_on, load = Event(), Event(), applying.load_image

    def slow(path):
        if path.stem == "c":
            at_last.set()
            go_on.wait(20)
        return load(path)

    press(dock.work.start_button, dock.work)
    for name in "abcd":
        np.save(tmp_path / f"{name}.npy", pixels if name != "b" else np.zeros((40, 40)))
    monkeypatch.setattr(applying, "load_image", slow)
    refreshed(dock).files.folder_action.trigger()
    batch = dock.files.batch
    batch.choose_folder(tmp_path)
    batch.choose_output(tmp_path / "out")
    with qtbot.waitSignal(batch.work.done, timeout=60_000):
        batch.work.start_button.click()
        qtbot.waitUntil(at_last.is_set, timeout=60_000)
        batch.work.cancel_button.click()
        go_on.set()
    assert batch.summary.text().startswith("1 done, 1 failed, 2 not done; 121 atoms")
    assert [batch.table.item(row, 1).text() for row in (0, 2, 3)] == ["done", "not done", "not done"]
    assert batch.work.label.text() == ""
    assert batch.work.start_button.isEnabled()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.csv", "summary.csv"]
    with qtbot.waitSignal(batch.destroyed):
        batch.close()


def test_damaged_model_is_explained(dock, tmp_path, qtbot, told):
    (tmp_path / "model.safetensors").write_bytes(b"no model")
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.load_model(tmp_path / "model.safetensors")
    assert "not a model file" in told()[0]
    assert not refreshed(dock).files.apply_action.isEnabled()


def test_dialogs_ask_before_they_replace(points, dock, press, tmp_path, qtbot, monkeypatch):
    from qtpy.QtWidgets import QFileDialog, QMessageBox

    press(dock.work.start_button, dock.work)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        refreshed(dock).files.save_button.click()
    stamp = (tmp_path / "recipe.json").stat().st_mtime_ns
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.No)
    refreshed(dock).files.save_button.click()
    assert not dock.work.working
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_button.click()
    assert (tmp_path / "recipe.json").stat().st_mtime_ns > stamp


# Coming and going -----------------------------------------------------------------------------------------------------


def test_closing_the_dock_ends_the_training_and_lets_go(viewer, image, points, make_dock, qtbot):
    dock = make_dock()
    dock.form.set_value(PatchSettings(size=20))
    refreshed(dock)
    hover(viewer, image, (54, 54))
    assert NAME in viewer.layers
    dock.form.controls["epochs"].set_value(100_000)
    dock.form.controls["early_stopping"].set_value(False)
    dock.work.start_button.click()
    qtbot.waitUntil(lambda: len(dock.curve.epochs) >= 1, timeout=60_000)
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.closed()
    assert NAME not in viewer.layers
    assert viewer.mouse_move_callbacks == []
    points.add([60.0, 60.0])
    viewer.add_image(np.eye(16))


def test_following_the_active_layer(viewer, image, points, dock):
    other = viewer.add_image(np.eye(64), name="other")
    assert dock.image_box.layer is other
    viewer.layers.selection.active = points
    assert dock.points_box.layer is points
    assert dock.image_box.layer is image


def test_atoms_have_a_table_as_the_steps_expect(points, image):
    table = atoms_table(points, image)
    pd.testing.assert_frame_equal(table[atoms().columns], atoms(), check_dtype=False)


def test_a_term_of_ones_own_is_chosen_and_recorded(points, dock, press, monkeypatch):
    from napari_rvae.training import physics

    monkeypatch.setattr(physics, "_TERMS", dict(physics._TERMS))
    choice = dock.form.controls["physics"]
    assert choice.value() == ""
    physics.register_physics("small", lambda patches, latents: latents.square().sum(1))
    choice.widget.showPopup()
    choice.widget.hidePopup()
    names = [choice.widget.itemText(row) for row in range(choice.widget.count())]
    assert names == ["none", "small", "smooth", "symmetry-2", "symmetry-3", "symmetry-4", "symmetry-6"]
    choice.widget.setCurrentIndex(1)
    choice.widget.activated.emit(1)
    press(dock.work.start_button, dock.work)
    assert np.isfinite(dock.curve.values["physics"]).all()
    recipe = model_of(points).recipe
    assert recipe["training"]["physics"] == "small"
    assert "test_a_term" in recipe["physics"]
    choice.set_value("not here")
    choice.offer()
    assert choice.value() == "not here"
