"""The links at the end of an answer: to the diagram its model described, drawn and stored meanwhile."""

import asyncio
import html
import traceback
from dataclasses import replace
from typing import Final, Self

from sqlalchemy.ext.asyncio import AsyncEngine
from structlog import get_logger

from infra.postgres.assets import Assets
from infra.postgres.claims import Claim
from infra.postgres.statements import LedgerUnavailable
from infra.settings import Settings
from infra.telemetry import metrics
from schemas.asset_policy import AssetPolicy
from schemas.assets import MediaType, asset_path
from schemas.outcomes import Answered, Ending
from schemas.replays import reserved
from workers.answers.sanitise import LINK_REL
from workers.answers.writer import FrameWriter
from workers.assets.diagram import Diagram, DiagramRefused, read_diagram
from workers.assets.images import Images
from workers.assets.mermaid import mermaid
from workers.assets.svg import draw

log = get_logger(__name__)

_NAMES: Final = {
    MediaType.MERMAID: "Mermaid",
    MediaType.PNG: "PNG",
    MediaType.JPEG: "JPEG",
    MediaType.WEBP: "WebP",
}
"""What links beside the first are called, in every language."""


class Attachments:
    """Adds to whole answers what their diagrams became. Whatever goes wrong here leaves the answer as it was.

    Args:
        assets: where files are kept.
        policy: what may be made, and how long that may take.
        images: who makes images; None where nobody does.
        public_url: base of the links; without one they are relative to the gateway.
    """

    def __init__(self, *, assets: Assets, policy: AssetPolicy, images: Images | None, public_url: str | None) -> None:
        self._assets = assets
        self._policy = policy
        self._images = images
        self._base = (public_url or "").rstrip("/")

    @classmethod
    def of(cls, settings: Settings, policy: AssetPolicy, engine: AsyncEngine) -> Self:
        """Return what the policy allows and the settings have servers for."""
        assets = Assets(engine)
        images = Images.of(settings, policy.image, assets)
        return cls(assets=assets, policy=policy, images=images, public_url=settings.public_url)

    async def aclose(self) -> None:
        """Close what images are asked for over."""
        if self._images is not None:
            await self._images.aclose()

    async def appended(self, claim: Claim, writer: FrameWriter, ending: Ending) -> Ending:
        """Return the ending with the links in it, where its answer describes a diagram; they are written to `writer`.

        To be called when the model has finished and before the turn is settled.
        """
        if not isinstance(ending, Answered) or ending.answer.diagram is None or writer.lost.is_set():
            return ending
        try:
            links = await self.attach(claim, ending.answer.diagram)
        except Exception as error:  # noqa: BLE001  (an answer that is whole must not be lost to a defect here)
            links = _left_out("failed", _sentence(error))
        if links is None or writer.lost.is_set():
            return ending
        writer.write(links)
        return Answered(replace(ending.answer, html=writer.content, cuts=writer.cuts))

    async def attach(self, claim: Claim, described: object) -> str | None:
        """Draw and store a diagram, and return the HTML that links to it; None where it is left out."""
        if not self._policy.diagrams:
            return None
        try:
            diagram = read_diagram(described)
            async with asyncio.timeout(self._policy.seconds):
                kept = await self._draw(claim, diagram)
        except DiagramRefused as refused:
            return _left_out("refused", str(refused))
        except TimeoutError:
            return _left_out("late")
        except LedgerUnavailable as error:
            return _left_out("not_stored", str(error))
        if not kept:
            return _left_out("not_stored", "the turn is gone")
        metrics.ASSETS_MADE.labels("diagram", "made").inc()
        return self._links(diagram.title, kept | await self._image(claim, diagram))

    async def _draw(self, claim: Claim, diagram: Diagram) -> dict[MediaType, str]:
        # A large diagram takes a tenth of a second, which would hold up every other turn of the process.
        drawn = await asyncio.to_thread(draw, diagram)
        files = {MediaType.SVG: drawn, MediaType.MERMAID: mermaid(diagram).encode()}
        kept = {kind: await self._assets.keep(claim.turn_id, kind, content) for kind, content in files.items()}
        return {kind: asset_id for kind, asset_id in kept.items() if asset_id is not None}

    async def _image(self, claim: Claim, diagram: Diagram) -> dict[MediaType, str]:
        """Return the id of an image of the diagram, where there is one. A replay that nobody is shown asks for none."""
        if self._images is None or reserved(claim.conversation_id):
            return {}
        try:
            image = await self._images.make(claim.tenant, diagram)
            asset_id = image and await self._assets.keep(claim.turn_id, image.media_type, image.content)
        except Exception as error:  # noqa: BLE001  (nor may the diagram be lost to a defect of its image)
            metrics.ASSETS_MADE.labels("image", "failed").inc()
            log.warning("no_image", why=_sentence(error))
            return {}
        return {image.media_type: asset_id} if image and asset_id else {}

    def _links(self, title: str, kept: dict[MediaType, str]) -> str:
        links = [self._link(asset_id, _NAMES.get(kind, title)) for kind, asset_id in kept.items()]
        return f"<p>{' · '.join(links)}</p>"

    def _link(self, asset_id: str, said: str) -> str:
        address = html.escape(self._base + asset_path(asset_id))
        return f'<a href="{address}" rel="{LINK_REL}">{html.escape(said, quote=False)}</a>'


def _sentence(error: Exception) -> str:
    """Return what an exception is and where it came from, not its words: a database's quote what was to be stored."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return f"{type(error).__name__} at {', '.join(f'{frame.name}:{frame.lineno}' for frame in frames)}"


def _left_out(outcome: str, why: str | None = None) -> None:
    metrics.ASSETS_MADE.labels("diagram", outcome).inc()
    log.warning("diagram_left_out", outcome=outcome, why=why)
