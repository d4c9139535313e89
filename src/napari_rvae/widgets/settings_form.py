"""A form for the settings of a step, made from their fields: names, ranges, units and help are said once, there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from magicgui.widgets import create_widget
from pydantic.fields import FieldInfo
from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QGridLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_rvae.settings import Settings

_LARGEST = 1e9
_DECIMALS = 4


class Control(QObject):
    """One setting: its widget and the way from the widget's value to the setting's."""

    changed = Signal()
    widget: QWidget

    @property
    def shown(self) -> QWidget:
        """What a form shows: the widget, and what belongs to it."""
        return self.widget

    def value(self) -> Any:
        """Return the setting."""
        raise NotImplementedError

    def set_value(self, value: Any) -> None:
        """Show a setting."""
        raise NotImplementedError


class Plain(Control):
    """A choice, a switch or a text, as magicgui shows it."""

    def __init__(self, annotation: Any, default: Any, optional: bool = False) -> None:
        super().__init__()
        self._optional = optional
        self._inner = create_widget(annotation=annotation, value="" if optional else default)
        self._inner.changed.connect(self._on_changed)
        self.widget = self._inner.native
        self.widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def _on_changed(self, _: Any) -> None:
        self.changed.emit()

    def value(self) -> Any:
        """Return what is chosen."""
        return (self._inner.value or None) if self._optional else self._inner.value

    def set_value(self, value: Any) -> None:
        """Choose."""
        self._inner.value = "" if value is None and self._optional else value


class Number(Control):
    """A number, with its unit; at its lower end "auto" where it may be left open.

    A length in pixels is shown in the image's own unit where there is one, and still means pixels.
    """

    def __init__(self, kind: type, optional: bool, bounds: tuple[float, float], unit: str) -> None:
        super().__init__()
        self._kind, self._optional, self._bounds, self._unit = kind, optional, bounds, unit
        self._factor = 1.0
        self._estimate: float | None = None
        # magicgui's box for whole numbers shows no special text, hence the one for numbers without decimals
        self._inner = create_widget(annotation=float, widget_type="FloatSpinBox", options={"step": None})
        self.widget = self._inner.native
        self.widget.setKeyboardTracking(False)
        self.widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.widget.installEventFilter(self)
        self.widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._inner.changed.connect(self._on_changed)
        self.set_scale(1.0, unit)

    def _on_changed(self, _: Any) -> None:
        self.changed.emit()

    def set_scale(self, factor: float, unit: str) -> None:
        """Show `factor` times the setting, in another unit."""
        value = self.value() if self._inner.max else None
        self._factor = factor
        low, high = (bound * factor for bound in self._bounds)
        # a hundredth of a pixel shows in any unit
        decimals = 0 if self._kind is int else max(_DECIMALS, math.ceil(2 - math.log10(factor)))
        self._step = 10.0**-decimals
        blocked = self.widget.blockSignals(True)
        self.widget.setDecimals(decimals)
        self.widget.setRange(low - self._step if self._optional else low, high)
        self.widget.setSuffix(f" {unit}" if unit else "")
        self.set_value(value)
        self.widget.blockSignals(blocked)
        self.set_estimate(self._estimate)

    def set_estimate(self, value: float | None) -> None:
        """Show what "auto" came to."""
        self._estimate = value
        if self._optional:
            known = "" if value is None else f" ({value * self._factor:.3g}{self.widget.suffix()})"
            self.widget.setSpecialValueText(f"auto{known}")

    def value(self) -> Any:
        """Return the number in the setting's own unit, None for auto."""
        shown = self.widget.value()
        if self._optional and shown <= self.widget.minimum():
            return None
        return self._kind(round(shown) if self._kind is int else round(shown / self._factor, 6))

    def set_value(self, value: Any) -> None:
        """Show a number given in the setting's own unit, or auto for None."""
        self.widget.setValue(self.widget.minimum() if value is None else value * self._factor)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Keep the wheel from changing numbers in passing; select all where typing begins."""
        if event is not None and event.type() == QEvent.Type.Wheel and not watched.hasFocus():
            event.ignore()
            return True
        if event is not None and event.type() == QEvent.Type.FocusIn and watched is self.widget:
            QTimer.singleShot(0, self.widget.selectAll)
        return False


class Sliding(Number):
    """A number that may be left open, with a slider under it whose steps are equal ratios.

    Where it is left open the slider stands at what it came to. A number beyond the slider's ends can be typed.
    """

    _TICKS = 1000

    def __init__(self, kind: type, bounds: tuple[float, float], unit: str, ends: tuple[float, float]) -> None:
        self._usual = self._ends = ends
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, self._TICKS)
        self.slider.setPageStep(self._TICKS // 20)
        self.slider.setValue(self._TICKS // 2)
        self.slider.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.auto_button = QToolButton()
        self.auto_button.setText("auto")
        self.auto_button.setToolTip("<p>Have it estimated from the image again.</p>")
        super().__init__(kind, True, bounds, unit)
        self.slider.installEventFilter(self)
        self.slider.valueChanged.connect(self._on_slider)
        self.auto_button.clicked.connect(partial(self.set_value, None))
        self._all = QWidget()
        grid = QGridLayout(self._all)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(0)
        grid.addWidget(self.widget, 0, 0, 1, 2)
        grid.addWidget(self.slider, 1, 0)
        grid.addWidget(self.auto_button, 1, 1)

    @property
    def shown(self) -> QWidget:
        """The number, its slider, and the button that leaves it open."""
        return self._all

    def set_highest(self, value: float) -> None:
        """Let the slider move up to some value, or to its usual end where that is higher."""
        self._ends = self._usual[0], max(self._usual[1], value)
        self._follow()

    def set_estimate(self, value: float | None) -> None:
        """Show what "auto" came to."""
        super().set_estimate(value)
        self._follow()

    def _on_changed(self, _: Any) -> None:
        self._follow()
        super()._on_changed(_)

    def _follow(self) -> None:
        """Put the slider where the number is."""
        given, (low, high) = self.value(), self._ends
        self.auto_button.setEnabled(given is not None)
        number = (self._estimate if given is None else given) or math.sqrt(low * high)
        self._move(round(self._TICKS * math.log(number / low) / math.log(high / low)))

    def _move(self, ticks: int) -> None:
        blocked = self.slider.blockSignals(True)
        self.slider.setValue(ticks)
        self.slider.blockSignals(blocked)

    def _on_slider(self, ticks: int) -> None:
        low, high = self._ends
        self.set_value(float(f"{low * (high / low) ** (ticks / self._TICKS):.4g}"))
        self._move(ticks)  # the number is rounded: keys would not get beyond


class Several(Control):
    """Any of a few names; those that something else implies are shown, and mean None where that is allowed."""

    def __init__(self, names: Iterable[str], optional: bool) -> None:
        super().__init__()
        self._optional = optional
        self._implied: tuple[str, ...] = ()
        self.widget = QWidget()
        grid = QGridLayout(self.widget)
        grid.setContentsMargins(0, 0, 0, 0)
        self._boxes = {name: QCheckBox(name) for name in names}
        for place, box in enumerate(self._boxes.values()):
            grid.addWidget(box, *divmod(place, 2))
            box.toggled.connect(self._on_changed)

    def _on_changed(self, _: bool) -> None:
        self.changed.emit()

    def value(self) -> Any:
        """Return the chosen names."""
        chosen = tuple(name for name, box in self._boxes.items() if box.isChecked())
        return None if self._optional and chosen == self._implied else chosen

    def set_value(self, value: Any) -> None:
        """Choose names."""
        for name, box in self._boxes.items():
            box.setChecked(name in (self._implied if value is None else value))

    def set_implied(self, names: tuple[str, ...]) -> None:
        """Say what None means."""
        value = self.value()
        self._implied = names
        if value is None:
            self.set_value(None)


class SettingsForm(QWidget):
    """The fields of a settings model, with what is rarely needed folded away.

    Parameters
    ----------
    kinds : settings models
        Their fields, in this order; `value` gives one of them back.
    without : names of fields that are not shown and keep their default.
    controls : by name of a field, where the one made from its type will not do.
    folded : names of fields that are folded away here, beside the advanced ones.
    """

    changed = Signal()

    def __init__(
        self,
        *kinds: type[Settings],
        without: Iterable[str] = (),
        controls: dict[str, Control] | None = None,
        folded: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self._kinds = kinds
        self.controls: dict[str, Control] = {}
        self._units: dict[str, str] = {}
        self._rows: dict[str, tuple[QLabel, QWidget]] = {}
        rows, self._advanced = wide_form(), wide_form()
        advanced = self._advanced
        for kind in kinds:
            for name, field in kind.model_fields.items():
                if name in without or name in self.controls:
                    continue
                extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
                control = (controls or {}).get(name) or _control(field, extra)
                control.setParent(self)
                control.set_value(field.default)
                control.changed.connect(self.changed)
                self.controls[name] = control
                self._units[name] = str(extra.get("unit", ""))
                label = QLabel(name.replace("_", " ").capitalize())
                self._rows[name] = (label, control.shown)
                for widget in self._rows[name]:
                    widget.setToolTip(f"<p>{field.description}</p>")
                (advanced if extra.get("advanced") or name in folded else rows).addRow(*self._rows[name])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(rows)
        self.reset_button = QPushButton("Reset to defaults")
        self.reset_button.clicked.connect(self.reset)
        self.folded = QCollapsible("Advanced")
        hidden = QWidget()
        hidden.setLayout(advanced)
        advanced.addRow(self.reset_button)
        self.folded.addWidget(hidden)
        if (inner := self.folded.layout()) is not None:
            inner.setContentsMargins(0, 0, 0, 0)
        self.folded.collapse(animate=False)
        layout.addWidget(self.folded)

    def value(self, kind: type[Settings]) -> Any:
        """Return the settings as they are shown.

        Raises
        ------
        SettingsError
            If they contradict each other.
        """
        return kind(**{name: self.controls[name].value() for name in kind.model_fields if name in self.controls})

    def set_value(self, settings: Settings) -> None:
        """Show settings."""
        for name in type(settings).model_fields:
            if name in self.controls:
                self.controls[name].set_value(getattr(settings, name))

    def rename(self, name: str, title: str) -> None:
        """Call a field otherwise where its own name does not tell enough."""
        self._rows[name][0].setText(title)

    def add_folded(self, title: str, widget: QWidget) -> None:
        """Put what is no setting first among what is folded away."""
        label = QLabel(title)
        label.setToolTip(widget.toolTip())
        self._advanced.insertRow(0, label, widget)

    def show_field(self, name: str, visible: bool) -> None:
        """Show or hide a field, with its label."""
        for widget in self._rows[name]:
            widget.setVisible(visible)

    def reset(self) -> None:
        """Show the defaults."""
        for kind in self._kinds:
            self.set_value(kind())

    def set_pixel(self, size: float | None, unit: str) -> None:
        """Show lengths that need not be whole in the image's unit; in pixels where it has none."""
        for name, control in self.controls.items():
            if isinstance(control, Number) and self._units[name] == "px" and control._kind is float:
                control.set_scale(*((size, unit) if size and unit else (1.0, "px")))

    def set_estimates(self, values: dict[str, Any]) -> None:
        """Show what the fields that were left open came to."""
        for name, control in self.controls.items():
            if isinstance(control, Number):
                number = values.get(name)
                known = isinstance(number, (int, float)) and math.isfinite(number)
                control.set_estimate(number if known else None)


