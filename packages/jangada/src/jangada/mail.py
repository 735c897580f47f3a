"""Mail: one text to one person, handed to the mail server that the settings name.

Guarantees
- Delivery is at least once, by a job that sends again when it isn't sure. The same `key` gives the
  same `Message-ID`, so that mail systems and people recognise a repetition.
- Nothing that a person wrote can become a header, and mail says that a machine wrote it (RFC 3834),
  so that no machine answers it.
- Every exchange with the server has a deadline, and `send` ends by itself.
- Neither addresses nor credentials nor what the server said, which quotes them, are in an error or
  a log line.
"""

import hashlib
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as LINES
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
    SMTPResponseException,
)
from email_validator import EmailNotValidError, validate_email

from jangada.config import MailSettings
from jangada.environment import mailbox
from jangada.errors import Invalid, Unavailable
from jangada.telemetry import get_logger

log = get_logger(__name__)

PORTS: Final = {"smtp": 587, "smtps": 465}
START_TLS: Final = {"required": True, "optional": None, "off": False}
"""As aiosmtplib has them; True fails where the server does not offer it."""

DIGEST_CHARACTERS: Final = 32
"""Enough that no two are the same, and short enough that the header fits on its line."""

FOR_GOOD: Final = 500
"""Replies from here on say that trying again does not help (RFC 5321, 4.2.1)."""


REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ssl.SSLError, "TLS failed, or its certificate is not trusted"),
    (TimeoutError, "it did not answer in time"),
    (SMTPAuthenticationError, "it refused the credentials (reply {reply})"),
    (SMTPResponseException, "it answered {reply}"),
    (OSError, "it could not be reached, or hung up"),
    (SMTPException, "it lacks what the settings ask for (STARTTLS, a way to sign in)"),
)
"""The first that an error or its cause is; none says whom the mail is for."""


class MailUnavailable(Unavailable):
    """The mail server is away, refuses us or can't take mail now; the mail is tried again."""

    code = "mail.unavailable"


class MailRefused(Invalid):
    """The mail server refuses the recipient or the mail for good."""

    code = "mail.refused"


class MailInvalid(Invalid):
    """The recipient is no address, or a header would hold a control character."""

    code = "mail.invalid"


@dataclass(frozen=True, slots=True)
class Mail:
    """A plain text to one address. `key` is the same whenever the same mail is sent.

    Raises `MailInvalid` where the subject is not one plain line.
    """

    to: str = field(repr=False)
    subject: str
    text: str = field(repr=False)
    key: str

    def __post_init__(self) -> None:
        if not self.subject.isprintable():
            raise MailInvalid("The subject of a mail must be one line of plain text.")


class Mailer(Protocol):
    """What mail leaves by."""

    async def send(self, mail: Mail) -> None:
        """Hand the mail over. Raises `MailUnavailable`, `MailRefused` or `MailInvalid`."""


def open_mailer(settings: MailSettings, now: Callable[[], datetime]) -> Mailer:
    """The mailer that the settings ask for. It connects for each mail, and for nothing else."""
    if settings.url is None:
        return UnconfiguredMailer()
    return SmtpMailer(settings, settings.url.get_secret_value(), now)


class UnconfiguredMailer:
    """Sends nothing, because no mail server is set, and says so each time."""

    async def send(self, mail: Mail) -> None:
        log.info("mail not sent: JANGADA_MAIL__URL is not set", subject=mail.subject)


class SmtpMailer:
    """Speaks SMTP to one server, on a connection of its own for each mail."""

    def __init__(self, settings: MailSettings, url: str, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._url = url
        self._now = now
        self._sender = mailbox(settings.sender)

    async def send(self, mail: Mail) -> None:
        recipient = _recipient(mail)
        message = self._message(mail, recipient)
        client = self._client()
        try:
            await client.connect()
            await client.send_message(
                message, sender=self._sender.addr_spec, recipients=[recipient]
            )
        except (SMTPException, OSError, ValueError) as error:
            # What they say quotes addresses and the server. A malformed challenge is a ValueError.
            raise _failure(error) from None
        else:
            with suppress(SMTPException, OSError):  # the mail is sent, whatever becomes of this
                await client.quit()
        finally:
            client.close()

    def _client(self) -> SMTP:
        parts = urlsplit(self._url)
        is_encrypted = parts.scheme == "smtps"
        return SMTP(
            hostname=parts.hostname,
            port=parts.port or PORTS[parts.scheme],
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            # Else the machine's own name would be looked up, outside of any deadline.
            local_hostname=self._sender.domain,
            timeout=self._settings.timeout.total_seconds(),
            use_tls=is_encrypted,
            start_tls=False if is_encrypted else START_TLS[self._settings.starttls],
        )

    def _message(self, mail: Mail, recipient: str) -> EmailMessage:
        message = EmailMessage(LINES)
        message["Date"] = self._now()
        message["From"] = self._sender
        message["To"] = Address("", *recipient.rsplit("@", 1))
        message["Subject"] = mail.subject
        message["Message-ID"] = f"<{_digest(mail.key)}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        return message


def _digest(key: str) -> str:
    """Keys have characters that a Message-ID must not, and are nobody else's business."""
    return hashlib.sha256(key.encode()).hexdigest()[:DIGEST_CHARACTERS]


def _recipient(mail: Mail) -> str:
    """The address, in ASCII if it can be, which every server understands: the domain at least."""
    try:
        parsed = validate_email(mail.to, check_deliverability=False)
    except EmailNotValidError:
        raise MailInvalid("The recipient of the mail is no address.") from None
    return parsed.ascii_email or parsed.normalized


def _failure(error: Exception) -> MailRefused | MailUnavailable:
    reply = error.recipients[0] if isinstance(error, SMTPRecipientsRefused) else error
    if isinstance(reply, SMTPNotSupported):
        return MailRefused("The mail server cannot carry an address in letters beyond ASCII.")
    if isinstance(reply, SMTPRecipientRefused | SMTPDataError) and reply.code >= FOR_GOOD:
        return MailRefused(f"The mail server refused the mail for good (reply {reply.code}).")
    return MailUnavailable(f"The mail server took no mail: {_reason(reply)}.")


def _reason(error: Exception) -> str:
    """Why, as far as it says nothing of whom the mail is for."""
    for kind, say in REASONS:
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return say.format(reply=getattr(error, "code", None))
    return "it did not speak SMTP"
