"""The same steps from a shell. Options are generated from the settings; what goes wrong is one line on stderr."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from napari_rvae.errors import InputDataError, RVAEError, SettingsError
from napari_rvae.settings import AverageSettings, FindSettings, PatchSettings, Settings, TrainSettings

Chosen = TypeVar("Chosen", bound=Settings)
Progress = Callable[[float, str], None]

_PANELS: dict[type[Settings], str] = {
    FindSettings: "Atoms",
    PatchSettings: "Patches",
    TrainSettings: "Model",
    AverageSettings: "Averages",
}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

app = typer.Typer(
    name="napari-rvae",
    help="Find atoms in microscope images and learn what makes them differ.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

ImageArgument = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Image or stack; FILE.h5::NAME chooses one of several.")
]
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE-or-PATCHES",
        help="Image or stack, or patches: NPY and NPZ files with at least 8 square frames of at most 128 pixels.",
    ),
]
FolderOption = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")]
TableOption = Annotated[Path, typer.Option("--output", "-o", metavar="TABLE", help="Table to write, .csv or .parquet.")]
AtomsOption = Annotated[
    Path | None,
    typer.Option("--atoms", metavar="TABLE", help="Use these atoms, columns y and x, instead of finding them."),
]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPRESSION", help="Use only some atoms: 'sublattice == 0'."),
]
PatchesOption = Annotated[
    bool | None, typer.Option("--patches/--image", help="Say what the file holds where the rule above fails.")
]
ConditionOption = Annotated[
    Path | None,
    typer.Option("--condition", metavar="NPY", help="What conditional models are given of each patch."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace existing results.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]


# Options from settings ------------------------------------------------------------------------------------------------


def _with_settings(*models: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per field of the settings; it gets them as keyword arguments."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [_option(model, name) for model in models for name in model.model_fields]
        debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=DebugOption)
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]

        def with_options(**values: Any) -> None:
            values.pop("debug")
            command(**values)

        with_options.__signature__ = signature.replace(parameters=[*own, *options, debug])  # type: ignore[attr-defined]
        with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
        return with_options

    return decorate


def _option(model: type[Settings], name: str) -> inspect.Parameter:
    """Describe a field as an option: name, type, default, range, unit and help."""
    field = model.model_fields[name]
    declared, kind = _option_name(model, name), _plain_type(field.annotation)
    if kind is bool:
        declared = f"{declared}/--no-{declared.removeprefix('--')}"
    facts = [str(_extra(field)[key]) for key in ("unit",) if key in _extra(field)]
    if get_origin(field.annotation) is Literal:
        facts.append(", ".join(get_args(field.annotation)))
    for bound in field.metadata:
        facts += [f"{sign} {getattr(bound, limit)}" for limit, sign in _SIGNS.items() if hasattr(bound, limit)]
    default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    option = typer.Option(
        declared,
        help=f"{field.description} " + (rf"\[{'; '.join(facts)}]" if facts else ""),
        rich_help_panel=_PANELS[model] + (", advanced" if _extra(field).get("advanced") else ""),
    )
    annotation = Annotated[kind | None if default is None else kind, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option_name(model: type[Settings], name: str) -> str:
    return str(_extra(model.model_fields[name]).get("option", "--" + name.replace("_", "-")))


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _plain_type(annotation: Any) -> type:
    """Reduce a field's type to what an option can be; choices and lists of names are text, checked by the settings."""
    plain = [kind for kind in (annotation, *get_args(annotation)) if kind in (bool, int, float, str)]
    return plain[0] if plain else str


def _settings(model: type[Chosen], values: dict[str, Any]) -> Chosen:
    """Make settings of those options that belong to them; an error names the option, not the field."""
    try:
        return model(**{name: value for name, value in values.items() if name in model.model_fields})
    except SettingsError as error:
        name, colon, text = str(error).partition(":")
        named = _option_name(model, name) if name in model.model_fields else name
        raise SettingsError(f"{named}{colon}{text}") from error


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
@_with_settings(FindSettings)
def _find(image: ImageArgument, output: TableOption, force: ForceOption = False, **values: Any) -> None:
    """Find atoms: a table of positions, amplitudes and sublattices. No parameter is needed."""
    from napari_rvae.atoms import find_atoms
    from napari_rvae.io import add_physical_positions, check_outputs, check_table_name, load_image, save_table
    from napari_rvae.workflows.steps import first_channel

    settings = _settings(FindSettings, values)
    check_table_name(output)
    check_outputs([output], force)
    loaded = load_image(image)
    with _progress() as progress:
        atoms = find_atoms(first_channel(loaded), settings, progress=progress)
    save_table(add_physical_positions(atoms, loaded.pixel_size, loaded.unit), output)
    typer.echo(f"{len(atoms)} atoms: {output}")


