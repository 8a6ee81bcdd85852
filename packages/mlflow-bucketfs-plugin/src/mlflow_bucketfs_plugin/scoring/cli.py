"""The commands ``mlflow-bucketfs sql`` and ``copy``, and the options of ``sql`` elsewhere."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_bucketfs_plugin.scoring import ScriptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mlflow_bucketfs_plugin.scoring import ScriptOptions

EXIT_FAILED = 1
# The settings of the main command, again: click caches the help option of a command at its first
# use, which may be that of options_from_config, without the main command
_SETTINGS = {"help_option_names": ["-h", "--help"]}
_OUTSIDE_BRACKETS = re.compile(r",(?![^(\[{]*[)\]}])")


@click.command(context_settings=_SETTINGS)
@click.argument("model_uri")
@click.option(
    "--name", required=True, metavar="NAME", help="Name of the script: NAME or SCHEMA.NAME."
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="'COLUMN [TYPE]'",
    help="A column to emit unchanged, before the predictions; DECIMAL(36,0) without a type. "
    "Repeatable.",
)
@click.option(
    "--language", default="PYTHON3_MLFLOW", show_default=True, help="Alias of the script language."
)
@click.option(
    "--batch-size", type=int, default=10_000, show_default=True, help="Rows scored at a time."
)
@click.option(
    "--type", "types", multiple=True, metavar="COLUMN=SQLTYPE", help="SQL type of a feature."
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME=SQLTYPE",
    help="Name and SQL type of a predicted column, in the model's order.",
)
@click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="FEATURE=PARAMETER",
    help="Name of the script's parameter for a feature.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value for a param of the model's signature; lists in JSON.",
)
@click.option(
    "--null-as-empty",
    multiple=True,
    metavar="COLUMN",
    help="A text feature for which NULL becomes the empty string, which Exasol does not have.",
)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "column"]),
    default="fail",
    show_default=True,
    help="With column, SCORING_ERROR has the reason why a row cannot be scored.",
)
@click.option("--table", metavar="TABLE", help="The table in the SELECT: TABLE or SCHEMA.TABLE.")
@click.option(
    "--view", metavar="NAME", help="Make the SELECT a view: NAME or SCHEMA.NAME; needs --table."
)
@click.option(
    "--loader",
    type=click.Choice(["auto", "mlflow", "direct"]),
    default="auto",
    show_default=True,
    help="direct loads scikit-learn models without MLflow; auto does if predictions stay the same.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Put the digests of the model's files into the script; downloads the model.",
)
@click.option(
    "--mounted-path",
    metavar="PATH",
    help="The model's folder as UDFs see it, if it does not follow from the URI.",
)
@click.option(
    "--artifacts-destination",
    metavar="URI",
    help="The option of the MLflow server with this name, if the server proxies artifacts.",
)
@click.option(
    "--constraints",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="constraints.txt of the container, to compare the model's versions with.",
)
@click.option(
    "--score-example",
    is_flag=True,
    help="Load the model on this machine, and score its input example to infer its outputs.",
)
def sql(model_uri: str, name: str, **given: Any) -> None:
    """Print a script that scores rows of a table with a model.

    MODEL_URI is models:/name/version, models:/name@alias, models:/m-…, runs:/… or a URI in
    BucketFS. It is resolved once, and the script keeps that version. No database is needed.

    The script is printed to standard output. A SELECT that runs it and the assumptions are
    printed to standard error.

    The exit status is 0 if the script was printed, 1 if it cannot be made from this model with
    these options, 2 if the command line cannot be parsed.
    """
    with failures():
        from mlflow_bucketfs_plugin.scoring import scoring_script  # noqa: PLC0415 -- quick --help

        script = scoring_script(model_uri, name, script_options(given))
    click.echo(script.text, nl=False)
    click.echo(f"{script.select}\n", err=True)
    for assumption in script.assumptions:
        _echo(f"- {assumption}", err=True)


def script_options(given: Mapping[str, Any]) -> ScriptOptions:
    """Convert the options of :func:`sql`, as parsed by click, to :class:`ScriptOptions`.

    Raises:
        click.UsageError: an option is not of the form ``NAME=VALUE``.
    """
    from mlflow_bucketfs_plugin.scoring import ScriptOptions  # noqa: PLC0415 -- for a quick --help

    options = {k: value for k, value in given.items() if k not in {"model_uri", "name"}}
    options["types"] = dict(_pairs("--type", options["types"]))
    options["renames"] = dict(_pairs("--rename", options["renames"]))
    options["outputs"] = _pairs("--output", options["outputs"])
    options["params"] = dict(_pairs("--param", options["params"], first=True))
    return ScriptOptions(**options)


def options_from_config(config: Mapping[str, str]) -> ScriptOptions:
    """Parse the values of MLflow's ``-C NAME=VALUE`` as options of :func:`sql`.

    Args:
        config: values by option, without its dashes; lists are separated by commas.

    Raises:
        ScriptError: an option does not exist, or its value is invalid.
    """
    known = {
        option.opts[0].removeprefix("--"): option
        for option in sql.params
        if isinstance(option, click.Option) and option.name != "name"
    }
    arguments = []
    for given, value in config.items():
        name = given.replace("_", "-")
        if name not in known:
            raise ScriptError(
                f"-C {given}: this option does not exist. The options are {', '.join(known)}."
            )
        option = known[name]
        if option.is_flag:
            try:
                is_on = click.BOOL(str(value))
            except click.BadParameter:
                raise ScriptError(f"-C {given}: {value!r} is neither yes nor no.") from None
            arguments += [option.opts[0]] if is_on else option.secondary_opts[:1]
        elif option.multiple:
            parts = (part.strip() for part in _OUTSIDE_BRACKETS.split(str(value)))
            arguments += [f"--{name}={part}" for part in parts if part]
        else:
            arguments.append(f"--{name}={value}")
    try:
        with sql.make_context("sql", ["-", "--name=-", *arguments]) as context:
            return script_options(context.params)
    except click.UsageError as error:
        raise ScriptError(f"-C: {error.format_message()}") from None


def _pairs(option: str, texts: Iterable[str], *, first: bool = False) -> list[tuple[str, str]]:
    """Split each ``NAME=VALUE`` at the last ``=``, or with ``first`` at the first one."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=") if first else text.rpartition("=")
        if not sign or not name or not value:
            raise click.UsageError(f"{option}: {text!r} is not of the form NAME=VALUE.")
        if name in pairs:
            raise click.UsageError(f"{option}: {name!r} is given twice.")
        pairs[name] = value
    return list(pairs.items())


