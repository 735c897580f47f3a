"""How the operator gets to its cluster: as a pod does, or by a kubeconfig as kubectl has it.

Whatever is wrong with that is a `Misconfigured` that names the file and what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import kopf
from yaml import YAMLError

from jangada_operator.kube import Misconfigured

FALLBACK: Final = "default"
"""The namespace where neither a pod nor a kubeconfig names one, as kubectl has it."""


def find_login() -> kopf.ConnectionInfo:
    """From inside a pod, or by `KUBECONFIG` or `~/.kube/config`. Raises `Misconfigured`."""
    settings = kopf.OperatorSettings()
    with _told():
        info = kopf.login_with_service_account(settings=settings)
        info = info or kopf.login_with_kubeconfig(settings=settings)
    if info is None:
        raise Misconfigured(
            "No credentials for a Kubernetes API: run in a pod with a service account, or set "
            "KUBECONFIG."
        )
    if not info.server:
        raise Misconfigured("The kubeconfig's current context names no server: kubectl config view")
    return info


def own_namespace() -> str:
    """The pod's, or that of the kubeconfig's current context. Raises `Misconfigured`."""
    return find_login().default_namespace or FALLBACK


@contextmanager
def _told() -> Iterator[None]:
    """What may be wrong with a kubeconfig: kopf reads it without looking."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise Misconfigured(
            f"{error.filename} can't be read ({why}): set KUBECONFIG to a kubeconfig that is there."
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise Misconfigured(f"The kubeconfig is no YAML: {why}") from error
    except KeyError as error:
        raise Misconfigured(
            f"The kubeconfig has no {error}, which its current context needs: kubectl config "
            f"get-contexts shows what there is, kubectl config use-context NAME chooses."
        ) from error
    except kopf.LoginError as error:
        raise Misconfigured(
            "The kubeconfig has no current context: kubectl config use-context NAME chooses one."
        ) from error
    except (AttributeError, TypeError) as error:
        raise Misconfigured(
            "The kubeconfig has another shape than kubectl's: kubectl config view must read it."
        ) from error
