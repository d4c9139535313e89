"""Encode patches into the latent table; decode latents into patches and manifolds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.latent.ensembles import combine
from napari_rvae.models.conditions import Condition
from napari_rvae.models.inference import Inferred, from_rival, infer
from napari_rvae.patches import Patches, Progress, Stop
from napari_rvae.polar import radial_taper
from napari_rvae.poses import turned_shape
from napari_rvae.threads import at_once, threads
from napari_rvae.training.memory import by_halves, explained

if TYPE_CHECKING:
    from napari_rvae.models import Model

_BLOCK = 250
_ROUNDS = 5
_FILLINGS = 4
"""How often missing pixels are filled with what the model expects there."""
_TOLERANCE = 0.05
"""Patch pixels: windows follow motifs that lie further off."""
_DIM = 0.1
"""Weight of the taper below which a decoded motif is not brought back to its brightness."""


def encode(
    model: Model,
    patches: Patches,
    *,
    atoms: pd.DataFrame | None = None,
    condition: Any = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """What the model says of every patch; of an ensemble, what its members say together, see `combine`.

    Angle, offset, strain, scale and z are found together by search and Gauss-Newton steps (`models.inference`); windows
    that were cut from an image follow their motif. Errors are standard deviations: from the curvature,
    and from what the model leaves out (`models.left_out`).

    Parameters
    ----------
    model : Model
        Trained.
    patches : Patches
        Of the model's size and channels.
    atoms : pandas.DataFrame, optional
        Atoms table, all rows of which are kept; joined on ``atom_id``.
    condition : array-like, DataFrame or Condition, optional
        (n,) or (n, k) for conditional models, in the units of the training; a table has the columns by their names.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    pandas.DataFrame
        The latent table: one row per atom with nan where there is no patch, or one per patch, in order.

    Raises
    ------
    InputDataError
        If the patches do not fit the model.
    DeviceError
        If the memory is full even with few patches at a time.
    Stopped
        If `stop` said so.
    """
    _check(model, patches)
    known = conditions_told(model, condition, len(patches))
    members = [model, *model.members]
    tables = [
        _encoded(member, patches, known, _share(progress, number, len(members)), stop)
        for number, member in enumerate(members)
    ]
    table = tables[0] if len(tables) == 1 else combine(tables)
    if atoms is None:
        return table
    merged = atoms.drop(columns=[c for c in table if c in atoms and c != "atom_id"]).merge(
        table, on="atom_id", how="left", validate="one_to_one"
    )
    merged.attrs = dict(atoms.attrs)
    return merged


def _share(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Let one member of an ensemble report its own fraction as a part of the whole."""
    if progress is None or count == 1:
        return progress
    return lambda fraction, text: progress((number + fraction) / count, f"{text}: member {number + 1} of {count}")


def _encoded(
    model: Any, patches: Patches, known: Tensor | None, progress: Progress | None, stop: Stop | None
) -> pd.DataFrame:
    """What a single model says."""
    device, parts = model.noise.device, []
    block = at_once(_BLOCK, device)

    def encoded(rows: NDArray[np.int64]) -> pd.DataFrame:
        one = None if known is None else known[rows].to(device)
        return _columns(model, patches, one, *_settled(model, patches.select(rows), one))

    for start in range(0, len(patches), block):
        if stop is not None and stop():
            raise Stopped("Stopped while encoding.")
        rows = np.arange(start, min(start + block, len(patches)))
        with threads(model.settings.threads), explained(device):
            parts += by_halves(encoded, rows, device)
        if progress is not None:
            progress(min(1.0, (start + block) / len(patches)), "Encoding")
    table = pd.concat(parts, ignore_index=True)
    for name in ("strain_xx", "strain_yy", "strain_xy"):
        if name in table:
            table[name] -= table[name].median()
    inner = ~patches.edge if not patches.edge.all() else slice(None)
    table["unexplained"] /= table.pop("square")[inner].mean()
    return pd.concat([pd.Series(patches.atom_id, name="atom_id"), table], axis=1)