@click.command(context_settings=_SETTINGS)
@click.argument("source_uri")
@click.argument("target_uri")
@click.option(
    "--replace",
    is_flag=True,
    help="Delete all files below TARGET_URI that the source does not have, and overwrite the "
    "others; else TARGET_URI must be empty. Refused if other models are below it.",
)
def copy(source_uri: str, target_uri: str, *, replace: bool) -> None:
    """Copy a model or a folder from any MLflow store to BucketFS.

    SOURCE_URI is a URI that MLflow can download (models:/…, runs:/…, s3://…, exa+bfs://…), or a
    directory. TARGET_URI is a folder in BucketFS for this copy alone, not the root of an artifact
    store. MLmodel is uploaded last: a folder that has it is complete.

    The exit status is 0 if all files were copied, 1 if not, 2 if the command line cannot be
    parsed.
    """
    with failures():
        from mlflow_bucketfs_plugin.scoring import copy_model  # noqa: PLC0415 -- for a quick --help

        copied = copy_model(source_uri, target_uri, replace=replace)
    deleted = f" and deleted {copied.deleted} other files there" if replace else ""
    _echo(f"Copied {copied.files} files, {copied.size_bytes:,} bytes, to {copied.uri}{deleted}")
    _echo(f"UDFs will see them at {copied.mounted}")


@contextmanager
def failures(exit_status: int = EXIT_FAILED) -> Iterator[None]:
    """Print an error that is raised inside as one message, and exit."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 -- for a quick --help
    from mlflow_bucketfs_core.errors import BucketFSError  # noqa: PLC0415 -- the same

    from mlflow_bucketfs_plugin.sources import describe_import_error  # noqa: PLC0415 -- the same

    try:
        yield
    except ImportError as error:
        message = describe_import_error(error)
    except (ScriptError, MlflowException, BucketFSError, OSError) as error:
        message = str(error)
    else:
        return
    _echo(f"Error: {message}", err=True)
    sys.exit(exit_status)


def _echo(text: str, *, err: bool = False) -> None:
    """Print text, with escaped control characters: names in it may come from other users."""
    from mlflow_bucketfs_core.errors import printable  # noqa: PLC0415 -- for a quick --help

    click.echo("\n".join(map(printable, text.split("\n"))), err=err)
