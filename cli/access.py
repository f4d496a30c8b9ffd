"""Who may come in: tenants, their API keys, and the public keys of their web pages."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli.failure import CommandFailed
from cli.state import local_settings
from infra.settings import Settings
from schemas.ids import TENANT_PATTERN

if TYPE_CHECKING:  # SQLAlchemy takes half a second to import, and every command imports this module
    from infra.postgres.tenants import Scope, Tenants

tenants_app = typer.Typer(help="Tenants: whose conversations they are.", no_args_is_help=True)
keys_app = typer.Typer(help="API keys of tenants.", no_args_is_help=True)
sites_app = typer.Typer(help="Public keys of tenants' web pages.", no_args_is_help=True)

T = TypeVar("T")


class ScopeName(StrEnum):
    """What a key may do: take part in conversations, see and steer its tenant's, or steer what concerns all tenants."""

    TURNS = "turns"
    OPERATOR = "operator"
    INSTALLATION = "installation"


Tenant = Annotated[str, typer.Option(help="Whose it will be.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
State = Annotated[
    Path | None,
    typer.Option(help="Directory of a system started with `fairlead up`; without it FAIRLEAD_DATABASE decides."),
]


@tenants_app.command("create")
def create_tenant(
    tenant: Annotated[str, typer.Argument(help="Its id: lower-case letters, digits and dashes.")],
    name: Annotated[str, typer.Option(help="What people call it.")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Create a tenant; for one that exists, change its name."""
    _check_tenant(tenant)
    _on_tenants(state, lambda tenants: tenants.create(tenant, name=name))
    _tell(as_json, {"tenant": tenant, "name": name}, f"Tenant {tenant} ({name}) is there.")


@keys_app.command("create")
def create_key(
    tenant: Tenant,
    scope: Annotated[list[ScopeName] | None, typer.Option(help="May be repeated; `turns` if absent.")] = None,
    label: Annotated[str, typer.Option(help="To know it by later.")] = "",
    expires_days: Annotated[int | None, typer.Option(min=1, help="Never if absent.")] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it. It cannot be shown again."""
    scopes: list[Scope] = sorted({name.value for name in scope or [ScopeName.TURNS]})
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days else None
    key = _on_tenants(
        state, lambda tenants: tenants.create_key(tenant, scopes=scopes, label=label, expires_at=expires_at)
    )
    facts = {
        "key": key,
        "key_id": key.split("_")[2],
        "tenant": tenant,
        "scopes": scopes,
        "label": label,
        "expires_at": expires_at.isoformat() if expires_at else None,
    }
    typer.echo("Keep this key now: it cannot be shown again.", err=True)
    _tell(as_json, facts, key)


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The third part of the key, between underscores.")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """End an API key. Running gateways notice within half a minute."""
    if not _on_tenants(state, lambda tenants: tenants.revoke(key_id)):
        raise CommandFailed(f"There is no key '{key_id}' that could be revoked: unknown, or revoked already.")
    _tell(as_json, {"key_id": key_id, "revoked": True}, f"Key {key_id} opens nothing any more.")


@sites_app.command("create")
def create_site(
    tenant: Tenant,
    origin: Annotated[list[str], typer.Option(help="scheme://host[:port] of a page; may be repeated.")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Create the public key of web pages at these origins."""
    try:
        site_key = _on_tenants(state, lambda tenants: tenants.create_site_key(tenant, origins=origin))
    except ValueError as error:
        raise CommandFailed(str(error), status=2) from error
    _tell(as_json, {"site_key": site_key, "tenant": tenant, "origins": sorted(origin)}, site_key)


def _on_tenants(state: Path | None, work: "Callable[[Tenants], Coroutine[Any, Any, T]]") -> T:
    from infra.postgres.engine import create_engine
    from infra.postgres.tenants import Tenants, UnknownTenant

    settings = local_settings(state) if state else Settings()

    async def run() -> T:
        engine = create_engine(settings.database.get_secret_value(), pool_size=1, name="fairlead-cli")
        try:
            return await work(Tenants(engine, pepper=settings.key_pepper))
        except UnknownTenant as error:
            raise CommandFailed(f"{error} with `fairlead tenants create`") from error
        finally:
            await engine.dispose()

    return asyncio.run(run())


def _check_tenant(tenant: str) -> None:
    if not re.fullmatch(TENANT_PATTERN, tenant):
        raise CommandFailed(f"'{tenant}' cannot be a tenant's id: use lower-case letters, digits and dashes.", status=2)


def _tell(as_json: bool, facts: Mapping[str, object], words: str) -> None:
    typer.echo(json.dumps(facts) if as_json else words)
