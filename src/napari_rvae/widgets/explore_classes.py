"""Classes by hand: select, press a number, go on; made for thousands of atoms."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_rvae.layers import Coloring, class_colors, set_class_colors
from napari_rvae.widgets.annotation import (
    ANNOTATION,
    Annotation,
    annotation_of,
    assigned,
    class_names,
    counts,
    new_class_name,
    renamed,
    with_class,
    without_class,
)
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.selection import Step

_MOST_KEYS = 9
_HELP = (
    "Select atoms in the plot or in the image, then press 1 to 9 for a class or 0 for none. Double-click a name to "
    "rename it, a colour to change it."
)


class ClassesPanel(QWidget):
    """List of the classes given by hand, with what can be done to them.

    Attributes
    ----------
    color_wanted : Signal
        Name of the column in whose colours the result is seen.
    labels_wanted : Signal
        The link whose classes are wanted as a labels layer.
    """

    color_wanted = Signal(str)
    labels_wanted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._link: AtomsLink | None = None
        self._shown: tuple[Any, ...] = ()
        self.list = QTreeWidget()
        self.list.setHeaderLabels(["key", "class", "atoms"])
        self.list.setRootIsDecorated(False)
        header = cast(QHeaderView, self.list.header())
        header.setStretchLastSection(False)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        for column in (0, 2):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.list.setEditTriggers(QTreeWidget.EditTrigger.NoEditTriggers)  # a double click means more than one thing
        self.list.itemChanged.connect(self._renamed)
        self.list.itemDoubleClicked.connect(self._double_clicked)
        buttons = QHBoxLayout()
        for name, tip, action in (
            ("New", "Make a class", self.add_class),
            ("Assign", "Give the selected atoms the class that is marked in the list", self._assign_current),
            ("Select", "Select the atoms of the marked class", self._select_current),
            ("Delete", "Delete the marked class; its atoms have none then", self._delete_current),
            ("Labels", "Show the classes as a labels layer, which follows them", self._want_labels),
        ):
            button = QPushButton(name)
            button.setToolTip(tip)
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            button.clicked.connect(lambda _checked=False, action=action: action())
            buttons.addWidget(button)
        help_text = QLabel(_HELP)
        help_text.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.list, 1)
        layout.addLayout(buttons)
        layout.addWidget(help_text)

    def set_link(self, link: AtomsLink | None) -> None:
        """Show the classes of another layer."""
        self._link, self._shown = link, ()

    def refresh(self) -> None:
        """Show what the table says now."""
        if self._link is None:
            self._shown = ()
            self.list.clear()
            return
        annotation = annotation_of(self._link.table)
        numbers = counts(annotation)
        chosen = class_colors(self._link.layer, ANNOTATION)
        colors = Coloring.of(annotation.to_frame(), ANNOTATION, chosen).colormap.colors
        shown = (numbers, colors.tolist())
        if shown == self._shown:
            return  # and a name that is just being typed stays
        self._shown = shown
        current = self._current_name()
        self.list.blockSignals(True)
        self.list.clear()
        for place, (name, count) in enumerate(numbers.items()):
            item = QTreeWidgetItem(["", name, f"{count:,}"])
            item.setText(0, str(place + 1) if place < _MOST_KEYS else "")
            swatch = QPixmap(12, 12)
            swatch.fill(QColor.fromRgbF(*map(float, colors[place])))
            item.setIcon(0, QIcon(swatch))
            item.setData(1, Qt.ItemDataRole.UserRole, name)
            item.setTextAlignment(2, Qt.AlignmentFlag.AlignRight)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            self.list.addTopLevelItem(item)
            if name == current:
                self.list.setCurrentItem(item)
        self.list.blockSignals(False)

    def assign_number(self, number: int) -> None:
        """Give the selected atoms the class of a number key.

        Parameters
        ----------
        number : int
            1 to 9; one more than there are classes makes a new one. 0 takes their class away.
        """
        if self._link is None:
            return
        annotation = annotation_of(self._link.table)
        names = [*class_names(annotation), new_class_name(annotation)]
        if number <= len(names):
            self._assign(names[number - 1] if number else None)

    def add_class(self) -> None:
        """Make a class, and let its name be typed."""
        if self._link is None:
            return
        annotation = annotation_of(self._link.table)
        name = new_class_name(annotation)
        self._edit(f"new {name}", with_class(annotation, name))
        self.refresh()
        item = self.list.topLevelItem(self.list.topLevelItemCount() - 1)
        self.list.setCurrentItem(item)
        self.list.editItem(item, 1)

    def _assign(self, name: str | None) -> None:
        link = self._link
        if link is None or not link.selection.count:
            return
        what = f"{link.selection.count:,} atoms are {name or 'without class'}"
        self._edit(what, assigned(annotation_of(link.table), link.selection.mask, name))
        self.color_wanted.emit(ANNOTATION)

    def _assign_current(self) -> None:
        if (name := self._current_name()) is not None:
            self._assign(name)

    def _select_current(self) -> None:
        if self._link is not None and (name := self._current_name()) is not None:
            mask = (annotation_of(self._link.table) == name).to_numpy()
            self._link.selection.combine(mask, source="classes")

    def _delete_current(self) -> None:
        if self._link is not None and (name := self._current_name()) is not None:
            self._edit(f"delete {name}", without_class(annotation_of(self._link.table), name))

    def _renamed(self, item: QTreeWidgetItem, column: int) -> None:
        old, new = item.data(1, Qt.ItemDataRole.UserRole), item.text(1).strip()
        if column != 1 or self._link is None or new == old:
            return
        if new:
            colors = class_colors(self._link.layer, ANNOTATION)
            if old in colors:
                set_class_colors(self._link.layer, ANNOTATION, {new: colors[old], **colors})
            self._edit(f"rename {old}", renamed(annotation_of(self._link.table), old, new))
        else:
            item.setText(1, old)

    def _double_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if column == 1:
            self.list.editItem(item, 1)
        elif column == 0:
            name = item.data(1, Qt.ItemDataRole.UserRole)
            now = item.icon(0).pixmap(12, 12).toImage().pixelColor(6, 6)
            color = QColorDialog.getColor(now, self, f"Colour of {name}")
            if color.isValid():
                self.set_color(name, color.name())

    def set_color(self, name: str, color: str) -> None:
        """Choose the colour of a class; this can be undone as everything else.

        Parameters
        ----------
        name : str
            The class.
        color : str
            Such as ``#ff0000``.
        """
        link = self._link
        if link is None:
            return
        before = class_colors(link.layer, ANNOTATION)

        def choose(colors: dict[str, str]) -> None:
            set_class_colors(link.layer, ANNOTATION, colors)
            self.color_wanted.emit(ANNOTATION)

        after = {**before, name: color}
        link.history.push(Step(f"colour of {name}", partial(choose, before), partial(choose, after)))
        choose(after)

    def _want_labels(self) -> None:
        if self._link is not None:
            self.labels_wanted.emit(self._link)

    def _current_name(self) -> str | None:
        item = self.list.currentItem()
        return item.data(1, Qt.ItemDataRole.UserRole) if item is not None else None

    def _edit(self, what: str, annotation: Annotation) -> None:
        if self._link is not None:
            self._link.edit(what, {ANNOTATION: annotation})
