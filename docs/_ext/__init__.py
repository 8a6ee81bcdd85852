"""Sphinx extensions of this site, each of one concept."""
