"""How fast the plugin is, compared with ``exasol-mlflow-plugin`` and with ``curl``.

Run by ``uv run nox -s bench``; ``docs/performance.md`` explains what the figures mean.
"""
