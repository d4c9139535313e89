"""The model: an encoder, a decoder, and the objective that both serve.

For a patch x with harmonics X, resampled so that offset, strain and scale are out of it, the evidence lower bound is

``log sum over classes c and angles theta of exp(-|X - turn(C(z, c), theta)|^2 / (2 s2)) p(c) p(theta)``
``- sum over rings of N_i / 2 log(2 pi s2_i) - KL(q(z | x) | p(z))``,

with one noise variance s2_i and N_i independent coefficients per ring, and p(c) the share of patches that a class has.
Angle and class are summed over exactly, so there is no approximate posterior of them that could get stuck (compare the
single Gaussian of Bepler et al., arXiv:1909.11663); z is sampled as in Kingma & Welling, arXiv:1312.6114.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from napari_rvae.averages.exemplars import PoseFinder
from napari_rvae.models.decoder import CoordinateDecoder, SpectrumDecoder
from napari_rvae.models.encoder import ConvolutionalEncoder, InvariantEncoder, PlainEncoder
from napari_rvae.polar import PolarSpace
from napari_rvae.poses import Resampler, pose_prior
from napari_rvae.settings import TrainSettings

_ALWAYS = -1e4
"""Logarithm of a probability that is none."""


class Objective(NamedTuple):
    """What a batch costs.

    Attributes
    ----------
    data : torch.Tensor
        (n,) logarithm of the summed likelihood, without the noise's own term.
    divergence : torch.Tensor
        (n,) KL divergence of z.
    supervised : torch.Tensor
        (n,) log q(class = label) of labelled patches, else 0.
    class_divergence : torch.Tensor
        (n,) KL divergence of the class from all being as likely; 0 where no capacity asks for it.
    posterior : torch.Tensor
        (n, classes, J) of class and angle.
    templates : torch.Tensor
        (n, classes, channels, 2 T) decoded harmonics.
    mean : torch.Tensor
        (n, latent) mean of the posterior of z.
    """

    data: Tensor
    divergence: Tensor
    supervised: Tensor
    class_divergence: Tensor
    posterior: Tensor
    templates: Tensor
    mean: Tensor


class _Likelihood(torch.autograd.Function):
    """See `Model.log_likelihood`; written out with its derivative by the templates, which takes half the time."""

    @staticmethod
    def forward(ctx: Any, harmonics: Tensor, templates: Tensor, weight: Tensor, circle: Tensor) -> Tensor:
        weighted = (harmonics * weight)[:, None]
        ctx.save_for_backward(weighted, templates, weight, circle)
        (x, y), (a, b) = (part.chunk(2, -1) for part in (weighted, templates))
        real = (x * a).addcmul_(y, b).sum(2)
        imaginary = (y * a).addcmul_(x, b, value=-1).sum(2)
        energy = (harmonics[:, None] * weighted).sum((2, 3)) + (templates * (templates * weight)).sum((2, 3))
        return torch.cat([real, imaginary], -1) @ circle - 0.5 * energy[:, :, None]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor, None, None]:
        weighted, templates, weight, circle = ctx.saved_tensors
        real, imaginary = (slope @ circle.T)[:, :, None].chunk(2, -1)
        x, y = weighted.chunk(2, -1)
        change = templates * weight * -slope.sum(2)[:, :, None, None]
        first, second = change.chunk(2, -1)
        first.addcmul_(x, real).addcmul_(y, imaginary)
        second.addcmul_(y, real).addcmul_(x, imaginary, value=-1)
        return None, change, None, None


class _Marginal(torch.autograd.Function):
    """Logarithm of the sum of exponentials, (n,) of (n, k), and the share of each, which is its derivative, too."""

    @staticmethod
    def forward(ctx: Any, joint: Tensor) -> tuple[Tensor, Tensor]:
        highest = joint.amax(1, keepdim=True)
        share = (joint - highest).clamp_min_(-50).exp_()  # what underflows takes many times as long, here
        nn.functional.threshold(share, 1e-20, 0.0, inplace=True)  # and where it is multiplied
        total = share.sum(1, keepdim=True)
        share /= total
        ctx.save_for_backward(share)
        ctx.mark_non_differentiable(share)
        return (highest + total.log())[:, 0], share

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> Tensor:
        (share,) = ctx.saved_tensors
        change: Tensor = slope[:, None] * share
        return change


class Model(nn.Module):
    """A member of the VAE family, as its settings say.

    Parameters
    ----------
    settings : TrainSettings
        Which member.
    size : int
        Side of the patches in pixels of the model (their working size).
    channels : int
        Channels of a patch.
    k_max : float
        Highest spatial frequency that is modelled, cycles per patch pixel.
    conditions : int
        Length of the condition vector of conditional models.

    Attributes
    ----------
    recipe : dict
        Where the model comes from: version, data, device, epochs really done, patch size.
    members : torch.nn.ModuleList
        The other members of an ensemble, each a model of its own; none of a single model.
    """

    mean: Tensor
    spread: Tensor
    noise: Tensor
    signal: Tensor
    finder_images: Tensor
    finder_weight: Tensor
    kind_template: Tensor
    kind_angle: Tensor
    kind_shape: Tensor
    kind_symmetry: Tensor
    given_shift: Tensor
    given_stretch: Tensor
    left_out: Tensor
    class_share: Tensor

    def __init__(self, settings: TrainSettings, size: int, channels: int, k_max: float, conditions: int = 0) -> None:
        super().__init__()
        self.settings, self.size, self.channels, self.conditions = settings, size, channels, conditions
        self.k_max = k_max
        self.recipe: dict[str, Any] = {}
        self.members = nn.ModuleList()
        self._finder: PoseFinder | None = None
        self.classes = (settings.classes or 1) if settings.family in ("joint", "semi") else 1
        self.turns = "rotation" in settings.invariances
        self.space = PolarSpace(size, k_max, angles=None if self.turns else 1)
        self.resample = Resampler(size)
        outputs, hidden = settings.latent, settings.hidden
        plain = ConvolutionalEncoder if settings.encoder == "convolutional" else PlainEncoder
        self.encoder = (InvariantEncoder if self.turns else plain)(self.space, channels, outputs, hidden)
        inputs = settings.latent + (self.classes if self.classes > 1 else 0) + conditions
        self.decoder: SpectrumDecoder | CoordinateDecoder
        if settings.decoder == "coordinate":
            self.decoder = CoordinateDecoder(self.space, channels, inputs, hidden)
        else:
            self.decoder = SpectrumDecoder(self.space, channels, inputs, hidden, settings.skip)
        rings, terms = self.space.rings, 2 * self.space.terms
        for name, value in {
            "mean": torch.zeros(channels),
            "spread": torch.ones(channels),
            "noise": torch.ones(channels, rings),
            "signal": torch.ones(channels, rings),
            "finder_images": torch.zeros(0, channels, 1, 1),
            "finder_weight": torch.zeros(channels, 0),
            "kind_template": torch.zeros(1, channels, terms),
            "kind_angle": torch.zeros(1),
            "kind_shape": torch.zeros(1, 5),
            "kind_symmetry": torch.ones(1, dtype=torch.int64),
            "left_out": torch.zeros(6),
            "class_share": torch.full((self.classes,), 1 / self.classes),
            "given_shift": torch.zeros(1 + conditions, outputs),
            "given_stretch": torch.cat([torch.eye(outputs)[None], torch.zeros(conditions, outputs, outputs)]),
        }.items():
            self.register_buffer(name, value)

    @property
    def pose_prior(self) -> Tensor:
        """Width of the prior of each of `GENERATORS` in patch pixels or without unit, (5,); 0 for those not free."""
        step = self.recipe.get("step", (1.0, 1.0))
        prior = pose_prior(self.settings.invariances, self.settings.offset_prior / math.sqrt(step[0] * step[1]))
        return prior.to(self.noise.device)

    @property
    def angle_precision(self) -> float:
        """One over the variance of the normal prior of the angle, 1 / radian^2; 0 where all angles are alike."""
        width = self.settings.angle_prior
        return 0.0 if width is None or not self.turns else math.radians(width) ** -2

    @property
    def weight(self) -> Tensor:
        """One over the noise variance of every coefficient, (channels, 2 T)."""
        return (1 / self.noise)[:, self.space.ring].repeat(1, 2)

    @property
    def log_share(self) -> Tensor:
        """Log prior probability of every class, (classes, 1): the share of patches that it has."""
        return self.class_share.clamp_min(1e-9).log()[:, None]

    @property
    def noise_evidence(self) -> Tensor:
        """The term ``- sum N_i / 2 log(2 pi s2_i)`` of one patch, a scalar."""
        return -0.5 * (self.space.degrees_of_freedom * (2 * math.pi * self.noise).log()).sum()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a ``.safetensors`` file; see `napari_rvae.models.files`."""
        from napari_rvae.models.files import save_model

        save_model(self, path)

    def first_shapes(self, x: Tensor) -> list[Tensor]:
        """Offsets, strains and scales, (n, 5), from which inference starts, for raw patches (n, channels, D, D)."""
        still = torch.zeros(len(x), 5, device=x.device)
        if not bool((self.pose_prior > 0).any()) or self.finder is None:
            return [still]
        return [still, self.finder.find(self.normalised(x)).shape]

    @property
    def finder(self) -> PoseFinder | None:
        """Finds class averages in patches; None where there are none."""
        if self._finder is None and len(self.finder_images):
            found = PoseFinder(self.settings.invariances, self.pose_prior, self.size, self.k_max)
            self._finder = found.to(self.noise.device)
            self._finder.images, self._finder.weight = self.finder_images, self.finder_weight
        return self._finder

    def set_finder(self, images: Tensor, weight: Tensor) -> None:
        """Keep class averages, (kinds, channels, d, d), and one over their noise variance, (channels, 2 T)."""
        self.finder_images, self.finder_weight, self._finder = images, weight, None

    def set_frames(self, template: Tensor, angle: Tensor, shape: Tensor, symmetry: Tensor) -> None:
        """Store each kind's mean template, zero angle, shape of the template (its own frame) and order of symmetry."""
        self.kind_template, self.kind_angle = template, angle.to(template)
        self.kind_shape, self.kind_symmetry = shape, symmetry

    def set_given(self, z: Tensor, condition: Tensor) -> None:
        """Find what `apart` is to take from latents, (n, latent), for them to tell nothing of what is known.

        Means that depend on it, (n, conditions), and where it is a class, all but the prior's mean and covariance.
        """
        design = torch.cat([torch.ones_like(z[:, :1]), condition], 1)
        self.given_shift = torch.linalg.pinv(design) @ z  # the least solution, as the classes add up to one
        if not bool(((condition == 0) | (condition == 1)).all() and (condition.sum(1) == 1).all()):
            return
        stretch = torch.zeros_like(self.given_stretch)
        for number, rows in enumerate(condition.T == 1):
            own, count = z[rows] - z[rows].mean(0), int(rows.sum())
            if count > 2 * z.shape[1]:
                value, axes = torch.linalg.eigh(own.T @ own / count)
                stretch[1 + number] = (axes * value.clamp_min(1e-4 * float(value.max()) + 1e-6).sqrt()) @ axes.T
            else:
                stretch[1 + number] = self.given_stretch[0]
        self.given_stretch = stretch

    def apart(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Latents, (n, latent), less what is known of their patches, and how both change, (n, latent, latent)."""
        shift, stretch = self._given(condition)
        back = torch.linalg.inv(stretch)
        return (back @ (z - shift)[:, :, None])[:, :, 0], back

    def together(self, z: Tensor, condition: Tensor) -> Tensor:
        """Latents, (n, latent), as the decoder takes them, from what `apart` has left."""
        shift, stretch = self._given(condition)
        return (stretch @ z[:, :, None])[:, :, 0] + shift

    def _given(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """What goes to z from what is known, (n, latent), and how z is stretched, (n, latent, latent)."""
        shift, stretch = self.given_shift, self.given_stretch
        return shift[0] + condition @ shift[1:], stretch[0] + torch.einsum("nc,cij->nij", condition, stretch[1:])

    def kind_of(self, templates: Tensor) -> Tensor:
        """Kind whose frame applies to decoded harmonics, (n, channels, 2 T): the most alike; (n,)."""
        return torch.stack([((templates - k).square() * self.weight).sum((1, 2)) for k in self.kind_template]).argmin(0)

    def harmonics(self, x: Tensor, shape: Tensor | None = None, like: Tensor | None = None) -> Tensor:
        """Harmonics of raw patches, normalised, with a pose taken out.

        Parameters
        ----------
        x : torch.Tensor
            (n, channels, D, D).
        shape : torch.Tensor, optional
            (n, 5), see `napari_rvae.poses.Resampler`.
        like : torch.Tensor, optional
            Patches of which these are copies, and in whose contrast they are wanted.

        Returns
        -------
        torch.Tensor
            (n, channels, 2 T).
        """
        x = self.normalised(x, like)
        free = self.settings.invariances
        if shape is not None and ("strain" in free or "scale" in free):
            x = self.resample(x, shape)
        elif shape is not None and "translation" in free:
            x = self.resample.moved(x, shape[:, :2])
        return self.space.analyse(x)

    def normalised(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        """Raw patches in the units in which the model was trained, copies of other patches in the units of these."""
        return (x - self.mean[:, None, None]) / self.contrast(x if like is None else like)

    def contrast(self, x: Tensor) -> Tensor:
        """Intensity of raw patches that counts as one when they are normalised; broadcasts with (n, channels, D, D)."""
        spread = self.spread[:, None, None]
        if self.recipe.get("normalization") == "patch":
            return spread * ((x - self.mean[:, None, None]) / spread).std((1, 2, 3), keepdim=True).clamp_min(1e-6)
        return spread

    def encode(self, harmonics: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log deviation of z, (n, latent) each, from (n, channels, 2 T)."""
        scale = self.signal.rsqrt()[:, self.space.ring].repeat(1, 2)
        mean, log_deviation = self.encoder(harmonics * scale)
        return mean, log_deviation

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Templates of all classes.

        Parameters
        ----------
        z : torch.Tensor
            (n, latent).
        condition : torch.Tensor, optional
            (n, conditions).

        Returns
        -------
        torch.Tensor
            (n, classes, channels, 2 T).
        """
        if condition is not None and self.conditions:
            z = torch.cat([z, condition], 1)
        if self.classes == 1:
            alone: Tensor = self.decoder(z)
            return alone[:, None]
        one = torch.eye(self.classes, device=z.device, dtype=z.dtype)
        each = torch.cat([z[:, None].expand(-1, self.classes, -1), one.expand(len(z), -1, -1)], -1)
        harmonics: Tensor = self.decoder(each.flatten(0, 1)).unflatten(0, (-1, self.classes))
        return harmonics

    def log_likelihood(self, harmonics: Tensor, templates: Tensor) -> Tensor:
        """``-|X - turn(C, theta)|^2 / (2 s2)`` at all classes and angles, (n, classes, J)."""
        likelihood: Tensor = _Likelihood.apply(harmonics, templates, self.weight, self.space.circle)  # type: ignore[no-untyped-call]
        return likelihood

    def objective(
        self,
        harmonics: Tensor,
        log_prior: Tensor,
        labels: Tensor | None = None,
        condition: Tensor | None = None,
        sample: bool | torch.Generator = True,
        seen: Tensor | None = None,
    ) -> Objective:
        """The terms of the evidence lower bound of a batch.

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T), pose taken out but for the angle.
        log_prior : torch.Tensor
            (J,) or (n, 1, J): log probability of the angles.
        labels : torch.Tensor, optional
            (n,) class of labelled patches, -1 for the others; or, as floating-point numbers, a quantity in units of its
            spread that the last latent tells, nan for the others.
        condition : torch.Tensor, optional
            (n, conditions).
        sample : bool or torch.Generator
            Whether z is drawn from its posterior, with whose random numbers, or its mean is used.
        seen : torch.Tensor, optional
            (n, channels, 2 T) what the encoder sees where that is not `harmonics`.

        Returns
        -------
        Objective
            Per patch.
        """
        mean, log_deviation = self.encode(harmonics if seen is None else seen)
        variational = self.settings.model != "ae"
        z = mean
        if sample and variational:
            chance = sample if isinstance(sample, torch.Generator) else None
            drawn = torch.randn(mean.shape, generator=chance, device=mean.device, dtype=mean.dtype)
            z = mean + log_deviation.exp() * drawn
        if labels is not None and labels.is_floating_point():
            z = torch.cat([z[:, :-1], torch.where(labels.isfinite(), labels, z[:, -1])[:, None]], 1)
        templates = self.decode(z, condition)
        joint = self.log_likelihood(harmonics, templates) + log_prior + self.log_share
        divergence = (0.5 * ((2 * log_deviation).exp() + mean**2 - 1) - log_deviation).sum(1)
        supervised = torch.zeros_like(divergence)
        if labels is not None and labels.is_floating_point():
            off = (labels.nan_to_num() - mean[:, -1]) * (-log_deviation[:, -1]).exp()
            told = -0.5 * (off.square() + math.log(2 * math.pi)) - log_deviation[:, -1]
            supervised = torch.where(labels.isfinite(), told, supervised)
        elif labels is not None:
            known = labels >= 0
            log_class = joint.logsumexp(2).log_softmax(1).gather(1, labels.clamp_min(0)[:, None])[:, 0]
            supervised = torch.where(known, log_class, supervised)
            other = torch.arange(self.classes, device=labels.device) != labels[:, None]
            joint = joint + torch.where(known[:, None] & other, _ALWAYS, 0.0)[:, :, None]
        said = torch.zeros_like(divergence)
        if self.settings.class_capacity is not None and self.classes > 1:
            log_class = joint.logsumexp(2).log_softmax(1)
            said = (log_class.exp() * log_class).sum(1) + math.log(self.classes)
        data, posterior = _Marginal.apply(joint.flatten(1))  # type: ignore[no-untyped-call]
        posterior = posterior.view_as(joint)
        if not variational:
            divergence = torch.zeros_like(divergence)
        return Objective(data, divergence, supervised, said, posterior, templates, mean)

    @torch.no_grad()
    def residual(self, harmonics: Tensor, templates: Tensor, posterior: Tensor) -> Tensor:
        """Mean squared misfit per independent coefficient of each ring, (channels, rings).

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T).
        templates : torch.Tensor
            (n, classes, channels, 2 T).
        posterior : torch.Tensor
            (n, classes, J).

        Returns
        -------
        torch.Tensor
            (channels, rings).
        """
        # the mean over the posterior of the template turned: E[exp(-i m theta)] C
        cosine, minus_sine = (posterior @ self.space.circle.T).chunk(2, -1)
        real, imaginary = templates.unflatten(-1, (2, -1)).unbind(-2)
        cosine, sine = cosine[:, :, None], -minus_sine[:, :, None]
        turned = torch.cat([real * cosine + imaginary * sine, imaginary * cosine - real * sine], -1).sum(1)
        energy = (posterior.sum(2)[:, :, None, None] * templates.square()).sum(1)
        each = (harmonics.square() + energy - 2 * harmonics * turned).mean(0)
        return self.space.by_ring(each) / self.space.degrees_of_freedom
