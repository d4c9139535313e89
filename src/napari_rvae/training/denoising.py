"""Denoising: the encoder sees noisy patches, the decoder learns to make clean ones.

Either every noisy patch has a clean copy, or noise is added to what the encoder sees (Vincent et al., J. Mach. Learn.
Res. 11, 3371 (2010)). The likelihood of a clean copy, at the noise of the noisy ones, is up to a constant what that of
a noisy patch is on average over its noise: latents, poses and their errors mean the same as without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_rvae.errors import InputDataError

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.patches import Patches

_BLOCK = 500
_LEAST_CORRELATION = 0.03
"""Between noisy and clean patches; two images that have nothing to do with each other stay below."""


class CleanCopies:
    """What the decoder is to make: a clean copy of every patch, with the pose of the noisy one taken out.

    A clean image may be on another scale, as a sum of frames is. Its copies are brought to that of the noisy patches,
    in which the model paints: by the line that fits them best, for each channel.

    Parameters
    ----------
    model : Model
        That is trained, on its device, its normalisation known.
    patches, clean : Patches
        The noisy patches and their clean copies, in the same order.

    Attributes
    ----------
    data : numpy.ndarray
        (n, channels, D, D) as they were given.
    harmonics : torch.Tensor
        (n, channels, 2 T).
    """

    def __init__(self, model: Model, patches: Patches, clean: Patches) -> None:
        self._model, self._patches, self.data = model, clean, clean.data
        self._gain, self._level = _line(patches.data, clean.data)
        self._x = self._scaled(clean.data)
        self.harmonics = torch.empty(len(clean), clean.data.shape[1], 2 * model.space.terms, device=self._x.device)

    def _scaled(self, data: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(data * self._gain + self._level, device=self._model.noise.device)

    def cut_again(self, rows: Tensor, offset: NDArray[np.float64]) -> None:
        """Let windows, (k,) rows, follow those of the noisy patches, (k, 2) image pixels away from their centres."""
        self._x[rows] = self._scaled(self._patches.select(rows.cpu().numpy()).moved(offset).data)

    def take_out(self, rows: Tensor, like: Tensor, shape: Tensor, theta: Tensor) -> None:
        """Take poses out of some.

        Parameters
        ----------
        rows : torch.Tensor
            (k,) which.
        like : torch.Tensor
            (k, channels, D, D) noisy patches.
        shape : torch.Tensor
            (k, 5) offset, strain and scale.
        theta : torch.Tensor
            (k,) angle.
        """
        harmonics = self._model.harmonics(self._x[rows], shape, like)
        self.harmonics[rows] = self._model.space.turn(harmonics, -theta)


def added_noise(model: Model, harmonics: Tensor, chance: torch.Generator | None = None) -> Tensor:
    """Harmonics, (n, channels, 2 T), with those of fresh white noise as strong as the settings say."""
    strength = model.settings.added_noise
    if not strength:
        return harmonics
    white = torch.randn(*harmonics.shape[:2], model.size, model.size, generator=chance, device=harmonics.device)
    return harmonics + strength * model.space.analyse(white)


def check_clean(patches: Patches, clean: Patches) -> None:
    """Refuse what cannot be clean copies of patches.

    Parameters
    ----------
    patches, clean : Patches
        Noisy, and clean.

    Raises
    ------
    InputDataError
        If they differ in number, size or place, are the same, hold missing values, or have nothing to do with each
        other.
    """
    if clean.data.shape != patches.data.shape:
        raise InputDataError(
            f"The clean patches have the shape {clean.data.shape}, the noisy ones {patches.data.shape}: give a clean "
            "copy of every patch, of the same size."
        )
    if not np.array_equal(clean.centers, patches.centers):
        raise InputDataError("The clean patches are cut around other places than the noisy ones: use the same atoms.")
    if not all(np.isfinite(some).all() for some in clean.data):
        raise InputDataError("Some clean patches hold missing or infinite values: remove or fill them first.")
    if np.array_equal(clean.data, patches.data):
        raise InputDataError("The clean patches are the noisy ones: give those of another image, or leave them out.")
    _line(patches.data, clean.data)


def _line(noisy: NDArray[np.float32], clean: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gain and level of each channel, (channels, 1, 1), that bring clean patches to the scale of noisy ones.

    Least squares over what differs within the patches, where all the noise is in what is explained.
    """
    sums = np.zeros((3, clean.shape[1]))
    for start in range(0, len(clean), _BLOCK):
        x, y = (part[start : start + _BLOCK].astype(np.float64) for part in (noisy, clean))
        x, y = (part - part.mean((2, 3), keepdims=True) for part in (x, y))
        sums += [(one * other).sum((0, 2, 3)) for one, other in ((x, y), (y, y), (x, x))]
    both, of_clean, of_noisy = sums
    if not (both > _LEAST_CORRELATION * np.sqrt(of_clean * of_noisy)).all():
        raise InputDataError(
            "The clean image does not show what the noisy one shows: both must be of the same place, with the same "
            "contrast."
        )
    gain = both / of_clean
    level = noisy.mean((0, 2, 3), dtype=np.float64) - gain * clean.mean((0, 2, 3), dtype=np.float64)
    wide = (gain[:, None, None], level[:, None, None])
    return wide[0].astype(np.float32), wide[1].astype(np.float32)
