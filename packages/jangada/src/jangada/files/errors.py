"""What can be wrong with a file or its upload."""

from jangada.errors import Conflict, Invalid, NotFound, RateLimited, Unavailable


class FileNotFound(NotFound):
    """There is no such file in the caller's tenant."""

    code = "file.not_found"


class FileTooLarge(Invalid):
    """The file is larger than an upload may be."""

    code = "file.too_large"


class StorageQuotaExceeded(Conflict):
    """The tenant's files, with those being uploaded, would take more than they may."""

    code = "file.quota_exceeded"


class TooManyUploads(RateLimited):
    """The tenant has as many uploads under way as it may have at once."""

    code = "file.too_many_uploads"


class UploadsBusy(Unavailable):
    """The process receives as many uploads as it has memory for; try again in a moment."""

    code = "file.uploads_busy"


class UploadLost(Unavailable):
    """The upload's lease ran out, and with it the row and the blob; uploading again helps."""

    code = "file.upload_lost"


class StorageUnavailable(Unavailable):
    """The blob store refuses, fails or does not answer in time."""

    code = "storage.unavailable"


class BlobNotFound(NotFound):
    """The blob store has no content under this key."""

    code = "storage.blob_not_found"
