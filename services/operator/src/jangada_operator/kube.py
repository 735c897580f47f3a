"""The Kubernetes API as the operator uses it: few verbs, JSON in and out, errors that say why.

Credentials are given by `login`; a token that has been renewed on disk is taken up when the old one
is refused.
"""

import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
import kopf

MERGE: Final = "application/merge-patch+json"
METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PAGE: Final = 500
TIMEOUT: Final = aiohttp.ClientTimeout(total=10.0, sock_connect=3.0)
"""A server that doesn't answer within this is absent; the next look asks again."""

type Json = dict[str, Any]
type Login = Callable[[], kopf.ConnectionInfo]


class KubeError(Exception):
    """The API server refused, or wasn't there."""


@dataclass
class Refused(KubeError):
    """With what it said."""

    status: int
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.reason})"

    @property
    def is_conflict(self) -> bool:
        return self.status == HTTPStatus.CONFLICT

    @property
    def is_missing(self) -> bool:
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def is_forbidden(self) -> bool:
        return self.status == HTTPStatus.FORBIDDEN


class Unreachable(KubeError):
    """It doesn't answer."""


class Misconfigured(KubeError):
    """There is nothing to ask, or nothing to ask it with; the text says how to mend it."""


@dataclass(slots=True)
class _Session:
    """One connection pool under one login; once it is retired its last request closes it."""

    client: aiohttp.ClientSession
    _requests: int = 0
    _is_retired: bool = False

    @asynccontextmanager
    async def request(
        self, method: str, path: str, sent: Mapping[str, Any]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        self._requests += 1
        try:
            async with self.client.request(method, path, **sent) as response:
                yield response
        finally:
            self._requests -= 1
            await self._close_unused()

    async def retire(self) -> None:
        self._is_retired = True
        await self._close_unused()

    async def _close_unused(self) -> None:
        if self._is_retired and not self._requests:
            await self.client.close()


class Kube:
    """One connection pool to one API server."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._info = login()
        self._session = self._open(self._info)

    @classmethod
    @asynccontextmanager
    async def open(cls, login: Login) -> AsyncIterator["Kube"]:
        kube = cls(login)
        try:
            yield kube
        finally:
            await kube._session.client.close()

    @property
    def server(self) -> str:
        return str(self._info.server)

    async def get(self, path: str, **parameters: str) -> Json:
        return await self._ask("GET", path, parameters=parameters)

    async def uids(self, path: str) -> set[str]:
        """Of all objects there, in pages; nothing but their metadata is sent."""
        found: set[str] = set()
        following = ""
        while True:
            sent = {
                "params": {"limit": str(PAGE), "continue": following},
                "headers": {"Accept": METADATA},
            }
            page = await self._send("GET", path, sent)
            found |= {each["metadata"]["uid"] for each in page["items"] or ()}
            following = page["metadata"].get("continue") or ""
            if not following:
                return found

    async def create(self, path: str, body: Json) -> Json:
        return await self._ask("POST", path, body=body)

    async def replace(self, path: str, body: Json) -> Json:
        return await self._ask("PUT", path, body=body)

    async def merge(self, path: str, body: Json) -> Json:
        """A JSON merge patch (RFC 7396)."""
        return await self._ask("PATCH", path, body=body, content=MERGE)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        content: str = "application/json",
        parameters: Mapping[str, str] | None = None,
    ) -> Json:
        sent = {
            "data": None if body is None else json.dumps(body),
            "params": parameters or {},
            "headers": {"Content-Type": content},
        }
        return await self._send(method, path, sent)

    async def _send(self, method: str, path: str, sent: Mapping[str, Any]) -> Json:
        session = self._session
        try:
            return await self._send_by(session, method, path, sent)
        except Refused as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
        await self._renew(session)
        return await self._send_by(self._session, method, path, sent)

    @staticmethod
    async def _send_by(session: _Session, method: str, path: str, sent: Mapping[str, Any]) -> Json:
        try:
            async with session.request(method, path, sent) as response:
                answer = _object(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = str(error) or type(error).__name__
            raise Unreachable(f"The API server doesn't answer: {detail}") from error
        if answer is None:
            if response.status == HTTPStatus.UNAUTHORIZED:
                raise Refused(response.status, response.reason or "", "")
            detail = f"{response.status} without an object of Kubernetes"
            raise Unreachable(f"The API server, or a gateway before it, answers {detail}")
        if response.status >= HTTPStatus.BAD_REQUEST:
            reason = answer.get("reason") or response.reason or ""
            raise Refused(response.status, reason, answer.get("message", ""))
        return answer

    async def _renew(self, refused: _Session) -> None:
        """Log in again, unless another request that was refused has done it."""
        if self._session is refused:
            self._info = self._login()
            self._session = self._open(self._info)
            await refused.retire()

    @staticmethod
    def _open(info: kopf.ConnectionInfo) -> _Session:
        headers = {"Accept": "application/json", "User-Agent": "jangada-operator"}
        if info.token:
            headers["Authorization"] = f"{info.scheme or 'Bearer'} {info.token}"
        try:
            tls = _tls(info)
        except (OSError, ValueError) as error:
            raise Misconfigured(
                f"The certificates for {info.server} can't be used ({error}): kubectl config view "
                f"shows where they are."
            ) from error
        connector = aiohttp.TCPConnector(ssl=tls, limit=20)
        return _Session(
            aiohttp.ClientSession(
                info.server, connector=connector, headers=headers, timeout=TIMEOUT
            )
        )


def _object(text: bytes) -> Json | None:
    """None for other texts: a gateway's, or an API server's that has no such group, or no time."""
    try:
        answer: object = json.loads(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _tls(info: kopf.ConnectionInfo) -> ssl.SSLContext:
    data = info.ca_data
    if isinstance(data, str):
        data = base64.b64decode(data)
    context = ssl.create_default_context(
        cafile=None if info.ca_path is None else str(info.ca_path),
        cadata=None if data is None else data.decode("ascii"),
    )
    if info.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _present(context, info)
    return context


def _present(context: ssl.SSLContext, info: kopf.ConnectionInfo) -> None:
    """Our certificate, where the API asks for one; OpenSSL reads it from files only."""
    if info.certificate_path:
        key = None if info.private_key_path is None else str(info.private_key_path)
        context.load_cert_chain(str(info.certificate_path), key)
    elif info.certificate_data and info.private_key_data:
        with tempfile.TemporaryDirectory(prefix="jangada-operator-") as folder:
            certificate, key_file = Path(folder) / "certificate", Path(folder) / "key"
            certificate.write_bytes(_decoded(info.certificate_data))
            key_file.write_bytes(_decoded(info.private_key_data))
            context.load_cert_chain(certificate, key_file)


def _decoded(data: str | bytes) -> bytes:
    return base64.b64decode(data) if isinstance(data, str) else data
