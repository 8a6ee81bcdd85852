"""Building the script-language container, from ``uv.lock`` to the exported file.

Each module does one step; the nox session ``slc:export`` runs ``python -m slc_build.export``.
"""
