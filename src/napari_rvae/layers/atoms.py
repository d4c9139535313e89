"""Atoms as points: identity, corrections by hand, results, colours."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import pandas as pd
from napari.layers import Points
from napari.layers.base import ActionType
from psygnal import Signal

from napari_rvae.errors import InputDataError
from napari_rvae.layers.coloring import Coloring, class_colors
from napari_rvae.layers.images import matrix, transformation

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

RECIPE = "napari_rvae"
"""Key of a layer's metadata under which its recipe lies."""

_PLAIN = "#56B4E9"
_PLACE = ("atom_id", "frame", "y", "x")
_RESULT = re.compile(
    r"(z\d+|angle|d[yx])(_error|_dispersion)?|symmetry|reconstruction_error|unexplained|class(_probability|_dispersion)?"
    r"|(scale|strain_(a|b|xx|yy|xy))(_dispersion)?|predicted(_error)?|patch_mean\d*"
)


class _Known:
    """What is remembered about a points layer as long as it lives."""

    def __init__(self, next_id: int) -> None:
        self.next_id = next_id
        self.image: ref[Image] | None = None
        self.coloring: Coloring | None = None


_known: WeakKeyDictionary[Points, _Known] = WeakKeyDictionary()


class _Events:
    """What all docks hear of, whichever of them did it."""

    colored = Signal(object)  # the points layer that has other colours now


events = _Events()


def known_of(points: Points) -> _Known:
    """What is remembered about a points layer that `identify` has seen."""
    return _known[points]


def add_atoms(viewer: ViewerModel, atoms: pd.DataFrame, image: Image, recipe: Any = None) -> Points:
    """Show an atoms table as a new points layer on its image.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the layer is added.
    atoms : pandas.DataFrame
        ``atom_id``, ``y``, ``x`` in pixels of the image, ``frame`` for stacks, and any other columns.
    image : napari.layers.Image
        The image; it may have left the viewer.
    recipe : object, optional
        Kept in the layer's metadata.

    Returns
    -------
    napari.layers.Points
        The layer; whatever existed is unchanged.
    """
    # a copy: what pandas gives cannot be written to, and napari moves points in place
    positions = np.array(atoms[["frame", "y", "x"] if "frame" in atoms else ["y", "x"]], float)
    from napari_rvae.atoms import called

    spacing = atoms.attrs.get("napari_rvae", {}).get("spacing") or np.nan
    layer = viewer.add_points(
        positions,
        name=f"{image.name} {called(atoms)}s",
        features=pd.DataFrame({name: atoms[name].to_numpy() for name in atoms}),
        size=max(0.5 * spacing, 1.5) if np.isfinite(spacing) else 5.0,  # a single atom has no neighbour
        border_width=0.1,
        border_color="#909090",  # seen on black and on white
        face_color=_PLAIN,
        metadata={RECIPE: recipe},
        **transformation(image),
    )
    identify(layer)
    _known[layer].image = ref(image)
    if "sublattice" in atoms and atoms["sublattice"].nunique() > 1:
        color_points(layer, "sublattice")
    return layer


def image_of(points: Points) -> Image | None:
    """Find the image on which a points layer was made.

    Parameters
    ----------
    points : napari.layers.Points
        Any points layer.

    Returns
    -------
    napari.layers.Image or None
        The image as long as it lives, whatever its name is now.
    """
    known = _known.get(points)
    return known.image() if known and known.image else None


def atoms_table(points: Points, image: Image | None = None) -> pd.DataFrame:
    """Read the atoms as they are now, with all corrections made by hand.

    Parameters
    ----------
    points : napari.layers.Points
        Any points layer; it is given ``atom_id`` where it has none.
    image : napari.layers.Image, optional
        The image in whose pixels positions are wanted; the layer's own data coordinates when None.

    Returns
    -------
    pandas.DataFrame
        The features, with the present ``y``, ``x`` and ``frame``; what was estimated when they were found in ``attrs``.

    Raises
    ------
    InputDataError
        If points and image differ in their number of axes.
    """
    identify(points)
    positions = points.data.astype(float)
    if image is not None:
        if image.ndim != points.ndim:
            what = f"'{points.name}' has {points.ndim} axes and '{image.name}' {image.ndim}"
            raise InputDataError(f"{what}: choose points that belong to this image.")
        change = np.linalg.solve(matrix(image), matrix(points))
        if not np.allclose(change, np.eye(len(change)), atol=1e-9):
            positions = positions @ change[:-1, :-1].T + change[:-1, -1]
    table, recipe = _placed(points.features, positions), points.metadata.get(RECIPE)
    table.attrs["napari_rvae"] = recipe.get("used", {}) if isinstance(recipe, dict) else {}
    return table


def set_features(points: Points, features: pd.DataFrame) -> None:
    """Exchange the whole table of a points layer; the colours follow the column they show.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    features : pandas.DataFrame
        One row per point, in order, with ``atom_id``.
    """
    identify(points)
    coloring, before = _known[points].coloring, points.features
    if coloring is not None and coloring.column not in features:
        _known[points].coloring = coloring = None
        points.face_color = _PLAIN
        show_color_bar(points)
    _set_features(points, features)
    if coloring is not None and not features[coloring.column].equals(before[coloring.column]):
        color_points(points, coloring.column)


def is_result(name: object) -> bool:
    """Tell what was learned about an atom from what was measured.

    Parameters
    ----------
    name : object
        Name of a column.

    Returns
    -------
    bool
        Whether the column comes from a trained model.
    """
    return _RESULT.fullmatch(str(name)) is not None


# Identity -------------------------------------------------------------------------------------------------------------


