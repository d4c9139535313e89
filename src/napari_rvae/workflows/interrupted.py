"""Trainings that may be interrupted: what went in is kept beside their state, so that they can go on later."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout

from napari_rvae.errors import InputDataError, OutputError, RVAEError
from napari_rvae.io import IMAGE_FILES, FileRecord, ImageData, Recipe, inline_atoms, load_image, save_image
from napari_rvae.settings import FindSettings, PatchSettings, TrainSettings
from napari_rvae.training.checkpoints import Checkpoint
from napari_rvae.workflows.steps import dumped

if TYPE_CHECKING:
    from collections.abc import Iterator

_RECIPE, _LOCK = "recipe.json", "lock"
_LARGEST = 2**31
"""Bytes of an image that is in no file and is still copied; a larger one must be saved by its owner."""


def cache_folder() -> Path:
    """Where trainings are kept for a crash: the user's cache.

    Returns
    -------
    Path
        Need not exist yet.
    """
    from platformdirs import user_cache_path

    return user_cache_path("napari-rvae") / "trainings"


@dataclass(frozen=True)
class Inputs:
    """What a training of an image was given.

    Attributes
    ----------
    image : ImageData
        The image.
    atoms : DataFrame
        Atoms table.
    where : str or None
        Which atoms were chosen.
    find, patch, training : settings
        Of each step.
    clean : ImageData or None
        The image without noise.
    """

    image: ImageData
    atoms: pd.DataFrame
    where: str | None
    find: FindSettings
    patch: PatchSettings
    training: TrainSettings
    clean: ImageData | None = None

    @property
    def images(self) -> dict[str, ImageData]:
        """The images by what they are called in a recipe."""
        return {"image": self.image} if self.clean is None else {"image": self.image, "clean": self.clean}


class KeptTraining:
    """A training that is running, or was interrupted, in a folder of its own.

    Parameters
    ----------
    folder : Path
        Made by `begin`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoint = folder, Checkpoint(folder)
        # taken in one thread, given back in another
        self._lock = FileLock(folder / _LOCK, timeout=0, thread_local=False)

    @classmethod
    def begin(cls, inputs: Inputs, cache: Path) -> KeptTraining:
        """Keep what goes in; nobody else is offered the training as long as this program runs.

        Parameters
        ----------
        inputs : Inputs
            The images with their hashes.
        cache : Path
            Folder of all trainings.

        Returns
        -------
        KeptTraining

        Raises
        ------
        OutputError
            If it cannot be written there.
        """
        image, folder = inputs.image, cache / uuid.uuid4().hex
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"cannot write to {cache}: {error.strerror or error}") from error
        kept = cls(folder)
        kept.claim()  # before it holds a recipe: whoever looks for trainings takes what nobody has claimed
        recipe = Recipe(
            command="run",
            inputs={name: FileRecord.of(one) for name, one in inputs.images.items()},
            atoms=inline_atoms(inputs.atoms),
            where=inputs.where,
            settings=dumped(find=inputs.find, patch=inputs.patch, train=inputs.training),
            used={"pixel_size": image.pixel_size, "unit": image.unit, "channels": list(image.channels)}
            | {f"{kind}_name": one.name for kind, one in inputs.images.items()},
        )
        try:
            for kind, one in inputs.images.items():
                if one.path.exists():
                    continue
                if one.data.nbytes > _LARGEST:
                    raise OutputError(f"{one.name} is in no file and too large to be copied; save it first")
                save_image(one, folder, kind)
            recipe.save(folder / _RECIPE)  # now it is complete
        except BaseException:
            kept.remove()
            raise
        return kept

    def claim(self) -> bool:
        """Take the training over, unless it is running in this or another program."""
        try:
            self._lock.acquire()
        except (Timeout, OSError):
            return False
        return True

    def release(self) -> None:
        """Let others take it over."""
        self._lock.release()

    def remove(self) -> None:
        """Forget it: it is over, or not wanted."""
        (self.folder / _RECIPE).unlink(missing_ok=True)  # before others may claim it
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def facts(self) -> dict[str, Any] | None:
        """How far it is, see `Checkpoint.facts`."""
        return self.checkpoint.facts()

    def in_words(self) -> str:
        """Say what was interrupted."""
        recipe, facts = self._recipe(), self.facts
        name, members = recipe.used.get("image_name", "an image"), recipe.settings["train"].get("members", 1)
        what = f"A training of {name} from {datetime.fromtimestamp(self.time).astimezone():%d %b %H:%M} was interrupted"
        if facts is None:
            return f"{what} before it had learned anything; it begins anew."
        where = f"in member {facts.get('member', 1)} of {members}, after" if members > 1 else "after"
        return f"{what} {where} epoch {facts['epoch']}."

    @property
    def time(self) -> float:
        """When it was kept last, in seconds since 1970."""
        facts = self.facts
        return float(facts["time"]) if facts else (self.folder / _RECIPE).stat().st_mtime

    def inputs(self) -> Inputs:
        """Read what it was given.

        Returns
        -------
        Inputs

        Raises
        ------
        InputDataError
            If an image is gone or has changed.
        """
        recipe = self._recipe()
        atoms = recipe.atoms_table(self.folder)
        if atoms is None:
            raise InputDataError("The atoms of the interrupted training are gone: start anew.")
        steps = recipe.settings
        return Inputs(
            self._image(recipe, "image"), atoms, recipe.where, FindSettings(**steps["find"]),
            PatchSettings(**steps["patch"]), TrainSettings(**steps["train"]),
            self._image(recipe, "clean") if "clean" in recipe.inputs else None,
        )  # fmt: skip

    def _image(self, recipe: Recipe, kind: str) -> ImageData:
        used, record = recipe.used, recipe.inputs[kind]
        own = next((self.folder / file for file in IMAGE_FILES[kind] if (self.folder / file).exists()), None)
        image = load_image(own or record.found(self.folder))
        if own is not None:  # which will not be there for long
            image = replace(image, path=Path(record.path), sha256=record.sha256)
        size = used["pixel_size"]
        noted = {"pixel_size": tuple(size) if size else None, "unit": used["unit"]}
        return replace(image, name=used[f"{kind}_name"], channels=tuple(used.get("channels", ())), **noted)

    def _recipe(self) -> Recipe:
        return Recipe.load(self.folder / _RECIPE)


def interrupted_trainings(cache: Path) -> list[KeptTraining]:
    """Find the trainings that can be gone on with.

    Parameters
    ----------
    cache : Path
        Folder of all trainings.

    Returns
    -------
    list of KeptTraining
        The latest first; those that are running are left out. One that had learned nothing yet begins anew; one of
        which not even the inputs were kept is forgotten.
    """
    return sorted(_unclaimed(cache), key=lambda kept: -kept.time)


def _unclaimed(cache: Path) -> Iterator[KeptTraining]:
    for folder in [place for place in cache.glob("*") if any((place / name).is_file() for name in (_RECIPE, _LOCK))]:
        kept = KeptTraining(folder)
        if not kept.claim():
            continue
        try:
            kept._recipe()
        except RVAEError:
            kept.remove()
            continue
        kept.release()
        yield kept
