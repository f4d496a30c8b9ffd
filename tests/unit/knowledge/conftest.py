"""A site that means harm."""

from collections.abc import AsyncGenerator

import pytest

from tests.support.site import Site, serving


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    """A server that may be fetched from as `site.test`, and that has an internal face as well."""
    async with serving() as site:
        yield site
