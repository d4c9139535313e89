"""The model family: encoder, decoder and objective, assembled from settings."""

from napari_rvae.models.model import Model

__all__ = ["Model"]
