"""Model files: tensors in safetensors, everything else as JSON in its header. Reading one never runs code."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_rvae.errors import ModelFileError, SettingsError
from napari_rvae.io.files import replacing
from napari_rvae.models.conditions import width_of
from napari_rvae.models.encoder import widths
from napari_rvae.polar import ring_count, triangle
from napari_rvae.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from napari_rvae.models.model import Model

FORMAT = 1
_LARGEST_HEADER = 4_000_000
_LIMITS = {"size": (8, 96), "channels": (1, 256), "conditions": (0, 10_000)}


def save_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model so that the file appears whole or not at all.

    Parameters
    ----------
    model : Model
        Any member of the family.
    path : path
        Ends with ``.safetensors``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from safetensors.torch import save

    header = {
        "format": FORMAT,
        "size": model.size,
        "channels": model.channels,
        "conditions": model.conditions,
        **_own_header(model),
        "members": [_own_header(member) for member in model.members],
    }
    state = {name: value for name, value in model.state_dict().items() if "_finder." not in name}
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with replacing(Path(path)) as place:
        place.write_bytes(save(tensors, {"napari_rvae": json.dumps(header)}))


def _own_header(model: Any) -> dict[str, Any]:
    """What a member of an ensemble does not share with the others."""
    return {"k_max": model.k_max, "settings": model.settings.model_dump(), "recipe": model.recipe}


def load_model(path: str | os.PathLike[str], device: str = "cpu") -> Model:
    """Read a model.

    Parameters
    ----------
    path : path
        A file that `save_model` has written.
    device : str
        Where the model is to be.

    Returns
    -------
    Model
        Ready to encode.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, of another program, or newer than this version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(path)
    header = _header(file)
    try:
        tensors = load_file(str(file), device=device)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise ModelFileError(f"{file.name} is damaged: take another copy, or train again.") from error
    parts = [_part(tensors, f"members.{number}.") for number in range(len(header["members"]))]
    model = _built(file, header, tensors, device)
    for own, part in zip(header["members"], parts, strict=True):
        model.members.append(_built(file, {**header, **own}, part, device))
    return model


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take out what belongs to one member."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _built(file: Path, header: dict[str, Any], tensors: dict[str, Tensor], device: str) -> Model:
    """One model of its header and tensors."""
    from napari_rvae.averages.exemplars import PoseFinder
    from napari_rvae.models.model import Model

    model = Model(header["settings"], header["size"], header["channels"], header["k_max"], header["conditions"])
    model.recipe = header["recipe"]
    expected = model.state_dict()
    if set(tensors) != set(expected):
        raise ModelFileError(
            f"{file.name} lacks parts of its model, or holds others: take another copy, or train again."
        )
    for name, value in tensors.items():
        own = name.startswith("finder_") or (
            name.startswith("kind_")
            and value.ndim == expected[name].ndim
            and value.shape[1:] == expected[name].shape[1:]
        )
        if value.shape != expected[name].shape and not own:
            raise ModelFileError(f"{file.name} does not fit its own description: take another copy, or train again.")
        if value.dtype != expected[name].dtype or not bool(value.isfinite().all()):
            raise ModelFileError(f"{file.name} holds numbers that are no numbers: take another copy, or train again.")
    frames = {name: tensors.pop(name) for name in list(tensors) if name.startswith("kind_")}
    if len({len(value) for value in frames.values()}) != 1:
        raise ModelFileError(f"{file.name} does not fit its own description: take another copy, or train again.")
    images, weight = tensors.pop("finder_images"), tensors.pop("finder_weight")
    model.load_state_dict(tensors, strict=False)
    model.to(device)
    model.set_frames(*(frames[f"kind_{name}"] for name in ("template", "angle", "shape", "symmetry")))
    if len(images):
        finder = PoseFinder(model.settings.invariances, model.pose_prior.cpu(), model.size, model.k_max)
        fits = images.shape[1:] == (model.channels, finder.side, finder.side)
        if not fits or weight.shape != (model.channels, 2 * finder.search.space.terms):
            raise ModelFileError(f"{file.name} does not fit its own description: take another copy, or train again.")
    model.set_finder(images, weight)
    model.eval()
    return model


