"""The same steps from a shell. Options are generated from the settings; what goes wrong is one line on stderr."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_rvae.cli.counting import classes
from napari_rvae.cli.decoding import attribute, manifold, reconstruct
from napari_rvae.cli.finder import train_finder
from napari_rvae.cli.options import (
    AtomsOption,
    CleanOption,
    ConditionOption,
    DataArgument,
    DebugOption,
    FolderOption,
    ForceOption,
    ImageArgument,
    ModelArgument,
    PatchesOption,
    ResumeOption,
    TableOption,
    WhereOption,
    check_used,
    holds_patches,
    settings_from,
    with_settings,
)
from napari_rvae.cli.terminal import complain, in_one_line, keep_libraries_quiet, show_progress
from napari_rvae.errors import InputDataError, OutputError, RVAEError
from napari_rvae.settings import AverageSettings, BaselineSettings, FindSettings, PatchSettings, TrainSettings

app = typer.Typer(
    name="napari-rvae",
    help="Find atoms in microscope images and learn what makes them differ.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Commands -------------------------------------------------------------------------------------------------------------


@app.callback()
def _common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    debug: DebugOption = False,  # noqa: ARG001  read in `main`, wherever it stands
) -> None:
    if version:
        import napari_rvae

        typer.echo(f"napari-rvae {napari_rvae.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("find")
@with_settings(FindSettings)
def _find(image: ImageArgument, output: TableOption, force: ForceOption = False, **values: Any) -> None:
    """Find atoms: a table of positions, amplitudes and sublattices. No parameter is needed."""
    from napari_rvae.atoms import find_atoms
    from napari_rvae.io import add_physical_positions, check_outputs, check_table_name, load_image, save_table
    from napari_rvae.workflows.finding import IF_NONE
    from napari_rvae.workflows.steps import finder_of, first_channel

    settings = settings_from(FindSettings, values)
    check_table_name(output)
    check_outputs([output], force)
    loaded = load_image(image)
    with show_progress() as progress:
        atoms = find_atoms(first_channel(loaded), settings, finder=finder_of(settings), progress=progress)
    save_table(add_physical_positions(atoms, loaded.pixel_size, loaded.unit), output)
    words = _found(atoms, loaded) if len(atoms) else f"No atoms were found: {IF_NONE}."
    typer.echo(f"{len(atoms)} atoms: {output}\n{words}")


app.command("train-finder")(train_finder)


@app.command("run")
@with_settings(FindSettings, PatchSettings, TrainSettings)
def _run(
    image: ImageArgument,
    output: FolderOption,
    atoms: AtomsOption = None,
    where: WhereOption = None,
    clean: CleanOption = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Do it all: find atoms, cut patches, train a model, encode every atom."""
    from napari_rvae.io import check_outputs, load_atoms, load_image
    from napari_rvae.workflows import analyze_image
    from napari_rvae.workflows.pipeline import ANALYSIS_FILES

    find, patch = settings_from(FindSettings, values), settings_from(PatchSettings, values)
    training = check_used(settings_from(TrainSettings, values))
    check_outputs([output / name for name in ANALYSIS_FILES], force)
    loaded, given = load_image(image), None if atoms is None else load_atoms(atoms)
    more: dict[str, Any] = {"atoms": given, "atoms_file": atoms, "where": where}
    more["clean"] = None if clean is None else load_image(clean)
    with _kept(output, resume, force) as checkpoint, show_progress() as progress:
        done = analyze_image(loaded, find, patch, training, **more, progress=progress, checkpoint=checkpoint)
    done.save(output, force)
    _tell_analysis(done, output)
    if given is None:
        typer.echo(_found(done.atoms, loaded))


