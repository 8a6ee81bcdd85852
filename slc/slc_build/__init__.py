"""Building the script-language container: engine, base image, wheels, export.

Each module does one step; ``python -m slc_build`` is what the nox sessions ``slc:*`` run.
"""
