"""A thin client of the Kubernetes API, for tests: objects are what JSON makes of them.

A kind is given as people say it to kubectl: `pods`, `Deployment`, `scaledobjects.keda.sh`.
"""

import base64
import json
import math
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx

type Object = dict[str, Any]

DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
FORMS: Final = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
TIMEOUT: Final = 120.0
"""To delete five hundred objects in one request takes over 30 s on a busy machine of two cores."""
ROUND: Final = 2.0
"""Seconds of silence after which a watch begins anew, so that whoever watches can be ended."""

PATIENCE: Final = 60.0
PAUSE: Final = 0.1
GONE: Final = 410
NOT_FOUND: Final = 404


class ApiError(Exception):
    """The API server said no."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


@dataclass(frozen=True, slots=True)
class Kind:
    """What discovery knows of a kind."""

    version: str
    plural: str
    is_namespaced: bool

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Of one object, or of all; in all namespaces where none is given."""
        root = f"/apis/{self.version}" if "/" in self.version else f"/api/{self.version}"
        place = ("namespaces", namespace) if self.is_namespaced and namespace else ()
        return "/".join(filter(None, (root, *place, self.plural, name, subresource)))


class Api:
    """A client for one user; `namespace` is where things are that say no other."""

    def __init__(self, kubeconfig: Path, *, namespace: str = "") -> None:
        config = json.loads(kubeconfig.read_text("utf-8"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.namespace = namespace or config["contexts"][0]["context"]["namespace"]
        self.kubeconfig = kubeconfig
        self.port = int(cluster["server"].rpartition(":")[2])
        self._kinds: dict[str, Kind] = {}
        self._http = httpx.Client(
            base_url=cluster["server"],
            headers={"Authorization": f"Bearer {user['token']}"},
            verify=ssl.create_default_context(cafile=cluster["certificate-authority"]),
            timeout=httpx.Timeout(TIMEOUT, pool=None),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def within(self, namespace: str) -> "Api":
        """A client of the same user for another namespace."""
        return Api(self.kubeconfig, namespace=namespace)

    def is_ready(self) -> bool:
        return self._http.get("/readyz").status_code == httpx.codes.OK

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - what the path takes
        *,
        form: str = "",
        **parameters: str,
    ) -> Any:  # noqa: ANN401 - what the path answers
        """Any request; the helpers below are this one with a path."""
        headers = {"Content-Type": FORMS.get(form, "application/json")}
        content = body if body is None or isinstance(body, str) else json.dumps(body)
        query = {name: value for name, value in parameters.items() if value}
        answer = self._http.request(method, path, content=content, headers=headers, params=query)
        return _checked(answer)

    def kind(self, name: str) -> Kind:
        """By plural, kind, or plural with group; a definition of a moment ago is waited for."""
        end = time.monotonic() + TIMEOUT
        while name not in self._kinds:
            self._kinds = dict(self._discovered())
            if name not in self._kinds and time.monotonic() > end:
                raise LookupError(f"the API server knows no kind {name}")
            if name not in self._kinds:
                time.sleep(PAUSE)
        return self._kinds[name]

    def _discovered(self) -> Iterator[tuple[str, Kind]]:
        """The names of all kinds; of two with one name the first group's, of its first version."""
        known: set[str] = set()
        for path in ("/api", "/apis"):
            answer = _checked(self._http.get(path, headers={"Accept": DISCOVERY}))
            for group in answer["items"]:
                label = group["metadata"].get("name", "")
                for version in group["versions"]:
                    full = f"{label}/{version['version']}" if label else version["version"]
                    for each in version.get("resources", ()):  # none while its server is away
                        said, plural = each["responseKind"]["kind"], each["resource"]
                        kind = Kind(full, plural, each["scope"] == "Namespaced")
                        yield f"{full} {said}", kind
                        names = {said, plural, f"{plural}.{label}"} - known
                        known |= names
                        yield from ((name, kind) for name in names)

    def _path(self, manifest: Object) -> tuple[str, str]:
        """The paths of an object's collection and of itself."""
        kind = self.kind(f"{manifest['apiVersion']} {manifest['kind']}")
        namespace = manifest["metadata"].get("namespace", self.namespace)
        name = manifest["metadata"].get("name", "")
        return kind.path(namespace), kind.path(namespace, name)

    def get(self, kind: str, name: str, *, namespace: str = "", subresource: str = "") -> Object:
        place = namespace or self.namespace
        found: Object = self.call("GET", self.kind(kind).path(place, name, subresource))
        return found

    def find(self, kind: str, name: str, *, namespace: str = "") -> Object | None:
        try:
            return self.get(kind, name, namespace=namespace)
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def list(
        self, kind: str, *, selector: str = "", namespace: str = "", everywhere: bool = False
    ) -> Sequence[Object]:
        place = None if everywhere else namespace or self.namespace
        answer = self.call("GET", self.kind(kind).path(place), labelSelector=selector)
        found: list[Object] = answer["items"]
        return found

    def create(self, manifest: Object) -> Object:
        made: Object = self.call("POST", self._path(manifest)[0], manifest)
        return made

    def apply(self, manifest: Object, *, manager: str = "test", force: bool = True) -> Object:
        """By server-side apply."""
        path, options = (
            self._path(manifest)[1],
            {"fieldManager": manager, "force": str(force).lower()},
        )
        made: Object = self.call("PATCH", path, manifest, form="apply", **options)
        return made

    def patch(
        self,
        kind: str,
        name: str,
        body: Any,  # noqa: ANN401 - an object, or a list of operations
        *,
        form: str = "merge",
        namespace: str = "",
        subresource: str = "",
    ) -> Object:
        path = self.kind(kind).path(namespace or self.namespace, name, subresource)
        made: Object = self.call("PATCH", path, body, form=form)
        return made

    def delete(
        self,
        kind: str,
        name: str,
        *,
        namespace: str = "",
        grace: int | None = None,
        uid: str = "",
    ) -> None:
        """Ask for it; with `uid`, only if it still is that very object."""
        options: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        self.call("DELETE", self.kind(kind).path(namespace or self.namespace, name), options)

    def delete_all(self, kind: str, *, selector: str = "", grace: int | None = None) -> None:
        """Ask for all of a namespace that the selector selects."""
        options = {} if grace is None else {"gracePeriodSeconds": grace}
        self.call("DELETE", self.kind(kind).path(self.namespace), options, labelSelector=selector)

    def scale(self, kind: str, name: str, replicas: int, *, namespace: str = "") -> None:
        """Through `/scale`, as operators do."""
        body = {"spec": {"replicas": replicas}}
        self.patch(kind, name, body, namespace=namespace, subresource="scale")

    def secret(self, name: str, **values: str) -> Object:
        """Make or change a Secret."""
        data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
        head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        return self.apply({**head, "data": data})

    def make_namespace(self, name: str) -> "Api":
        """A new namespace in which pods can be made at once, and a client for it."""
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        inside = self.within(name)
        inside.wait_for("serviceaccounts", lambda found: found is not None, name="default")
        return inside

    def watch(
        self,
        kind: str,
        *,
        since: str,
        name: str = "",
        selector: str = "",
        namespace: str | None = "",
        seconds: float = ROUND,
    ) -> Iterator[tuple[str, Object]]:
        """What changes after a resource version, until nothing did for so many seconds."""
        query = {"watch": "true", "resourceVersion": since, "allowWatchBookmarks": "true"}
        query |= {"labelSelector": selector} if selector else {}
        query |= {"fieldSelector": f"metadata.name={name}"} if name else {}
        place = self.namespace if namespace == "" else namespace
        path, timeout = self.kind(kind).path(place), httpx.Timeout(TIMEOUT, read=seconds)
        try:
            with self._http.stream("GET", path, params=query, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    _checked(answer)
                for line in answer.iter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        said = event["object"]
                        raise ApiError(said["code"], said["reason"], said["message"])
                    yield event["type"], event["object"]
        except httpx.ReadTimeout:
            return

    def states(
        self,
        kind: str,
        *,
        name: str = "",
        selector: str = "",
        everywhere: bool = False,
        within: float = math.inf,
    ) -> Iterator[Mapping[str, Object]]:
        """All objects by uid, now and after each change, also when nothing changed for a while.

        An API server that is away is waited for: the last state is answered meanwhile.
        """
        end, place = time.monotonic() + within, None if everywhere else self.namespace
        known: dict[str, Object] = {}
        since = ""
        how: dict[str, Any] = {"name": name, "selector": selector, "namespace": place}
        while time.monotonic() < end:
            try:
                if not since:
                    known, since = self._listed(kind, place, name, selector)
                    yield known
                for change, found in self.watch(kind, since=since, **how):
                    since = found["metadata"]["resourceVersion"]
                    _note(known, change, found)
                    yield known
            except httpx.TransportError:
                time.sleep(PAUSE)
            except ApiError as error:
                if error.status not in (GONE, 429, 500, 503, 504):
                    raise
                since = ""
                time.sleep(PAUSE)
            yield known

    def _listed(
        self, kind: str, place: str | None, name: str, selector: str
    ) -> tuple[dict[str, Object], str]:
        query = {"labelSelector": selector, "fieldSelector": name and f"metadata.name={name}"}
        answer = self.call("GET", self.kind(kind).path(place), **query)
        known = {found["metadata"]["uid"]: found for found in answer["items"]}
        return known, answer["metadata"]["resourceVersion"]

    def wait_for(
        self,
        kind: str,
        condition: Callable[[Any], Any],
        *,
        name: str = "",
        selector: str = "",
        within: float = PATIENCE,
    ) -> Any:  # noqa: ANN401 - the condition's own
        """Answer what the condition said first that is true.

        With a name it is asked about that object, or None where there is none; else about the list
        of all that the selector selects. Raises `TimeoutError`, with what was there.
        """
        there: Any = None
        for known in self.states(kind, name=name, selector=selector, within=within):
            found = list(known.values())
            there = next(iter(found), None) if name else found
            if answer := condition(there):
                return answer
        raise TimeoutError(f"{kind} {name}{selector}, after {within:.0f} s: {summary(there)}")


def _note(known: dict[str, Object], change: str, found: Object) -> None:
    if change == "DELETED":
        known.pop(found["metadata"]["uid"], None)
    elif change != "BOOKMARK":
        known[found["metadata"]["uid"]] = found


def _checked(answer: httpx.Response) -> Any:  # noqa: ANN401 - whatever the path answers
    if answer.is_error:
        try:
            said = answer.json()
        except ValueError:
            said = {"message": answer.text}
        raise ApiError(answer.status_code, said.get("reason", ""), said.get("message", ""))
    return answer.json()


def summary(there: Any) -> str:  # noqa: ANN401 - an object, some, or none
    """Short, for messages."""
    found = there if isinstance(there, list) else [there] if there else []
    lines = (f"{each['metadata']['name']}: {json.dumps(each.get('status', {}))}" for each in found)
    return "\n".join(lines) or "nothing"