@app.command("train")
@with_settings(PatchSettings, TrainSettings, without=("label_column", "condition_columns"))
def _train(
    patches: Annotated[str, typer.Argument(metavar="PATCHES", help="NPY or NPZ: (n, h, w) or (n, channels, h, w).")],
    output: FolderOption,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="NPY",
            help="Class of each patch, -1 where it is not known; or decimal numbers, nan where they are not known.",
        ),
    ] = None,
    condition: ConditionOption = None,
    clean: CleanOption = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Train a model on ready-made patches and encode each of them."""
    from napari_rvae.io import check_outputs, load_patches, load_vector
    from napari_rvae.workflows import analyze_patches
    from napari_rvae.workflows.pipeline import ANALYSIS_FILES

    patch, training = settings_from(PatchSettings, values), check_used(settings_from(TrainSettings, values))
    check_outputs([output / name for name in ANALYSIS_FILES], force)
    loaded = load_patches(patches)
    files = {name: file for name, file in (("labels", labels), ("condition", condition)) if file is not None}
    given: dict[str, Any] = {name: load_vector(file, len(loaded.data), name) for name, file in files.items()}
    given["clean"] = None if clean is None else load_patches(clean)
    with _kept(output, resume, force) as checkpoint, show_progress() as progress:
        done = analyze_patches(loaded, patch, training, **given, files=files, progress=progress, checkpoint=checkpoint)
    done.save(output, force)
    _tell_analysis(done, output)


@app.command("average")
@with_settings(AverageSettings, PatchSettings, FindSettings)
def _average(
    data: DataArgument,
    output: FolderOption,
    atoms: AtomsOption = None,
    where: WhereOption = None,
    patches: PatchesOption = None,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Sort patches into class averages, without training."""
    from napari_rvae.io import check_outputs, load_atoms, load_image, load_patches
    from napari_rvae.workflows import average_image, average_patches
    from napari_rvae.workflows.averaging import AVERAGE_FILES

    find, patch = settings_from(FindSettings, values), settings_from(PatchSettings, values)
    settings = settings_from(AverageSettings, values)
    check_outputs([output / name for name in AVERAGE_FILES], force)
    if holds_patches(data, patches, atoms, where):
        loaded = load_patches(data)
        with show_progress() as progress:
            done = average_patches(loaded, patch, settings, progress=progress)
    else:
        loaded, given = load_image(data), None if atoms is None else load_atoms(atoms)
        with show_progress() as progress:
            done = average_image(
                loaded, find, patch, settings, atoms=given, atoms_file=atoms, where=where, progress=progress
            )
    done.save(output, force)
    typer.echo(f"{len(done.averages.counts)} classes of {len(done.table)} patches: {output}")


