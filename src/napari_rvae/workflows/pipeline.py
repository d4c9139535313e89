"""One image, or one set of patches, from the file to the table."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError
from napari_rvae.io import (
    IMAGE_FILES,
    FileRecord,
    ImageData,
    Recipe,
    add_physical_positions,
    check_outputs,
    column_units,
    inline_atoms,
    save_image,
    save_table,
    written_together,
)
from napari_rvae.io.files import sha256
from napari_rvae.models.conditions import Condition
from napari_rvae.settings import FindSettings, PatchSettings, TrainSettings
from napari_rvae.workflows.ensembles import train_ensemble
from napari_rvae.workflows.given import check_learned, classed_otherwise, given_by
from napari_rvae.workflows.steps import (
    atoms_of,
    beyond_doubt,
    chosen_patches,
    clean_copies,
    dumped,
    finder_record,
    first_channel,
    scaled,
)

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.patches import Patches, Progress, Stop
    from napari_rvae.training import Earlier, TrainingReport
    from napari_rvae.training.checkpoints import Checkpoint

ANALYSIS_FILES = (
    "latent.csv", "model.safetensors", "recipe.json", "summary.png", "cells.ome.tif",
    *IMAGE_FILES["image"], *IMAGE_FILES["clean"],
)  # fmt: skip
"""What `Analysis.save` may write; cells where there are atoms, images where no file but of results has them."""


@dataclass(frozen=True)
class Analysis:
    """A trained model and what it says about every atom.

    Parameters
    ----------
    source : ImageData
        The image or the patches.
    atoms : DataFrame or None
        Atoms table; None for ready-made patches.
    patches : Patches
        What was encoded.
    model : Model
        The trained model, with the other members of an ensemble.
    table : DataFrame
        Latent table.
    recipe : Recipe
        How it was made.
    losses : DataFrame
        ``epoch``, ``loss``, ``held_out`` of the first member.
    condition : Condition or None
        What conditional models were given.
    clean : ImageData or None
        The image or the patches without noise that were learned from, too.
    """

    source: ImageData
    atoms: pd.DataFrame | None
    patches: Patches
    model: Model
    table: pd.DataFrame
    recipe: Recipe
    losses: pd.DataFrame
    condition: Condition | None = None
    clean: ImageData | None = None

    def save(self, folder: str | os.PathLike[str], force: bool = False) -> None:
        """Write table, model, recipe, summary, the cells of atoms, and images that are in no file yet.

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
        from napari_rvae.workflows.summary import analysis_summary

        target = Path(folder)
        check_outputs([target / name for name in ANALYSIS_FILES], force)
        picture = analysis_summary(self)
        with written_together(target) as place:
            save_table(self.table, place / "latent.csv")
            self.model.save(place / "model.safetensors")
            picture.save(place / "summary.png")
            if self.atoms is not None:
                _save_cells(self, place / "cells.ome.tif")
            self._recipe_with_files(target, place).save(place / "recipe.json")

    def _recipe_with_files(self, target: Path, place: Path) -> Recipe:
        """Write images that no other file keeps; the recipe says where they are, and the model that was applied."""
        written = {"model": place / "model.safetensors"} if self.recipe.command == "encode" else {}
        for name, image in {"image": self.source, "clean": self.clean}.items():
            if image is not None and not image.path.exists() and self.atoms is not None:
                written[name] = save_image(image, place, name)
            elif (kept := self._kept_with_results(name)) is not None:
                written[name] = Path(shutil.copy(kept, place))
        records = {
            name: FileRecord(path=str(target.absolute() / file.name), sha256=sha256(file))
            for name, file in written.items()
        }
        return self.recipe.model_copy(update={"inputs": {**self.recipe.inputs, **records}})

    def _kept_with_results(self, name: str) -> Path | None:
        """Find an image that was saved with other results: with them it would go."""
        record = self.recipe.inputs.get(name)
        if record is None or Path(record.path).name not in IMAGE_FILES[name]:
            return None
        try:
            file = Path(record.found(self.source.path.parent))
        except InputDataError:
            return None  # as the recipe says, it is to be put back
        return file if (file.parent / "recipe.json").exists() else None


def known_analysis(source: ImageData, table: pd.DataFrame, model: Model, recipe: Recipe) -> Analysis:
    """Put together results of an image that are there already: opened from a folder, or of a model that was applied.

    Parameters
    ----------
    source : ImageData
        The image, with its hash.
    table : DataFrame
        Latent table.
    model : Model
        What encoded the atoms.
    recipe : Recipe
        How the results were made.

    Returns
    -------
    Analysis
        Without patches, which are kept in no file; with the losses that are kept with a model that was trained on these
        atoms.

    Raises
    ------
    InputDataError
        If the results are of other pixels.
    """
    from napari_rvae.patches import Patches

    if source.sha256 != recipe.inputs["image"].sha256:
        raise InputDataError(
            f"'{source.name}' has other pixels than those the results are of: put them back, or apply the model anew."
        )
    table = add_physical_positions(table, source.pixel_size, source.unit)
    columns, encoded = model.recipe.get("condition_columns"), table.dropna(subset=["z1"])
    condition = Condition.for_model(columns, encoded, len(encoded)) if columns else None
    none, settings = np.zeros(0, np.int64), PatchSettings(**recipe.settings.get("patch", {}))
    pixels = np.zeros((0, model.channels, model.size, model.size), np.float32)
    patches = Patches(pixels, none, np.zeros((0, 2)), none, none.astype(bool), (1.0, 1.0), settings)
    kept = model.recipe.get("losses", []) if recipe.command == "run" else []
    losses = pd.DataFrame(np.array(kept, float).reshape(-1, 3), columns=["epoch", "loss", "held_out"])
    return Analysis(source, table, patches, model, table, recipe, losses, condition)


