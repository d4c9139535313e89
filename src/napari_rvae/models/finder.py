"""A learned finder: a small U-Net that says, at a normalised scale, how certain every pixel is an atom's centre.

For what filters cannot do: atoms that only their neighbours give away, molecules whose spots noise hides,
contamination. It knows what it was shown, so it is trained on the user's own corrected points or on simulated images of
the same specimen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor, nn

from napari_rvae.atoms.filters import box_mean, local_maxima
from napari_rvae.atoms.frame import Array
from napari_rvae.atoms.parallel import go_on
from napari_rvae.atoms.response import trend
from napari_rvae.errors import InputDataError, ModelFileError
from napari_rvae.io.files import replacing

FORMAT = 1
RARE = -2.0  # log odds of a centre before anything is learned
SPACING = 9.0  # neighbour distance, in pixels of the normalised scale
WIDTHS = 8, 16, 32  # channels at full, half and quarter resolution
LEAST = 2.0  # per cent: what is less certain is never a candidate
TILE, OVERLAP = 512, 32  # pixels; beyond the overlap the net sees nothing
BRIGHTEST = 6.0  # standard deviations: contamination and hot pixels are cut
_LARGEST_HEADER, _LARGEST_FILE = 1_000_000, 4_000_000  # bytes


class FinderNet(nn.Module):
    """A U-Net of three levels and some 30 000 parameters.

    Takes (batch, 1, y, x) normalised pixels, sides divisible by 4, and returns (batch, 1, y, x) log odds.
    """

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.down = nn.ModuleList([_block(1, fine), _block(fine, middle), _block(middle, coarse)])
        self.up = nn.ModuleList([_block(coarse + middle, middle), _block(middle + fine, fine)])
        self.last = nn.Conv2d(fine, 1, 1)
        nn.init.constant_(self.last.get_parameter("bias"), RARE)  # else background is learned first, the rest alike

    def forward(self, pixels: Tensor) -> Tensor:
        """Log odds that a pixel is a centre."""
        levels = [self.down[0](pixels)]
        for block in self.down[1:]:
            levels.append(block(nn.functional.max_pool2d(levels[-1], 2)))
        result = levels.pop()
        for block in self.up:
            wide = nn.functional.interpolate(result, scale_factor=2, mode="bilinear", align_corners=False)
            result = block(torch.cat([wide, levels.pop()], 1))
        odds: Tensor = self.last(result)
        return odds


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


@dataclass
class LearnedFinder:
    """A trained net and what it needs to be used on another image.

    Parameters
    ----------
    net : FinderNet
        The net.
    per_period, per_sigma : float
        Neighbour distance of the images learned from, in distances of lattice planes (0 without a lattice) and in
        widths of a spot: by which the scale of another image is found.
    certainty : float
        Per cent from which on a maximum counts as an atom.
    error : float
        Standard deviation of positions along an axis, in neighbour distances.
    recipe : dict
        How it was trained.
    """

    net: FinderNet
    per_period: float = 0.0
    per_sigma: float = 0.0
    certainty: float = 50.0
    error: float = 0.1
    recipe: dict[str, Any] = field(default_factory=dict)

    def spacing(self, sigma: float, period: float | None, known: float | None = None) -> float:
        """Neighbour distance of an image, pixels, from what was estimated of it unless it is known."""
        if known:
            return known
        return self.per_period * period if period and self.per_period else self.per_sigma * sigma

    def candidates(
        self, pixels: Array, spacing: float, stop: Callable[[], bool] | None = None
    ) -> tuple[NDArray[np.float64], Array]:
        """Places that may be atoms.

        Parameters
        ----------
        pixels : numpy.ndarray
            float32 (y, x), atoms bright.
        spacing : float
            Neighbour distance, pixels.
        stop : callable, optional
            Polled from tile to tile.

        Returns
        -------
        positions, certainty : numpy.ndarray
            (n, 2) pixels, below the pixel; per cent, highest first.

        Raises
        ------
        Stopped
            If `stop` said so.
        """
        small = normalized(pixels, spacing)
        places, certain = self.normalized_candidates(small, stop)
        return to_pixels(places, pixels.shape, small.shape), certain

    def normalized_candidates(
        self, small: Array, stop: Callable[[], bool] | None = None
    ) -> tuple[NDArray[np.float64], Array]:
        """`candidates` of an image that `normalized` has made, in its own pixels."""
        certain = self._certainties(small, stop)
        where = local_maxima(certain, LEAST, int(SPACING / 3))
        where = where[np.argsort(-certain[tuple(where.T)], kind="stable")]
        return centroids(certain, where), certain[tuple(where.T)]

    @torch.no_grad()
    def _certainties(self, small: Array, stop: Callable[[], bool] | None) -> Array:
        self.net.eval()
        height, width = small.shape
        result = np.empty_like(small)
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                go_on(stop)
                y, x = max(0, top - OVERLAP), max(0, left - OVERLAP)
                tile = small[y : top + TILE + OVERLAP, x : left + TILE + OVERLAP]
                padded = np.pad(tile, [(0, -side % 4) for side in tile.shape], mode="edge")
                odds = self.net(torch.from_numpy(padded)[None, None])[0, 0]
                inner = torch.sigmoid(odds)[: tile.shape[0], : tile.shape[1]].numpy()[top - y :, left - x :]
                result[top : top + TILE, left : left + TILE] = 100 * inner[:TILE, :TILE]
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it so that the file appears whole or not at all.

        Parameters
        ----------
        path : path
            Ends with ``.safetensors``.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        from safetensors.torch import save

        numbers = {name: getattr(self, name) for name in _NUMBERS}
        header = {"format": FORMAT, "kind": "finder", **numbers, "recipe": self.recipe}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.net.state_dict().items()}
        with replacing(Path(path)) as place:
            place.write_bytes(save(tensors, {"napari_rvae_finder": json.dumps(header)}))


_NUMBERS = {"per_period": (0, 1e3), "per_sigma": (0, 1e3), "certainty": (0, 100), "error": (0, 10)}


def load_finder(path: str | os.PathLike[str]) -> LearnedFinder:
    """Read a finder; nothing in the file is ever run.

    Parameters
    ----------
    path : path
        A file that `LearnedFinder.save` has written.

    Returns
    -------
    LearnedFinder

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, of another program, or newer than this version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(path)
    header = _header(file)
    net = FinderNet()
    try:
        tensors = load_file(str(file))
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            raise ValueError("not finite")
        if any(bool((value < 0).any()) for name, value in tensors.items() if name.endswith("running_var")):
            raise ValueError("variances below zero")
        net.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelFileError(f"{file.name} is damaged: take another copy, or train again.") from error
    return LearnedFinder(net.eval(), **{name: header[name] for name in _NUMBERS}, recipe=header["recipe"])


