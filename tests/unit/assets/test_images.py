"""Answers of the images API: bytes of known types and bounded size, and nothing else."""

import base64
import json

import pytest

from infra.postgres.assets import Assets
from infra.postgres.engine import create_engine
from infra.settings import Settings
from schemas.asset_policy import AssetPolicy, ImagePolicy
from schemas.assets import MAX_ASSET_BYTES, MediaType
from simulators.images import png
from workers.assets.images import Images, ImageUnusable, image_in

WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "


def reply(content: bytes) -> bytes:
    return json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(content).decode()}]}).encode()


@pytest.mark.parametrize(
    ("content", "kind"),
    [(png("x"), MediaType.PNG), (b"\xff\xd8\xff\xe0rest", MediaType.JPEG), (WEBP, MediaType.WEBP)],
)
def test_the_first_bytes_say_what_it_is(content: bytes, kind: MediaType) -> None:
    """The type that is served comes from the bytes, not from what a server says of them."""
    image = image_in(reply(content))
    assert (image.media_type, image.content) == (kind, content)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "no base64"),
        (b"[]", "no base64"),
        (b'{"data": []}', "no base64"),
        (b'{"data": [{"url": "http://169.254.169.254/"}]}', "no base64"),
        (b'{"data": [{"b64_json": "not base64!"}]}', "no base64"),
        (reply(b"<svg onload='alert(1)'/>"), "neither PNG"),
        (reply(b"GIF89a"), "neither PNG"),
        (reply(b"RIFF\x10\x00\x00\x00WAVEfmt "), "neither PNG"),
        (reply(b""), "neither PNG"),
        (reply(png("x") + b"x" * MAX_ASSET_BYTES), "are the most"),
    ],
)
def test_what_is_no_image_of_ours_is_refused(answer: bytes, says: str) -> None:
    """An address, markup, other types, broken base64 and what is too large are refused in a sentence."""
    with pytest.raises(ImageUnusable, match=says):
        image_in(answer)


def test_without_a_model_or_a_server_nobody_makes_images() -> None:
    """Images are off unless the policy names a model and the frontier has an address or a key."""
    assets = Assets(create_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none"))
    here = Settings.model_validate({"frontier_base_url": "http://h", "frontier_api_key": ""})
    nowhere = Settings.model_validate({"frontier_base_url": None, "frontier_api_key": ""})
    assert AssetPolicy().image is None
    assert Images.of(here, None, assets) is None
    assert Images.of(nowhere, ImagePolicy(model="m"), assets) is None
    assert Images.of(here, ImagePolicy(model="m"), assets) is not None
