"""All attacks, by class: how many stay confined, and what a visitor would see of those that a model obeys."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.injection.cases import AttackClass, Case, cases, classes
from benchmarks.injection.confined import escapes
from benchmarks.injection.takeover import MODEL, Seen, take_over
from simulators.testing import running
from workers.providers.openai import OpenAIProvider
from workers.providers.wire import Wire


@dataclass(slots=True)
class Found:
    """What became of one class."""

    kind: AttackClass
    prompts: int = 0
    """Prompts built: a case for each of its ways."""
    escaped: list[str] = field(default_factory=list[str])
    """Which ones left their quotation, and in what."""
    seen: list[Seen] = field(default_factory=list[Seen])
    """What a visitor would see of each case if the model obeyed."""

    def count(self) -> dict[str, int]:
        """Return the figures."""
        return {
            "cases": len(self.kind.texts),
            "prompts": self.prompts,
            "escaped": len(self.escaped),
            "obeyed": len(self.seen),
            "nothing_seen": sum(not seen.html for seen in self.seen),
            "cut": sum(bool(seen.html) and not seen.whole for seen in self.seen),
            "words": sum(seen.whole for seen in self.seen),
            "markup": sum(bool(seen.markup) for seen in self.seen),
            "links": sum(bool(seen.links) for seen in self.seen),
            "leaks": sum(seen.leak for seen in self.seen),
            "invented_sources": sum(seen.cited > 0 for seen in self.seen),
        }


def confined() -> dict[str, Found]:
    """Build every prompt; return what was found by class."""
    found = {kind.name: Found(kind) for kind in classes()}
    for case in cases():
        for way in case.kind.via:
            one = found[case.kind.name]
            one.prompts += 1
            one.escaped += [f"{case.kind.name} {case.number} by {way}: {what}" for what in escapes(case, way)]
    return found


async def obeyed(chosen: Sequence[Case], found: dict[str, Found]) -> None:
    """Let a model obey each of the chosen cases, and add what was seen."""
    wire = Wire()
    async with running("openai", models=[MODEL]) as simulator:
        provider = OpenAIProvider(name="openai", wire=wire, base_url=f"{simulator.base_url}/v1", api_key="-")
        try:
            for case in chosen:
                found[case.kind.name].seen.append(await take_over(case, provider, simulator))
        finally:
            await provider.aclose()
            await wire.aclose()


def distinct() -> list[Case]:
    """Return a case for each different thing that an obedient model would write."""
    return [case for case in cases() if case.number < len(case.kind.says)]