def _header(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ModelFileError(f"There is no finder {file}.")
    damaged = ModelFileError(f"{file.name} is not a learned finder of napari-rvae, or it is damaged.")
    try:
        with file.open("rb") as stream:
            length, size = int.from_bytes(stream.read(8), "little"), file.stat().st_size
            if size > _LARGEST_FILE or not 2 <= length <= min(_LARGEST_HEADER, size - 8):
                raise damaged
            header = json.loads(json.loads(stream.read(length))["__metadata__"]["napari_rvae_finder"])
        if header["format"] > FORMAT:
            raise ModelFileError(f"{file.name} was written by a newer napari-rvae: update the plugin to open it.")
        numbers = {name: float(header[name]) for name in _NUMBERS}
        if not all(low <= numbers[name] <= high for name, (low, high) in _NUMBERS.items()):
            raise damaged
        if not isinstance(header["recipe"], dict) or not numbers["per_period"] + numbers["per_sigma"]:
            raise damaged
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise damaged from error
    return {**numbers, "recipe": header["recipe"]}


def normalized(pixels: Array, spacing: float) -> Array:
    """An image at the scale and with the contrast that the net knows.

    Parameters
    ----------
    pixels : numpy.ndarray
        float32 (y, x), atoms bright.
    spacing : float
        Neighbour distance, pixels.

    Returns
    -------
    numpy.ndarray
        float32 (y, x), neighbours `SPACING` pixels apart, without slow changes, local standard deviation 1.

    Raises
    ------
    InputDataError
        If too little would be left of the image, or it would be blown up.
    """
    if not 2.0 <= spacing <= min(pixels.shape):
        raise InputDataError(
            f"A learned finder cannot use neighbours at {spacing:.3g} px in an image of {pixels.shape[0]} x "
            f"{pixels.shape[1]} px: give the spacing."
        )
    factor = SPACING / spacing
    flat = pixels - trend(pixels, 3 * spacing)
    if factor < 1:
        flat = gaussian_filter(flat, 0.45 / factor)
    shape = [max(8, round(side * factor)) for side in pixels.shape]
    y, x = (_places(full, side) for full, side in zip(pixels.shape, shape, strict=True))
    small = map_coordinates(flat, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest").astype(np.float32)
    around = 2 * int(2 * SPACING) + 1
    spread = np.sqrt(box_mean(box_mean(small * small, around), around))
    return np.asarray(np.clip(small / np.maximum(spread, 1e-6), -BRIGHTEST, BRIGHTEST), np.float32)


def _places(full: int, side: int) -> NDArray[np.float64]:
    """Where the pixels of the normalised image lie along an axis of the image."""
    return (np.arange(side) + 0.5) * full / side - 0.5


def to_pixels(positions: NDArray[Any], full: tuple[int, ...], small: tuple[int, ...]) -> NDArray[np.float64]:
    """Positions (n, 2) of the normalised image in pixels of the image."""
    return np.asarray((positions + 0.5) * (np.array(full) / np.array(small)) - 0.5)


def to_normalized(positions: NDArray[Any], full: tuple[int, ...], small: tuple[int, ...]) -> NDArray[np.float64]:
    """Positions (n, 2) of the image in pixels of the normalised one."""
    return to_pixels(positions, small, full)


def centroids(certain: Array, where: NDArray[np.int64]) -> NDArray[np.float64]:
    """Centres of certainty (n, 2) around maxima (n, 2), over 5 x 5 pixels."""
    padded = np.pad(certain, 2)
    dy, dx = np.mgrid[-2:3, -2:3].reshape(2, -1)
    weight = padded[where[:, :1] + 2 + dy, where[:, 1:] + 2 + dx] + 1e-9
    shift = np.stack([weight @ dy, weight @ dx], 1) / weight.sum(1, keepdims=True)
    return np.asarray(where + shift)
