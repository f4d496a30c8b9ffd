"""The conversations of `docs/transcripts.md` with model servers in place of rules."""

from cli.samples import TENANT as SAMPLES
from cli.samples import load_samples
from infra.postgres.engine import create_engine
from schemas.agents import Agent, lane_of
from schemas.knowledge import Retrieved
from schemas.knowledge_policy import KnowledgePolicy
from tests.acceptance.transcripts import scripts
from tests.support.pipeline import pipeline
from workers.researcher.researcher import Researcher


async def test_the_scripted_conversations_work_with_model_servers(database_url: str, redis_url: str) -> None:
    """Behind an OpenAI-compatible server and TGI each line is answered by its agent, by two calls at most."""
    agents, languages = scripts()
    engine = create_engine(database_url, name="fairlead-test")
    researcher = Researcher(engine, policy=KnowledgePolicy(deadline=30))

    async def retrieve(tenant: str, text: str, *, language: str) -> Retrieved:
        return await researcher.retrieve(SAMPLES, text, language=language)

    try:
        async with pipeline(database_url, redis_url, router="classifier", retrieve=retrieve) as p:
            await p.query("INSERT INTO tenants (tenant_id, name) VALUES (:t, 'Samples')", t=SAMPLES)
            await load_samples(database_url)
            for language, lines in languages.items():
                for agent, line in zip(agents, lines, strict=True):
                    turn = await p.queue(f"script-{language}", line)
                    row = await p.row(turn)
                    assert row["agent"] == agent, line
                    await p.answer(turn, lane_of(Agent(agent)))
                    ended = (await p.row(turn))["state"]
                    # The simulated model says the same to the same question, and rephrasing is refused.
                    assert ended == "answered" or (agent == Agent.ADAPTIVE_RESPONSE and ended == "bounded"), line
                    assert max(p.calls(turn)) <= 2
                    assert sum(p.calls(turn)) <= 2
    finally:
        await engine.dispose()
