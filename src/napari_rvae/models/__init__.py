"""The model family: encoder, decoder and objective, assembled from settings."""

from napari_rvae.models.files import load_model, save_model
from napari_rvae.models.model import Model

__all__ = ["Model", "load_model", "save_model"]