def _settled(model: Model, patches: Patches, condition: Tensor | None) -> tuple[Inferred, Tensor]:
    """Pose and content; windows are cut again until they have followed their motifs, missing pixels filled anew."""
    device = model.noise.device
    x = torch.as_tensor(patches.data.copy(), device=device)
    shape = _first_shape(model, x, condition)
    base = torch.zeros_like(shape)
    step = np.array(patches.step)
    follows = patches.cut is not None and float(model.pose_prior[0]) > 0
    found = infer(model, x, shape, condition=condition, steps=_ROUNDS, content=not follows)
    rounds = _FILLINGS if patches.edge.any() else 1
    for number in range(rounds if follows or patches.edge.any() else 0):
        offset = (found.shape - base)[:, :2]
        moved = (offset.abs().amax(1) > _TOLERANCE).cpu().numpy() & follows & (number < 2)
        if moved.any():
            base[:, :2] += torch.where(torch.as_tensor(moved, device=device)[:, None], offset, 0.0)
            target = base[moved][:, [1, 0]].cpu().numpy().astype(float) * step
            x[moved] = torch.as_tensor(patches.select(moved).moved(target).data, device=device)
        if patches.edge.any():
            _fill(model, patches, x, found, base)
        rows = torch.as_tensor(patches.edge | (number == 0), device=device)
        known = None if condition is None else condition[rows]
        again = infer(model, x[rows], found.shape[rows], base=base[rows], condition=known, steps=_ROUNDS, content=True)
        found = again if number == 0 else found.put(rows, again)
    found = from_rival(model, x, found, base=base, condition=condition)
    mean = model.normalised(x).mean((2, 3))
    return found, mean


def _fill(model: Model, patches: Patches, x: Tensor, found: Inferred, base: Tensor) -> None:
    """Put what the model expects where the image has no pixels: expectation-maximisation with missing data.

    Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977).
    """
    rows = torch.as_tensor(np.flatnonzero(patches.edge), device=x.device)
    offset = base[rows][:, [1, 0]].cpu().numpy().astype(float) * np.array(patches.step)
    missing = torch.as_tensor(patches.select(patches.edge).missing(offset), device=x.device)[:, None]
    expected = _pictured(model, found.templates[rows], found.theta[rows], found.shape[rows] - base[rows])
    expected = expected * model.contrast(x[rows])
    taper = torch.as_tensor(radial_taper(model.size), dtype=x.dtype, device=x.device)
    expected = expected / taper.clamp_min(0.2)
    seen = (~missing) * taper
    level = ((x[rows] - expected) * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True).clamp_min(1e-6)
    x[rows] = torch.where(missing, expected + level, x[rows])


def _pictured(model: Model, templates: Tensor, theta: Tensor, shape: Tensor) -> Tensor:
    """Templates turned, shaped and moved to where their patches show them, (n, channels, D, D), normalised."""
    inverse, moved = -shape, torch.zeros_like(shape)
    inverse[:, :2], moved[:, :2] = 0, -shape[:, :2]
    images = model.space.synthesise(model.space.turn(templates, theta))
    result: Tensor = model.resample(model.resample(images, inverse), moved)
    if bool(model.pose_prior[4] > 0):  # the window does not grow and shrink with its motif
        taper = torch.as_tensor(radial_taper(model.size), dtype=images.dtype, device=images.device)
        posed = model.resample(model.resample(taper.expand(len(shape), 1, -1, -1), inverse), moved)
        result = result * (taper / posed.clamp_min(_DIM))
    return result


def _first_shape(model: Model, x: Tensor, condition: Tensor | None) -> Tensor:
    """The better one, patch by patch, of the shapes from which inference may start."""
    starts = model.first_shapes(x)
    if len(starts) == 1:
        return starts[0]
    tried = [infer(model, x, shape, condition=condition, steps=2) for shape in starts]
    better = tried[1].cost < tried[0].cost
    return torch.where(better[:, None], tried[1].shape, tried[0].shape)