def identify(points: Points) -> None:
    """Give every point an ``atom_id`` and keep it through all that napari's tools do.

    Parameters
    ----------
    points : napari.layers.Points
        Any points layer; points it gets later are new atoms without values.
    """
    if points not in _known:
        ids = points.features["atom_id"].to_numpy(float) if "atom_id" in points.features else np.zeros(0)
        _known[points] = _Known(int(np.nanmax(ids, initial=-1)) + 1)
        points.events.data.connect(_on_edited)
        _set_features(points, points.features)
    _name_new(points, np.zeros(0, int))


def _name_new(points: Points, added: NDArray[np.intp]) -> None:
    """Give new rows a number, and forget what they inherited from other rows."""
    features, known = points.features, _known[points]
    had_ids = "atom_id" in features
    ids = features["atom_id"].to_numpy(float) if had_ids else np.full(len(features), np.nan)
    new = ~(ids >= 0) | pd.Series(ids).duplicated().to_numpy()  # pasted points come with the number of the original
    new[added] = True
    if had_ids and not new.any():
        return
    numbers = np.where(new, known.next_id + np.cumsum(new) - 1, ids).astype(np.int64)
    known.next_id = max(known.next_id, int(numbers.max(initial=-1)) + 1)
    if had_ids:
        features = features.assign(**{str(name): features[name].mask(new) for name in features if name not in _PLACE})
    features = _placed(features.assign(atom_id=numbers), points.data)
    _set_features(points, _flagged(features, new, "added") if had_ids else features)


def _on_edited(event: Any) -> None:
    """Keep identity and places in step with what was added, moved or pasted by hand."""
    points = event.source
    if event.action == ActionType.ADDED:
        _name_new(points, np.asarray(event.data_indices, int))
    elif event.action == ActionType.CHANGED:
        _name_new(points, np.zeros(0, int))
        features = _placed(points.features, points.data)
        moved = ((features["y"] != points.features["y"]) | (features["x"] != points.features["x"])).to_numpy()
        # what was learned where the atom no longer is does not hold here
        features = features.assign(**{str(name): features[name].mask(moved) for name in features if is_result(name)})
        _set_features(points, _flagged(features, moved, "moved"))
    else:
        return
    coloring = coloring_of(points)
    if coloring is not None and coloring.text:  # numbers recolour by themselves
        color_points(points, coloring.column)


def _placed(features: pd.DataFrame, positions: NDArray[np.float64]) -> pd.DataFrame:
    place = {"frame": np.rint(positions[:, 0]).astype(np.int64)} if positions.shape[1] == 3 else {}
    return features.assign(**place, y=positions[:, -2].astype(float), x=positions[:, -1].astype(float))


def _flagged(features: pd.DataFrame, rows: NDArray[np.bool_], flag: str) -> pd.DataFrame:
    flags = features.get("flag", pd.Series("", features.index)).astype(object).fillna("").mask(rows, flag)
    return features.assign(flag=flags) if rows.any() else features


def _set_features(points: Points, features: pd.DataFrame) -> None:
    """Set the whole table, and that points to come start with nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the column that was shown may be gone
        points.features = features
    nothing = {"i": -1, "u": 0, "b": False}
    if len(features.columns):
        points.feature_defaults = {name: nothing.get(features[name].dtype.kind, np.nan) for name in features}


# Colours --------------------------------------------------------------------------------------------------------------


def color_choices(points: Points) -> list[str]:
    """List what points can be coloured by.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.

    Returns
    -------
    list of str
        Columns of the features, results first.
    """
    names = [str(name) for name in points.features if name not in ("atom_id", "y", "x")]
    return sorted(names, key=lambda name: not is_result(name))


def color_points(points: Points, column: str, bar: bool = True) -> Coloring:
    """Colour atoms by a feature; those without a value are grey.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    column : str
        Name of a feature.
    bar : bool
        Whether the colour bar follows at once; else `show_color_bar` is for the caller.

    Returns
    -------
    Coloring
        The colours that were chosen.
    """
    identify(points)
    coloring = Coloring.of(points.features, column, class_colors(points, column))
    _known[points].coloring = coloring
    with points.events.blocker_all(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # napari takes whole numbers for classes and says so
        if coloring.text:
            points.face_color = coloring.colors(points.features[column])
        else:
            points.face_color_mode = "direct"  # so that each of the next steps does not recolour all points
            points.face_colormap = coloring.colormap
            points.face_contrast_limits = coloring.limits
            points.face_color = column
            points.face_color_mode = "colormap"
    if bar:
        show_color_bar(points)
    events.colored.emit(points)
    return coloring


def show_color_bar(points: Points) -> None:
    """Show napari's colour bar where points are coloured by a quantity; it takes a while to draw the first time.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    """
    coloring, bar = coloring_of(points), getattr(points, "face_colorbar", None)  # napari >= 0.7.1
    if bar is not None:
        bar.visible = coloring is not None and coloring.kind in ("sequential", "diverging")


def make_color_bar(points: Points) -> Callable[[], None]:
    """Let napari make and draw a colour bar that cannot be seen, so that later it comes at once.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.

    Returns
    -------
    callable
        Takes it away again; to be called when the window was drawn.
    """
    bar = getattr(points, "face_colorbar", None)
    if bar is None or bar.visible:
        return lambda: None
    seen = bar.opacity
    bar.opacity, bar.visible = 0.0, True

    def hide() -> None:
        bar.visible, bar.opacity = False, seen

    return hide


def coloring_of(points: Points) -> Coloring | None:
    """Tell how a layer's points are coloured.

    Parameters
    ----------
    points : napari.layers.Points
        Any points layer.

    Returns
    -------
    Coloring or None
        None where `color_points` was not called, or the column is gone.
    """
    coloring = _known[points].coloring if points in _known else None
    return coloring if coloring is not None and coloring.column in points.features else None
