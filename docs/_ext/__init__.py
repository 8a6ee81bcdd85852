"""The Sphinx extension of this site."""
