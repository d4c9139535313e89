"""Simulated sample data with known truth: cards, an oxide interface, graphene with defects. Nothing is downloaded."""

from napari_rvae.samples.crystals import graphene, interface, lattice
from napari_rvae.samples.microscope import Columns, Microscope, Scene
from napari_rvae.samples.playing_cards import CARD_SETS, SUITS, cards, draw_cards

__all__ = [
    "CARD_SETS",
    "SUITS",
    "Columns",
    "Microscope",
    "Scene",
    "cards",
    "draw_cards",
    "graphene",
    "interface",
    "lattice",
]
