"""Mail on its way to a real SMTP server: what arrives, what is refused, and what nobody reads."""

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from jangada.config import MailSettings, TelemetrySettings
from jangada.errors import JangadaError
from jangada.mail import (
    Mail,
    Mailer,
    MailInvalid,
    MailRefused,
    MailUnavailable,
    SmtpMailer,
    UnconfiguredMailer,
    open_mailer,
)
from jangada.telemetry import configure_logging, get_logger
from jangada.testing import FrozenClock, MailServer, open_mail_server

pytestmark = pytest.mark.anyio

PATIENCE = 30
CANARY = "canary.person@example.org"
PASSWORD = "canary:pass/word@"
CREDENTIALS = "canary:canary%3Apass%2Fword%40@"
HELLO = Mail("ana@example.com", "Hello", "Good morning.\n", "key-1")


def mailer(server: MailServer, **settings: object) -> Mailer:
    chosen = server.settings.model_copy(update=settings)
    return open_mailer(chosen, FrozenClock().now)


def encrypted(server: MailServer, scheme: str = "smtp", credentials: str = "") -> Mailer:
    url = SecretStr(f"{scheme}://{credentials}127.0.0.1:{server.port}")
    return open_mailer(MailSettings(url=url), FrozenClock().now)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that it signed itself, with its key."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM) + private)
    return path


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    """TLS for a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate's own authority, as an operator names it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


async def test_a_mail_arrives_as_it_was_meant(mail_server: MailServer, clock: FrozenClock) -> None:
    sender = "Shop, Ltd. <no-reply@shop.example>"
    await mailer(mail_server, sender=sender).send(HELLO)
    (envelope,), (mail,) = mail_server.envelopes, mail_server.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@shop.example", [HELLO.to])
    assert mail["From"].addresses[0].display_name == "Shop, Ltd."
    assert (mail["To"], mail["Subject"]) == ("ana@example.com", "Hello")
    assert mail["Date"].datetime == clock.now()
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@shop.example>")
    assert mail.get_content().splitlines() == HELLO.text.splitlines()
    assert mail_server.sessions[0].host_name == "shop.example"


async def test_a_mail_that_is_sent_twice_can_be_recognised(mail_server: MailServer) -> None:
    for key in ("tenant:job", "tenant:job", "tenant:other"):
        await mailer(mail_server).send(Mail("ana@example.com", "Hello", "Hello.", key))
    first, second, third = (mail["Message-ID"] for mail in mail_server.mails)
    assert first == second != third
    assert "tenant" not in first


async def test_any_letters_arrive(mail_server: MailServer) -> None:
    mail = Mail("ana@bücher.example", "Olá, até já! " * 9 + "✓", "Você não é você? ✓", "k")
    await mailer(mail_server, sender="Pão de Açúcar <pao@açúcar.example>").send(mail)
    (envelope,), (arrived,) = mail_server.envelopes, mail_server.mails
    assert envelope.rcpt_tos == ["ana@xn--bcher-kva.example"]
    assert arrived["Subject"] == mail.subject
    assert arrived["From"].addresses[0].display_name == "Pão de Açúcar"
    assert arrived.get_content().strip() == mail.text


async def test_an_address_that_only_some_servers_can_carry(mail_server: MailServer) -> None:
    mail = Mail("joão@example.com", "Hello", "Hello.\n", "k")
    with pytest.raises(MailRefused):
        await mailer(mail_server).send(mail)
    async with open_mail_server(enable_SMTPUTF8=True) as modern:
        await mailer(modern).send(mail)
        assert modern.envelopes[0].rcpt_tos == [mail.to]
        assert modern.mails[0]["To"] == mail.to
    assert mail_server.envelopes == []


@pytest.mark.parametrize(
    "end", ["\r\nBcc: eve@example.com", "\n", "\x00", "\x0b", "\u2028", "\x85"]
)
async def test_nothing_can_add_a_header(mail_server: MailServer, end: str) -> None:
    with pytest.raises(MailInvalid):
        Mail("ana@example.com", f"Hello{end}", "Hello.", "k")
    with pytest.raises(MailInvalid):
        await mailer(mail_server).send(Mail(f"ana@example.com{end}", "Hello", "Hello.", "k"))
    await mailer(mail_server).send(Mail("ana@example.com", "Hello", "Hello.", f"k{end}"))
    assert mail_server.envelopes[0].rcpt_tos == ["ana@example.com"]
    assert mail_server.mails[0]["Bcc"] is None


@pytest.mark.parametrize("to", ["", "ana", "Ana <ana@example.com>", "a@b.co, c@d.co", "<a@b.co>"])
async def test_a_recipient_is_one_address(mail_server: MailServer, to: str) -> None:
    with pytest.raises(MailInvalid):
        await mailer(mail_server).send(Mail(to, "Hello", "Hello.", "k"))
    assert mail_server.envelopes == []


async def test_encryption_is_required_if_nothing_else_is_said(mail_server: MailServer) -> None:
    with pytest.raises(MailUnavailable, match="lacks what the settings ask for"):
        await encrypted(mail_server).send(HELLO)
    assert mail_server.envelopes == []
    await mailer(mail_server, starttls="optional").send(HELLO)
    assert len(mail_server.envelopes) == 1


@pytest.mark.parametrize("starttls", ["required", "optional"])
@pytest.mark.usefixtures("trusted")
async def test_a_connection_is_encrypted_before_the_mail(
    context: ssl.SSLContext, starttls: str
) -> None:
    async with open_mail_server(tls_context=context, require_starttls=True) as server:
        await mailer(server, starttls=starttls).send(HELLO)
        assert server.sessions[0].ssl is not None


@pytest.mark.usefixtures("trusted")
async def test_a_connection_is_encrypted_from_the_start(context: ssl.SSLContext) -> None:
    async with open_mail_server(tls_from_the_start=context) as server:
        await encrypted(server, "smtps").send(HELLO)
        assert len(server.envelopes) == 1


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    context: ssl.SSLContext, scheme: str
) -> None:
    how: dict[str, Any] = (
        {"tls_from_the_start": context} if scheme == "smtps" else {"tls_context": context}
    )
    async with open_mail_server(**how) as server:
        with pytest.raises(MailUnavailable, match="certificate is not trusted"):
            await encrypted(server, scheme).send(HELLO)
        assert server.envelopes == []


@pytest.mark.usefixtures("trusted")
async def test_credentials_are_given_once_the_connection_is_encrypted(
    context: ssl.SSLContext,
) -> None:
    given: list[tuple[bytes, bytes]] = []

    def is_right(_: str, user: bytes, password: bytes) -> bool:
        given.append((user, password))
        return password == PASSWORD.encode()

    async with open_mail_server(
        tls_context=context, auth_required=True, auth_callback=is_right
    ) as server:
        await encrypted(server, credentials=CREDENTIALS).send(HELLO)
        assert given == [(b"canary", PASSWORD.encode())]
        assert len(server.envelopes) == 1
        with pytest.raises(MailUnavailable, match="refused the credentials"):
            await encrypted(server, credentials="canary:wrong@").send(HELLO)
        assert len(server.envelopes) == 1


@pytest.mark.parametrize(
    ("command", "reply", "kind"),
    [
        ("MAIL", "451 later", MailUnavailable),
        ("MAIL", "550 who are you", MailUnavailable),
        ("RCPT", "421 closing", MailUnavailable),
        ("RCPT", "450 mailbox busy", MailUnavailable),
        ("RCPT", "550 no such person", MailRefused),
        ("DATA", "452 out of space", MailUnavailable),
        ("DATA", "554 this is spam", MailRefused),
    ],
)
async def test_a_refusal_is_for_now_or_for_good(
    mail_server: MailServer, command: str, reply: str, kind: type[JangadaError]
) -> None:
    mail_server.replies[command] = [reply]
    with pytest.raises(kind, match=reply[:3]):
        await mailer(mail_server).send(HELLO)
    assert mail_server.envelopes == []
    await mailer(mail_server).send(HELLO)
    assert len(mail_server.envelopes) == 1


@dataclass(slots=True)
class Stranger:
    """A server that says something when it is met, and nothing more."""

    said: bytes
    hangs_up: bool = False
    port: int = 0
    spoken_to: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.said)
        if not self.hangs_up:
            await reader.readline()
            self.spoken_to.set()
            await reader.read()
        writer.close()
        self.left.set()


@asynccontextmanager
async def saying(said: bytes, *, hangs_up: bool = False) -> AsyncIterator[Stranger]:
    stranger = Stranger(said, hangs_up)
    async with await asyncio.start_server(stranger.meet, "127.0.0.1", 0) as server:
        stranger.port = server.sockets[0].getsockname()[1]
        try:
            yield stranger
        finally:
            server.close_clients()


def waiting(port: int, timeout: timedelta = timedelta(milliseconds=100)) -> Mailer:
    url = SecretStr(f"smtp://127.0.0.1:{port}")
    return open_mailer(MailSettings(url=url, timeout=timeout, starttls="off"), FrozenClock().now)


@pytest.mark.parametrize("said", [b"", b"220 mail.test\r\n", b"220-mail"])
async def test_a_silent_server_is_waited_for_no_longer_than_it_may_take(said: bytes) -> None:
    async with asyncio.timeout(PATIENCE), saying(said) as stranger:
        with pytest.raises(MailUnavailable, match="did not answer in time"):
            await waiting(stranger.port).send(HELLO)
        await stranger.left.wait()


@pytest.mark.parametrize("said", [b"", b"220 mail.test\r\n"])
async def test_a_server_that_hangs_up_is_unavailable(said: bytes) -> None:
    async with saying(said, hangs_up=True) as stranger:
        with pytest.raises(MailUnavailable, match="hung up"):
            await waiting(stranger.port, timedelta(seconds=PATIENCE)).send(HELLO)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b"554 go away\r\n"])
async def test_a_server_that_talks_nonsense_or_refuses_us_is_unavailable(said: bytes) -> None:
    async with saying(said) as stranger:
        with pytest.raises(MailUnavailable):
            await waiting(stranger.port).send(HELLO)


async def test_a_server_that_is_away_is_unavailable(mail_server: MailServer) -> None:
    async with open_mail_server() as gone:
        pass
    with pytest.raises(MailUnavailable, match="could not be reached"):
        await mailer(gone).send(HELLO)


async def test_whoever_is_stopped_leaves_no_connection_behind() -> None:
    async with asyncio.timeout(PATIENCE), saying(b"220 mail.test\r\n") as stranger:
        patient = waiting(stranger.port, timedelta(hours=1))
        sending = asyncio.create_task(patient.send(HELLO))
        await stranger.spoken_to.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await stranger.left.wait()


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str], kept_logging: None) -> Callable[[], str]:
    """What was logged, as in production, at DEBUG."""
    configure_logging(TelemetrySettings(log_level="DEBUG", log_format="json"), "jangada-worker")
    return lambda: capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "reply"),
    [("RCPT", f"550 {CANARY} is unknown"), ("RCPT", f"451 {CANARY}"), ("DATA", f"554 {CANARY}")],
)
async def test_no_error_and_no_log_line_says_whom_a_mail_was_for(
    mail_server: MailServer, logged: Callable[[], str], command: str, reply: str
) -> None:
    mail_server.replies[command] = [reply]
    mail = Mail(CANARY, "Hello", f"Dear {CANARY}.\n", "k")
    with pytest.raises(JangadaError) as raised:
        await mailer(mail_server).send(mail)
    told = "".join(traceback.format_exception(raised.value)) + repr(mail)
    get_logger("test").error("job failed", exc_info=raised.value, mail=mail, error=raised.value)
    written = logged()
    assert raised.value.code in written
    assert "canary.person" not in told + written + repr(vars(raised.value))


@pytest.mark.usefixtures("trusted")
async def test_no_error_and_no_log_line_holds_the_password(
    context: ssl.SSLContext, logged: Callable[[], str]
) -> None:
    async with open_mail_server(tls_context=context, auth_required=True) as server:
        sender = encrypted(server, credentials=CREDENTIALS)
        with pytest.raises(MailUnavailable) as raised:
            await sender.send(HELLO)
    told = "".join(traceback.format_exception(raised.value)) + repr(sender)
    get_logger("test").error("job failed", exc_info=raised.value, mailer=sender)
    assert "canary" not in told + logged()


async def test_without_a_server_nothing_is_sent_which_is_said(logged: Callable[[], str]) -> None:
    unconfigured = open_mailer(MailSettings(), FrozenClock().now)
    assert isinstance(unconfigured, UnconfiguredMailer)
    await unconfigured.send(Mail(CANARY, "Hello", "Hello.", "k"))
    written = logged()
    assert "JANGADA_MAIL__URL" in written
    assert '"subject":"Hello"' in written
    assert "canary" not in written


@pytest.mark.parametrize(("scheme", "port"), [("smtp", 587), ("smtps", 465)])
async def test_a_connection_has_the_port_of_its_scheme_and_the_deadline_of_the_settings(
    scheme: str, port: int
) -> None:
    url = SecretStr(f"{scheme}://mail.example.com")
    settings = MailSettings(url=url, timeout=timedelta(seconds=7))
    chosen = open_mailer(settings, FrozenClock().now)
    assert isinstance(chosen, SmtpMailer)
    client = chosen._client()
    assert (client.port, client.timeout) == (port, 7)
