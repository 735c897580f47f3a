"""`jangada login`, `jangada logout`, `jangada check` and `jangada contacts`."""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
from rich.console import Console

from jangada.client import auth, output
from jangada.client.checking import Patience
from jangada.client.checking import check as check_server
from jangada.client.following import follow
from jangada.client.importing import open_input, save_rejects, send_file, size_of
from jangada.client.servers import server_url
from jangada.client.sessions import user_sessions

Server = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The server. Default: the one signed in to last."),
]
InsecureHttp = Annotated[
    bool,
    typer.Option("--insecure-http", help="Allow http, unencrypted, to another machine."),
]
File = Annotated[Path, typer.Argument(help="The CSV file; - is standard input.")]
Detected = Annotated[str | None, typer.Option(help="Default: detected.")]
Mapping = Annotated[
    str | None, typer.Option(help='Columns to fields, as JSON: \'{"Mail": "email"}\'.')
]
Region = Annotated[
    str | None, typer.Option(help="Country of phones without a country code, such as BR.")
]
OnConflict = Annotated[
    Literal["update", "skip"] | None, typer.Option(help="What becomes of contacts that exist.")
]
ValidateOnly = Annotated[bool, typer.Option("--validate-only", help="Report, and import nothing.")]
Rejects = Annotated[
    Path | None,
    typer.Option(help="Where to save rejected rows, to correct and import them.", dir_okay=False),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if rows were rejected.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the finished job as one line of JSON.")]

contacts = typer.Typer(help="Work with contacts on a server.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command("login")(login)
    app.command("logout")(logout)
    app.command("check")(check)
    app.add_typer(contacts, name="contacts")


@contacts.callback()
def _contacts() -> None:
    """Work with contacts on a server."""


def login(
    url: Annotated[str, typer.Argument(help="The server, such as https://jangada.example.com.")],
    *,
    email: Annotated[
        str | None, typer.Option(help="Your e-mail address; asked for if absent.")
    ] = None,
    insecure_http: InsecureHttp = False,
) -> None:
    """Sign in to a server, for the commands that follow.

    The password is asked for; without a terminal, standard input's first line is it.

    Later commands refresh the session as needed. JANGADA_TOKEN overrides it.
    """
    server = server_url(url, allow_http=insecure_http)
    address = email or typer.prompt("E-mail", err=True)
    auth.sign_in(user_sessions(), server, address, _password(), allow_http=insecure_http)
    typer.echo(f"Signed in to {server} as {address}.", err=True)


def _password() -> str:
    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, err=True)
        return password
    return sys.stdin.readline().rstrip("\r\n")


def logout(
    url: Annotated[
        str | None, typer.Argument(help="The server. Default: the one signed in to last.")
    ] = None,
) -> None:
    """End the session, here and on the server."""
    server = auth.sign_out(user_sessions(), url)
    typer.echo(f"Signed out of {server}.", err=True)


def check(
    url: Annotated[str, typer.Argument(help="The server, such as https://jangada.example.com.")],
    *,
    wait: Annotated[
        float, typer.Option(min=0, help="Wait for so many seconds until the API answers.")
    ] = 0,
    job_within: Annotated[
        float, typer.Option(min=1, max=600, help="Seconds within which the job is to end.")
    ] = 120,
    insecure_http: InsecureHttp = False,
) -> None:
    """See whether a server works: make an account, run a job, and erase the account again.

    Exits with 1 when something fails, and says what it is and where to look.
    """
    patience = Patience(timedelta(seconds=wait), timedelta(seconds=job_within))
    check_server(server_url(url, allow_http=insecure_http), patience, typer.echo)


@contacts.command("import")
def import_contacts(  # noqa: PLR0913 - the options of an import
    file: File,
    *,
    server: Server = None,
    delimiter: Detected = None,
    encoding: Detected = None,
    mapping: Mapping = None,
    default_region: Region = None,
    on_conflict: OnConflict = None,
    validate_only: ValidateOnly = False,
    rejects: Rejects = None,
    strict: Strict = False,
    as_json: AsJson = False,
    insecure_http: InsecureHttp = False,
) -> None:
    """Import a contact file and wait until it is done.

    Exits with 1 when the import fails, or rows were rejected under --strict.
    """
    params = _given(
        delimiter=delimiter,
        encoding=encoding,
        mapping=_json_object(mapping),
        default_region=default_region,
        on_conflict=on_conflict,
        validate_only="true" if validate_only else None,
    )
    # allow environment: a client's token is no setting of a server
    token = os.environ.get(auth.TOKEN_VARIABLE)
    with auth.connect(user_sessions(), server, token, allow_http=insecure_http) as http:
        job = _imported(http, file, params, is_quiet=as_json)
        rejected = (job["result"] or {}).get("rejected", 0)
        if rejects is not None and rejected:
            save_rejects(http, job["id"], rejects)
    _print(job, as_json=as_json)
    if job["state"] != "completed" or (strict and rejected):
        raise typer.Exit(1)


def _imported(
    http: httpx.Client, path: Path, params: dict[str, Any], *, is_quiet: bool
) -> dict[str, Any]:
    """Send the file and follow its job to the end."""
    console = Console(stderr=True)
    with (
        open_input(path) as file,
        output.sending(console, size_of(file), is_quiet=is_quiet) as bar,
    ):
        job = send_file(http, file, path.name, params, sent=bar.sent)
    try:
        with output.importing(console, is_quiet=is_quiet) as rows:
            return follow(http, job["id"], rows.seen)
    except BaseException:
        console.print(f"The import may still go on: {http.base_url}v1/jobs/{job['id']}")
        raise


def _print(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(job, ensure_ascii=False))
    elif job["state"] == "completed":
        output.print_statistics(Console(), job["result"])
    else:
        output.print_failure(Console(stderr=True), job)


def _given(**params: str | None) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _json_object(text: str | None) -> str | None:
    """The text as it is, if it is a JSON object: a typing error is found before the upload."""
    try:
        if text is None or isinstance(json.loads(text), dict):
            return text
    except ValueError:
        pass
    raise typer.BadParameter("must be a JSON object", param_hint="--mapping")
