"""Some atoms of a layer as a layer of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_rvae.layers.atoms import RECIPE, add_atoms, atoms_table, identify, image_of
from napari_rvae.layers.coloring import CLASS_COLORS
from napari_rvae.layers.images import transformation
from napari_rvae.layers.models import CHANNELS, MODEL

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Points
    from numpy.typing import NDArray


def add_subset(viewer: ViewerModel, points: Points, rows: NDArray[Any]) -> Points:
    """Add some atoms of a layer as a new one, with their identities, features, model and image.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the layer is added.
    points : napari.layers.Points
        The atoms.
    rows : numpy.ndarray
        Boolean mask or positions of those wanted.

    Returns
    -------
    napari.layers.Points
        The new layer.
    """
    image = image_of(points)
    if image is None:
        features = points.features.iloc[rows].reset_index(drop=True)
        subset = viewer.add_points(points.data[rows], features=features, **transformation(points))
        identify(subset)
    else:
        subset = add_atoms(viewer, atoms_table(points, image).iloc[rows], image, points.metadata.get(RECIPE))
    subset.name = f"{points.name} selection"
    subset.size = points.size[rows]
    kept = {key: points.metadata[key] for key in (MODEL, CHANNELS, CLASS_COLORS) if key in points.metadata}
    subset.metadata = {**subset.metadata, **kept}
    return subset
