"""`/openapi.json`, and pages to read it: `/docs` (Swagger UI) and `/redoc`, which work offline.

The pages have a policy of their own: scripts only from here and none inline; inline styles, which
both programs write; the worker of ReDoc's search. Everything else has the strict one.
"""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
    "child-src blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
CACHED: Final = "public, max-age=3600"

router = APIRouter(include_in_schema=False)


class Assets(StaticFiles):
    """The vendored files; unlike answers of the API, they may be cached."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = CACHED
        return response


def assets() -> Assets:
    return Assets(directory=str(files("jangada_api").joinpath("static")))


def _page(title: str, head: str, body: str) -> HTMLResponse:
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="static/favicon-32x32.png">'
        f'<link rel="stylesheet" href="static/pages.css">{head}</head><body>{body}</body></html>'
    )
    return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})


@router.get("/openapi.json")
async def openapi_document(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def swagger_ui() -> HTMLResponse:
    return _page(
        "Jangada API",
        '<link rel="stylesheet" href="static/swagger-ui.css">',
        '<div id="swagger-ui"></div><script src="static/swagger-ui-bundle.js"></script>'
        '<script src="static/docs.js"></script>',
    )


@router.get("/redoc")
async def redoc() -> HTMLResponse:
    return _page(
        "Jangada API reference",
        "",
        '<div id="redoc"></div><script src="static/redoc.standalone.js"></script>'
        '<script src="static/redoc.js"></script>',
    )
