"""Terms of one's own in the loss: what is known of the specimen, as a small function of decoded patches and latents.

A term is called with

- ``patches``, (n, channels, D, D): what is decoded of a batch, each motif in its own frame, in units of the noise;
- ``latents``, (n, latent);
- ``neighbors``, (n, k, latent), where it takes a third argument: latents of the nearest atoms, of another frame none;

all torch tensors, and returns a penalty per patch, (n,), or their mean, in nats like the other terms. Half a squared
deviation in units of the noise counts as much as if it had been measured. Gradients flow through what torch computes of
patches and latents.

Other packages offer terms in the group of entry points ``napari_rvae.physics``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_rvae.errors import RVAEError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from napari_rvae.models import Model
    from napari_rvae.models.model import Objective
    from napari_rvae.patches import Patches

Term = Callable[..., Any]

GROUP = "napari_rvae.physics"
_NEIGHBORS = 6


def symmetric(patches: Tensor, latents: Tensor, fold: int) -> Tensor:  # noqa: ARG001
    """A motif looks alike when it is turned by a part of the circle.

    Parameters
    ----------
    patches, latents : torch.Tensor
        As every term gets them.
    fold : int
        Order of the axis.

    Returns
    -------
    torch.Tensor
        (n,).
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    c, s = math.cos(2 * math.pi / fold), math.sin(2 * math.pi / fold)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0]], dtype=patches.dtype, device=patches.device)
    grid = affine_grid(turn.expand(len(patches), -1, -1), list(patches.shape), align_corners=False)
    return 0.5 * (patches - grid_sample(patches, grid, align_corners=False)).square().sum((1, 2, 3))


def smooth(patches: Tensor, latents: Tensor, neighbors: Tensor) -> Tensor:  # noqa: ARG001
    """What the latents say, such as strain or tilt, is alike for neighbouring atoms.

    Parameters
    ----------
    patches, latents, neighbors : torch.Tensor
        As every term gets them.

    Returns
    -------
    torch.Tensor
        (n,).

    Raises
    ------
    SettingsError
        If patches have no neighbours.
    """
    if not neighbors.shape[1]:
        raise SettingsError("The term smooth needs the positions of atoms in an image, which these patches lack.")
    spread = latents.var(0).clamp_min(1e-6)  # otherwise small latents would be the cheapest
    return (0.5 * (latents - neighbors.mean(1)).square() / spread).sum(1)


_TERMS: dict[str, Term] = {f"symmetry-{fold}": partial(symmetric, fold=fold) for fold in (2, 3, 4, 6)}
_TERMS["smooth"] = smooth


def register_physics(name: str, term: Term) -> None:
    """Offer a term under a name, for `TrainSettings.physics`, until the program ends.

    Parameters
    ----------
    name : str
        What it is called in settings, in the dock and in recipes.
    term : callable
        As this module describes it.
    """
    _TERMS[name] = term


def physics_terms() -> dict[str, Term | EntryPoint]:
    """All terms that there are: those of this package, registered ones, and those of other packages, not loaded yet."""
    return {**{one.name: one for one in entry_points(group=GROUP)}, **_TERMS}


def physics_term(name: str) -> tuple[Term, str]:
    """Look up a term.

    Parameters
    ----------
    name : str
        As it is registered.

    Returns
    -------
    callable
        The term.
    str
        Where it comes from, for the recipe.

    Raises
    ------
    SettingsError
        If there is none of that name, or it cannot be loaded.
    """
    terms = physics_terms()
    if name not in terms:
        raise SettingsError(
            f"There is no term called {name}: choose from {', '.join(sorted(terms))}, or register it first "
            "(napari_rvae.training.register_physics)."
        )
    term = terms[name]
    if not isinstance(term, EntryPoint):
        plain = term.func if isinstance(term, partial) else term
        return term, f"{getattr(plain, '__module__', '?')}:{getattr(plain, '__qualname__', name)}"
    try:
        loaded = term.load()
    except Exception as error:
        raise SettingsError(f"The term {name} cannot be loaded from {term.value}: {_said(error)}") from error
    package = f" ({term.dist.name} {term.dist.version})" if term.dist is not None else ""
    return loaded, term.value + package


class Physics:
    """A term at work in one training.

    Parameters
    ----------
    name : str
        As it is registered.
    patches : Patches
        All patches that are learned from.
    """

    def __init__(self, name: str, patches: Patches) -> None:
        import torch

        self.name = name
        self.term, self.origin = physics_term(name)
        self._near = torch.as_tensor(_neighbors(patches)) if _arguments(self.term) > 2 else None

    def penalty(self, model: Model, found: Objective, harmonics: Tensor, rows: Tensor) -> Tensor:
        """Mean penalty of a batch.

        Parameters
        ----------
        model : Model
            In training.
        found : Objective
            Of the batch.
        harmonics : torch.Tensor
            (N, channels, 2 T) of all patches.
        rows : torch.Tensor
            (n,) those of the batch.

        Returns
        -------
        torch.Tensor
            A scalar.

        Raises
        ------
        SettingsError
            If the term fails, or gives what is no penalty.
        """
        import torch

        which = found.posterior.sum(2).argmax(1)
        templates = found.templates[torch.arange(len(rows), device=rows.device), which]
        freedom = model.space.degrees_of_freedom
        noise = (model.noise * freedom).sum(1) / freedom.sum()
        given = [model.space.synthesise(templates) * noise.rsqrt()[:, None, None], found.mean]
        if self._near is not None:
            self._near = self._near.to(rows.device)  # once
            near = self._near[rows]
            with torch.no_grad():
                latents = model.encode(harmonics[near.flatten()])[0]
            given.append(latents.unflatten(0, near.shape))
        try:
            value = self.term(*given)
        except RVAEError:
            raise
        except Exception as error:
            raise SettingsError(f"The term {self.name} failed: {_said(error)}") from error
        shape = tuple(getattr(value, "shape", ("no tensor",)))
        if not isinstance(value, torch.Tensor) or shape not in ((), (len(rows),)):
            raise SettingsError(
                f"The term {self.name} must return a torch tensor of shape ({len(rows)},), one penalty per patch, "
                f"not {type(value).__name__} of shape {shape}."
            )
        if not value.requires_grad:
            raise SettingsError(
                f"The term {self.name} does not depend on patches or latents through torch: nothing can be learned "
                "from it."
            )
        return value.mean()

    def check(self, mean: float) -> None:
        """Judge the mean penalty of an epoch; a `SettingsError` if it is no number."""
        if not math.isfinite(mean):
            raise SettingsError(
                f"The term {self.name} gave what is no finite number: guard its divisions, roots and logarithms."
            )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"


def _arguments(term: Term) -> int:
    """How many tensors a term takes."""
    try:
        parameters = inspect.signature(term).parameters.values()
    except (TypeError, ValueError):
        return 2
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in plain and one.default is inspect.Parameter.empty for one in parameters)


def _neighbors(patches: Patches) -> Any:
    """Rows of the nearest patches of the same frame, (N, k); none where patches have no places."""
    n = len(patches)
    if not patches.centers.any() or n <= _NEIGHBORS:
        return np.zeros((n, 0), np.int64)
    from scipy.spatial import cKDTree

    place = np.column_stack([patches.frame * 1e9, patches.centers])
    near = np.asarray(cKDTree(place).query(place, _NEIGHBORS + 1)[1], np.int64)[:, 1:]
    own = np.arange(n)[:, None]  # where a frame has too few atoms, the atom itself takes the place of another frame's
    return np.where(patches.frame[near] == patches.frame[own], near, own)
