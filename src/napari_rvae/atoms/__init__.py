"""Atoms of an image: found without a parameter, fitted below the pixel, given as a table.

``prepare(image, settings)`` filters an image once and returns a `Detection`; its ``positions(threshold)`` answers in
well under a millisecond, for live previews. ``find_atoms`` is the whole way from the image to the table, and
``refine_atoms`` fits what was added or moved by hand; ``link_atoms`` follows atoms through the frames of a stack.
"""

from __future__ import annotations

from napari_rvae.atoms.find import Detection, prepare
from napari_rvae.atoms.limit import at_the_limit
from napari_rvae.atoms.region import Area
from napari_rvae.atoms.stacks import find_atoms, refine_atoms
from napari_rvae.atoms.tracks import link_atoms
from napari_rvae.atoms.windows import called

__all__ = ["Area", "Detection", "at_the_limit", "called", "find_atoms", "link_atoms", "prepare", "refine_atoms"]
