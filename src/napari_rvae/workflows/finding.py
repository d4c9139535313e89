"""The atoms of an image and how they were found."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from napari_rvae.io import (
    FileRecord,
    ImageData,
    Recipe,
    RegionRecord,
    add_physical_positions,
    check_outputs,
    column_units,
    save_table,
    written_together,
)
from napari_rvae.settings import FindSettings
from napari_rvae.workflows.steps import dumped, finder_of, finder_record, first_channel

if TYPE_CHECKING:
    from napari_rvae.patches import Progress, Stop

FOUND_FILES = ("atoms.csv", "recipe.json")
IF_NONE = (
    "lower the threshold, say whether atoms are dark or bright, or give their spacing; they must be 3 pixels apart or "
    "more, and narrower than a tenth of the image; where there are no atoms, take windows on a grid (search: grid)"
)


@dataclass(frozen=True)
class FoundAtoms:
    """Atoms of an image.

    Parameters
    ----------
    source : ImageData
        The image.
    table : DataFrame
        Atoms table, in pixels.
    recipe : Recipe
        How they were found.
    """

    source: ImageData
    table: pd.DataFrame
    recipe: Recipe

    def save(self, folder: str | os.PathLike[str], force: bool = False) -> None:
        """Write table and recipe.

        Parameters
        ----------
        folder : str or path-like
            Where to; made if it is not there.
        force : bool
            Replace existing results.

        Raises
        ------
        OutputError
            If there are results already, or it cannot be written there.
        """
        target = Path(folder)
        check_outputs([target / name for name in FOUND_FILES], force)
        with written_together(target) as place:
            save_table(
                add_physical_positions(self.table, self.source.pixel_size, self.source.unit), place / "atoms.csv"
            )
            self.recipe.save(place / "recipe.json")


def find_in_image(
    image: ImageData,
    settings: FindSettings | None = None,
    region: RegionRecord | None = None,
    *,
    linked: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> FoundAtoms:
    """Find atoms and note how.

    Parameters
    ----------
    image : ImageData
        Image or stack.
    settings : FindSettings, optional
        What is known.
    region : RegionRecord, optional
        Where to look.
    linked : bool
        Follow the atoms of a stack through its frames.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    FoundAtoms

    Raises
    ------
    InputDataError
        If the image cannot be used.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.atoms import find_atoms, link_atoms

    settings = settings or FindSettings()
    pixels = first_channel(image)
    mask = None if region is None else region.mask(pixels.shape)
    options: dict[str, Any] = {"finder": finder_of(settings), "progress": progress, "stop": stop}
    atoms = find_atoms(pixels, settings, region=mask, **options)
    used = {**atoms.attrs.get("napari_rvae", {}), "pixel_size": image.pixel_size, "unit": image.unit, "linked": linked}
    if linked and len(atoms):
        atoms = link_atoms(atoms)
    inputs = {"image": FileRecord.of(image)} if image.sha256 else {}
    inputs |= finder_record(settings)
    recipe = Recipe(
        command="find",
        inputs=inputs,
        region=region,
        settings=dumped(find=settings),
        used=used,
        units=column_units(atoms, image.unit),
    )
    return FoundAtoms(image, atoms, recipe)


def atoms_in_words(atoms: pd.DataFrame, pixel: float = 1.0, unit: str | None = None) -> str:
    """Put into words what was found.

    Parameters
    ----------
    atoms : pandas.DataFrame
        As `find_atoms` gives it.
    pixel : float
        Size of a pixel, the mean of both sides.
    unit : str, optional
        Its unit, where lengths are told in it, too.

    Returns
    -------
    str
        How many atoms there are, their contrast, spacing and width; how many are doubtful; frames without use.
    """
    from napari_rvae.atoms import at_the_limit, called

    estimated, kind = atoms.attrs.get("napari_rvae", {}), called(atoms)
    if kind == "window":
        estimated = {name: value for name, value in estimated.items() if name in ("spacing", "unusable")}
    contrast = f"{estimated['contrast']} " if "contrast" in estimated else ""
    words = [f"{len(atoms):,} {contrast}{kind}{'s' * (len(atoms) != 1)}"]
    if "frame" in atoms:
        count = atoms["frame"].nunique()
        words[0] += f" in {count:,} frame{'s' * (count > 1)}"
    for name, title in (("spacing", "neighbours at"), ("sigma", "width (sigma)")):
        if estimated.get(name) and math.isfinite(estimated[name]):
            length = f" = {estimated[name] * pixel:.3g} {unit}" if unit else ""
            words.append(f"{title} {estimated[name]:.3g} px{length}")
    if "sublattice" in atoms and atoms["sublattice"].nunique() > 1:
        words.append(f"{atoms['sublattice'].nunique()} sublattices")
    limited = int(at_the_limit(atoms).sum()) if "snr" in atoms and kind == "atom" else 0
    if limited:
        limit = estimated.get("threshold", 0.0) + 1
        words.append(f"{limited:,} at the limit of detection (less than {limit:.1f} times the noise)")
    if "flag" in atoms:
        words += [f"{count:,} {flag}" for flag, count in atoms["flag"].value_counts().items() if flag]
    if unusable := estimated.get("unusable"):
        named = ", ".join(str(frame) for frame in unusable[:8]) + (", ..." if len(unusable) > 8 else "")
        frames = f"frame{'s' * (len(unusable) > 1)}"
        words.append(f"{len(unusable):,} {frames} could not be used, being constant or no numbers: {named}")
    return " · ".join(words)