def _header(file: Path) -> dict[str, Any]:
    """The checked header; only its own few bytes are read."""
    if not file.is_file():
        raise ModelFileError(f"There is no model file {file}.")
    damaged = ModelFileError(f"{file.name} is not a model file of napari-rvae, or it is damaged.")
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_LARGEST_HEADER, file.stat().st_size - 8):
                raise damaged
            outer = json.loads(stream.read(length))
        header = json.loads(outer["__metadata__"]["napari_rvae"])
        version = header["format"]
        if not isinstance(version, int) or version < 1:
            raise damaged
        if version > FORMAT:
            raise ModelFileError(f"{file.name} was written by a newer napari-rvae: update the plugin to open it.")
        checked = {name: _within(header[name], *limits) for name, limits in _LIMITS.items()}
        first = _checked(header, outer, checked)
        members = [
            _checked(one, _part(outer, f"members.{number}."), checked)
            for number, one in enumerate(header.get("members", []))
        ]
    except (
        OSError,
        UnicodeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        SettingsError,
    ) as error:
        raise damaged from error
    return {**checked, **first, "members": members}


def _checked(header: dict[str, Any], outer: dict[str, Any], common: dict[str, int]) -> dict[str, Any]:
    """What one model says of itself; ValueError where that cannot be."""
    settings, recipe, k_max = TrainSettings(**header["settings"]), header["recipe"], float(header["k_max"])
    if not 0.05 <= k_max <= 0.5 or not isinstance(recipe, dict):
        raise ValueError(k_max)
    _tell_apart(outer, common["size"], common["channels"], k_max, settings)
    step, normalization = recipe.get("step", (1.0, 1.0)), recipe.get("normalization", "dataset")
    if len(step) != 2 or not all(0 < float(s) < 1e6 for s in step) or normalization not in ("dataset", "patch"):
        raise ValueError(step)
    value = recipe.get("value", {"mean": 0.0, "spread": 1.0})  # by which a quantity is told
    if not all(math.isfinite(float(number)) for number in (value["mean"], value["spread"], value.get("scatter", 0))):
        raise ValueError(value)
    np.array(recipe.get("losses", []), float).reshape(-1, 3)  # of every epoch
    columns = recipe.get("condition_columns", [])
    if columns and width_of(columns) != common["conditions"]:
        raise ValueError(columns)
    for noted in columns:
        scale = () if "classes" in noted else (float(noted["mean"]), float(noted["spread"]))
        if scale and not (math.isfinite(scale[0]) and 0 < scale[1] < math.inf):
            raise ValueError(noted)
    return {"k_max": k_max, "settings": settings, "recipe": recipe}


def _within(value: Any, lowest: int, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ValueError(value)
    return value


def _tell_apart(outer: dict[str, Any], size: int, channels: int, k_max: float, settings: TrainSettings) -> None:
    """Refuse a description that asks for more than the file holds, before anything is made of it."""
    hidden, rings = settings.hidden, ring_count(size, k_max)
    numbers = channels * 2 * len(triangle(rings)[0])
    expected = {"mean": [channels]}
    if settings.decoder == "spectrum":
        expected["decoder.output.weight"] = [numbers, hidden]
    else:
        expected["decoder.place.weight"] = [hidden, 2]
    if "rotation" in settings.invariances:
        maps, width = widths(hidden)
        expected["encoder.point.weight"] = [width, maps]
        expected["encoder.real"] = [outer["encoder.real"]["shape"][0], channels * rings, maps]
    elif settings.encoder == "convolutional":
        expected["encoder.convolutions.0.weight"] = [widths(hidden)[0], channels, 3, 3]
        expected["encoder.content.0.weight"] = [hidden, widths(hidden)[1] * math.ceil(size / 8) ** 2]
    else:
        expected["encoder.layers.0.weight"] = [hidden, numbers]
    if any(outer[name]["shape"] != shape for name, shape in expected.items()):
        raise ValueError("the tensors")
