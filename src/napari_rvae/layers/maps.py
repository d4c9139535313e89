"""Cells and arrows: what the atoms' table looks like as labels and vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary, ref

import numpy as np
import pandas as pd
from napari.layers import Labels, Vectors
from napari.utils.colormaps import DirectLabelColormap

from napari_rvae.layers.coloring import GREY, LEVELS, Coloring
from napari_rvae.layers.images import transformation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Points
    from numpy.typing import NDArray


_atoms: WeakKeyDictionary[Labels, ref[Points]] = WeakKeyDictionary()
_class_maps: WeakKeyDictionary[Points, ref[Labels]] = WeakKeyDictionary()


class _Color(np.ndarray):
    """A colour that turns into a tuple quickly: napari asks for it twice for each of 100 000 labels."""

    rgba: tuple[float, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rgba) if hasattr(self, "rgba") else super().__iter__()  # one that was calculated with


def _color(rgba: Any) -> _Color:
    color = np.array(rgba, float).view(_Color)
    color.rgba = tuple(color.tolist())
    return color


def cell_colormap(table: pd.DataFrame, coloring: Coloring) -> DirectLabelColormap:
    """Colour the label ``atom_id + 1`` by the atom's value, in at most 256 colours.

    Parameters
    ----------
    table : pandas.DataFrame
        ``atom_id`` and the column of `coloring`.
    coloring : Coloring
        The colours, the same as on the points.

    Returns
    -------
    napari.utils.colormaps.DirectLabelColormap
        For the labels of `napari_rvae.latent.cell_labels`.
    """
    palette = [_color(rgba) for rgba in coloring.colormap.map(np.linspace(0, 1, LEVELS))] + [_color(GREY)]
    level = np.nan_to_num(coloring.levels(table[coloring.column]) * (LEVELS - 1), nan=LEVELS)
    labels = (table["atom_id"].to_numpy(np.int64) + 1).tolist()
    chosen = map(palette.__getitem__, np.rint(level).astype(int).tolist())
    colors: dict[int | None, Any] = dict(zip(labels, chosen, strict=True))
    nothing = _color((0, 0, 0, 0))
    colors |= {None: nothing, 0: nothing}
    # the constructor looks at every colour anew, .7 s for 100 000 of them
    return DirectLabelColormap(color_dict={None: nothing, 0: nothing}).model_copy(update={"color_dict": colors})


def color_cells(cells: Labels, colormap: DirectLabelColormap) -> None:
    """Give cells other colours, without anybody taking it for a picked label.

    Parameters
    ----------
    cells : napari.layers.Labels
        From `add_cells`.
    colormap : napari.utils.colormaps.DirectLabelColormap
        From `cell_colormap`.
    """
    with cells.events.selected_label.blocker():
        cells.colormap = colormap


def add_cells(viewer: ViewerModel, cells: NDArray[np.int32], points: Points, image: Image) -> Labels:
    """Show cells as a labels layer on the image.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the layer is added.
    cells : numpy.ndarray
        ``atom_id + 1`` in every pixel of the cell, 0 elsewhere.
    points : napari.layers.Points
        The atoms, for the name.
    image : napari.layers.Image
        The image, for the place.

    Returns
    -------
    napari.layers.Labels
        A new layer.
    """
    labels = Labels(cells, name=f"{points.name} cells", opacity=0.5, **transformation(image))
    _atoms[labels] = ref(points)  # known before anybody hears of the layer
    viewer.add_layer(labels)
    return labels


def link_cells(labels: Labels, points: Points) -> None:
    """Remember whose cells a labels layer shows, for `atoms_of`.

    Parameters
    ----------
    labels : napari.layers.Labels
        Cells.
    points : napari.layers.Points
        Their atoms.
    """
    _atoms[labels] = ref(points)


def atoms_of(labels: Labels) -> Points | None:
    """Find the atoms whose cells a labels layer shows.

    Parameters
    ----------
    labels : napari.layers.Labels
        Any labels layer.

    Returns
    -------
    napari.layers.Points or None
        The layer for which `add_cells` made it, as long as it lives, whatever its name is now.
    """
    points = _atoms.get(labels)
    return points() if points else None


def cells_of(points: Points, layers: Iterable[Layer]) -> list[Labels]:
    """Find the labels layers that show the cells of atoms.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    layers : iterable of Layer
        Among which to look: those of a viewer.

    Returns
    -------
    list of napari.layers.Labels
        Drawn now, or opened with saved results.
    """
    return [layer for layer in layers if isinstance(layer, Labels) and atoms_of(layer) is points]


def outline_of_cells(outlines: NDArray[np.uint8], cells: Labels) -> Labels:
    """Make a layer that outlines cells.

    Parameters
    ----------
    outlines : numpy.ndarray
        From `napari_rvae.latent.cell_outlines`.
    cells : napari.layers.Labels
        The cells.

    Returns
    -------
    napari.layers.Labels
        A layer that is in no viewer yet.
    """
    colors = DirectLabelColormap(color_dict={None: (0, 0, 0, 0), 0: (0, 0, 0, 0), 1: (1, 1, 1, 1)})
    return Labels(outlines, name="selected cells", opacity=0.9, colormap=colors, **transformation(cells))


def show_classes(
    viewer: ViewerModel, numbers: NDArray[np.uint8], coloring: Coloring, points: Points, image: Image
) -> Labels:
    """Show the classes of atoms as a labels layer: 1 for the first class, 0 where there is none.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where a layer is added, unless there is one of these atoms already, which is changed then.
    numbers : numpy.ndarray
        From `napari_rvae.latent.cell_numbers`.
    coloring : Coloring
        Names and colours of the classes.
    points : napari.layers.Points
        The atoms.
    image : napari.layers.Image
        The image, for the place.

    Returns
    -------
    napari.layers.Labels
        The layer; whoever points at one of its labels reads the name of the class in napari's status bar.
    """
    layer = class_map_of(points)
    if layer is None or layer not in viewer.layers:
        layer = viewer.add_labels(numbers, name=f"{points.name} classes", opacity=0.5, **transformation(image))
        layer.editable = False  # it follows the atoms, not the brush
        _class_maps[points] = ref(layer)
    else:
        layer.data = numbers
    colors: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    colors |= dict(enumerate(coloring.colormap.colors[: len(coloring.names)], 1))
    color_cells(layer, DirectLabelColormap(color_dict=colors))
    layer.features = pd.DataFrame({"index": range(len(coloring.names) + 1), "class": ["none", *coloring.names]})
    return layer


def class_map_of(points: Points) -> Labels | None:
    """Find the labels layer that shows the classes of atoms.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.

    Returns
    -------
    napari.layers.Labels or None
        The layer that `show_classes` made last, as long as it lives.
    """
    layer = _class_maps.get(points)
    return layer() if layer else None


def add_arrows(
    viewer: ViewerModel, table: pd.DataFrame, points: Points, kind: Literal["angle", "offset"], length: float
) -> Vectors:
    """Show angles or offsets as arrows.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the layer is added.
    table : pandas.DataFrame
        The atoms with their results, in the data coordinates of `points`; rows without a value get no arrow.
    points : napari.layers.Points
        The atoms, for name and place.
    kind : {"angle", "offset"}
        Directions of one length, or offsets, enlarged as a whole until they can be seen.
    length : float
        Of a typical arrow, in pixels.

    Returns
    -------
    napari.layers.Vectors
        A new layer; the factor by which offsets are enlarged is in its name.
    """
    columns = {"angle": ["angle"], "offset": ["dy", "dx"]}[kind]
    table = table.dropna(subset=columns)
    if kind == "angle":
        angle = table["angle"].to_numpy(float)
        steps, factor, name = np.column_stack([np.sin(angle), np.cos(angle)]), length, "angles"
    else:
        steps = table[columns].to_numpy(float)
        typical = float(np.median(np.linalg.norm(steps, axis=1))) if len(steps) else 0.0
        factor = max(round(length / typical), 1) if typical else 1
        name = f"offsets x {factor}"
    arrows = np.zeros((len(table), 2, points.ndim))
    arrows[:, 0, -2:] = table[["y", "x"]].to_numpy(float)
    if points.ndim == 3:
        arrows[:, 0, 0] = table["frame"].to_numpy(float)
    arrows[:, 1, -2:] = steps
    coloring = Coloring.of(table, "angle") if kind == "angle" and len(table) else None
    return viewer.add_vectors(
        arrows,
        name=f"{points.name} {name}",
        length=factor,
        edge_width=length / 8,
        edge_color="white" if coloring is None else coloring.colors(table["angle"]),
        vector_style="arrow",
        features=pd.DataFrame({"atom_id": table["atom_id"].to_numpy()}),
        **transformation(points),
    )