def _columns(model: Model, patches: Patches, condition: Tensor | None, found: Inferred, mean: Tensor) -> pd.DataFrame:
    """The latent table's columns, in its units and frames."""
    free = (model.pose_prior > 0).tolist()
    which_class = found.log_class.argmax(1)
    kind = which_class if model.classes > 1 else model.kind_of(found.templates)
    order, zero = model.kind_symmetry[kind], model.kind_angle[kind]
    deviation = found.covariance.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    columns: dict[str, Any] = {}
    count, shapes = model.settings.latent, sum(free)
    z, uncertain = found.z, deviation[:, -count:]
    if condition is not None:
        z, back = model.apart(z, condition)
        spread = back @ found.covariance[:, -count:, -count:] @ back.transpose(1, 2)
        uncertain = spread.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    for name, values in (("z{}", z), ("z{}_error", uncertain)):
        columns |= {name.format(i + 1): values[:, i] for i in range(count)}
    if "value" in model.recipe:  # of models that learn a quantity, the last latent tells it
        scale = model.recipe["value"]
        columns["predicted"] = found.z[:, -1] * scale["spread"] + scale["mean"]
        columns["predicted_error"] = deviation[:, -1].hypot(torch.tensor(scale.get("scatter", 0.0))) * scale["spread"]
    theta = found.theta
    shape = found.shape - turned_shape(model.kind_shape[kind], theta)  # the template's own belongs to the motif
    if model.turns:
        columns["angle"], columns["angle_error"] = _angle(model, found, order, zero, deviation[:, shapes])
        columns["symmetry"] = order
    if free[0]:
        c, s = theta.cos(), theta.sin()
        turn = torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)
        spread = turn @ found.covariance[:, :2, :2] @ turn.transpose(1, 2)
        ex, ey = spread.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt().unbind(1)
        step_y, step_x = patches.step
        columns["dy"], columns["dx"] = shape[:, 1] * step_y, shape[:, 0] * step_x
        columns["dy_error"], columns["dx_error"] = ey * step_y, ex * step_x
    left = (found.harmonics - found.templates).square()
    freedom = model.space.degrees_of_freedom.sum() * model.channels
    columns["reconstruction_error"] = (left * model.weight).sum((1, 2)) / freedom
    columns["unexplained"] = left.sum((1, 2))
    columns["square"] = found.harmonics.square().sum((1, 2))
    if model.classes > 1:
        columns["class"] = which_class
        columns["class_probability"] = found.log_class.exp().amax(1)
    if free[4]:
        columns["scale"] = shape[:, 4].exp()
    if free[2]:
        own = turned_shape(shape, -columns["angle"] if model.turns else zero)
        columns["strain_a"], columns["strain_b"] = own[:, 2], own[:, 3]
        columns["strain_xx"], columns["strain_yy"] = shape[:, 2], -shape[:, 2]
        columns["strain_xy"] = shape[:, 3]
    for channel in range(model.channels):
        name = "patch_mean" if model.channels == 1 else f"patch_mean{channel + 1}"
        columns[name] = mean[:, channel] * model.spread[channel] + model.mean[channel]
    return pd.DataFrame({name: value.detach().cpu().numpy() for name, value in columns.items()})


