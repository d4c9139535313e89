"""Options of the commands: those that several share, and those that are generated from the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from napari_rvae.errors import InputDataError, SettingsError
from napari_rvae.settings import (
    AverageSettings,
    BaselineSettings,
    CountSettings,
    FinderSettings,
    FindSettings,
    PatchSettings,
    Settings,
    TrainSettings,
)

Chosen = TypeVar("Chosen", bound=Settings)

_PANELS: dict[type[Settings], str] = {
    FindSettings: "Atoms",
    FinderSettings: "Finder",
    PatchSettings: "Patches",
    TrainSettings: "Model",
    AverageSettings: "Averages",
    BaselineSettings: "Components",
    CountSettings: "Classes",
}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

ImageArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE", help="Image or stack; FILE.h5::NAME chooses one of several, FILE.h5::A::B channels of one."
    ),
]
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE-or-PATCHES",
        help="Image or stack, or patches: NPY and NPZ files with at least 8 square frames of at most 128 pixels.",
    ),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors.")]
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
    typer.Option(
        "--condition", metavar="NPY", help="What conditional models are given of each patch: classes or quantities."
    ),
]
CleanOption = Annotated[
    str | None,
    typer.Option("--clean", metavar="FILE", help="The same without noise, on any scale: what the decoder is to make."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace existing results.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the training that was interrupted; the rest as it was.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]


# Options from settings ------------------------------------------------------------------------------------------------


def with_settings(
    *models: type[Settings], without: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per field of the settings; it gets them as keyword arguments.

    Parameters
    ----------
    *models : settings models
        Whose fields become options.
    without : sequence of str
        Names of fields that mean nothing to the command.

    Returns
    -------
    callable
        Decorator of a command that takes ``**values``.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [_option(model, name) for model in models for name in model.model_fields if name not in without]
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


def settings_from(model: type[Chosen], values: dict[str, Any]) -> Chosen:
    """Make settings of those options that belong to them; an error names the option, not the field.

    Parameters
    ----------
    model : settings model
        Which settings.
    values : dict
        All options of the command by the name of their field.

    Returns
    -------
    settings

    Raises
    ------
    SettingsError
        If a value is out of range.
    """
    try:
        return model(**{name: value for name, value in values.items() if name in model.model_fields})
    except SettingsError as error:
        name, colon, text = str(error).partition(":")
        named = _option_name(model, name) if name in model.model_fields else name
        raise SettingsError(f"{named}{colon}{text}") from error


def holds_patches(data: str, said: bool | None, atoms: Path | None, where: str | None) -> bool:
    """Tell ready-made patches from an image.

    Parameters
    ----------
    data : str
        The file.
    said : bool or None
        What the user says it is.
    atoms, where
        Options that belong to images.

    Returns
    -------
    bool

    Raises
    ------
    InputDataError
        If these options are given for patches.
    """
    from napari_rvae.io import looks_like_patches

    held = said if said is not None else atoms is None and where is None and looks_like_patches(data)
    if held and (atoms is not None or where is not None):
        raise InputDataError("--atoms and --where belong to an image; leave them out for patches")
    return held


def check_used(training: TrainSettings) -> TrainSettings:
    """See whether the model uses all that is given.

    Parameters
    ----------
    training : TrainSettings
        From the command line.

    Returns
    -------
    TrainSettings
        The same.

    Raises
    ------
    SettingsError
        If something would be ignored.
    """
    with_classes = ("joint", "semi")
    users: dict[str, tuple[str, ...]] = {
        "classes": with_classes,
        "class_capacity": with_classes,
    }
    users |= {"label_column": ("semi",), "condition_columns": ("conditional",)}
    models = {"joint": "jrvae", "semi": "ssrvae", "conditional": "crvae"}
    for name, families in users.items():
        given = getattr(training, name) != TrainSettings.model_fields[name].default
        if given and training.family not in families:
            fitting = " or ".join(models[family] for family in families)
            raise SettingsError(
                f"{training.model} takes no --{name.replace('_', '-')}: choose {fitting}, or leave it out"
            )
    return training
