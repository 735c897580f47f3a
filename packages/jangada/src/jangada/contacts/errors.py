"""What can be wrong with contacts and with the files that hold them.

    UnreadableFile                the file as a whole can't be imported; nothing is written
    ├── EmptyFile, NotText, NulByte, Undecodable, UnknownEncoding
    ├── NoHeader, TooManyColumns, UnknownMapping, UnknownRegion, UnknownDelimiter
    └── UnbalancedQuote, RecordTooLong, TooManyLines
    ContactInvalid, ContactNotFound, ContactExists, TooManyAttributes, ImportNotFound,
    ImportUnderWay

A single bad row is no error: it is rejected with a `Reason`, and the others go on.
"""

from jangada.errors import Conflict, Invalid, NotFound


class UnreadableFile(Invalid):
    """The file as a whole can't be imported. `detail` says where and what to do."""

    code = "import_file.unreadable"
    quotes_content = True


class EmptyFile(UnreadableFile):
    """The file holds nothing at all, or blank lines only."""

    code = "import_file.empty"


class NotText(UnreadableFile):
    """A spreadsheet, an archive or another binary file that is called .csv."""

    code = "import_file.not_text"


class NulByte(UnreadableFile):
    """A NUL byte: the file is damaged, or its encoding is another one."""

    code = "import_file.nul_byte"


class Undecodable(UnreadableFile):
    """Bytes that don't belong to the file's encoding; `detail` has line and byte offset."""

    code = "import_file.undecodable"


class UnknownEncoding(UnreadableFile):
    """The named encoding is none that we read."""

    code = "import_file.unknown_encoding"


class NoHeader(UnreadableFile):
    """The first row names neither an e-mail nor a phone column."""

    code = "import_file.no_header"


class TooManyColumns(UnreadableFile):
    """The header has more columns than the settings allow."""

    code = "import_file.too_many_columns"


class UnknownMapping(UnreadableFile):
    """The mapping names a column that the file hasn't, or a field that doesn't exist."""

    code = "import_file.unknown_mapping"


class UnknownRegion(UnreadableFile):
    """The default region is no country with a calling code."""

    code = "import_file.unknown_region"


class UnbalancedQuote(UnreadableFile):
    """A quoted cell that never ends."""

    code = "import_file.unbalanced_quote"


class RecordTooLong(UnreadableFile):
    """One row or cell is longer than any contact is: line ends or quotes are not what they seem."""

    code = "import_file.record_too_long"


class TooManyLines(UnreadableFile):
    """The file has more lines than the settings allow."""

    code = "import_file.too_many_lines"


class ContactNotFound(NotFound):
    """There is no such contact in the caller's tenant."""

    code = "contact.not_found"


class ContactInvalid(Invalid):
    """The contact has no e-mail address and no phone, or one that can't be."""

    code = "contact.invalid"


class ContactExists(Conflict):
    """Another contact of the tenant has this e-mail address, or this phone as its only key."""

    code = "contact.exists"


class TooManyAttributes(Invalid):
    """The contacts' attributes together are more columns than a file may have."""

    code = "contact_export.too_many_columns"


class ImportNotFound(NotFound):
    """There is no such import in the caller's tenant."""

    code = "contact_import.not_found"


class ImportUnderWay(Conflict):
    """The import isn't over yet: wait for its job, or cancel it."""

    code = "contact_import.under_way"


class UnknownDelimiter(UnreadableFile):
    """The named delimiter is none that we read."""

    code = "import_file.unknown_delimiter"