def _save_cells(analysis: Analysis, path: Path) -> None:
    import tifffile

    from napari_rvae.latent import cell_labels

    source, frames = analysis.source, first_channel(analysis.source).shape[:-2]
    cells = cell_labels(analysis.table, first_channel(source).shape)
    scale: dict[str, Any] = {"axes": "TYX" if frames else "YX"}
    if source.pixel_size is not None and source.unit == "nm":
        for axis, size in zip("YX", source.pixel_size, strict=True):
            scale |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"}
    tifffile.imwrite(path, cells, ome=True, metadata=scale, compression="zlib")


def analyze_image(
    image: ImageData,
    find: FindSettings | None = None,
    patch: PatchSettings | None = None,
    training: TrainSettings | None = None,
    *,
    atoms: pd.DataFrame | None = None,
    atoms_file: str | os.PathLike[str] | None = None,
    where: str | None = None,
    clean: ImageData | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
    keep: Stop | None = None,
    report: Callable[[TrainingReport], None] | None = None,
    trained: Callable[[Model], None] | None = None,
    checkpoint: Checkpoint | None = None,
    earlier: Earlier | None = None,
    look_every: float | None = None,
) -> Analysis:
    """Find atoms, cut patches, train a model and encode every atom.

    Parameters
    ----------
    image : ImageData
        Image or stack.
    find, patch, training : settings, optional
        Of each step.
    atoms : DataFrame, optional
        Atoms table to use instead of finding atoms.
    atoms_file : str or path-like, optional
        The file that `atoms` come from, noted in the recipe; without it the recipe holds the atoms themselves.
    where : str, optional
        Expression that chooses the atoms, such as ``sublattice == 0``; the others stay in the table without values.
    clean : ImageData, optional
        The same place without noise, pixel by pixel, which the decoder is to make; on any scale. Where pixels of it
        are missing is not learned from.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.
    keep : callable, optional
        Asked whether to end the training early and go on with what was learned so far.
    report : callable, optional
        Handed every report of the training.
    trained : callable, optional
        Handed the model once it can be used, before atoms are encoded.
    checkpoint, earlier, look_every : optional
        As for `napari_rvae.training.train`.

    Returns
    -------
    Analysis

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with image, atoms or settings.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.latent import encode

    find, patch, training = find or FindSettings(), patch or PatchSettings(), training or TrainSettings()
    inputs = {"image": FileRecord.of(image)}
    if atoms is not None and atoms_file is not None:
        inputs["atoms"] = FileRecord.of(atoms_file)
    if clean is not None:
        inputs["clean"] = FileRecord.of(clean)
    table = atoms_of(image, find, atoms, scaled(progress, 0, 0.1), stop)
    inputs |= finder_record(find, atoms)
    patches = chosen_patches(image, table, patch, where, scaled(progress, 0.1, 0.15), stop, training.invariances)
    copies = None if clean is None else clean_copies(image, clean, table, where, patches, stop)
    learned_from, told = _learned_from(patches, table), scaled(progress, 0.15, 0.9)
    if copies is not None:
        learned_from &= ~copies.edge
    rows = table.set_index("atom_id", drop=False).loc[patches.atom_id]
    known = given_by(training, rows)
    check_learned(known, learned_from)
    options: dict[str, Any] = {"checkpoint": checkpoint, "earlier": earlier, "look_every": look_every}
    options |= {
        name: values if values is None else values[learned_from]
        for name, values in (("labels", known.labels), ("condition", known.condition))
    }
    inner = patches if learned_from.all() else patches.select(learned_from)
    options["clean"] = None if copies is None else copies.select(learned_from)
    options |= {"progress": told, "stop": stop, "keep": keep, "report": report}
    model, losses = train_ensemble(inner, known.settings, **options)
    model.recipe |= known.noted
    found = {name: value for name, value in table.attrs.get("napari_rvae", {}).items() if name in ("target", "sigma")}
    recipe = Recipe(
        command="run",
        inputs=inputs,
        atoms=inline_atoms(table) if atoms is not None and atoms_file is None else None,
        where=where,
        settings=dumped(find=find, patch=patch, train=training),
        used=_used(model, patches, image) | known.noted | found,
    )
    _noted_in_model(model, recipe)
    if trained is not None:
        trained(model)
    with _released(model):
        latent = encode(
            model, patches, atoms=table, condition=known.condition, progress=scaled(progress, 0.9, 1), stop=stop
        )
    latent = add_physical_positions(latent, image.pixel_size, image.unit)
    notes = classed_otherwise(known.labels, latent.set_index("atom_id", drop=False).loc[patches.atom_id])
    used = _with_notes(recipe.used, notes)
    recipe = recipe.model_copy(update={"units": column_units(latent, image.unit), "used": used})
    _noted_in_model(model, recipe)
    return Analysis(image, table, patches, model, latent, recipe, losses, known.condition, clean)


def analyze_patches(
    source: ImageData,
    patch: PatchSettings | None = None,
    training: TrainSettings | None = None,
    *,
    labels: NDArray[Any] | None = None,
    condition: Any = None,
    clean: ImageData | None = None,
    files: Mapping[str, str | os.PathLike[str]] | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
    checkpoint: Checkpoint | None = None,
    earlier: Earlier | None = None,
) -> Analysis:
    """Train a model on ready-made patches and encode each of them.

    Parameters
    ----------
    source : ImageData
        (n, h, w) or (n, channels, h, w).
    patch, training : settings, optional
        Of each step.
    labels : ndarray of int, (n,), optional
        Class of each patch, -1 where it is not known.
    condition : array-like or DataFrame, (n,) or (n, k), optional
        What conditional models are given; see `napari_rvae.training.train`.
    clean : ImageData, optional
        A copy of every patch without noise, which the decoder is to make; on any scale.
    files : dict, optional
        Where ``labels`` and ``condition`` come from, noted in the recipe.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.
    checkpoint, earlier : optional
        As for `napari_rvae.training.train`.

    Returns
    -------
    Analysis

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with patches, labels or settings.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.latent import encode
    from napari_rvae.patches import patches_from_array

    patch, training = patch or PatchSettings(), training or TrainSettings()
    patches = patches_from_array(source.data, patch)
    condition = None if condition is None else Condition.of(condition, len(patches))
    inputs = {"patches": FileRecord.of(source)} | {name: FileRecord.of(file) for name, file in (files or {}).items()}
    labels = None if labels is None else np.asarray(labels)
    options: dict[str, Any] = {"labels": labels, "condition": condition, "checkpoint": checkpoint, "earlier": earlier}
    if clean is not None:
        inputs["clean"] = FileRecord.of(clean)
        options["clean"] = patches_from_array(clean.data, patch)
    model, losses = train_ensemble(patches, training, progress=scaled(progress, 0, 0.9), stop=stop, **options)
    with _released(model):
        latent = encode(model, patches, condition=condition, progress=scaled(progress, 0.9, 1), stop=stop)
    recipe = Recipe(
        command="train",
        inputs=inputs,
        settings=dumped(patch=patch, train=training),
        used=_with_notes(_used(model, patches, source), classed_otherwise(labels, latent)),
        units=column_units(latent),
    )
    _noted_in_model(model, recipe)
    return Analysis(source, None, patches, model, latent, recipe, losses, condition, clean)


