"""Encoders: harmonics of patches -> mean and spread of the latents."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from napari_rvae.polar import PolarSpace

_ORDERS = 16
_CIRCLE = 36


def widths(hidden: int) -> tuple[int, int]:
    """Features on the circle in the first and in the second layer of an encoder."""
    return max(8, hidden // 8), max(8, hidden // 4)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 faster than in full precision."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def lower_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Where an encoder that learns makes its products in bfloat16, if the device has it.

    It only proposes; what is decoded is compared with noise and stays in full precision, and so does inference.
    """
    wanted = torch.is_grad_enabled() and has_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


class InvariantEncoder(nn.Module):
    """An encoder whose output does not change when a patch is turned.

    Each angular order m of the patch is mapped by a learned matrix over rings; a Fourier series over m turns the result
    into features on the circle of angles (a group convolution with filters as large as the patch: Cohen & Welling,
    arXiv:1602.07576). Turning the patch shifts them along the circle; attention over the circle and its mean forget
    where they started.

    Parameters
    ----------
    space : PolarSpace
        Where the harmonics live.
    channels : int
        Channels of a patch.
    outputs : int
        Number of latents.
    hidden : int
        Width of the last hidden layer.
    """

    pick: Tensor
    series: Tensor

    def __init__(self, space: PolarSpace, channels: int, outputs: int, hidden: int) -> None:
        super().__init__()
        maps, width = widths(hidden)
        order, ring, rings, terms = space.order.tolist(), space.ring.tolist(), space.rings, space.terms
        self.orders = min(_ORDERS, max(order)) + 1
        rows = channels * rings * 2
        pick = torch.full((self.orders, 2, rings), 2 * terms)  # harmonics a ring does not hold are read from a zero
        for t, (m, k) in enumerate(zip(order, ring, strict=True)):
            if m < self.orders:
                pick[m, :, k] = torch.tensor([t, t + terms])
        phase = torch.arange(self.orders)[:, None] * torch.arange(_CIRCLE) * (2 * math.pi / _CIRCLE)
        # a complex filter applied to a complex harmonic, then the real part of the series
        series = torch.stack([phase.cos(), -phase.sin()], 1)
        self.register_buffer("pick", pick.flatten(), persistent=False)
        self.register_buffer("series", series.reshape(2 * self.orders, _CIRCLE).T.contiguous(), persistent=False)
        self.real = nn.Parameter(torch.randn(self.orders, rows // 2, maps) / math.sqrt(rows * self.orders / 4))
        self.imaginary = nn.Parameter(torch.randn(self.orders, rows // 2, maps) / math.sqrt(rows * self.orders / 4))
        self.bias = nn.Parameter(torch.zeros(maps))
        self.point = nn.Linear(maps, width)
        self.attention = nn.Linear(width, 1, bias=False)  # it would change nothing
        self.content = nn.Sequential(nn.Linear(2 * width, hidden), nn.SiLU(), nn.Linear(hidden, 2 * outputs))
        self.outputs = outputs

    def forward(self, harmonics: Tensor) -> tuple[Tensor, Tensor]:
        """Encode.

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T), of unit variance or so.

        Returns
        -------
        mean, log_deviation : torch.Tensor
            (n, outputs) each.
        """
        with lower_precision(harmonics.device):
            features = self._features(harmonics)
        pooled: Tensor = _Pooled.apply(features.to(self.bias.dtype), self.attention.weight)  # type: ignore[no-untyped-call]
        mean, log_deviation = self.content(pooled.flatten(1)).chunk(2, 1)
        return mean, log_deviation.clamp(-8, 2)

    def _features(self, harmonics: Tensor) -> Tensor:
        """Features on the circle, (n, circle, width)."""
        padded = nn.functional.pad(harmonics.movedim(0, -1), (0, 0, 0, 1))  # whole rows are picked faster
        picked = padded.index_select(1, self.pick).unflatten(1, (self.orders, 2, -1))
        rows = picked.permute(1, 2, 0, 3, 4).flatten(1, 3).transpose(1, 2)  # (orders, n, 2 channels rings)
        real = torch.bmm(rows, torch.cat([self.real, -self.imaginary], 1))
        imaginary = torch.bmm(rows, torch.cat([self.imaginary, self.real], 1))
        lifted = torch.stack([real, imaginary], 1).flatten(0, 1)  # (2 orders, n, maps)
        series = self.series.expand(len(harmonics), -1, -1)
        features = torch.bmm(series, lifted.transpose(0, 1))  # (n, circle, maps)
        features = nn.functional.silu(features + self.bias)
        return nn.functional.silu(self.point(features))


class _Pooled(torch.autograd.Function):
    """Mean of features on the circle, (n, circle, width), once by attention and once of all: (n, 2, width).

    Written out with its derivatives: the features are large, and every walk through them costs.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, direction: Tensor) -> Tensor:
        attention = (features @ direction[0]).softmax(1)
        share = torch.stack([attention, torch.full_like(attention, 1 / features.shape[1])], 1)
        ctx.save_for_backward(features, direction, share)
        return share @ features

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        features, direction, share = ctx.saved_tensors
        attention = share[:, 0]
        change = attention * (features @ slope[:, 0, :, None])[..., 0]
        change = change - attention * change.sum(1, keepdim=True)
        by_share = torch.cat([share, change[:, None]], 1).transpose(1, 2)
        along = torch.cat([slope, direction.expand(len(slope), 1, -1)], 1)
        return by_share @ along, change.flatten()[None] @ features.flatten(0, 1)


class PlainEncoder(nn.Module):
    """A fully connected encoder, for models in which the angle counts.

    Parameters
    ----------
    space : PolarSpace
        Where the harmonics live.
    channels : int
        Channels of a patch.
    outputs : int
        Number of latents.
    hidden : int
        Width of the hidden layers.
    """

    def __init__(self, space: PolarSpace, channels: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels * 2 * space.terms, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 2 * outputs),
        )

    def forward(self, harmonics: Tensor) -> tuple[Tensor, Tensor]:
        """Encode.

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T), of unit variance or so.

        Returns
        -------
        mean, log_deviation : torch.Tensor
            (n, outputs) each.
        """
        *hidden, last = self.layers
        features = harmonics.flatten(1)
        with lower_precision(harmonics.device):
            for layer in hidden:
                features = layer(features)
        mean, log_deviation = last(features.to(harmonics.dtype)).chunk(2, 1)
        return mean, log_deviation.clamp(-8, 2)


class ConvolutionalEncoder(nn.Module):
    """Convolutions over the pixels of a patch, for models in which the angle counts.

    Parameters
    ----------
    space : PolarSpace
        Where the harmonics live.
    channels : int
        Channels of a patch.
    outputs : int
        Number of latents.
    hidden : int
        Width of the hidden layer after the convolutions.
    """

    def __init__(self, space: PolarSpace, channels: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.space = [space]  # not a submodule of its own
        maps, width = widths(hidden)
        layers: list[nn.Module] = []
        for before, after in ((channels, maps), (maps, width), (width, width)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
        self.convolutions = nn.Sequential(*layers)
        side = math.ceil(space.size / 8)
        self.content = nn.Sequential(nn.Linear(width * side**2, hidden), nn.SiLU(), nn.Linear(hidden, 2 * outputs))

    def forward(self, harmonics: Tensor) -> tuple[Tensor, Tensor]:
        """Encode.

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T), of unit variance or so.

        Returns
        -------
        mean, log_deviation : torch.Tensor
            (n, outputs) each.
        """
        with lower_precision(harmonics.device):
            features = self.convolutions(self.space[0].synthesise(harmonics))
        mean, log_deviation = self.content(features.flatten(1).to(harmonics.dtype)).chunk(2, 1)
        return mean, log_deviation.clamp(-8, 2)
