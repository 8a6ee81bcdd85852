"""Benchmarks of the plugin, compared with ``exasol-mlflow-plugin`` and ``curl``.

Run by ``uv run nox -s bench``; ``docs/performance.md`` explains the figures.
"""
