"""Dock widgets, one file each: they show the steps and call them, and compute nothing themselves."""
