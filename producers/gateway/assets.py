"""What agents made for their answers, for whoever has the link.

The address is the permission: a page that shows an answer can show its asset, with no credential in sight. Types are
those of `MediaType` alone, and nothing that is served may run, load, or be taken for another type.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path
from starlette.requests import Request
from starlette.responses import Response

from infra.postgres.assets import Asset, Assets
from producers.gateway.documents import error_responses
from producers.gateway.parts import PartsOf
from producers.gateway.problems import ProblemError
from schemas.assets import ASSET_PATTERN, MediaType

router = APIRouter(tags=["conversations"])

AssetPath = Annotated[str, Path(pattern=ASSET_PATTERN, description="From the link in an answer; known to nobody else.")]

GUARDS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
    # An id never names other bytes. Only the visitor's own cache may keep them: others do not know when to forget.
    "Cache-Control": "private, max-age=2592000, immutable",
}

_CONTENT: Final[dict[str, Any]] = {
    kind.value: {"schema": {"type": "string"} | ({} if kind is MediaType.MERMAID else {"format": "binary"})}
    for kind in MediaType
}


@router.get(
    "/v1/assets/{asset_id}",
    operation_id="getAsset",
    summary="Read what an answer links to",
    response_class=Response,
    responses={
        200: {"description": "The file", "content": _CONTENT},
        304: {"description": "The file is the one that `If-None-Match` names"},
        **error_responses(404, 422, 429, 503),
    },
)
async def get_asset(
    asset_id: AssetPath,
    request: Request,
    parts: PartsOf,
    if_none_match: Annotated[str | None, Header(max_length=1024, description="Set by browsers.")] = None,
) -> Response:
    """Return a diagram or an image. No credential is asked for: the id cannot be guessed."""
    wait = parts.asset_limit.take(request.client.host if request.client else "")
    if wait:
        raise ProblemError(
            429,
            "rate_limited",
            "Too many files",
            "Wait before asking for another file.",
            headers={"Retry-After": str(int(wait) + 1)},
        )
    asset = await Assets(parts.engine).load(asset_id)
    if asset is None:
        raise ProblemError(404, "unknown_asset", "There is no such file", "It may have been forgotten with its answer.")
    headers = {**GUARDS, "ETag": f'"{asset.sha256.hex()}"'}
    if headers["ETag"] in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'inline; filename="{file_name(asset)}"'
    return Response(asset.content, media_type=asset.media_type.value, headers=headers)


def file_name(asset: Asset) -> str:
    """Return a name for saving the file, of which no character was chosen by anybody."""
    kind = "diagram" if asset.media_type in (MediaType.SVG, MediaType.MERMAID) else "image"
    return f"{kind}-{asset.sha256.hex()[:8]}{asset.media_type.suffix}"
