"""Images, patches, tables and recipes on disk."""

from napari_rvae.io.files import check_outputs, replacing, written_together
from napari_rvae.io.images import (
    IMAGE_FILES,
    ImageData,
    get_reader,
    load_image,
    load_patches,
    load_vector,
    looks_like_patches,
    save_image,
)
from napari_rvae.io.recipes import FileRecord, Recipe, RegionRecord, inline_atoms
from napari_rvae.io.tables import (
    add_physical_positions,
    as_atoms,
    check_table_name,
    column_units,
    load_atoms,
    load_table,
    save_table,
)

__all__ = [
    "IMAGE_FILES",
    "FileRecord",
    "ImageData",
    "Recipe",
    "RegionRecord",
    "add_physical_positions",
    "as_atoms",
    "check_outputs",
    "check_table_name",
    "column_units",
    "get_reader",
    "inline_atoms",
    "load_atoms",
    "load_image",
    "load_patches",
    "load_table",
    "load_vector",
    "looks_like_patches",
    "replacing",
    "save_image",
    "save_table",
    "written_together",
]
