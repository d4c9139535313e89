"""What was learned about atoms: put onto them, undone and brought back, with the layers that show it."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import pandas as pd
from napari.layers import Labels, Layer, Points

from napari_rvae.layers.atoms import RECIPE, atoms_table, color_points, coloring_of, identify, is_result, set_features
from napari_rvae.layers.models import model_facts

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_rvae.models import Model


@dataclass
class _Results:
    """The results of a points layer.

    Attributes
    ----------
    number : int
        Which ones the atoms have: 0 for what they came with, larger ones came later.
    latest : int
        The largest number so far.
    before : tuple or None
        What the last ones replaced: their number, table, what the metadata said, and the column that was shown.
    aside : list
        Layers that went with the results that were undone, and their places in the list.
    """

    number: int = 0
    latest: int = 0
    before: tuple[int, pd.DataFrame, dict[str, Any], str | None] | None = None
    aside: list[tuple[int, Layer]] = field(default_factory=list)


_results: WeakKeyDictionary[Points, _Results] = WeakKeyDictionary()
_shows: WeakKeyDictionary[Layer, tuple[ref[Points], int]] = WeakKeyDictionary()


def join_results(
    points: Points,
    results: pd.DataFrame,
    recipe: Any = None,
    model: Model | None = None,
    places: pd.DataFrame | None = None,
    channels: Sequence[Image] = (),
) -> None:
    """Write latents onto the atoms they belong to; those that were replaced can be brought back.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms; some may have been added, removed or moved since.
    results : pandas.DataFrame
        Latent table with ``atom_id``; its columns that come from a model are written.
    recipe : object, optional
        Kept in the layer's metadata.
    model, channels : Model and sequence of napari.layers.Image, optional
        Kept with the layer, for those who want to decode; see `napari_rvae.layers.attach_model`.
    places : pandas.DataFrame, optional
        From `atoms_table`, as the atoms were when the work began: those that were moved since get no values.
    """
    identify(points)
    if places is not None:
        axes = [name for name in ("frame", "y", "x") if name in places]
        now, before = (table.set_index("atom_id")[axes] for table in (atoms_table(points), places))
        still = (now == before.reindex(now.index)).all(axis=1)
        results = results[results["atom_id"].isin(now.index[still])]
    known = _results.setdefault(points, _Results())
    known.latest += 1
    known.aside.clear()  # they show results that cannot be brought back any more
    _exchange(points, known.latest, results, {RECIPE: recipe, **model_facts(model, channels)})


def can_undo(points: Points) -> bool:
    """Tell whether earlier results can be brought back.

    Parameters
    ----------
    points : napari.layers.Points
        Any points layer.

    Returns
    -------
    bool
        True after `join_results`.
    """
    return points in _results and _results[points].before is not None


def undo_results(points: Points, layers: MutableSequence[Layer] | None = None) -> None:
    """Bring back the results that the last ones replaced, in their colours; called again, the last ones.

    Parameters
    ----------
    points : napari.layers.Points
        A layer for which `can_undo` is true.
    layers : list of Layer, optional
        Those of the viewer. Those that show the results go and come with them, see `show_with_results`.
    """
    known = _results.get(points)
    if known is None or known.before is None:
        return
    number, results, facts, column = known.before
    _exchange(points, number, results, facts)
    shown = coloring_of(points)
    if column in points.features and (shown is None or not is_result(shown.column)):
        color_points(points, str(column))
    if layers is None:
        return
    back, known.aside = known.aside, [(k, layer) for k, layer in enumerate(layers) if _goes(layer, points)]
    for _, layer in known.aside:
        layers.remove(layer)
    for place, layer in back:
        layers.insert(min(place, len(layers)), layer)


def results_of(points: Points) -> int:
    """Tell which results atoms have, for `show_with_results`.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.

    Returns
    -------
    int
        A number that no others of them have.
    """
    return _results[points].number if points in _results else 0


def show_with_results(layer: Layer, points: Points, number: int) -> None:
    """Let a layer go when the results are undone that it shows; not if it was edited by hand meanwhile.

    Parameters
    ----------
    layer : napari.layers.Layer
        Cells, arrows, a reconstruction.
    points : napari.layers.Points
        The atoms.
    number : int
        Their results, from `results_of`.
    """
    _shows[layer] = ref(points), number
    layer.events.data.connect(_on_edited)
    if isinstance(layer, Labels):
        layer.events.paint.connect(_on_edited)


def _on_edited(event: Any) -> None:
    _shows.pop(event.source, None)


def _goes(layer: Layer, points: Points) -> bool:
    """Whether a layer shows other results than those that the atoms have now; cells can show later ones, too."""
    owner, number = _shows.get(layer, (None, 0))
    now = _results[points].number
    return owner is not None and owner() is points and (number > now if isinstance(layer, Labels) else number != now)


def _exchange(points: Points, number: int, results: pd.DataFrame, facts: dict[str, Any]) -> None:
    """Put other results, and what the layer's metadata say of them, in the place of those that are there."""
    known, features, coloring = _results[points], points.features, coloring_of(points)
    old, new = ([name for name in table if is_result(name)] for table in (features, results))
    told = {key: points.metadata.get(key) for key in facts}
    known.before = known.number, features[["atom_id", *old]], told, None if coloring is None else coloring.column
    known.number = number
    points.metadata = {**points.metadata, **facts}
    kept, results = features.drop(columns=old), results.set_index("atom_id")[new]
    rows = results[~results.index.duplicated()].reindex(kept["atom_id"])
    set_features(points, kept.assign(**{str(name): rows[name].to_numpy() for name in rows}))
