"""Why a row is rejected: the codes that the reject file and the statistics show."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Stable codes; a code is added, never renamed."""

    MISSING_KEY = "missing_key"
    INVALID_EMAIL = "invalid_email"
    INVALID_PHONE = "invalid_phone"
    NAME_TOO_LONG = "name_too_long"
    COMPANY_TOO_LONG = "company_too_long"
    CELL_TOO_LONG = "cell_too_long"
    TOO_MANY_CELLS = "too_many_cells"
    ATTRIBUTES_TOO_LARGE = "attributes_too_large"
    AMBIGUOUS_MATCH = "ambiguous_match"


EXPLANATIONS: Final[Mapping[Reason, str]] = {
    Reason.MISSING_KEY: "There is neither an e-mail address nor a phone number.",
    Reason.INVALID_EMAIL: "The e-mail address isn't one that mail can be sent to.",
    Reason.INVALID_PHONE: "The phone number doesn't exist in its country's numbering plan.",
    Reason.NAME_TOO_LONG: "The name has more than 300 characters.",
    Reason.COMPANY_TOO_LONG: "The company has more than 300 characters.",
    Reason.CELL_TOO_LONG: "A cell has more characters than the settings allow.",
    Reason.TOO_MANY_CELLS: "The row has more cells than a file may have columns.",
    Reason.ATTRIBUTES_TOO_LARGE: "The attributes (all other columns) hold more than 64 KiB.",
    Reason.AMBIGUOUS_MATCH: "The row's e-mail address and phone belong to different contacts, "
    "or its phone alone belongs to several.",
}
