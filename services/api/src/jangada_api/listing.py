"""Lists: what a client may ask for, and the envelope that every list comes in."""

from collections.abc import Callable
from typing import Annotated, Self

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from jangada.crud import DEFAULT_LIMIT, MAX_LIMIT, Page, PageRequest
from jangada_api.state import RuntimeDep

MAX_CURSOR_CHARS = 1024


def get_page_request(
    runtime: RuntimeDep,
    *,
    limit: Annotated[
        int, Query(ge=1, le=MAX_LIMIT, description="At most so many items.")
    ] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None,
        Query(
            max_length=MAX_CURSOR_CHARS,
            description="`next_cursor` of the page before; good for the same filter and sort only.",
        ),
    ] = None,
) -> PageRequest:
    return PageRequest(runtime.cursors, limit, cursor)


PageDep = Annotated[PageRequest, Depends(get_page_request)]


class Listing[T: BaseModel](BaseModel):
    """One page of a list."""

    data: list[T]
    has_more: bool = Field(description="Whether there is another page.")
    next_cursor: str | None = Field(description="Pass it as `cursor` to get the next page.")

    @classmethod
    def of[E](cls, page: Page[E], read: Callable[[E], T]) -> Self:
        """The page with each item as the client reads it."""
        data = [read(item) for item in page.data]
        return cls(data=data, has_more=page.has_more, next_cursor=page.next_cursor)