def _learned_from(patches: Patches, atoms: pd.DataFrame) -> NDArray[np.bool_]:
    """Mask of the patches to train on: complete, and around atoms that are beyond doubt."""
    mask = ~patches.edge
    if "atom_id" in atoms:
        mask &= ~np.isin(patches.atom_id, atoms.loc[~beyond_doubt(atoms), "atom_id"])
    return np.asarray(mask)


def _used(model: Model, patches: Patches, source: ImageData) -> dict[str, Any]:
    """Note what the settings left open."""
    noted = {"device": "device", "threads": "threads", "epochs_done": "epochs", "batch_size": "batch_size"}
    noted |= {name: name for name in ("batches", "stopped_after", "notes", "physics", "condition_columns")}
    facts, *others = [
        {name: one.recipe[kept] for kept, name in noted.items() if kept in one.recipe}
        for one in (model, *model.members)
    ]
    if others:
        facts["members"] = others
    if source.channels:
        facts["channels"] = list(source.channels)
    scale = {"pixel_size": source.pixel_size, "unit": source.unit}
    return {**facts, "patch": patches.settings.model_dump(mode="json"), **scale}


def _with_notes(used: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Add what is to be told when it is done."""
    return used | {"notes": [*used.get("notes", ()), *notes]} if notes else used


def _noted_in_model(model: Model, recipe: Recipe) -> None:
    """Let the model file say where it comes from, and how other images are to be cut for it."""
    model.recipe["made_by"] = recipe.model_dump(mode="json", exclude={"atoms"}, exclude_none=True)


@contextmanager
def _released(model: Model) -> Iterator[None]:
    """Leave nothing in the memory of a graphics card, whatever happens."""
    from napari_rvae.training.memory import release

    try:
        yield
    finally:
        model.to("cpu")
        release(model.recipe.get("device", "cpu"))
