"""The training loop: poses and noise are estimated between the epochs, decoder and encoder learned within them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_rvae.models import Model
from napari_rvae.models.inference import improve, log_angle_prior
from napari_rvae.models.model import Objective
from napari_rvae.patches import Patches
from napari_rvae.poses import turned_shape
from napari_rvae.threads import at_once
from napari_rvae.training.capacity import capacity_at
from napari_rvae.training.denoising import CleanCopies, added_noise
from napari_rvae.training.held_out import split
from napari_rvae.training.memory import by_halves
from napari_rvae.training.physics import Physics
from napari_rvae.training.rarity import oddness, shares
from napari_rvae.training.replay import Replay

if TYPE_CHECKING:
    from napari_rvae.averages import Averages

WINDOW = 0.15
"""How near angles stay to those of the class averages at first, in radian."""
SHARPNESS = 2.0
"""Precision at which is learned, in units of the estimated one: what is rare shows before it pays on average."""
WHITENESS = 0.75
"""How far the noise that is learned with lies from that of each ring (0) toward that of all rings alike (1)."""
SLOWER = 0.05
"""Learning rate of a decoder that starts where it is good already, in units of the encoder's; where poses are in the
latents, patches are far from linear in them, and it is not."""
ALIKE = 0.1
"""How far classes differ at first that are to be told apart little by little, in units of how far they do."""
LEAST_SHARE = 1e-3
"""A class that has lost all its patches may win some back."""
LEAST_NOISE = 1e-9
"""Variance below which noise is not followed: of copies of one patch nothing is left over."""
TEACHING_STEPS = 200
"""Steps in which the encoder is taught the latents to start from."""
_BLOCK = 500


class Trainer:
    """State of one training: the data on the device, the pose of every patch, and the optimiser.

    Parameters
    ----------
    model : Model
        To be trained, on its device.
    patches : Patches
        What it learns from.
    labels : numpy.ndarray, optional
        (n,) class of every patch, -1 where unknown; or a quantity in units of its spread, nan where unknown.
    condition : numpy.ndarray, optional
        (n, conditions).
    clean : Patches, optional
        Copies without noise, which the decoder is to make.
    """

    def __init__(
        self,
        model: Model,
        patches: Patches,
        labels: NDArray[np.int64] | None = None,
        condition: NDArray[np.float32] | None = None,
        clean: Patches | None = None,
    ) -> None:
        self.model, self.patches, self.settings = model, patches, model.settings
        self.capacity = capacity_at(self.settings, 1)
        self.device = model.noise.device
        self._block = at_once(_BLOCK, self.device)
        n = len(patches)
        follows = patches.cut is not None  # windows will follow their motifs
        self.x = torch.as_tensor(patches.data.copy() if follows else patches.data, device=self.device)
        told = None if labels is None else torch.as_tensor(labels, device=self.device)
        self.values = told if told is not None and told.is_floating_point() else None
        self.labels = self.known = told if self.values is None else None
        self.condition = None if condition is None else torch.as_tensor(condition, device=self.device)
        self.theta = torch.zeros(n, device=self.device)
        self.shape = torch.zeros(n, 5, device=self.device)
        self.base = torch.zeros(n, 5, device=self.device)
        self.harmonics = torch.empty(n, patches.data.shape[1], 2 * model.space.terms, device=self.device)
        for rows in torch.arange(n, device=self.device).split(self._block):
            self.harmonics[rows] = model.harmonics(self.x[rows])
        self.clean = None if clean is None else CleanCopies(model, patches, clean)
        self._clean_follow(torch.arange(n, device=self.device))
        self.generator = torch.Generator().manual_seed(self.settings.seed)
        self.chance = torch.Generator(self.device)  # of what is drawn in steps, there
        self.held_out, self.train_rows = torch.arange(0), torch.arange(n)
        if self.settings.early_stopping:
            self.held_out, self.train_rows = split(patches, self.generator)
        self.batch_size = int(
            np.clip(len(self.train_rows) // 40, min(16, len(self.train_rows)), self.settings.batch_size)
        )
        groups = [{"params": model.encoder.parameters()}, {"params": model.decoder.parameters()}]
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(groups, self.settings.learning_rate, fused=fused)
        self._replay = Replay(self.chance)
        self.window: float | None = None
        self.misfit = torch.zeros(n, device=self.device)
        self.rarity = torch.ones(n)
        self.often = torch.ones(n, device=self.device)  # how much more than others a patch is drawn in this epoch
        if self.values is not None:  # what is known is looked at more often
            known = self.values.isfinite().cpu()
            self.rarity[known] = float((n / known.sum()).sqrt().clamp(1, 5))
        self.steps = 0
        self.crowded = False  # whether the memory was too full for poses of whole blocks
        self.physics = Physics(self.settings.physics, patches) if self.settings.physics else None
        self._start_noise()
        if not self._has_poses:
            self._start_linear()

    @property
    def _has_poses(self) -> bool:
        return self.model.turns or bool((self.model.pose_prior > 0).any())

    @property
    def target(self) -> Tensor:
        """Harmonics that the decoder is to make, (n, channels, 2 T), poses taken out."""
        return self.harmonics if self.clean is None else self.clean.harmonics

    def _clean_follow(self, rows: Tensor) -> None:
        """Take the poses that were found out of clean copies, too."""
        if self.clean is not None:
            for some in rows.split(self._block):
                self.clean.take_out(some, self.x[some], self.shape[some] - self.base[some], self.theta[some])

    @torch.no_grad()
    def _start_noise(self) -> None:
        """At first everything counts as noise; the decoder knows the mean only."""
        model = self.model
        power = model.space.by_ring(self.harmonics.square().mean(0))
        total = power / model.space.degrees_of_freedom
        total = total.clamp_min(1e-8 * total.max())
        model.noise.copy_(total)
        self.noise = total.clone()
        self.left, self.lefts = self.noise.clone(), 1
        model.signal.copy_(power / (2 * torch.bincount(model.space.ring)))
        model.signal.clamp_min_(1e-6 * float(model.signal.max()))
        model.decoder.start_from(self.target.mean(0))

    @torch.no_grad()
    def start_from(self, averages: Averages) -> None:
        """Take the poses of class averages; for the first epochs angles stay near them."""
        table, step = averages.table, self.patches.step
        self.theta = torch.as_tensor(table["angle"].to_numpy(np.float32), device=self.device)
        image_frame = np.column_stack(
            [table["dx"] / step[1], table["dy"] / step[0], table["strain_a"], table["strain_b"], np.log(table["scale"])]
        )
        shape = torch.as_tensor(image_frame.astype(np.float32), device=self.device)
        shape[:, 2:4] = turned_shape(shape, self.theta)[:, 2:4]  # from the motif's frame to the image's
        self.shape = torch.where(self.model.pose_prior > 0, shape, 0.0)
        kind = torch.as_tensor(table["class"].to_numpy(copy=True))
        counts = torch.bincount(kind).float()
        self.rarity = self.rarity * (counts.mean() / counts.clamp_min(5)).sqrt().clamp_min(1)[kind]
        if self.model.classes > 1 and self.capacity.classes is None:
            self.labels = self._guessed(kind.to(self.device))
        self.cut_again()
        self._take_out_poses(torch.arange(len(self.x), device=self.device))
        self.window = WINDOW
        self._start_noise()
        self._start_linear(kind.to(self.device))

    def _start_linear(self, kind: Tensor | None = None) -> None:
        """Start decoder and encoder from the principal components of the patches, their poses taken out.

        What is known of a patch, or guessed of its class, is explained first, by least squares; so is what strain
        and scale, where free, would do to the average of its kind, (n,): strain is to be told by the strain.
        """
        model, latent = self.model, self.settings.latent - (self.values is not None)
        flat = self.target.flatten(1)
        known = [torch.ones_like(flat[:, :1])]
        expected = flat[:, :0] if self.values is None else self._expected_values(flat)
        known.append(expected)
        if model.classes > 1:
            known.append(nn.functional.one_hot(self._first_classes(flat), model.classes).to(flat))
        if self.condition is not None:
            known.append(self.condition)
        design = torch.cat(known, 1)
        ridge = 1e-3 * len(flat) * torch.eye(design.shape[1], device=self.device)
        ridge[0, 0] = 0
        explained = torch.linalg.solve(design.T @ design + ridge, design.T @ flat)
        rest = flat - design @ explained
        if kind is not None:
            for number in range(int(kind.max()) + 1):
                rows = kind == number
                if bool(rows.any()):
                    tangents = torch.linalg.qr(self._tangents(self.target[rows].mean(0)))[0]
                    rest[rows] -= rest[rows] @ tangents @ tangents.T
        # block by block, as a copy of all would be too much
        blocks = zip(rest.split(self._block), shares(rest).split(self._block), strict=True)
        values, vectors = torch.linalg.eigh(sum((some.T * share) @ some for some, share in blocks))
        values, vectors = values.flip(0).clamp_min(1e-12), vectors.flip(1)
        noise = values[latent:].mean() if len(values) > latent else values[-1]
        width = (values[:latent] - noise).clamp_min(1e-3 * values[0]).sqrt()
        parts = vectors[:, :latent] * width
        none = latent - len(width)  # where there are more latents than directions
        width, parts = nn.functional.pad(width, (0, none)), nn.functional.pad(parts, (0, none))
        if model.classes > 1 and self.capacity.classes is not None:
            explained[1 : 1 + model.classes] *= ALIKE
        shape = self.harmonics.shape[1:]
        slopes = torch.cat([parts.T, explained[1:]]).unflatten(1, shape)
        model.decoder.start_from(explained[0].unflatten(0, shape), slopes)
        good = self.settings.decoder == "spectrum" and self._has_poses and self.capacity.classes is None
        if good and self.physics is None:  # a term of the loss may want other latents
            self.optimizer.param_groups[1]["lr"] *= SLOWER
        target = torch.cat([rest @ parts / (width.square() + noise), expected], 1)
        spread = 0.5 * (noise / (width.square() + noise)).log()
        self._teach(target, torch.cat([spread, spread.new_full((expected.shape[1],), -1.0)]))

    def _tangents(self, harmonics: Tensor) -> Tensor:
        """What a little strain and scale, where free, do to a motif, (channels, 2 T); (channels * 2 T, poses)."""
        free = self.model.pose_prior > 0
        free[:2] = False  # angle and offset are found well enough for none to be left
        return torch.einsum("pij,cj->pci", self.model.space.generators[free], harmonics).flatten(1).T

    def _expected_values(self, flat: Tensor) -> Tensor:
        """A first guess of the quantity that some patches are labelled with, for all, (n, 1): linear in components."""
        assert self.values is not None
        scores, strength, _ = torch.pca_lowrank(flat, min(20, *flat.shape))
        design = torch.cat([scores * strength / strength[0] * len(flat) ** 0.5, torch.ones_like(flat[:, :1])], 1)
        known = self.values.isfinite()
        some = design[known]
        ridge = 0.03 * len(some) * torch.eye(design.shape[1], device=self.device)
        weights: Tensor = torch.linalg.solve(some.T @ some + ridge, some.T @ self.values[known])
        return (design @ weights)[:, None]

    def _first_classes(self, flat: Tensor) -> Tensor:
        """A class for every patch: the given one, else that of the nearest mean; found where none is given."""
        from napari_rvae.training.connected import connected_classes

        count = self.model.classes
        labels = torch.full((len(flat),), -1, device=self.device) if self.labels is None else self.labels
        if not bool((labels >= 0).any()):
            scores = torch.pca_lowrank(flat, min(20, *flat.shape))
            points: NDArray[np.float64] = (scores[0] * scores[1]).double().cpu().numpy()
            return torch.as_tensor(connected_classes(points, count, self.settings.seed), device=self.device)
        means = torch.stack([flat[labels == k].mean(0) for k in range(count)])
        nearest = torch.cdist(flat, means).nan_to_num(torch.inf).argmin(1)  # a class without members has no mean
        return torch.where(labels >= 0, labels, nearest)

    @torch.enable_grad()
    def _teach(self, target: Tensor, spread: Tensor) -> None:
        """Teach the encoder given latents, (n, latent), and the logarithm of their deviation, (latent,)."""
        teacher = torch.optim.Adam(self.model.encoder.parameters(), 2 * self.settings.learning_rate)
        for number in range(TEACHING_STEPS):
            rows = torch.randint(len(target), (self.settings.batch_size,), generator=self.generator).to(self.device)
            mean, log_deviation = self.model.encode(added_noise(self.model, self.harmonics[rows]))
            error = nn.functional.smooth_l1_loss(mean, target[rows])
            loss = error + 0.1 * (log_deviation - spread).square().mean()
            teacher.zero_grad(set_to_none=True)
            loss.backward()
            teacher.step()
            for group in teacher.param_groups:
                group["lr"] = 2 * self.settings.learning_rate * (1 - number / TEACHING_STEPS)

    def _guessed(self, kind: Tensor) -> Tensor:
        """Classes for the first epochs: the kinds, called what most of their labelled members are called."""
        if self.known is None:
            return kind
        votes = torch.zeros(int(kind.max()) + 1, self.model.classes, device=self.device)
        labelled = self.known >= 0
        votes.index_put_((kind[labelled], self.known[labelled]), votes.new_ones(()), accumulate=True)
        name = torch.where(votes.sum(1) > 0, votes.argmax(1), -1)
        return torch.where(labelled, self.known, name[kind])

    def cut_again(self, tolerance: float = 0.05) -> None:
        """Let the windows follow the motifs that have moved, where the patches come from an image."""
        if self.patches.cut is None or not float(self.model.pose_prior[0]) > 0:
            return
        moved = (self.shape - self.base)[:, :2].abs().amax(1) > tolerance
        rows = moved.nonzero()[:, 0]
        if len(rows) == 0:
            return
        self.base[rows, :2] = self.shape[rows, :2]
        self.cut_windows(rows)
        self._take_out_poses(rows)

    def cut_windows(self, rows: Tensor) -> None:
        """Cut the windows of some patches, (k,), where `base` has them."""
        offset = self.base[rows][:, [1, 0]].cpu().numpy().astype(float) * np.array(self.patches.step)
        some = self.patches.select(rows.cpu().numpy()).moved(offset)
        self.x[rows] = torch.as_tensor(some.data, device=self.device)
        if self.clean is not None:
            self.clean.cut_again(rows, offset)

    @torch.no_grad()
    def _take_out_poses(self, which: Tensor) -> None:
        for rows in which.split(self._block):
            harmonics = self.model.harmonics(self.x[rows], self.shape[rows] - self.base[rows])
            self.harmonics[rows] = self.model.space.turn(harmonics, -self.theta[rows])
        self._clean_follow(which)

    def update_poses(self, ends: Callable[[int], bool] | None = None, start: int = 0) -> None:
        """Estimate every patch's pose anew with the model so far, from row `start` on, until ``ends(row)``."""
        if not self._has_poses:
            return
        for rows in torch.arange(start, len(self.x), device=self.device).split(self._block):
            if ends is not None and ends(int(rows[0])):
                return
            self.crowded |= len(by_halves(self._update_poses_of, rows, self.device)) > 1

    def _update_poses_of(self, rows: Tensor) -> None:
        told: dict[str, Any] = {
            name: None if values is None else values[rows]
            for name, values in (("condition", self.condition), ("labels", self.labels))
        }
        self.shape[rows], self.theta[rows], self.harmonics[rows] = improve(
            self.model, self.x[rows], self.shape[rows], self.theta[rows], self.harmonics[rows], base=self.base[rows],
            window=self.window, **told,
        )  # fmt: skip
        self._clean_follow(rows)

    def log_prior(self, rows: Tensor) -> Tensor:
        """Log probability of the angles, relative to the poses taken out; outside the window there is none."""
        model = self.model
        prior = log_angle_prior(model, self.theta[rows] if model.settings.angle_prior else self.theta[:1])
        apart = (model.space.theta + torch.pi) % (2 * torch.pi) - torch.pi
        return prior if self.window is None else prior.masked_fill(apart.abs() > self.window, -1e4)

    def step(self, rows: Tensor, log_prior: Tensor) -> Tensor:
        """One step of the optimiser; the mean objective's (data, divergence, supervised, physics) terms."""
        follow = self.steps % 4 == 3
        rates = tuple(group["lr"] for group in self.optimizer.param_groups)
        key = len(rows), log_prior.shape, follow, id(self.labels), self.capacity, rates
        once = partial(self._step, follow)  # a term of the user's may look at what it computes
        terms = once(rows, log_prior) if self.physics else self._replay(key, once, rows, log_prior)
        self.steps, self.lefts = self.steps + 1, self.lefts + follow
        return terms

    def _step(self, follow: bool, rows: Tensor, log_prior: Tensor) -> Tensor:
        """`step`; `follow` is whether noise is followed."""
        model = self.model
        told = self.labels if self.values is None else self.values
        labels = None if told is None else told[rows]
        condition = None if self.condition is None else self.condition[rows]
        harmonics = self.harmonics[rows]
        target = harmonics if self.clean is None else self.clean.harmonics[rows]
        seen = added_noise(model, harmonics, self.chance)
        found = model.objective(target, log_prior, labels, condition, self.chance, seen)
        loss, physics = self._loss(found), found.data.new_zeros(())
        if self.physics is not None:
            physics = self.physics.penalty(model, found, self.harmonics, rows)
            loss = loss + self.settings.physics_weight * physics
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["capturable"] = self._replay.records
        self.optimizer.step()
        if follow:
            with torch.no_grad():
                residual = model.residual(harmonics, found.templates.detach(), found.posterior)
                self.noise.lerp_(residual, 0.2).clamp_min_(LEAST_NOISE)
                self.left += residual
                model.noise.copy_(self._tempered(self.noise))
                if model.classes > 1 and self.capacity.classes is None:
                    each = 1 / self.often[rows]
                    share = (found.posterior.sum(2) * each[:, None]).sum(0) / each.sum()
                    model.class_share.lerp_(share, 0.2).clamp_min_(LEAST_SHARE)
        # a patch may be drawn twice: the larger misfit, in whatever order a device writes
        self.misfit.scatter_reduce_(0, rows, -found.data.detach(), "amax", include_self=False)
        terms = (found.data.mean(), found.divergence.mean(), found.supervised.mean(), physics)
        return torch.stack([one.detach() for one in terms])

    def _loss(self, found: Objective) -> Tensor:
        """What is made small: the negative evidence, or with capacities how far off them latents and classes are."""
        beta = self.capacity.beta
        loss = beta * (found.divergence.mean() - (self.capacity.latents or 0)).abs()  # a divergence is never negative
        loss = loss - (found.data + found.supervised).mean()
        if self.capacity.classes is not None:
            said = found.class_divergence.mean()  # the summed likelihood holds it once already
            loss = loss + beta * (said - self.capacity.classes).abs() - said
        return loss

    def _tempered(self, residual: Tensor) -> Tensor:
        """Noise to learn with: what is not explained yet would count as its ring's, and might never be explained."""
        freedom = self.model.space.degrees_of_freedom
        white = (residual * freedom).sum(1, keepdim=True) / freedom.sum()
        return (residual ** (1 - WHITENESS) * white**WHITENESS / SHARPNESS).clamp_min(LEAST_NOISE)

    def drawn(self) -> Tensor:
        """Rows of one epoch: those that are not understood, and those of rare kinds, are drawn more often."""
        rows = self.train_rows
        if self.steps == 0:
            return rows[torch.randperm(len(rows), generator=self.generator)]
        misfit = self.misfit[rows.to(self.device)].cpu()
        weight = oddness(misfit) * self.rarity[rows]
        self.often[rows.to(self.device)] = weight.to(self.device)
        return rows[torch.multinomial(weight, len(rows), replacement=True, generator=self.generator)]

    def epoch_terms(self, means: Tensor) -> dict[str, float]:
        """The terms of the loss of an epoch, from the means of what `step` gave."""
        _, divergence, supervised, physics = means.tolist()
        # with the noise that is estimated, not the one that is learned with: what is left over fits it
        freedom = self.model.space.degrees_of_freedom
        left = (self.left / self.lefts).clamp_min(LEAST_NOISE)
        self.lefts = 1
        self.left.copy_(self.noise)
        data = 0.5 * float((freedom * (1 + (2 * torch.pi * left).log())).sum())
        terms = {"data": data, "divergence": divergence, "supervised": -supervised}
        if self.physics is not None:
            self.physics.check(physics)
            terms["physics"] = self.settings.physics_weight * physics
        return terms

    @torch.no_grad()
    def held_out_loss(self) -> float | None:
        """Negative evidence lower bound per held-out patch; None where none is held out."""
        if len(self.held_out) == 0:
            return None
        learned_with = self.model.noise.clone()
        self.model.noise.copy_(self.noise)
        total = self.noise.new_zeros(())
        for rows in self.held_out.to(self.device).split(self._block):
            condition = None if self.condition is None else self.condition[rows]
            prior, seen = self.log_prior(rows), self.harmonics[rows]
            found = self.model.objective(self.target[rows], prior, None, condition, sample=False, seen=seen)
            total += (found.divergence - found.data).sum()
        evidence = float(self.model.noise_evidence)
        self.model.noise.copy_(learned_with)
        return float(total) / len(self.held_out) - evidence

    def slow_down(self) -> None:
        """Take smaller steps from now on, and learn from what was held out, too."""
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.2
        self.train_rows = torch.arange(len(self.patches))

    def is_finite(self) -> bool:
        """Whether the model still consists of numbers."""
        return all(bool(value.isfinite().all()) for value in self.model.parameters())

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the model, its noise and the poses."""
        own = {f"own.{name}": getattr(self, name) for name in ("theta", "shape", "noise")}
        return {name: value.clone() for name, value in {**self.model.state_dict(), **own}.items()}

    def go_back(self, snapshot: dict[str, Tensor]) -> None:
        """Take an earlier model, noise and poses."""
        kept = dict(snapshot)
        self.theta, self.shape, self.noise = (kept.pop(f"own.{name}") for name in ("theta", "shape", "noise"))
        self.model.load_state_dict(kept)
