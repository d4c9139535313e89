"""What becomes of layers: results put onto the atoms they belong to, layers of an interrupted training brought back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points
from qtpy.QtCore import QTimer

from napari_rvae.layers import (
    RECIPE,
    add_atoms,
    add_image,
    atoms_table,
    color_points,
    coloring_of,
    is_result,
    join_results,
    show_color_bar,
    showing,
)
from napari_rvae.widgets.training_job import TrainingInputs

if TYPE_CHECKING:
    import pandas as pd
    from napari.viewer import Viewer

    from napari_rvae.widgets.training_job import Run
    from napari_rvae.workflows.interrupted import Inputs

_LATER = 400  # ms: the window shows the results and has ended the work before it makes a colour bar


def brought_back(viewer: Viewer, given: Inputs) -> TrainingInputs:
    """Show the images and the atoms of an interrupted training, unless they are open.

    Parameters
    ----------
    viewer : Viewer
        Where the layers are.
    given : Inputs
        What the training was begun with.

    Returns
    -------
    TrainingInputs
        The same, with its layers.
    """
    if given.clean is not None and not showing(given.clean, viewer.layers):
        add_image(viewer, given.clean)
    image, *more = showing(given.image, viewer.layers) or add_image(viewer, given.image)
    recipe = {"command": "find", "settings": {"find": given.find.model_dump(mode="json")}}
    there = [layer for layer in viewer.layers if isinstance(layer, Points) and _shows_atoms(layer, image, given.atoms)]
    points = there[0] if there else add_atoms(viewer, given.atoms, image, recipe)
    settings = given.find, given.patch, given.training
    return TrainingInputs(image, points, given.image, given.atoms, given.where, *settings, given.clean, more)


def _shows_atoms(points: Points, image: Image, atoms: pd.DataFrame) -> bool:
    """Whether a layer holds these atoms at their places, in the pixels of the image."""
    if points.ndim != image.ndim or len(points.data) != len(atoms) or "atom_id" not in points.features:
        return False
    places = [name for name in ("atom_id", "frame", "y", "x") if name in atoms]
    return np.array_equal(atoms_table(points, image)[places], atoms[places])


def put_results(
    viewer: Viewer, inputs: TrainingInputs, table: pd.DataFrame, recipe: Any, model: Any, run: Run | None = None
) -> tuple[Points, str]:
    """Write results onto their atoms, or onto new ones where that would overwrite others.

    Parameters
    ----------
    viewer : Viewer
        Where the layers are.
    inputs : TrainingInputs
        What the results were made from.
    table : DataFrame
        Latent table.
    recipe : object
        Kept with the layer.
    model : Model
        Kept with the layer.
    run : Run, optional
        The training, where the user has gone on with something else meanwhile.

    Returns
    -------
    points : Points
        The layer with the results.
    words : str
        How many atoms have results, and why the others have none.
    """
    points, why = inputs.points, ""
    if points not in viewer.layers:
        why = "theirs was removed meanwhile"
    elif run is not None and points.metadata.get(RECIPE) is not run.recipe:
        why = "theirs was given other results meanwhile"
    if why:
        kept = [name for name in table if not is_result(name)]
        points = add_atoms(viewer, table[kept], inputs.image, points.metadata.get(RECIPE))
    channels = inputs.channels if inputs.more else ()
    join_results(points, table, recipe, model, None if why else inputs.places, channels)
    return points, _in_words(points, inputs, why)


def color_results(points: Points) -> None:
    """Colour atoms by what is new about them, and show a colour bar a little later.

    Parameters
    ----------
    points : napari.layers.Points
        Atoms with results.
    """
    coloring = coloring_of(points)
    shown = coloring.column if coloring is not None and is_result(coloring.column) else _first_look(points)
    color_points(points, shown, bar=False)
    QTimer.singleShot(_LATER, partial(show_color_bar, points))


def _in_words(points: Points, inputs: TrainingInputs, why_new: str) -> str:
    told = next(name for name in ("z1", "class", "atom_id") if name in points.features)  # class: of averages
    encoded = points.features[told].notna()
    text = f"{int(encoded.sum()):,} of {len(points.data):,} atoms have results"
    if why_new:
        return f"{text}, in a new layer: {why_new}."
    later = int((~encoded & ~points.features["atom_id"].isin(inputs.unmoved())).sum())
    text += f"; {later:,} were added or moved meanwhile." if later else "."
    return text if inputs.image_is_same() else f"{text} The image was changed meanwhile: these are of the one before."


def _first_look(points: Points) -> str:
    classes = points.features.get("class")
    if classes is not None and classes.nunique() > 1:
        return "class"
    return "z1" if "z1" in points.features else "angle"