def wide_form() -> QFormLayout:
    """Rows of labels and widgets that take all the room there is."""
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    return form


def _control(field: FieldInfo, extra: dict[str, Any]) -> Control:
    unit = str(extra.get("unit", ""))
    kinds = get_args(field.annotation) if NoneType in get_args(field.annotation) else (field.annotation,)
    optional = NoneType in kinds
    kind = next(kind for kind in kinds if kind is not NoneType)
    if "slider" in extra:
        return Sliding(kind, _bounds(field, kind), unit, tuple(extra["slider"]))
    if kind in (int, float):
        return Number(kind, optional, _bounds(field, kind), unit)
    if get_origin(kind) is tuple:
        return Several(get_args(get_args(kind)[0]), optional)
    if get_origin(kind) is Literal or kind in (bool, str):
        return Plain(kind, field.default, optional and kind is str)
    raise TypeError(f"no widget for {field.annotation}")


def _bounds(field: FieldInfo, kind: type) -> tuple[float, float]:
    low, high = -_LARGEST, _LARGEST
    smallest_step = 1.0 if kind is int else 10.0**-_DECIMALS
    for limit in field.metadata:
        low = getattr(limit, "ge", low)
        high = getattr(limit, "le", high)
        low = limit.gt + smallest_step if hasattr(limit, "gt") else low
        high = limit.lt - smallest_step if hasattr(limit, "lt") else high
    return float(low), float(high)
