"""The trained model of a points layer: kept in ``layer.metadata["napari_rvae_model"]``, in memory only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.layers import Points

    from napari_rvae.models import Model

MODEL = "napari_rvae_model"
"""Key of a points layer's metadata under which the model lies that encoded its atoms."""


def attach_model(points: Points, model: Model | None) -> None:
    """Keep a model with the atoms that it encoded.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    model : Model or None
        The model; None takes an earlier one away.
    """
    points.metadata = {**points.metadata, MODEL: model}


def model_of(points: Points) -> Model | None:
    """Find the model that encoded a layer's atoms.

    Parameters
    ----------
    points : napari.layers.Points
        Any points layer.

    Returns
    -------
    Model or None
        None where no model was trained or loaded.
    """
    model: Model | None = points.metadata.get(MODEL)
    return model
