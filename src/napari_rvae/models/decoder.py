"""Decoders: latents -> harmonics of the motif in its own frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_rvae.polar import PolarSpace


class SpectrumDecoder(nn.Module):
    """Straight into polar Fourier space: a linear map, and dense layers for what is not linear.

    The linear map starts as probabilistic principal components (Tipping & Bishop, J. R. Stat. Soc. B 61, 611 (1999)):
    what is rare but strong then has its direction from the beginning.

    Parameters
    ----------
    space : PolarSpace
        Where the harmonics live.
    channels : int
        Channels of a patch.
    inputs : int
        Latents, classes and conditions together.
    hidden : int
        Width of the hidden layers.
    skip : bool
        Whether hidden layers add to their input (skip-rVAE).
    """

    def __init__(self, space: PolarSpace, channels: int, inputs: int, hidden: int, skip: bool) -> None:
        super().__init__()
        self.channels, self.skip = channels, skip
        self.linear = nn.Linear(inputs, channels * 2 * space.terms, bias=False)
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, channels * 2 * space.terms)
        nn.init.zeros_(self.linear.weight)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Decode.

        Parameters
        ----------
        inputs : torch.Tensor
            (n, inputs).

        Returns
        -------
        torch.Tensor
            (n, channels, 2 T).
        """
        first = nn.functional.silu(self.first(inputs))
        second = nn.functional.silu(self.second(first))
        last = first + second if self.skip else second
        start = torch.addmm(self.output.bias, inputs, self.linear.weight.T)
        harmonics: Tensor = torch.addmm(start, last, self.output.weight.T).unflatten(-1, (self.channels, -1))
        return harmonics

    def start_from(self, harmonics: Tensor, slopes: Tensor | None = None) -> None:
        """Decode a motif, (channels, 2 T), and what each input adds, (inputs, channels, 2 T), before training."""
        with torch.no_grad():
            self.output.bias.copy_(harmonics.flatten())
            if slopes is not None:
                self.linear.weight.copy_(slopes.flatten(1).T)


class CoordinateDecoder(nn.Module):
    """The published decoder: a small network asked for the intensity at every pixel's coordinates.

    T. Bepler et al., arXiv:1909.11663. Slow; there for comparison.

    Parameters
    ----------
    space : PolarSpace
        Where the harmonics live.
    channels : int
        Channels of a patch.
    inputs : int
        Latents, classes and conditions together.
    hidden : int
        Width of the hidden layers.
    """

    coordinates: Tensor

    def __init__(self, space: PolarSpace, channels: int, inputs: int, hidden: int) -> None:
        super().__init__()
        self.space = [space]  # not a submodule of its own
        axis = torch.linspace(-1, 1, space.size)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("coordinates", torch.stack([x, y], -1).reshape(-1, 2), persistent=False)
        self.place = nn.Linear(2, hidden)
        self.content = nn.Linear(inputs, hidden, bias=False)
        self.layers = nn.Sequential(nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Decode.

        Parameters
        ----------
        inputs : torch.Tensor
            (n, inputs).

        Returns
        -------
        torch.Tensor
            (n, channels, 2 T).
        """
        pixels: Tensor = self.layers(self.place(self.coordinates) + self.content(inputs)[..., None, :])
        space = self.space[0]
        return space.analyse(pixels.transpose(-1, -2).unflatten(-1, (space.size, space.size)))

    def start_from(self, harmonics: Tensor, slopes: Tensor | None = None) -> None:
        """Nothing to prepare: this network has no bias per pixel."""
