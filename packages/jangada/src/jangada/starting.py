"""How programs begin. Apart from `runtime`, which takes clients of every server to import."""

from collections.abc import Callable

from jangada.config import Settings, load_settings, unknown_keys
from jangada.environment import InvalidSettings, faulty
from jangada.errors import FieldError
from jangada.telemetry import configure_logging, get_logger

log = get_logger(__name__)


type Rule = Callable[[Settings], object]
"""Raises `InvalidSettings` for what is understood and yet no ground to work on."""


def hold(settings: Settings, *rules: Rule) -> None:
    """Raise `InvalidSettings` that names every setting by which one of the rules is broken."""
    faults: list[FieldError] = []
    for rule in rules:
        try:
            rule(settings)
        except InvalidSettings as error:
            faults += error.errors
    if faults:
        raise faulty(faults)


def start(service: str, *rules: Rule) -> Settings:
    """How every long-running command begins: settings are read and held to rules, logs are set up.

    A variable that looks like a setting and is none is warned about, with the nearest name: it may
    be a slip, or something that Kubernetes injected. Raises `InvalidSettings`.
    """
    settings = load_settings()
    hold(settings, *rules)
    configure_logging(settings.telemetry, service)
    for variable, nearest in unknown_keys():
        log.warning("unknown setting ignored", variable=variable, nearest=nearest)
    return settings
