"""Settings: all that may differ between two installations, from `JANGADA_…` variables.

Sections nest with two underscores (`JANGADA_DATABASE__URL`); how values are written and read from
files is `jangada.environment`'s. A wrong value or an unknown key inside a section stops the start
and is named; an unknown key outside the sections is only warned about, because Kubernetes injects
some (`JANGADA_PORT=tcp://…`). `docs/settings.md` is generated from this module and those of the
largest sections, `jangada.auth_settings`, `jangada.jobs_settings` and `jangada.worker_settings`, so
each description says what the setting does, when to change it, and why.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Final, Literal, override

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from jangada.auth_settings import AuthSettings
from jangada.environment import (
    PREFIX,
    Duration,
    EnvironmentVariables,
    Section,
    comma_separated,
    explain,
    faulty,
    http_url,
    json_object,
    keys_of,
    misread_sections,
    phone_region,
    postgresql_url,
    sender_address,
    smtp_url,
    storage_url,
    unknown_keys_of,
    valkey_url,
)
from jangada.jobs_settings import JobsSettings
from jangada.worker_settings import WorkerSettings


class Environment(StrEnum):
    """What an installation is for; production refuses to start on what only a laptop may do."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class DatabaseSettings(Section):
    """PostgreSQL: where it is, and how long anything may wait for it."""

    url: SecretStr = Field(
        SecretStr("postgresql://jangada@localhost:5432/jangada"),
        description="PostgreSQL ≥ 15, as a `postgresql://` URL; pgbouncer in transaction mode will "
        "do. The role must be neither superuser nor BYPASSRLS: row-level security would not hold.",
    )
    direct_url: SecretStr | None = Field(
        None,
        description="A URL that reaches PostgreSQL itself: migrations, import stages and delivery "
        "need a session. Set it whenever `url` goes through a pooler. Default: `url`.",
    )
    pool_size: int = Field(
        10,
        ge=1,
        le=500,
        description="Pooled connections of one process at most. Beside them are direct ones: 2 of "
        "an API process; 1 of a worker, 2 of each of its processes and 1 of each import that it "
        "runs; 3 of a dispatcher. All of all processes must stay below max_connections.",
    )
    pool_timeout: Duration = Field(
        timedelta(seconds=2),
        description="How long a request waits for a free connection before it is answered 503. "
        "Keep it short: a queue in front of a full pool only moves the wait.",
    )
    connect_timeout: Duration = Field(
        timedelta(seconds=5), description="How long opening a connection may take."
    )
    statement_timeout: Duration = Field(
        timedelta(seconds=30),
        description="PostgreSQL ends a statement of a request that runs longer.",
    )
    lock_timeout: Duration = Field(
        timedelta(seconds=1),
        description="How long a migration waits for a table lock before it gives up and tries "
        "again. Requests for that table queue behind it meanwhile: keep it below `POOL_TIMEOUT`, "
        "or they use up the connections of all others.",
    )

    @field_validator("lock_timeout")
    @classmethod
    def _shorter_than_the_pool_waits(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if value >= info.data.get("pool_timeout", timedelta.max):
            raise ValueError("must be below JANGADA_DATABASE__POOL_TIMEOUT")
        return value

    transaction_pooling: bool = Field(
        default=False,
        description="Whether `url` is a transaction pooler's (pgbouncer), which bears no prepared "
        "statements.",
    )

    _understood = field_validator("url", "direct_url")(postgresql_url)

    @field_validator("transaction_pooling")
    @classmethod
    def _beside_the_pooler(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("direct_url", "wrong itself") is None:
            raise ValueError("needs JANGADA_DATABASE__DIRECT_URL: a pooler keeps no session")
        return value

    @property
    def session_url(self) -> SecretStr:
        """The URL for what needs a session of its own."""
        return self.direct_url or self.url


class ValkeySettings(Section):
    """Valkey or Redis: hints, wake-ups and counters that may be lost."""

    url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="Valkey ≥ 8 or Redis ≥ 7.0: `redis://`, `rediss://` or `unix://`. Must not "
        "evict (`maxmemory-policy noeviction`).",
    )
    connect_timeout: Duration = Field(
        timedelta(seconds=2), description="How long opening a connection may take."
    )
    command_timeout: Duration = Field(
        timedelta(seconds=2),
        description="How long one command may take before Valkey counts as absent.",
    )

    _understood = field_validator("url")(valkey_url)


class ApiSettings(Section):
    """Where the API listens, whom it believes, and how large a request may be."""

    host: str = Field(
        "127.0.0.1", description="Address that the public API listens on; `0.0.0.0` in a container."
    )
    port: int = Field(
        8000, ge=0, le=65535, description="Port of the public API; 0 takes a free one."
    )
    management_host: str = Field(
        "127.0.0.1", description="Address of health and metrics. Never route it to the public."
    )
    management_port: int = Field(
        9000, ge=0, le=65535, description="Port of health and metrics; 0 takes a free one."
    )
    trusted_proxies: Annotated[
        list[IPv4Network | IPv6Network], NoDecode, BeforeValidator(comma_separated)
    ] = Field(
        default_factory=list,
        description="Networks (comma separated) whose `X-Forwarded-For` is believed. Empty: the "
        "peer's address counts.",
    )
    max_body_bytes: int = Field(
        1_048_576,
        ge=1024,
        description="Largest request body, but for uploads, which have their own limit.",
    )
    max_connections: int = Field(
        1000,
        ge=1,
        description="Connections that one process has open at once on each of its ports; more are "
        "answered 503. Raise it where many clients keep connections; each needs a file (`ulimit "
        "-n`) and, while it sends, up to 64 KiB.",
    )
    shutdown_timeout: Duration = Field(
        timedelta(seconds=20), description="How long open requests may go on after SIGTERM."
    )


MOST_IN_OBJECT_STORE: Final = 10_000 * 5 * 2**20
"""S3 takes a file in 10,000 parts; ours have 5 MiB."""


class StorageSettings(Section):
    """Where files lie, and how much of them a tenant may store."""

    url: str = Field(
        "file://.jangada/files",
        description="Where files lie: `file:///path`, `s3://bucket/prefix`, `gs://…` or `az://…`.",
    )
    options: Annotated[dict[str, str], NoDecode, BeforeValidator(json_object)] = Field(
        default_factory=dict,
        repr=False,  # keys of object stores are given here
        description='Options of the object store as JSON, such as `{"endpoint": "…", "region": '
        '"…"}`. A plain-http endpoint needs `"allow_http": "true"`. Credentials are better given '
        "in the store's own variables (`AWS_ACCESS_KEY_ID`, …).",
    )
    max_upload_bytes: int = Field(
        1_073_741_824,
        ge=1024,
        description="Largest upload; a longer one is ended with 413 while it streams. In an object "
        "store at most 52428800000, which is 10,000 parts of 5 MiB.",
    )
    max_stored_bytes_per_tenant: int = Field(
        10_737_418_240, ge=1024, description="Bytes that one tenant may store in all."
    )
    max_uploads_per_tenant: int = Field(
        4,
        ge=1,
        description="Uploads that one tenant may have under way at once, over all API processes.",
    )
    max_uploads_per_process: int = Field(
        16,
        ge=1,
        description="Uploads that one API process receives at once, of all tenants; more are "
        "answered 503 before a byte is read. While it lasts each takes up to 35 MiB of memory "
        "where files lie in an object store, and 3 MiB in a folder.",
    )
    chunk_timeout: Duration = Field(
        timedelta(seconds=30),
        description="An upload that sends nothing for so long is ended, as is one that the API has "
        "waited for longer than this and what 8 KiB a second would take.",
    )

    _understood = field_validator("url")(storage_url)

    @field_validator("max_upload_bytes")
    @classmethod
    def _fits_into_parts(cls, value: int, info: ValidationInfo) -> int:
        is_folder = str(info.data.get("url", "")).startswith("file://")
        if value > MOST_IN_OBJECT_STORE and not is_folder:
            raise ValueError(f"must be at most {MOST_IN_OBJECT_STORE} in an object store")
        return value


class MailSettings(Section):
    """How mail leaves: the notices to people about their own accounts."""

    url: SecretStr | None = Field(
        None,
        description="The mail server: `smtp://user:password@host:587` or, with TLS from the first "
        "byte, `smtps://…:465` (these ports are the defaults). Characters that mean something in a "
        "URL are percent-encoded. For a certificate of an authority of your own, set "
        "`SSL_CERT_FILE` to that authority's. Unset: no mail is sent, and the worker says so.",
    )
    sender: str = Field(
        "Jangada <no-reply@localhost>",
        description="Whom mail comes from: an address, or a name with an address in angle "
        "brackets. Set it along with `url`, to one that the mail server may send for. Its domain "
        "is also what we greet the mail server with.",
    )
    timeout: Duration = Field(
        timedelta(seconds=10),
        description="How long the mail server may take for the connection and for each answer. "
        "Raise it for one that examines mail before it accepts it.",
    )
    starttls: Literal["required", "optional", "off"] = Field(
        "required",
        description="Whether an `smtp://` connection is encrypted before mail or password go over "
        "it. `required` sends nothing otherwise. `optional` encrypts where the server offers it, "
        "which somebody on the way can hide: it takes no password. `off` is for a server on the "
        "same machine.",
    )

    _understood = field_validator("url")(smtp_url)
    _addressed = field_validator("sender")(sender_address)

    @field_validator("starttls")
    @classmethod
    def _keeps_the_password(cls, value: str, info: ValidationInfo) -> str:
        url: SecretStr | None = info.data.get("url")
        if value == "optional" and url is not None and "@" in url.get_secret_value():
            raise ValueError("must be `required` where JANGADA_MAIL__URL holds a password")
        return value


class ContactsSettings(Section):
    """How contact files are read."""

    default_region: str = Field(
        "BR",
        description="Country (ISO 3166) of phone numbers that are written without a country code.",
    )
    _known = field_validator("default_region")(phone_region)
    max_columns: int = Field(512, ge=1, description="Columns that an import file may have.")
    max_cell_chars: int = Field(10_000, ge=100, description="Characters that one cell may have.")
    max_lines: int = Field(
        5_000_000,
        ge=100,
        description="Lines that an import file may have, blank ones too. A row is hardly shorter "
        "than 20 bytes: raise it along with the upload limit.",
    )
    batch_rows: int = Field(
        5_000,
        ge=10,
        description="Rows that an import validates between two looks at cancel and progress.",
    )
    rejects_retention: Duration = Field(
        timedelta(days=30),
        description="How long the rejected rows of an import are kept. They are personal data, and "
        "not counted against the tenant's storage: shorten it where files are large and bad.",
    )


class TelemetrySettings(Section):
    """Logs and traces."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The least severe level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="`json` is one object a line; `console` is for reading; `auto` is console on "
        "a terminal.",
    )
    otlp_endpoint: str | None = Field(
        None,
        description="OTLP/HTTP endpoint for traces, such as `http://collector:4318`. Unset: no "
        "tracing, at no cost.",
    )
    _reachable = field_validator("otlp_endpoint")(http_url)
    service_name: str | None = Field(
        None, description="`service.name` in logs and traces. Default: the command's own."
    )


class Settings(BaseSettings):
    """All settings of one process; read once at the start by `load_settings` and passed down."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    environment: Environment = Field(
        Environment.PRODUCTION,
        description="In `production` the API doesn't start with files at a relative path, which "
        "each process would look for elsewhere. `jangada up` sets `development`.",
    )
    database: DatabaseSettings = DatabaseSettings()
    valkey: ValkeySettings = ValkeySettings()
    auth: AuthSettings = AuthSettings()
    api: ApiSettings = ApiSettings()
    storage: StorageSettings = StorageSettings()
    mail: MailSettings = MailSettings()
    contacts: ContactsSettings = ContactsSettings()
    jobs: JobsSettings = JobsSettings()
    worker: WorkerSettings = WorkerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @override
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, EnvironmentVariables(settings_cls)


def known_keys() -> list[str]:
    """Every environment variable that a setting is read from, without the `_FILE` forms."""
    return list(keys_of(Settings))


def unknown_keys(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[str, str | None]]:
    """Keys outside the sections that no setting reads, each with the nearest known one."""
    return unknown_keys_of(Settings, environ)


def load_settings() -> Settings:
    """Settings from the environment. Raises `InvalidSettings`, which names each wrong key."""
    try:
        return Settings()
    except ValidationError as error:
        raise explain(error, Settings) from None
    except SettingsError:
        raise faulty(misread_sections(Settings, os.environ)) from None
