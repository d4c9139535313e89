"""The commands that decode: what a model makes of an image, and what it has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_rvae.cli.options import (
    AtomsOption,
    ForceOption,
    ImageArgument,
    ModelArgument,
    WhereOption,
    settings_from,
    with_settings,
)
from napari_rvae.cli.terminal import show_progress
from napari_rvae.errors import OutputError
from napari_rvae.settings import FindSettings

_TIFF = (".tif", ".tiff")
_PICTURES = (".png", *_TIFF)

_PictureOption = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="PICTURE", help="Picture to write: .png to look at, .tif with intensities."),
]
_ConditionOption = Annotated[
    str | None,
    typer.Option("--condition", metavar="VALUES", help="What conditional models are told: a value per column, 300,up."),
]


@with_settings(FindSettings)
def reconstruct(
    model: ModelArgument,
    image: ImageArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TIFF", help="Image to write, .tif or .tiff.")],
    difference: Annotated[
        Path | None, typer.Option("--difference", metavar="TIFF", help="Write what the model did not understand.")
    ] = None,
    atoms: AtomsOption = None,
    where: WhereOption = None,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Denoise an image: decode every atom's patch and put them together again."""
    from napari_rvae.io import load_atoms, load_image
    from napari_rvae.models import load_model
    from napari_rvae.workflows import encode_image, reconstruct_image
    from napari_rvae.workflows.reconstruction import save_pixels
    from napari_rvae.workflows.steps import scaled

    _check([output] if difference is None else [output, difference], _TIFF, force)
    find, trained = settings_from(FindSettings, values), load_model(model)
    loaded, places = load_image(image), None if atoms is None else load_atoms(atoms)
    with show_progress() as progress:
        table = encode_image(trained, loaded, find, atoms=places, where=where, progress=scaled(progress, 0, 0.7))
        pixels = reconstruct_image(trained, loaded, table, progress=scaled(progress, 0.7, 1))
    save_pixels(pixels, loaded, output)
    if difference is not None:
        save_pixels(loaded.data - pixels, loaded, difference)
    typer.echo(f"{table['z1'].notna().sum()} patches: {output}")


@with_settings()
def manifold(
    model: ModelArgument,
    output: _PictureOption,
    across: Annotated[int, typer.Option("--across", help="Number of the latent that grows to the right.")] = 1,
    up: Annotated[int, typer.Option("--up", help="Number of the latent that grows upward.")] = 2,
    steps: Annotated[int, typer.Option("--steps", min=2, max=50, help="Patches along each side.")] = 9,
    extent: Annotated[
        float, typer.Option("--extent", min=0.01, max=100, help="How far latents go from 0; 1 is their usual spread.")
    ] = 2.0,
    kind: Annotated[
        str | None, typer.Option("--class", metavar="CLASS", help="Name or number of a class; all, side by side.")
    ] = None,
    condition: _ConditionOption = None,
    force: ForceOption = False,
) -> None:
    """Show what a model has learned: patches decoded on a grid over two latents."""
    from napari_rvae.models import load_model
    from napari_rvae.workflows.decoding import manifold_picture, save_picture

    _check([output], _PICTURES, force)
    trained = load_model(model)
    picture = manifold_picture(trained, (across - 1, up - 1), steps, extent, kind=kind, condition=condition)
    save_picture(picture, trained, output)
    typer.echo(f"{steps} patches along each side: {output}")


@with_settings()
def attribute(
    model: ModelArgument,
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A latent.csv by this model.")],
    output: _PictureOption,
    having: Annotated[str, typer.Option("--having", metavar="EXPRESSION", help="Atoms that have it: 'class == 1'.")],
    lacking: Annotated[str, typer.Option("--lacking", metavar="EXPRESSION", help="Atoms that lack it: 'class == 0'.")],
    patch_of: Annotated[
        str | None,
        typer.Option("--patch-of", metavar="EXPRESSION", help="Atoms whose mean is changed; else of those lacking it."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--class", metavar="CLASS", help="Name or number of a class; that of most of them.")
    ] = None,
    condition: _ConditionOption = None,
    force: ForceOption = False,
) -> None:
    """Show what two groups of atoms differ in: a patch with -1 to 2 times of it added, in steps of a half."""
    from napari_rvae.io import load_table
    from napari_rvae.models import load_model
    from napari_rvae.workflows.decoding import attribute_picture, save_picture

    _check([output], _PICTURES, force)
    trained = load_model(model)
    known = {"kind": kind, "condition": condition}
    picture, direction = attribute_picture(trained, load_table(table), having, lacking, patch_of, **known)
    save_picture(picture, trained, output)
    differ = ", ".join(f"z{number} {step:+.2f}" for number, step in enumerate(direction, 1))
    typer.echo(f"they differ by {differ}: {output}")


def _check(targets: list[Path], endings: tuple[str, ...], force: bool) -> None:
    """Refuse what cannot be written, before the work starts."""
    from napari_rvae.io import check_outputs

    for target in targets:
        if target.suffix.lower() not in endings:
            raise OutputError(f"{target.name} must end in {', '.join(endings[:-1])} or {endings[-1]}")
    check_outputs(targets, force)
