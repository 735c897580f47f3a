"""How programs begin. Apart from `runtime`, which takes clients of every server to import."""

from jangada.config import Settings, load_settings, unknown_keys
from jangada.telemetry import configure_logging, get_logger

log = get_logger(__name__)


def start(service: str) -> Settings:
    """How every long-running command begins: settings are read, logs are set up.

    A variable that looks like a setting and is none is warned about, with the nearest name: it may
    be a slip, or something that Kubernetes injected. Raises `InvalidSettings`.
    """
    settings = load_settings()
    configure_logging(settings.telemetry, service)
    for variable, nearest in unknown_keys():
        log.warning("unknown setting ignored", variable=variable, nearest=nearest)
    return settings
