"""The routes and what surrounds them."""

from collections.abc import Sequence
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from producers.gateway import (
    assets,
    audit,
    breakers,
    conversations,
    dead_letters,
    documents,
    health,
    knowledge,
    openai_api,
    problems,
    replay_jobs,
    streams,
    takeovers,
    turns,
    websocket,
    widget_tokens,
)
from producers.gateway.limits import BodyLimit
from producers.gateway.parts import Parts

_DESCRIPTION = """
Conversations answered by several agents. Submit a message, watch its frames, or talk to it with any OpenAI client.
Errors are RFC 9457 problem details (`application/problem+json`), on OpenAI's routes in OpenAI's shape.
"""

_TAGS = [
    {"name": "turns", "description": "One message and its answer."},
    {"name": "conversations", "description": "What was said."},
    {"name": "takeover", "description": "People in place of agents."},
    {"name": "openai", "description": "For any OpenAI client."},
    {"name": "widget", "description": "For visitors of a web page."},
    {"name": "dead letters", "description": "Turns and records that left their lane, for operators."},
    {"name": "replay", "description": "Answering dead letters anew, for operators."},
    {"name": "knowledge", "description": "What a tenant's agents may know, for operators."},
    {"name": "operations", "description": "For whoever runs this."},
]


def create_app(parts: Parts, *, more: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the application that serves these parts, and the routes of other channels beside its own."""
    app = FastAPI(
        title="Fairlead",
        version=version("fairlead"),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        # One span a request and its `traceparent`; no message of an exception, which may quote a visitor.
        telemetry={"logs": False, "metrics": False, "operation_spans": False, "auto_configure": False},
        middleware=[
            Middleware(
                # Any page may ask: what counts is the bearer token, and that is bound to its origin.
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["GET", "POST"],
                allow_headers=[
                    "Authorization",
                    "Content-Type",
                    "Idempotency-Key",
                    "Last-Event-ID",
                    "X-Fairlead-Conversation",
                    "traceparent",
                ],
                expose_headers=["Retry-After", "Location"],
                max_age=600,
            ),
            Middleware(problems.Surprises),
            Middleware(BodyLimit, most=parts.max_body_bytes),
        ],
    )
    app.state.parts = parts
    operating = (dead_letters, replay_jobs, knowledge, breakers, audit, health)
    speaking = (turns, streams, conversations, takeovers, assets, openai_api, widget_tokens)
    for part in (*speaking, *operating):
        app.include_router(part.router)
    app.include_router(websocket.router)
    for router in more:
        app.include_router(router)
    problems.install(app)
    documents.install(app)
    return app