@app.command("run")
@_with_settings(FindSettings, PatchSettings, TrainSettings)
def _run(
    image: ImageArgument,
    output: FolderOption,
    atoms: AtomsOption = None,
    where: WhereOption = None,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Do it all: find atoms, cut patches, train a model, encode every atom."""
    from napari_rvae.io import check_outputs, load_atoms, load_image
    from napari_rvae.workflows import analyze_image
    from napari_rvae.workflows.pipeline import ANALYSIS_FILES

    find, patch = _settings(FindSettings, values), _settings(PatchSettings, values)
    training = _settings(TrainSettings, values)
    check_outputs([output / name for name in ANALYSIS_FILES], force)
    loaded, given = load_image(image), None if atoms is None else load_atoms(atoms)
    with _progress() as progress:
        done = analyze_image(
            loaded, find, patch, training, atoms=given, atoms_file=atoms, where=where, progress=progress
        )
    done.save(output, force)
    _tell_analysis(done, output)


@app.command("train")
@_with_settings(PatchSettings, TrainSettings)
def _train(
    patches: Annotated[str, typer.Argument(metavar="PATCHES", help="NPY or NPZ: (n, h, w) or (n, channels, h, w).")],
    output: FolderOption,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="NPY", help="Class of each patch, -1 where it is not known.")
    ] = None,
    condition: ConditionOption = None,
    force: ForceOption = False,
    **values: Any,
) -> None:
    """Train a model on ready-made patches and encode each of them."""
    from napari_rvae.io import check_outputs, load_patches, load_vector
    from napari_rvae.workflows import analyze_patches
    from napari_rvae.workflows.pipeline import ANALYSIS_FILES

    patch, training = _settings(PatchSettings, values), _settings(TrainSettings, values)
    check_outputs([output / name for name in ANALYSIS_FILES], force)
    loaded = load_patches(patches)
    files = {name: file for name, file in (("labels", labels), ("condition", condition)) if file is not None}
    given: dict[str, Any] = {name: load_vector(file, len(loaded.data), name) for name, file in files.items()}
    with _progress() as progress:
        done = analyze_patches(loaded, patch, training, **given, files=files, progress=progress)
    done.save(output, force)
    _tell_analysis(done, output)


@app.command("average")
@_with_settings(AverageSettings, PatchSettings, FindSettings)
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

    find, patch = _settings(FindSettings, values), _settings(PatchSettings, values)
    settings = _settings(AverageSettings, values)
    check_outputs([output / name for name in AVERAGE_FILES], force)
    if _holds_patches(data, patches, atoms, where):
        loaded = load_patches(data)
        with _progress() as progress:
            done = average_patches(loaded, patch, settings, progress=progress)
    else:
        loaded, given = load_image(data), None if atoms is None else load_atoms(atoms)
        with _progress() as progress:
            done = average_image(
                loaded, find, patch, settings, atoms=given, atoms_file=atoms, where=where, progress=progress
            )
    done.save(output, force)
    typer.echo(f"{len(done.averages.counts)} classes of {len(done.table)} patches: {output}")


@app.command("encode")
@_with_settings(FindSettings)
def _encode(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors.")],
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
    from napari_rvae.workflows import encode_image, encode_patches

    find = _settings(FindSettings, values)
    check_table_name(output)
    check_outputs([output], force)
    trained = load_model(model)
    if _holds_patches(data, patches, atoms, where):
        loaded = load_patches(data)
        given = None if condition is None else load_vector(condition, len(loaded.data), "condition")
        with _progress() as progress:
            table = encode_patches(trained, loaded, condition=given, progress=progress)
    else:
        loaded, places = load_image(data), None if atoms is None else load_atoms(atoms)
        with _progress() as progress:
            table = encode_image(trained, loaded, find, atoms=places, where=where, progress=progress)
    save_table(table, output)
    typer.echo(f"{table['z1'].notna().sum()} of {len(table)} encoded: {output}")


@app.command("repeat")
@_with_settings()
def _repeat(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe.json; its inputs must be unchanged.")],
    output: FolderOption,
    force: ForceOption = False,
) -> None:
    """Do again what a recipe says."""
    from napari_rvae.io import Recipe, check_outputs
    from napari_rvae.workflows import repeat
    from napari_rvae.workflows.averaging import AVERAGE_FILES
    from napari_rvae.workflows.pipeline import ANALYSIS_FILES

    files = AVERAGE_FILES if Recipe.load(recipe).command == "average" else ANALYSIS_FILES
    check_outputs([output / name for name in files], force)
    with _progress() as progress:
        done = repeat(recipe, progress=progress)
    done.save(output, force)
    typer.echo(f"done again: {output}")


@app.command("demo")
@_with_settings()
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


def _holds_patches(data: str, said: bool | None, atoms: Path | None, where: str | None) -> bool:
    from napari_rvae.io import looks_like_patches

    held = said if said is not None else atoms is None and where is None and looks_like_patches(data)
    if held and (atoms is not None or where is not None):
        raise InputDataError("--atoms and --where belong to an image; leave them out for patches")
    return held


def _tell_analysis(done: Any, output: Path) -> None:
    used, encoded = done.recipe.used, int(done.table["z1"].notna().sum())
    how = f"{used.get('epochs', '?')} epochs on {used.get('device', '?')}"
    typer.echo(f"{encoded} of {len(done.table)} encoded, {how}: {output}")


# Around them ----------------------------------------------------------------------------------------------------------


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Show a bar with the time left on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


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
        _keep_libraries_quiet()
    try:
        status = typer.main.get_command(app).main(given, prog_name="napari-rvae", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _complain(_in_one_line(error), 2)
    if status == 130:  # typer's own code for a stop from the keyboard, too
        return _complain("stopped; nothing was written", 130)
    return status if isinstance(status, int) else 0


def _keep_libraries_quiet() -> None:
    """Hide from users what libraries tell their developers."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())


def _in_one_line(error: Exception) -> str:
    if isinstance(error, RVAEError):
        text = str(error)
    elif hasattr(error, "format_message"):  # a usage error of typer, whichever parser it brings
        text = f"{error.format_message().rstrip('.')}; see --help"
    elif isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):  # torch's own words
        text = "not enough memory; use a smaller image, smaller patches or a smaller batch"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or 'a file'}: {error.strerror}"
    else:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        text = f"this is a defect, please report it with what --debug shows ({type(error).__name__}: {first})"
    return " ".join(text.split())


def _complain(text: str, status: int) -> int:
    sys.stderr.write(f"napari-rvae: {text}\n")
    return status
