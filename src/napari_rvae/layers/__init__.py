"""Tables to napari layers and back: the only place that does it.

Positions are image data coordinates; a result layer copies scale, rotation, units and the rest from its image, so it
lies on it wherever the image lies. Atoms are the same atoms by their ``atom_id``, never by their row.
"""

from napari_rvae.layers.atoms import (
    RECIPE,
    add_atoms,
    atoms_table,
    color_choices,
    color_points,
    coloring_of,
    events,
    identify,
    image_of,
    is_result,
    make_color_bar,
    set_features,
    show_color_bar,
)
from napari_rvae.layers.coloring import GREY, Coloring, class_colors, set_class_colors
from napari_rvae.layers.images import (
    add_beside,
    add_image,
    add_reconstruction,
    fits,
    hashed,
    image_data,
    image_source,
    pixel_size,
    showing,
    shows,
    source_of,
    transformation,
)
from napari_rvae.layers.maps import (
    add_arrows,
    add_cells,
    atoms_of,
    cell_colormap,
    cells_of,
    class_map_of,
    color_cells,
    outline_of_cells,
    show_classes,
)
from napari_rvae.layers.models import MODEL, attach_model, channels_of, model_of
from napari_rvae.layers.refined import place_refined
from napari_rvae.layers.regions import inside, region_mask, shown_frame
from napari_rvae.layers.results import can_undo, join_results, results_of, show_with_results, undo_results
from napari_rvae.layers.saving import save_features
from napari_rvae.layers.subsets import add_subset
from napari_rvae.layers.tracks import add_tracks

__all__ = [
    "GREY",
    "MODEL",
    "RECIPE",
    "Coloring",
    "add_arrows",
    "add_atoms",
    "add_beside",
    "add_cells",
    "add_image",
    "add_reconstruction",
    "add_subset",
    "add_tracks",
    "atoms_of",
    "atoms_table",
    "attach_model",
    "can_undo",
    "cell_colormap",
    "cells_of",
    "channels_of",
    "class_colors",
    "class_map_of",
    "color_cells",
    "color_choices",
    "color_points",
    "coloring_of",
    "events",
    "fits",
    "hashed",
    "identify",
    "image_data",
    "image_of",
    "image_source",
    "inside",
    "is_result",
    "join_results",
    "make_color_bar",
    "model_of",
    "outline_of_cells",
    "pixel_size",
    "place_refined",
    "region_mask",
    "results_of",
    "save_features",
    "set_class_colors",
    "set_features",
    "show_color_bar",
    "show_classes",
    "show_with_results",
    "showing",
    "shown_frame",
    "shows",
    "source_of",
    "transformation",
    "undo_results",
]
