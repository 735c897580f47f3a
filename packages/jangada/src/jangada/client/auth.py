"""Who a command speaks for: a token that it is given, or the session that `login` keeps."""

import time
from collections.abc import Generator
from typing import Final, override

import httpx

from jangada.client.errors import NotSignedIn, ServerInvalid
from jangada.client.requests import UNAUTHORIZED, ask, open_http
from jangada.client.servers import server_url
from jangada.client.sessions import Session, SessionStore

type Flow = Generator[httpx.Request, httpx.Response]

TOKEN_VARIABLE: Final = "JANGADA_TOKEN"  # noqa: S105 - its name


def connect(
    store: SessionStore, server: str | None, token: str | None, *, allow_http: bool = False
) -> httpx.Client:
    """A signed-in client of the server, or of the one that was signed in to last.

    A token given in `JANGADA_TOKEN` is used as it is and never refreshed. Raises `ServerInvalid`
    and `NotSignedIn`.
    """
    url = _known(store, server, allow_http=allow_http)
    if token:
        return open_http(url, TokenAuth(token))
    if store.find(url) is None:
        raise _not_signed_in(url)
    return open_http(url, SessionAuth(store, url))


def sign_in(
    store: SessionStore, url: str, email: str, password: str, *, allow_http: bool = False
) -> None:
    """Sign in and keep the session; the server becomes the one that commands speak to."""
    with open_http(url) as http:
        answer = ask(http, "POST", "/v1/auth/login", json={"email": email, "password": password})
    with store.locked(url):
        store.save(_session(answer, url, email, allow_http=allow_http))
        store.make_last(url)


def sign_out(store: SessionStore, server: str | None) -> str:
    """Forget the session here, then end it on the server; returns the server's address.

    Raises `NotSignedIn` where there is none, `ServerUnavailable` when it could only be forgotten.
    """
    url = _known(store, server, allow_http=True)
    with store.locked(url):
        session = store.find(url)
        store.remove(url)
    if session is None:
        raise _not_signed_in(url)
    with open_http(url) as http:
        ask(http, "POST", "/v1/auth/logout", json={"refresh_token": session.refresh_token})
    return url


class TokenAuth(httpx.Auth):
    """A token that somebody else keeps fresh."""

    def __init__(self, token: str) -> None:
        self._token = token

    @override
    def auth_flow(self, request: httpx.Request) -> Flow:
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class SessionAuth(httpx.Auth):
    """The kept session: refreshed before its token expires, and once where it is refused."""

    def __init__(self, store: SessionStore, url: str) -> None:
        self._store = store
        self._url = url

    @override
    def sync_auth_flow(self, request: httpx.Request) -> Flow:
        session = self._fresh()
        request.headers["Authorization"] = f"Bearer {session.access_token}"
        response = yield request
        can_repeat = isinstance(request.stream, httpx.ByteStream)
        if response.status_code == UNAUTHORIZED and can_repeat:
            session = self._refreshed(session)
            request.headers["Authorization"] = f"Bearer {session.access_token}"
            yield request

    def _fresh(self) -> Session:
        session = self._store.find(self._url)
        if session is None:
            raise _not_signed_in(self._url)
        return session if session.is_fresh() else self._refreshed(session)

    def _refreshed(self, stale: Session) -> Session:
        """The session with another token than the stale one, whichever command has got it."""
        with self._store.locked(self._url):
            session = self._store.find(self._url)
            if session is None:
                raise _not_signed_in(self._url)
            if session.access_token != stale.access_token and session.is_fresh():
                return session
            session = self._exchanged(session)
            self._store.save(session)
            return session

    def _exchanged(self, session: Session) -> Session:
        grant = {"refresh_token": session.refresh_token}
        try:
            with open_http(self._url) as http:
                answer = ask(http, "POST", "/v1/auth/refresh", json=grant)
        except NotSignedIn:
            self._store.remove(self._url)
            raise _not_signed_in(self._url, "The session has ended.") from None
        return _session(answer, self._url, session.email, allow_http=session.allow_http)


def _session(answer: httpx.Response, url: str, email: str, *, allow_http: bool) -> Session:
    tokens = answer.json()
    return Session(
        server=url,
        email=email,
        access_token=tokens["access_token"],
        refresh_token=tokens["refresh_token"],
        expires_at=time.time() + tokens["expires_in"],
        allow_http=allow_http,
    )


def _known(store: SessionStore, server: str | None, *, allow_http: bool) -> str:
    """The server meant; http to it is allowed where signing in to it allowed it."""
    if server is None:
        last = store.last_server()
        if last is None:
            raise ServerInvalid("Which server? Sign in with `jangada login URL` first.")
        return last
    kept = store.find(server_url(server, allow_http=True))
    return server_url(server, allow_http=allow_http or (kept is not None and kept.allow_http))


def _not_signed_in(url: str, why: str = "Nobody is signed in.") -> NotSignedIn:
    return NotSignedIn(f"{why} Sign in with `jangada login {url}`, or set {TOKEN_VARIABLE}.")