def _angle(model: Model, found: Inferred, order: Tensor, zero: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Angle in the common frame modulo the motif's symmetry, and its standard deviation."""
    period = 2 * torch.pi / order
    angle = (found.theta - zero + period / 2) % period - period / 2
    turns = torch.exp(1j * order[:, None] * model.space.theta)
    length = torch.einsum("nj,nj->n", found.log_angles.exp().to(torch.cfloat), turns).abs().clamp(1e-6, 1)
    spread = (-2 * length.log()).sqrt() / order
    return angle, torch.maximum(width, spread).clamp_max(torch.pi / 3**0.5)


def decode(model: Model, z: ArrayLike, classes: ArrayLike | None = None, condition: Any = None) -> NDArray[np.float32]:
    """Patches that latents stand for, in the motif's common frame.

    Parameters
    ----------
    model : Model
        Trained.
    z : array-like
        (n, latent).
    classes : array-like, optional
        (n,) classes of joint and semi-supervised models; class 0 when omitted.
    condition : array-like, optional
        (n,) or (n, k) of conditional models, as in training.

    Returns
    -------
    numpy.ndarray
        (n, channels, D, D), in the image's intensities, under the taper; zero mean.

    Raises
    ------
    InputDataError
        If the numbers do not fit the model.
    """
    values = torch.as_tensor(np.atleast_2d(np.array(z, np.float32)), device=model.noise.device)
    if values.shape[1] != model.settings.latent or not bool(values.isfinite().all()):
        raise InputDataError(f"This model has {model.settings.latent} latents: give so many finite numbers per patch.")
    which = torch.as_tensor(np.zeros(len(values), np.int64) if classes is None else np.asarray(classes, np.int64))
    if len(which) != len(values) or int(which.min()) < 0 or int(which.max()) >= model.classes:
        raise InputDataError(f"Classes must be {len(values)} numbers from 0 to {model.classes - 1}.")
    known = conditions_told(model, condition, len(values))
    with torch.no_grad():
        if known is not None:
            known = known.to(values.device)
            values = model.together(values, known)
        templates = model.decode(values, known)
        templates = templates[torch.arange(len(values)), which.to(values.device)]
        kind = which.to(values.device) if model.classes > 1 else model.kind_of(templates)
        images = model.space.synthesise(model.space.turn(templates, model.kind_angle[kind]))
    return (images * model.spread[:, None, None]).cpu().numpy()


def reconstruct(model: Model, patches: Patches, table: pd.DataFrame, condition: Any = None) -> NDArray[np.float32]:
    """What the model understood of patches: their latents decoded, turned, shaped and moved back to their place.

    Parameters
    ----------
    model : Model
        Trained.
    patches : Patches
        The patches as cut.
    table : pandas.DataFrame
        Their rows of the latent table, in order.
    condition : array-like, optional
        (n,) or (n, k) of conditional models, as in training.

    Returns
    -------
    numpy.ndarray
        (n, channels, D, D), in the image's intensities, mean included; comparable with ``patches.data`` under the
        taper.

    Raises
    ------
    InputDataError
        If table and patches do not belong together, or the patches do not fit the model.
    """
    _check(model, patches)
    if len(table) != len(patches):
        raise InputDataError(f"There are {len(patches)} patches but {len(table)} rows: give the rows of these patches.")
    device, n = model.noise.device, len(patches)

    def column(name: str) -> Tensor:
        values = table[name].to_numpy(np.float32) if name in table else np.zeros(n, np.float32)
        return torch.as_tensor(values.copy(), device=device)

    z = torch.stack([column(f"z{i + 1}") for i in range(model.settings.latent)], 1)
    known = conditions_told(model, condition, n)
    with torch.no_grad():
        own = "class" in table and model.classes > 1  # else a column of the user's
        which = column("class").long() if own else torch.zeros(n, dtype=torch.int64, device=device)
        if known is not None:
            known = known.to(device)
            z = model.together(z, known)
        templates = model.decode(z, known)[torch.arange(n, device=device), which]
        kind = which if model.classes > 1 else model.kind_of(templates)
        theta = column("angle") + model.kind_angle[kind] if model.turns else torch.zeros(n, device=device)
        zero = torch.zeros_like(theta)
        strain = torch.stack([zero, zero, column("strain_a"), column("strain_b"), zero], 1)
        shape = turned_shape(strain, column("angle"))
        shape[:, 0], shape[:, 1] = column("dx") / patches.step[1], column("dy") / patches.step[0]
        shape[:, 4] = column("scale").clamp_min(1e-3).log() if "scale" in table else zero
        shape = shape + turned_shape(model.kind_shape[kind], theta)
        data = torch.as_tensor(patches.data, device=device)
        images = _pictured(model, templates, theta, shape) * model.contrast(data)
        taper = torch.as_tensor(radial_taper(model.size), dtype=data.dtype, device=device)
        level = (data * taper).sum((2, 3), keepdim=True) / taper.sum()  # what the transform has removed
        understood: NDArray[np.float32] = (images + level).cpu().numpy()
        return understood


def _check(model: Model, patches: Patches) -> None:
    if len(patches) == 0:
        raise InputDataError("There are no patches: find atoms first, or include those at the edge.")
    channels, size = patches.data.shape[1:3]
    if (channels, size) != (model.channels, model.size):
        raise InputDataError(
            f"The model was trained on patches of {model.size} pixels with {model.channels} channel(s), "
            f"these have {size} pixels and {channels}: cut them with the model's patch size."
        )


def conditions_told(model: Model, condition: Any, n: int) -> Tensor | None:
    """Conditions of n patches as the model is told them, (n, conditions); None for models without."""
    if not model.conditions:
        return None
    columns, count = model.recipe.get("condition_columns"), model.conditions
    if not isinstance(condition, Condition) and columns and condition is not None:
        condition = Condition.for_model(columns, condition, n)
    if isinstance(condition, Condition):
        condition = condition.values
    values = np.empty(0) if condition is None else np.asarray(condition)
    numbered = values.shape == (n,) and values.dtype.kind in "iu" and n and count > 1
    if numbered and 0 <= values.min() <= values.max() < count:
        values = np.eye(count)[values]
    if values.dtype.kind not in "iuf" or values.size != n * count or not np.isfinite(values).all():
        raise InputDataError(f"This model is conditional: give its {count} condition value(s) for every patch.")
    values = values.reshape(n, count).astype(np.float32)
    return torch.as_tensor(values)


def manifold(
    model: Model,
    steps: int = 9,
    axes: tuple[int, int] = (0, 1),
    extent: float = 2.0,
    *,
    center: ArrayLike | None = None,
    classes: int = 0,
    condition: Any = None,
) -> NDArray[np.float32]:
    """Decode a grid over two latents.

    Parameters
    ----------
    model : Model
        Trained.
    steps : int
        Patches along each side.
    axes : tuple of int
        The latents that grow to the right and downward; a model with one latent gives a row.
    extent : float
        The grid reaches from -extent to extent around the centre.
    center : array-like, optional
        (latent,) values of all latents in the middle; zeros when omitted.
    classes : int
        Class of joint and semi-supervised models.
    condition : array-like, optional
        (k,) of conditional models, as in training.

    Returns
    -------
    numpy.ndarray
        (channels, rows * D, steps * D), rows = steps, or 1 for one latent.

    Raises
    ------
    InputDataError
        If the model has no such latents.
    """
    latent = model.settings.latent
    if steps < 1 or not all(0 <= axis < latent for axis in axes[: min(2, latent)]):
        raise InputDataError(f"This model has {latent} latents, numbered from 0: choose two of them.")
    along = np.linspace(-extent, extent, steps) if steps > 1 else np.zeros(1)
    down = along if latent > 1 else np.zeros(1)
    z = np.zeros((len(down), steps, latent), np.float32) + (0 if center is None else np.asarray(center, np.float32))
    z[:, :, axes[0]] += along
    if latent > 1:
        z[:, :, axes[1]] += down[:, None]
    count = len(down) * steps
    repeated = None if condition is None else np.repeat(np.atleast_2d(np.asarray(condition)), count, 0)
    images = decode(model, z.reshape(count, latent), np.full(count, classes), repeated)
    channels, size = images.shape[1:3]
    tiles = images.reshape(len(down), steps, channels, size, size).transpose(2, 0, 3, 1, 4)
    return np.ascontiguousarray(tiles.reshape(channels, len(down) * size, steps * size))
