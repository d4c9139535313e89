"""Clusters over chosen features, found in a thread, and how two ways to sort the same atoms agree."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import pandas as pd
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_rvae.latent.clusters import LARGEST_COUNT_TRIED as MOST
from napari_rvae.latent.clusters import cluster_agreement, find_clusters
from napari_rvae.layers import Coloring
from napari_rvae.settings import ClusterSettings
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.columns import axis_columns, is_latent
from napari_rvae.widgets.jobs import Job
from napari_rvae.widgets.settings_form import SettingsForm
from napari_rvae.widgets.work import WorkRow

_HELP = {
    "auto": "A Gaussian mixture; where y and x are ticked beside other features, connected regions.",
    "gmm": "For clouds of different width and tilt; their number is chosen by BIC.",
    "kmeans": "For round clouds of similar width; their number is chosen by BIC.",
    "hdbscan": "For clouds of any shape; finds their number and leaves outliers without a cluster.",
    "regions": "For grains and domains: neighbours that are alike in the features ticked beside y and x.",
}


class ClustersPanel(QWidget):
    """Find clusters, and compare columns of classes.

    Attributes
    ----------
    color_wanted : Signal
        Name of the column in whose colours the result is seen.
    """

    color_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._link: AtomsLink | None = None
        self._columns: list[str] = []
        self.form = SettingsForm(ClusterSettings)
        self.by = QPushButton()
        self.by.setToolTip("Features that count")
        self.by.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._menu = QMenu(self.by)
        self.by.setMenu(self._menu)
        self.help = QLabel()
        self.help.setWordWrap(True)
        self.work = WorkRow("Find clusters")
        self.first, self.second = QComboBox(), QComboBox()
        self.agreement = QTableWidget()
        self.agreement.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.agreement.setMinimumHeight(110)
        self.score = QLabel()
        self.score.setWordWrap(True)
        self._lay_out()
        self.form.changed.connect(self._settings_changed)
        self.work.start_clicked.connect(self.find_clusters)
        for box in (self.first, self.second):
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            box.activated.connect(self._compare)
        self._settings_changed()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        row = QHBoxLayout()
        row.addWidget(QLabel("Features"))
        row.addWidget(self.by, 1)
        layout.addLayout(row)
        layout.addWidget(self.form)
        layout.addWidget(self.help)
        layout.addWidget(self.work)
        compared = QFormLayout()  # beside each other there is no room for their names
        compared.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        compared.addRow("Compare", self.first)
        compared.addRow("with", self.second)
        layout.addLayout(compared)
        layout.addWidget(self.score)
        layout.addWidget(self.agreement, 1)

    def set_link(self, link: AtomsLink | None) -> None:
        """Work on another layer."""
        self._link, self._columns = link, []

    def refresh(self) -> None:
        """Show what the table says now."""
        if self._link is None:
            return
        table = self._link.table
        names = axis_columns(table)
        self._columns = [name for name in self._columns if name in names]
        if not self._columns:
            self._columns = [name for name in names if is_latent(name)] or [
                n for n in (self._link.x, self._link.y) if n
            ]
        self._menu.clear()
        for name in names:
            action = cast(QAction, self._menu.addAction(name))
            action.setCheckable(True)
            action.setChecked(name in self._columns)
            action.toggled.connect(partial(self._toggled, name))
        self._show_columns()
        classes = [str(name) for name in table if name != "atom_id" and Coloring.of(table, str(name)).names[1:]]
        classes.sort(key=lambda name: name not in ("annotation", "class", "cluster"))
        chosen = list(dict.fromkeys(box.currentText() for box in (self.first, self.second)))
        chosen = [name for name in chosen if name in classes]
        chosen += [name for name in classes if name not in chosen]
        for place, box in enumerate((self.first, self.second)):
            box.clear()
            box.addItems(classes)
            box.setCurrentText(chosen[min(place, len(chosen) - 1)] if chosen else "")
        self._compare()

    def find_clusters(self) -> None:
        """Find clusters in a thread; the result becomes two columns of the features."""
        link = self._link
        if link is None:
            return
        settings = self.form.value(ClusterSettings)
        table, columns, ids = link.table.copy(), list(self._columns), link.selection.ids

        def work(job: Job) -> pd.DataFrame:
            return find_clusters(table, columns, settings, progress=job.progress, stop=job.stop)

        regions = settings.method == "regions" or (settings.method == "auto" and {"y", "x"} < set(columns))
        by_bic = settings.count is None and settings.method != "hdbscan" and not regions
        self.work.run("Finding clusters", work, partial(self._found, link, ids, by_bic))

    def _found(self, link: AtomsLink, ids: Any, by_bic: bool, found: pd.DataFrame) -> None:
        cluster = found["cluster"].astype(float).where(found["cluster"] >= 0)
        number = int(cluster.nunique())
        columns = {"cluster": cluster, "cluster_probability": found["cluster_probability"]}
        link.edit(f"find {number} clusters", columns, ids)
        without = int(cluster.isna().sum())
        outside = f"; {without:,} atoms belong to none" if without else ""
        most = " (the most that are tried; set a count for fewer or more)" if by_bic and number == MOST else ""
        self.work.say(f"{number} cluster{'s' * (number != 1)}{most}{outside}.")
        if link is self._link:
            self.color_wanted.emit("cluster")

    def _toggled(self, name: str, checked: bool) -> None:
        self._columns = [*self._columns, name] if checked else [column for column in self._columns if column != name]
        self._show_columns()

    def _show_columns(self) -> None:
        text = ", ".join(self._columns)
        self.by.setText(text if 0 < len(text) <= 30 else f"{len(self._columns)} features")

    def _settings_changed(self) -> None:
        self.help.setText(_HELP[self.form.controls["method"].value()])

    def _compare(self) -> None:
        names = [self.first.currentText(), self.second.currentText()]
        self.agreement.clear()
        if self._link is None or not all(names) or names[0] == names[1]:
            self.score.clear()
            self.agreement.setRowCount(0)
            self.agreement.setColumnCount(0)
            return
        counts, score = cluster_agreement(*(self._link.table[name] for name in names))
        self.score.setText(f"{names[0]} in rows, {names[1]} in columns; adjusted Rand index {score:.3f}")
        self.agreement.setRowCount(len(counts.index))
        self.agreement.setColumnCount(len(counts.columns))
        self.agreement.setVerticalHeaderLabels([str(name) for name in counts.index])
        self.agreement.setHorizontalHeaderLabels([str(name) for name in counts.columns])
        for row, values in enumerate(counts.to_numpy()):
            for column, value in enumerate(values):
                item = QTableWidgetItem(f"{value:,}")
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.agreement.setItem(row, column, item)
        self.agreement.resizeColumnsToContents()
