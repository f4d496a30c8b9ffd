"""What rules and retrieval can say to a visitor whom no model could answer; made without asking any."""

from pydantic import JsonValue

from infra.postgres.claims import Claim
from schemas.citations import Read
from schemas.completions import Malformed
from schemas.policy import AnswerPolicy
from workers.agents.material import material_of
from workers.agents.offered import offered
from workers.agents.shape import answer_schema
from workers.answers.sanitise import HtmlStream
from workers.answers.terms import Terms
from workers.providers.offline import fields_of


def offline_reply(claim: Claim, policy: AnswerPolicy) -> tuple[str, Read] | None:
    """Return an answer as the offline provider gives it, whole and safe, and what it read; None if it has none."""
    passages = offered(claim)
    fields: dict[str, JsonValue] = fields_of(material_of(claim, passages), answer_schema(claim))
    text = str(fields.pop("html_response", ""))
    terms = Terms(claim, passages=passages, passages_cut=0, policy=policy)
    try:
        terms.begin(fields)
        terms.end(text)
    except Malformed:
        return None
    html = HtmlStream()
    shown = html.feed(text) + html.finish()
    return (shown + terms.closing(), terms.read) if shown else None
