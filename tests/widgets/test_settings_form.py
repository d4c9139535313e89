"""Forms are made from the settings and give them back."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QSlider

from napari_rvae.settings import AverageSettings, ClusterSettings, FindSettings, PatchSettings, TrainSettings
from napari_rvae.widgets.settings_form import SettingsForm


@pytest.fixture
def form(qtbot):
    def make(*kinds, **options):
        widget = SettingsForm(*kinds, **options)
        qtbot.addWidget(widget)
        return widget

    return make


@pytest.mark.parametrize("kind", [FindSettings, PatchSettings, AverageSettings, ClusterSettings, TrainSettings])
def test_untouched_form_gives_the_defaults(form, kind):
    assert form(kind).value(kind) == kind()


@pytest.mark.parametrize(
    "settings",
    [
        FindSettings(contrast="dark", spacing=12.25, sigma=0.31, threshold=4.5, refine=False, sublattices=3),
        PatchSettings(size=40, working_size=32, normalization="patch"),
        AverageSettings(invariance=("rotation", "strain"), kinds=4),
        TrainSettings(model="vae", latent=3, learning_rate=0.0005, seed=2**31 - 1, angle_prior=0.5, threads=2),
        TrainSettings(invariance=("rotation", "translation", "scale", "strain"), beta=2.5),
    ],
)
def test_what_is_shown_comes_back(form, settings):
    widget = form(type(settings))
    widget.set_value(settings)
    assert widget.value(type(settings)) == settings


def test_every_field_says_what_it_means(form):
    widget = form(TrainSettings)
    for name, field in TrainSettings.model_fields.items():
        assert field.description in widget.controls[name].widget.toolTip()


def test_advanced_fields_are_folded_away_and_reset_brings_defaults(form, qtbot):
    widget = form(TrainSettings)
    widget.show()
    assert widget.controls["epochs"].widget.isVisible()
    assert widget.controls["beta"].widget.visibleRegion().isEmpty()
    widget.folded.expand(animate=False)
    qtbot.waitUntil(lambda: not widget.controls["beta"].widget.visibleRegion().isEmpty())
    widget.set_value(TrainSettings(epochs=3, beta=7, model="ae"))
    widget.reset_button.click()
    assert widget.value(TrainSettings) == TrainSettings()


def test_auto_shows_what_it_came_to_and_gives_way_to_typing(form, qtbot):
    widget = form(FindSettings)
    box = widget.controls["spacing"].widget
    assert box.text() == "auto"
    widget.set_estimates({"spacing": 12.345})
    assert box.text() == "auto (12.3 px)"
    assert widget.value(FindSettings).spacing is None
    box.selectAll()
    with qtbot.waitSignal(widget.changed):
        qtbot.keyClicks(box, "15.5")
        qtbot.keyClick(box, Qt.Key.Key_Return)
    assert widget.value(FindSettings).spacing == 15.5


def test_lengths_are_shown_in_the_images_unit_and_mean_pixels(form):
    widget = form(FindSettings)
    widget.set_value(FindSettings(spacing=20.0, threshold=5.0))
    widget.set_pixel(0.02, "nm")
    assert widget.controls["spacing"].widget.text() == "0.4000 nm"
    assert widget.controls["threshold"].widget.text() == "5.0000"
    widget.controls["spacing"].widget.setValue(0.3)
    assert widget.value(FindSettings).spacing == pytest.approx(15)
    widget.set_pixel(None, "")
    assert widget.controls["spacing"].widget.text() == "15.0000 px"
    assert widget.value(FindSettings) == FindSettings(spacing=15.0, threshold=5.0)


@pytest.mark.parametrize(("size", "unit", "shown"), [(2e-5, "um", "0.0000460 um"), (2e-11, "m", "0.0000000000460 m")])
def test_lengths_in_large_units_keep_their_digits(form, size, unit, shown):
    widget = form(FindSettings)
    widget.set_value(FindSettings(sigma=2.3))
    widget.set_pixel(size, unit)
    assert widget.controls["sigma"].widget.text() == shown
    assert widget.value(FindSettings).sigma == pytest.approx(2.3)
    widget.controls["sigma"].widget.setValue(3.1 * size)
    assert widget.value(FindSettings).sigma == pytest.approx(3.1, abs=0.005)
    widget.controls["sigma"].set_value(None)
    assert widget.value(FindSettings) == FindSettings()


def test_change_is_told_once(form, qtbot):
    widget = form(FindSettings)
    heard = []
    widget.changed.connect(lambda: heard.append(1))
    widget.controls["contrast"].set_value("dark")
    assert heard == [1]


def test_slider_starts_from_what_auto_came_to_and_auto_comes_back(form):
    widget = form(FindSettings)
    widget.set_pixel(0.02, "nm")
    sigma = widget.controls["sigma"]
    widget.set_estimates({"sigma": 2.0})
    assert not sigma.auto_button.isEnabled()
    start = sigma.slider.value()
    assert start == pytest.approx(sigma.slider.maximum() * np.log(2 / 0.5) / np.log(40 / 0.5), abs=1)
    sigma.slider.triggerAction(QSlider.SliderAction.SliderSingleStepAdd)
    given = widget.value(FindSettings).sigma
    assert 2.0 < given < 2.05
    assert sigma.widget.text() == f"{0.02 * given:.4f} nm"
    sigma.slider.setValue(sigma.slider.maximum())
    assert widget.value(FindSettings).sigma == pytest.approx(40)
    sigma.auto_button.click()
    assert widget.value(FindSettings) == FindSettings()
    assert sigma.slider.value() == start


def test_keys_move_a_slider_through_all_of_its_range(form):
    widget = form(FindSettings)
    widget.set_pixel(0.02, "nm")  # where a step is less than what the number shows
    slider = widget.controls["sigma"].slider
    slider.setValue(0)
    for _ in range(30):
        slider.triggerAction(QSlider.SliderAction.SliderSingleStepAdd)
    assert slider.value() == 30
    assert widget.value(FindSettings).sigma == pytest.approx(0.5 * 80 ** (30 / slider.maximum()), rel=0.01)


@pytest.mark.parametrize("part", ["widget", "slider"])
def test_wheel_over_a_number_changes_nothing_in_passing(form, part):
    widget = form(FindSettings)
    box = getattr(widget.controls["spacing"], part)
    before = box.value()
    where, down = QPointF(5, 5), QPoint(0, -120)
    button, key, phase = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase
    event = QWheelEvent(where, where, down, down, button, key, phase, False)
    QApplication.sendEvent(box, event)
    assert box.value() == before
