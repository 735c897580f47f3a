"""The routes of the API: what a caller asks for that they don't know is refused, not overlooked."""

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, override

from fastapi import APIRouter, Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params, get_parameterless_sub_dependant
from fastapi.exceptions import RequestValidationError
from fastapi.params import Cookie, Header, Path
from fastapi.routing import APIRoute

from jangada_api.problems import refuse_content_encoding

type Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """Refuses query parameters that it doesn't know, as bodies refuse fields, or that come twice.

    What was meant by a misspelt `on_conflict` must not be decided by its default. It is looked at
    after all other dependencies: who isn't signed in is told that.

    A JSON body that is encoded isn't read; bodies are read before anything else is looked at.
    """

    @override
    def get_route_handler(self) -> Handler:
        refusing = Depends(_refusing(self.dependant))
        last = get_parameterless_sub_dependant(depends=refusing, path=self.path_format)
        self.dependant.dependencies.append(last)
        handler = super().get_route_handler()
        return handler if self.body_field is None else _reading_plain_bodies(handler)


def _reading_plain_bodies(handler: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        refuse_content_encoding(request)
        return await handler(request)

    return handle


def _refusing(dependant: Dependant) -> Callable[[Request], Awaitable[None]]:
    known = sorted(
        field.alias
        for field in get_flat_params(dependant)
        if not isinstance(field.field_info, (Cookie, Header, Path))
    )

    async def refuse_unknown(request: Request) -> None:
        given = Counter(name for name, _ in request.query_params.multi_items())
        faults = [
            *(_unknown(name, known) for name in given if name not in known),
            *(_repeated(name) for name in given if name in known and given[name] > 1),
        ]
        if faults:
            raise RequestValidationError(faults)

    return refuse_unknown


def _unknown(name: str, known: list[str]) -> dict[str, Any]:
    names = ", ".join(known) or "none"
    return _fault(
        name, "extra_forbidden", f"There is no such query parameter here; there are: {names}."
    )


def _repeated(name: str) -> dict[str, Any]:
    return _fault(name, "repeated", "The query has it more than once; send one.")


def _fault(name: str, code: str, text: str) -> dict[str, Any]:
    return {"type": code, "loc": ("query", name), "msg": text, "input": None}


def api_router(*, prefix: str = "", tags: list[str | Enum] | None = None) -> APIRouter:
    """The router of a feature, whose operations have the names of their functions."""
    return APIRouter(
        prefix=prefix,
        tags=tags,
        generate_unique_id_function=_operation_id,
        route_class=StrictRoute,
    )


def _operation_id(route: APIRoute) -> str:
    """Unique over all routes (a test says so), and stable."""
    return route.name
