"""The command that trains a finder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_rvae.cli.options import ForceOption, settings_from, with_settings
from napari_rvae.cli.terminal import show_progress
from napari_rvae.errors import InputDataError, OutputError
from napari_rvae.settings import FinderSettings


@with_settings(FinderSettings)
def train_finder(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Finder to write, .safetensors.")],
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE ATOMS]...", help="Images, each followed by the table of all its atoms."),
    ] = None,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Train a finder on images whose atoms are known, or on simulated ones; use it with find --search learned."""
    from napari_rvae.io import check_outputs, load_atoms, load_image
    from napari_rvae.training.finder import examples_of
    from napari_rvae.training.finder import train_finder as trained
    from napari_rvae.workflows.steps import first_channel

    settings, given = settings_from(FinderSettings, values), pairs or []
    if output.suffix.lower() != ".safetensors":
        raise OutputError(f"{output.name} must end in .safetensors")
    if len(given) % 2:
        raise InputDataError(f"{given[-1]} has no table of atoms behind it: give images and tables in turn")
    if not given and settings.specimen == "none":
        raise InputDataError("there is nothing to learn from: give images with their atoms, or --specimen")
    check_outputs([output], force)
    examples = []
    for image, table in zip(given[::2], given[1::2], strict=True):
        examples.extend(examples_of(first_channel(load_image(image)), load_atoms(table)))
    with show_progress() as progress:
        for report in trained(examples, settings):
            if progress is not None:
                progress(report.step / report.steps, f"loss {report.loss:.4f}, held out {report.held_out:.4f}")
    if report.finder is not None:
        report.finder.save(output)
    typer.echo(f"F1 {report.score:.3f} on what it was not shown: {output}")
