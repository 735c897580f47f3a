"""The routes of the API: what a caller asks for that they don't know is refused, not overlooked."""

from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, override

from fastapi import APIRouter, Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params, get_parameterless_sub_dependant
from fastapi.exceptions import RequestValidationError
from fastapi.params import Cookie, Header, Path
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

type Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """Refuses a query parameter that it doesn't know, as bodies refuse a field.

    What was meant by a misspelt `on_conflict` must not be decided by its default. It is looked at
    after all other dependencies: who isn't signed in is told that.
    """

    @override
    def get_route_handler(self) -> Handler:
        refusing = Depends(_refusing(self.dependant))
        last = get_parameterless_sub_dependant(depends=refusing, path=self.path_format)
        self.dependant.dependencies.append(last)
        return super().get_route_handler()


def _refusing(dependant: Dependant) -> Callable[[Request], Awaitable[None]]:
    known = sorted(
        field.alias
        for field in get_flat_params(dependant)
        if not isinstance(field.field_info, (Cookie, Header, Path))
    )

    async def refuse_unknown(request: Request) -> None:
        if unknown := [name for name in request.query_params if name not in known]:
            raise RequestValidationError([_fault(name, known) for name in unknown])

    return refuse_unknown


def _fault(name: str, known: list[str]) -> dict[str, Any]:
    names = ", ".join(known) or "none"
    text = f"There is no such query parameter here; there are: {names}."
    return {"type": "extra_forbidden", "loc": ("query", name), "msg": text, "input": None}


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


def methods_at(routes: list[BaseRoute], scope: Scope) -> list[str]:
    """The methods that some route knows at this address (RFC 9110, 10.2.1)."""
    here = [route for route in routes if route.matches(scope)[0] is not Match.NONE]
    return sorted({method for route in here for method in getattr(route, "methods", None) or ()})