@app.command("baseline")
@with_settings(BaselineSettings, PatchSettings, FindSettings)
def _baseline(
    data: DataArgument,
    output: TableOption,
    atoms: AtomsOption = None,
    where: WhereOption = None,
    patches: PatchesOption = None,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Describe patches without a network, by PCA or NMF and clusters, to compare with."""
    from napari_rvae.io import check_outputs, check_table_name, load_atoms, load_image, load_patches, save_table
    from napari_rvae.workflows import baseline_image, baseline_patches

    find, patch = settings_from(FindSettings, values), settings_from(PatchSettings, values)
    settings = settings_from(BaselineSettings, values)
    check_table_name(output)
    check_outputs([output], force)
    if holds_patches(data, patches, atoms, where):
        loaded = load_patches(data)
        with show_progress() as progress:
            table = baseline_patches(loaded, patch, settings, progress=progress)
    else:
        loaded, places = load_image(data), None if atoms is None else load_atoms(atoms)
        with show_progress() as progress:
            table = baseline_image(loaded, find, patch, settings, atoms=places, where=where, progress=progress)
    save_table(table, output)
    typer.echo(f"{table['z1'].notna().sum()} of {len(table)} described: {output}")


app.command("classes")(classes)


@app.command("encode")
@with_settings(FindSettings)
def _encode(
    model: ModelArgument,
    data: DataArgument,
    output: TableOption,
    atoms: AtomsOption = None,
    where: WhereOption = None,
    condition: ConditionOption = None,
    patches: PatchesOption = None,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Apply a trained model to another image or other patches."""
    from napari_rvae.io import (
        check_outputs,
        check_table_name,
        load_atoms,
        load_image,
        load_patches,
        load_vector,
        save_table,
    )
    from napari_rvae.models import load_model
    from napari_rvae.workflows import encode_image, encode_patches, misfit

    find = settings_from(FindSettings, values)
    check_table_name(output)
    check_outputs([output], force)
    trained = load_model(model)
    if holds_patches(data, patches, atoms, where):
        loaded = load_patches(data)
        given = None if condition is None else load_vector(condition, len(loaded.data), "condition")
        with show_progress() as progress:
            table = encode_patches(trained, loaded, condition=given, progress=progress)
    else:
        loaded, places = load_image(data), None if atoms is None else load_atoms(atoms)
        if condition is not None and places is None:
            raise InputDataError("--condition holds a row for each atom of an image: give these with --atoms")
        given = None if condition is None or places is None else load_vector(condition, len(places), "condition")
        with show_progress() as progress:
            table = encode_image(trained, loaded, find, atoms=places, where=where, condition=given, progress=progress)
    save_table(table, output)
    typer.echo(f"{table['z1'].notna().sum()} of {len(table)} encoded: {output}")
    _tell_notes([misfit(trained, table)])


app.command("reconstruct")(reconstruct)
app.command("manifold")(manifold)
app.command("attribute")(attribute)


@app.command("apply")
@with_settings(FindSettings)
def _apply(
    model: ModelArgument,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES", help="Images, and folders with images; of files of several, as in training."),
    ],
    output: FolderOption,
    atoms: Annotated[
        Path | None,
        typer.Option(
            "--atoms",
            metavar="TABLE-or-DIR",
            help="Use these atoms instead of finding them; of several images a folder with tables of the same names.",
        ),
    ] = None,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Apply a trained model to many images: a table for each and a summary; one that fails does not stop the rest."""
    from napari_rvae.models import load_model
    from napari_rvae.workflows.applying import apply_to_files, image_files

    find, files = settings_from(FindSettings, values), image_files(images)
    with show_progress() as progress:
        summary = apply_to_files(load_model(model), files, output, find, atoms=atoms, force=force, progress=progress)
    failed = summary[summary["state"] == "failed"]
    told = summary[summary["note"] != ""]
    _tell_notes(f"{Path(file).name}: {note}" for file, note in zip(told["file"], told["note"], strict=True))
    typer.echo(f"{len(summary) - len(failed)} of {len(summary)} images encoded: {output}")
    if len(failed):
        first = failed.iloc[0]
        count = f"{len(failed)} image{'s' if len(failed) > 1 else ''}"
        raise InputDataError(f"{count} failed, see summary.csv; the first: {first['error']}")


@app.command("repeat")
@with_settings()
def _repeat(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe.json; its inputs must be unchanged.")],
    output: FolderOption,
    force: ForceOption = False,
) -> None:
    """Do again what a recipe says."""
    from napari_rvae.io import Recipe, check_outputs
    from napari_rvae.workflows import repeat
    from napari_rvae.workflows.averaging import AVERAGE_FILES
    from napari_rvae.workflows.finding import FOUND_FILES
    from napari_rvae.workflows.pipeline import ANALYSIS_FILES

    written = {"average": AVERAGE_FILES, "find": FOUND_FILES}
    files = written.get(Recipe.load(recipe).command, ANALYSIS_FILES)
    check_outputs([output / name for name in files], force)
    with show_progress() as progress:
        done = repeat(recipe, progress=progress)
    done.save(output, force)
    typer.echo(f"done again: {output}")


@app.command("demo")
@with_settings()
def _demo(
    image: Annotated[str | None, typer.Argument(metavar="[IMAGE]", help="Your own image instead of a sample.")] = None,
    screenshot: Annotated[
        bool, typer.Option("--screenshot", help="Save a picture and the results, and close; so without a display.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where they are saved.")] = Path(
        "demo-output"
    ),
) -> None:
    """Open napari with the whole pipeline run on a sample."""
    try:
        from napari_rvae.widgets.demo import run_demo
    except ImportError as error:  # napari comes without a window toolkit
        raise RVAEError(f'the window cannot be opened ({error}); try: pip install "napari-rvae[all]"') from error
    for path in run_demo(image, screenshot=screenshot, output=output):
        typer.echo(path)


def _found(atoms: Any, image: Any) -> str:
    """One line about the atoms that were found, in the units of their image."""
    from napari_rvae.workflows.finding import atoms_in_words

    return atoms_in_words(atoms, sum(image.pixel_size) / 2 if image.pixel_size else 1.0, image.unit)


def _tell_analysis(done: Any, output: Path) -> None:
    used, encoded = done.recipe.used, int(done.table["z1"].notna().sum())
    how = f"{used.get('epochs', '?')} epochs on {used.get('device', '?')}"
    typer.echo(f"{encoded} of {len(done.table)} encoded, {how}: {output}")
    _tell_notes(used.get("notes", ()))


def _tell_notes(notes: Iterable[str]) -> None:
    for note in filter(None, notes):
        sys.stderr.write(f"napari-rvae: {note}\n")


class _InterruptedError(Exception):
    """Stopped from the keyboard, with something to go on with."""


@contextmanager
def _kept(output: Path, resume: bool, force: bool) -> Iterator[Any]:
    """Keep the state of a training in a folder beside its results, until these are there."""
    from napari_rvae.training.checkpoints import Checkpoint

    folder = output / "interrupted"
    checkpoint = Checkpoint(folder)
    facts = checkpoint.facts()
    if resume and facts is None:
        raise InputDataError(f"no training was interrupted in {output}; leave --resume out")
    if not resume and facts is not None and not force:
        raise OutputError(
            f"{output} holds a training that was interrupted after epoch {facts['epoch']}; "
            "go on with it with --resume, or start anew with --force"
        )
    if not resume:
        checkpoint.remove()
    try:
        yield checkpoint
    except KeyboardInterrupt:
        if checkpoint.facts() is None:
            raise
        raise _InterruptedError from None
    checkpoint.remove()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


# Around them ----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of those of the process.

    Returns
    -------
    int
        0, 2 after an error, 130 when it was stopped from the keyboard.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    if not debug:
        keep_libraries_quiet()
    try:
        status = typer.main.get_command(app).main(given, prog_name="napari-rvae", standalone_mode=False)
    except _InterruptedError:
        return complain("stopped; go on with --resume", 130)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        return complain(in_one_line(error), 2)
    if status == 130:  # typer's own code for a stop from the keyboard, too
        return complain("stopped; nothing was written", 130)
    return status if isinstance(status, int) else 0
