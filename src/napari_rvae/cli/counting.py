"""The command that tells how many classes there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_rvae.cli.options import (
    AtomsOption,
    DataArgument,
    ForceOption,
    PatchesOption,
    WhereOption,
    holds_patches,
    settings_from,
    with_settings,
)
from napari_rvae.cli.terminal import show_progress
from napari_rvae.settings import CountSettings, FindSettings, PatchSettings


@with_settings(CountSettings, PatchSettings, FindSettings)
def classes(
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="CSV", help="Table of stabilities to write.")],
    atoms: AtomsOption = None,
    where: WhereOption = None,
    patches: PatchesOption = None,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Tell how many classes there are: how well 2, 3, ... of them are found again in other patches."""
    from napari_rvae.averages.counting import stability_in_words
    from napari_rvae.errors import OutputError
    from napari_rvae.io import check_outputs, load_atoms, load_image, load_patches
    from napari_rvae.io.files import replacing
    from napari_rvae.workflows import count_image, count_patches

    find, patch = settings_from(FindSettings, values), settings_from(PatchSettings, values)
    settings = settings_from(CountSettings, values)
    if output.suffix.lower() != ".csv":
        raise OutputError(f"{output.name} must end in .csv")
    check_outputs([output], force)
    if holds_patches(data, patches, atoms, where):
        loaded = load_patches(data)
        with show_progress() as progress:
            table = count_patches(loaded, patch, settings, progress=progress)
    else:
        loaded, places = load_image(data), None if atoms is None else load_atoms(atoms)
        with show_progress() as progress:
            table = count_image(loaded, find, patch, settings, atoms=places, where=where, progress=progress)
    with replacing(output) as place:
        table.to_csv(place, index=False)
    for count, stability in table[["classes", "stability"]].to_numpy():
        typer.echo(f"{count:3.0f}  {stability:.2f}  {'#' * round(40 * stability)}")
    typer.echo(f"{stability_in_words(table)} {output}")
