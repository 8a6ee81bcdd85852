"""What a release has to pass: wheels that work, lower bounds that are true, a tag that fits.

``python -m release_check --help`` lists the commands; the nox sessions ``package:check``,
``package:lowest``, ``test:mlflow`` and ``release:check`` run them.
"""
