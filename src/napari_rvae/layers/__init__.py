"""Tables to napari layers and back: the only place that does it.

Positions are image data coordinates; a result layer copies scale, rotation, units and the rest from its image, so it
lies on it wherever the image lies. Atoms are the same atoms by their ``atom_id``, never by their row.
"""

from napari_rvae.layers.atoms import (
    RECIPE,
    Learned,
    add_atoms,
    atoms_table,
    can_undo,
    color_choices,
    color_points,
    coloring_of,
    identify,
    image_of,
    is_result,
    join_results,
    learned_of,
    undo_results,
)
from napari_rvae.layers.coloring import GREY, Coloring
from napari_rvae.layers.images import image_data, pixel_size, transformation
from napari_rvae.layers.maps import add_arrows, add_cells, cell_colormap
from napari_rvae.layers.models import MODEL, attach_model, model_of

__all__ = [
    "GREY",
    "MODEL",
    "RECIPE",
    "Coloring",
    "Learned",
    "add_arrows",
    "add_atoms",
    "add_cells",
    "atoms_table",
    "attach_model",
    "can_undo",
    "cell_colormap",
    "color_choices",
    "color_points",
    "coloring_of",
    "identify",
    "image_data",
    "image_of",
    "is_result",
    "join_results",
    "learned_of",
    "model_of",
    "pixel_size",
    "transformation",
    "undo_results",
]
