"""Every interleaving of one turn's protocol (T5 to T17), searched without a server.

A state is what the ledger, Redis, two workers, the upkeep processes and one watcher know. A rule is one SQL statement,
one Redis verb or one thing that only happens inside a process, and yields every state that may follow. Freezing needs
no rule: a process that is not chosen for a while is frozen, and may go on at any time with what it knew. Leases and
deadlines end whenever they like, which is why no rule asks the time. Hints are no messages here: a worker may try to
claim at any time, which is what hints that are lost, late or repeated any number of times come down to.

A mutant is a search with one part of the protocol missing. Each shows a violation, which is why the part is there.
"""

import gc
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import chain
from typing import Final, NamedTuple, TypeVar

TOKENS: Final = {1: "ab", 2: "x"}
"""What each attempt's model writes, a token a letter: text tells by itself whose it is."""

ROUTED: Final = "routed"
"""The first frame of every log. A content frame is its letters; a terminal frame is `=` and the ledger's state."""

UNSEEN: Final = ("queued", "running", "fallback", "rescue")
TERMINAL: Final = ("answered", "truncated", "bounded", "handed_off")

OWNER_FENCED: Final = "the owner is fenced"
"""A step that must never be: Redis refuses a worker whose epoch is the ledger's."""

TWO_ANSWERS: Final = "text of two attempts is visible (I1)"
END_CHANGED: Final = "a turn that had ended has changed (I2)"
WRONG_END: Final = "the terminal frame differs from the ledger (I2)"
END_UNTOLD: Final = "a watcher is let go without a terminal frame (I2)"
ASKED_TWICE: Final = "a model is asked twice for one ordinal (I3)"
FRAME_TAKEN_BACK: Final = "a frame was taken back (I4)"
NO_PREFIX: Final = "the visible text is no prefix of the answer (I5)"
NOT_FORCED: Final = "a truncated turn does not send the next one to the frontier, or another does (I6)"
EPOCH_FELL: Final = "an epoch fell (I12)"
FENCE_AHEAD: Final = "the fence is ahead of the ledger (I12)"
UNPAID_RESCUE: Final = "a model is asked for a rescue that the budget refused"
BEGUN_AFTER_TAKEOVER: Final = "an agent begins to be seen while a person has the conversation (I13)"
OWNER_SHUT_OUT: Final = "the turn's present owner is taken for an old one"


class Mutant(Enum):
    """A part of the protocol to leave out."""

    NO_COMMIT_POINT = "a worker shows text without asking the ledger first"
    NO_APPEND_FENCE = "the log takes frames of any epoch"
    NO_SEAL = "upkeep reads what is visible without shutting the old owner out"
    MISSING_IS_UNSEEN = "a fence that is gone is taken for a turn of which nothing was shown"
    SEAL_BEFORE_LEDGER = "upkeep seals the log before the ledger has moved to its epoch"
    RESCUE_TWICE = "a rescue is claimed although the one fallback is used"
    RESCUE_UNPAID = "a rescue is claimed although the budget refused it"
    TELL_CHECKPOINTS = "watchers are told the checkpoint of a turn that still runs"
    KEEP_CHECKPOINT = "a rescue keeps the checkpoint of the attempt it replaces"
    VISIBLE_UNASKED = "the commit point does not look at who has the conversation"
    SILENT_UNASKED = "a silent answer does not look at who has the conversation"
    TRUST_OLD_FENCE = "a fence older than the owner's is taken for the owner's or a newer one"


class Ledger(NamedTuple):
    """The turn's row and its attempts."""

    state: str = "queued"
    epoch: int = 1
    primary: bool = False
    """Whether the attempt of ordinal 1 is written down."""
    fallback: bool = False
    kept: tuple[str, ...] = ()
    """Content frames: a checkpoint while the turn streams, the answer once it has ended."""
    forced: bool = False
    unpaid: bool = False
    """Whether the rescue budget refused it: it waits to be parked."""


class Log(NamedTuple):
    """The fence and the frames in Redis. Epoch 0: there is no fence."""

    epoch: int = 0
    found: str = ""
    frames: tuple[str, ...] = ()
    finished: bool = False


class Worker(NamedTuple):
    """A worker process and the one turn it carries."""

    step: str = "idle"
    epoch: int = 0
    ordinal: int = 0
    taken: tuple[str, ...] = ()
    """Frames that the publisher has made."""
    pending: str = ""
    confirmed: int = 0
    """How many of them the log has, for all the worker knows."""
    ending: str = ""


class Upkeep(NamedTuple):
    """An upkeep process in the middle of a sweep."""

    step: str = "idle"
    epoch: int = 0
    kept: tuple[str, ...] = ()
    found: str = ""
    shown: tuple[str, ...] = ()
    finished: bool = False


class State(NamedTuple):
    """Everything at one moment."""

    ledger: Ledger
    log: Log
    workers: tuple[Worker, ...]
    upkeeps: tuple[Upkeep, ...]
    told: tuple[str, ...] = ()
    """What the watcher was told after `routed`."""
    let_go: bool = False
    """Whether the watcher knows that the turn has ended."""
    asked: tuple[int, int] = (0, 0)
    """Requests sent for each ordinal."""
    faults: int = 0
    """How many more faults may strike: upkeep killed, Redis away, Redis emptied, sweeps that overtake each other."""
    wiped: bool = False
    human: bool = False
    """Whether a person has the conversation: the row that every statement below looks at which says `not s.human`."""
    takeovers: int = 0
    """How many more there may be."""


Process = TypeVar("Process", Worker, Upkeep)
Next = tuple[str, State]
WorkerRule = Callable[[State, Worker, "Bounds"], Iterator[tuple[str, State, Worker]]]
UpkeepRule = Callable[[State, Upkeep, "Bounds"], Iterator[tuple[str, State, Upkeep]]]


class Bounds(NamedTuple):
    """How much is searched, and what is left out of the protocol."""

    upkeeps: int = 1
    faults: int = 1
    wipes: bool = True
    takeovers: int = 0
    mutant: Mutant | None = None
    seek: str = ""
    """The one violation to look for; otherwise the first of any."""


# What a worker does.


def claim(s: State, w: Worker, _: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`claims._CLAIM` (T5, T5b): a queued turn becomes ours, its attempt written down in the same statement."""
    if w.step != "idle" or s.ledger.state != "queued" or s.human:
        return
    epoch = s.ledger.epoch + 1
    running = s.ledger._replace(state="running", epoch=epoch, primary=True)
    yield "claim", s._replace(ledger=running), Worker("arm", epoch, 1)
    direct = s.ledger._replace(state="fallback", epoch=epoch, fallback=True)
    yield "claim direct", s._replace(ledger=direct), Worker("arm", epoch, 2)


def rescue(s: State, w: Worker, b: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`claims._RESCUE` (T16): only if the one fallback is unused and the budget has paid."""
    if w.step != "idle" or s.ledger.state != "rescue" or s.human:
        return
    if s.ledger.fallback and b.mutant is not Mutant.RESCUE_TWICE:
        return
    if s.ledger.unpaid and b.mutant is not Mutant.RESCUE_UNPAID:
        return
    epoch = s.ledger.epoch + 1
    taken = s.ledger._replace(state="fallback", epoch=epoch, fallback=True)
    yield "rescue", s._replace(ledger=taken), Worker("arm", epoch, 2)


def arm(s: State, w: Worker, b: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`arm` in `frame_log.lua`, then the request leaves: nobody can tell the moment in between."""
    if w.step != "arm":
        return
    s = s._replace(asked=_asked(s, w.ordinal))
    if s.log.epoch > w.epoch:
        yield "arm: fenced", s, Worker("gone")
    elif s.log.epoch == w.epoch:
        yield "arm: again", s, w._replace(step="called")
    else:
        yield "arm", s._replace(log=Log(w.epoch, "armed", (ROUTED,))), w._replace(step="called")
    if s.faults:
        away = s._replace(faults=s.faults - 1)
        yield "arm: Redis is away", away, w._replace(step="silent")
        if s.log.epoch < w.epoch:
            armed = Log(w.epoch, "armed", (ROUTED,))
            yield "arm: its answer is lost", away._replace(log=armed), w._replace(step="silent")


def model_fails_unseen(s: State, w: Worker, _: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`claims._FALLBACK` (T6) after the primary; after the fallback `settlement._SETTLE`, bounded (T11)."""
    if w.step not in ("called", "silent"):
        return
    ours = s.ledger.epoch == w.epoch and not s.human
    if w.ordinal == 1 and ours and s.ledger.state == "running":
        moved = s.ledger._replace(state="fallback", fallback=True)
        yield "fall back", s._replace(ledger=moved, asked=_asked(s, 2)), w._replace(ordinal=2)
    elif w.ordinal == 2 and ours and s.ledger.state in ("running", "fallback"):
        yield "settle bounded", s._replace(ledger=_ended(s.ledger, "bounded", ())), w._replace(step="tell")
    else:
        yield "model fails: not ours", s, Worker("gone")


def first_token(s: State, w: Worker, b: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`claims._VISIBLE` (T7): the commit point, before anything is shown."""
    if w.step != "called":
        return
    streaming = w._replace(step="streaming", pending=TOKENS[w.ordinal][0])
    unasked = not s.human or b.mutant is Mutant.VISIBLE_UNASKED
    if s.ledger.epoch == w.epoch and s.ledger.state in ("running", "fallback") and unasked:
        yield "commit point", s._replace(ledger=s.ledger._replace(state="streaming")), streaming
    elif b.mutant is Mutant.NO_COMMIT_POINT:
        yield "show without the ledger", s, streaming
    else:
        yield "commit point: not ours", s, Worker("gone")


def answer_silently(s: State, w: Worker, b: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`settlement._SETTLE` (T10): a turn that could not be armed is answered whole, in the ledger alone."""
    if w.step != "silent":
        return
    unasked = not s.human or b.mutant is Mutant.SILENT_UNASKED
    if s.ledger.epoch == w.epoch and s.ledger.state in ("running", "fallback") and unasked:
        answered = _ended(s.ledger, "answered", (TOKENS[w.ordinal],))
        yield "settle answered, silently", s._replace(ledger=answered), w._replace(step="complete")
    else:
        yield "settle: not ours", s, Worker("gone")


def next_token(s: State, w: Worker, _: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`FrameWriter.write`: text waits in the worker for the publisher."""
    written = len("".join(w.taken) + w.pending)
    if w.step == "streaming" and written < len(TOKENS[w.ordinal]):
        yield "next token", s, w._replace(pending=w.pending + TOKENS[w.ordinal][written])


def checkpoint(s: State, w: Worker, _: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`claims._RENEW`: the ledger keeps what was written, and what waits for the publisher as if it were a frame."""
    kept = (*w.taken, w.pending) if w.pending else w.taken
    if w.step == "streaming" and s.ledger.epoch == w.epoch and s.ledger.state == "streaming" and kept != s.ledger.kept:
        yield "checkpoint", s._replace(ledger=s.ledger._replace(kept=kept)), w


def publish(s: State, w: Worker, b: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`append` in `frame_log.lua`: the last one carries the flag that the model finished."""
    if w.step not in ("streaming", "draining") or not _waiting(w):
        return
    w = _take(w)
    lost = w._replace(step="settling") if w.step == "draining" else Worker("gone")
    verdict, log = _append(s.log, w, b)
    after = w._replace(confirmed=len(w.taken), step="settling" if w.step == "draining" else "streaming")
    if verdict == "ok":
        yield "append", s._replace(log=log), after
    elif verdict == "fenced":
        yield _fenced(s, w), s, lost
    else:
        yield "append: no fence", s, w._replace(step="mend")
    if s.faults:
        away = s._replace(faults=s.faults - 1)
        unheard = w._replace(step="settling") if w.step == "draining" else w
        yield "append: Redis is away", away, unheard
        if verdict == "ok":
            yield "append: its answer is lost", away._replace(log=log), unheard


def mend(s: State, w: Worker, _: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`claims._OWNS`: Redis forgot the fence, so the ledger is asked whether the turn is still ours."""
    if w.step != "mend":
        return
    if s.ledger.epoch == w.epoch and s.ledger.state == "streaming":
        yield "still ours", s, w._replace(step="rewrite")
    else:
        yield "not ours any more", s, w._replace(step="settling") if w.ending else Worker("gone")


def rewrite(s: State, w: Worker, b: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`rewrite` in `frame_log.lua`: the whole log anew, unless a newer epoch holds it."""
    if w.step != "rewrite":
        return
    if s.log.epoch > w.epoch or (b.mutant is Mutant.TRUST_OLD_FENCE and s.log.epoch not in (0, w.epoch)):
        yield _fenced(s, w), s, w._replace(step="settling") if w.ending else Worker("gone")
        return
    log = Log(w.epoch, "armed", (ROUTED, *w.taken))
    mended = w._replace(step="draining" if w.ending else "streaming", confirmed=len(w.taken))
    yield "rewrite", s._replace(log=log), mended


def model_ends(s: State, w: Worker, _: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`run_attempt`: the stream ends of its own accord or breaks; `Publisher.drain` comes before the settlement."""
    if w.step != "streaming":
        return
    if "".join(w.taken) + w.pending == TOKENS[w.ordinal]:
        yield "model finishes", s, w._replace(step="draining", ending="answered")
    broken = w._replace(ending="truncated")
    yield "stream breaks", s, broken._replace(step="draining" if _waiting(broken) else "settling")


def settle(s: State, w: Worker, _: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`settlement._SETTLE` (T8, T9): the answer, under our epoch only."""
    if w.step != "settling":
        return
    if s.ledger.epoch == w.epoch and s.ledger.state in ("streaming", "running", "fallback"):
        yield f"settle {w.ending}", s._replace(ledger=_ended(s.ledger, w.ending, w.taken)), w._replace(step="tell")
    else:
        yield "settle: not ours", s, Worker("gone")


def tell_end(s: State, w: Worker, b: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`append` of the terminal frame after the settlement; whatever stands against it, `finish` comes next."""
    if w.step != "tell":
        return
    ended = w._replace(taken=(*w.taken, f"={s.ledger.state}"))
    verdict, log = _append(s.log, ended, b) if w.confirmed == len(w.taken) else ("waiting", s.log)
    if verdict == "ok":
        yield "terminal frame", s._replace(log=log), Worker("gone")
    else:
        yield "terminal frame: not taken", s, w._replace(step="complete")


def complete(s: State, w: Worker, _: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """`finish` in `frame_log.lua` by the worker that settled."""
    if w.step == "complete":
        yield "finish", s._replace(log=_finish(s, w.epoch)), Worker("gone")


def worker_dies(s: State, w: Worker, _: Bounds) -> Iterator[tuple[str, State, Worker]]:
    """The process is gone with all it knew."""
    if w.step not in ("idle", "gone"):
        yield f"worker dies ({w.step})", s, Worker("gone")


# What upkeep does.


def pass_deadlines(s: State, u: Upkeep, _: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """`sweeps._QUEUE_DEADLINE` (T12) and `sweeps._WORKER_LOST` (T13): late or left alone, and nothing was shown.

    The budget is shared by turns that are not here, so that it may pay or refuse at any time.
    """
    if u.step == "idle" and s.ledger.state in ("queued", "running", "fallback") and not s.human:
        moved = s.ledger._replace(state="rescue", epoch=s.ledger.epoch + 1)
        yield f"{s.ledger.state} to rescue", s._replace(ledger=moved), u
        if not s.ledger.fallback:
            yield f"{s.ledger.state} to rescue, unpaid", s._replace(ledger=moved._replace(unpaid=True)), u


def fence_hopeless(s: State, u: Upkeep, _: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """`sweeps._HOPELESS`: the deadline passed or the fallback is used; the epoch grows before the settlement (T17)."""
    if u.step != "idle" or s.ledger.state not in UNSEEN:
        return
    epoch = s.ledger.epoch + 1
    fenced = s._replace(ledger=s.ledger._replace(epoch=epoch))
    # The fence says whose the turn is: a person's is handed off.
    step = "taken back" if s.human else "fenced"
    if not any(other.step == "fenced" and other.epoch == s.ledger.epoch for other in s.upkeeps):
        yield "fence hopeless", fenced, Upkeep(step, epoch)
    elif s.faults:
        yield "fence hopeless, overtaking", fenced._replace(faults=s.faults - 1), Upkeep(step, epoch)


def bound(s: State, u: Upkeep, _: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """`settlement._SETTLE` by upkeep with the bounded reply (T17); a person's turn is no business of that."""
    if u.step != "fenced":
        return
    if s.ledger.epoch == u.epoch and s.ledger.state in UNSEEN and not s.human:
        yield "bound", s._replace(ledger=_ended(s.ledger, "bounded", ())), Upkeep("tell", u.epoch)
    else:
        yield "bound: not ours", s, Upkeep()


def take_back(s: State, u: Upkeep, _: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """`inbox._PREPARE` where a person has the conversation: by an orchestrator, trusted as little."""
    if u.step == "idle" and s.human and s.ledger.state in UNSEEN:
        epoch = s.ledger.epoch + 1
        if not any(other.step == "taken back" and other.epoch == s.ledger.epoch for other in s.upkeeps):
            yield "take back", s._replace(ledger=s.ledger._replace(epoch=epoch)), Upkeep("taken back", epoch)


def hand_off(s: State, u: Upkeep, _: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """`settlement._SETTLE` by that orchestrator: also if the conversation was given back meanwhile."""
    if u.step != "taken back":
        return
    if s.ledger.epoch == u.epoch and s.ledger.state in UNSEEN:
        yield "hand off", s._replace(ledger=_ended(s.ledger, "handed_off", ())), Upkeep("tell", u.epoch)
    else:
        yield "hand off: not ours", s, Upkeep()


def start_sealing(s: State, u: Upkeep, b: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """`sweeps._TO_SEALING` (T14): the ledger's epoch first; another's sealing is taken over under the same epoch."""
    if u.step != "idle":
        return
    if s.ledger.state == "streaming" and b.mutant is Mutant.SEAL_BEFORE_LEDGER:
        yield from _seal(s, Upkeep("sealing", s.ledger.epoch + 1, s.ledger.kept), b)
    elif s.ledger.state == "streaming":
        moved = s.ledger._replace(state="sealing", epoch=s.ledger.epoch + 1)
        yield "start sealing", s._replace(ledger=moved), Upkeep("sealing", moved.epoch, s.ledger.kept)
    elif s.ledger.state == "sealing" and not any(other.step in ("sealing", "sealed") for other in s.upkeeps):
        yield "take sealing over", s, Upkeep("sealing", s.ledger.epoch, s.ledger.kept)
    elif s.ledger.state == "sealing" and s.faults:
        taken = Upkeep("sealing", s.ledger.epoch, s.ledger.kept)
        yield "take sealing over, overtaking", s._replace(faults=s.faults - 1), taken


def seal(s: State, u: Upkeep, b: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """`seal` in `frame_log.lua`: shuts the older epochs out and tells what was visible."""
    if u.step == "sealing":
        yield from _seal(s, u, b)


def _seal(s: State, u: Upkeep, b: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    log = s.log
    if log.epoch > u.epoch:
        yield "seal: stale", s, Upkeep()
        return
    # Only the fence of the owner that streamed, one epoch below, speaks for what it has shown.
    owners = (log.epoch > 0) if b.mutant is Mutant.TRUST_OLD_FENCE else log.epoch == u.epoch - 1
    found = (log.found or "missing") if log.epoch == u.epoch else "armed" if owners else "missing"
    sealed = log if b.mutant is Mutant.NO_SEAL else log._replace(epoch=u.epoch, found=found)
    known = u._replace(step="sealed", found=found, shown=log.frames[1:], finished=log.finished)
    yield f"seal: {found}", s._replace(log=sealed), known


def after_seal(s: State, u: Upkeep, b: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """`settlement._SETTLE` or `sweeps._SEALED_UNSEEN` (T15), by what the seal found."""
    if u.step != "sealed":
        return
    ledger = s.ledger
    if b.mutant is Mutant.SEAL_BEFORE_LEDGER and (ledger.state, ledger.epoch) == ("streaming", u.epoch - 1):
        ledger = ledger._replace(state="sealing", epoch=u.epoch)
    if (ledger.state, ledger.epoch) != ("sealing", u.epoch):
        yield "after the seal: not ours", s, Upkeep()
        return
    unseen = u.found == "armed" or (b.mutant is Mutant.MISSING_IS_UNSEEN and not u.kept)
    if not u.shown and unseen:
        kept = ledger.kept if b.mutant is Mutant.KEEP_CHECKPOINT else ()
        opened = ledger._replace(state="rescue", epoch=u.epoch + 1, kept=kept)
        yield "sealed unseen", s._replace(ledger=opened), Upkeep()
        return
    content = u.shown or u.kept
    state = "bounded" if not content else "answered" if u.shown and u.finished else "truncated"
    yield f"sealed {state}", s._replace(ledger=_ended(ledger, state, content)), Upkeep("tell", u.epoch)


def tell_for_the_dead(s: State, u: Upkeep, _: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """`finish` in `frame_log.lua` by upkeep."""
    if u.step == "tell":
        yield "finish for the dead", s._replace(log=_finish(s, u.epoch)), Upkeep()


def upkeep_dies(s: State, u: Upkeep, _: Bounds) -> Iterator[tuple[str, State, Upkeep]]:
    """The process starts anew and knows nothing."""
    if u.step != "idle" and s.faults:
        yield f"upkeep dies ({u.step})", s._replace(faults=s.faults - 1), Upkeep()


WORKER_RULES: Final[tuple[WorkerRule, ...]] = (
    claim,
    rescue,
    arm,
    model_fails_unseen,
    first_token,
    answer_silently,
    next_token,
    checkpoint,
    publish,
    mend,
    rewrite,
    model_ends,
    settle,
    tell_end,
    complete,
    worker_dies,
)
UPKEEP_RULES: Final[tuple[UpkeepRule, ...]] = (
    pass_deadlines,
    fence_hopeless,
    bound,
    take_back,
    hand_off,
    start_sealing,
    seal,
    after_seal,
    tell_for_the_dead,
    upkeep_dies,
)


# What happens to the rest.


def redis_forgets(s: State, b: Bounds) -> Iterator[Next]:
    """`FLUSHALL`: every fence and every log is gone."""
    if b.wipes and s.faults and s.log != Log():
        yield "Redis forgets", s._replace(log=Log(), faults=s.faults - 1, wiped=True)


def people(s: State, _: Bounds) -> Iterator[Next]:
    """`keepers._TAKE` and `keepers._GIVE_BACK`: one row changes, whatever else happens."""
    if s.takeovers and not s.human:
        yield "a person takes over", s._replace(human=True, takeovers=s.takeovers - 1)
    elif s.human:
        yield "the person gives back", s._replace(human=False)


def watch(s: State, b: Bounds) -> Iterator[Next]:
    """`Watcher._read_again`: the log first, then the ledger; a frame is told once and only in its turn."""
    if s.let_go:
        return
    if fresh := s.log.frames[1 + len(s.told) :]:
        yield "read the log", _told(s, fresh)
    ended = s.ledger.state in TERMINAL
    if ended or b.mutant is Mutant.TELL_CHECKPOINTS:
        frames = (*s.ledger.kept, f"={s.ledger.state}") if ended else s.ledger.kept
        if (fresh := frames[len(s.told) :]) or ended:
            yield "read the ledger", _told(s, fresh)._replace(let_go=ended)


def _told(s: State, fresh: tuple[str, ...]) -> State:
    told = (*s.told, *fresh)
    return s._replace(told=told, let_go=bool(told) and told[-1].startswith("="))


def _asked(s: State, ordinal: int) -> tuple[int, int]:
    primary, fallback = s.asked
    return (primary + 1, fallback) if ordinal == 1 else (primary, fallback + 1)


def _ended(ledger: Ledger, state: str, content: tuple[str, ...]) -> Ledger:
    return ledger._replace(state=state, kept=content, forced=ledger.forced or state == "truncated")


def _fenced(s: State, w: Worker) -> str:
    ours = s.ledger.epoch == w.epoch and s.ledger.state == "streaming"
    return OWNER_FENCED if ours else f"{w.step}: fenced"


def _waiting(w: Worker) -> bool:
    return bool(w.pending) or w.confirmed < len(w.taken) or (w.step == "draining" and w.ending == "answered")


def _take(w: Worker) -> Worker:
    return w._replace(taken=(*w.taken, w.pending), pending="") if w.pending else w


def _append(log: Log, w: Worker, b: Bounds) -> tuple[str, Log]:
    if not log.epoch:
        return "no fence", log
    newer = log.epoch != w.epoch if b.mutant is Mutant.TRUST_OLD_FENCE else log.epoch > w.epoch
    if newer and b.mutant is not Mutant.NO_APPEND_FENCE:
        return "fenced", log
    # The log counts `routed` too: a first frame beyond the next one would leave a hole.
    if log.epoch < w.epoch or 1 + w.confirmed > len(log.frames):
        return "no fence", log
    fresh = w.taken[len(log.frames) - 1 :]
    finished = log.finished or w.ending == "answered"
    return "ok", log._replace(frames=log.frames + fresh, finished=finished)


def _finish(s: State, epoch: int) -> Log:
    if s.log.epoch > epoch:
        return s.log
    frames = (ROUTED, *s.ledger.kept, f"={s.ledger.state}")
    return s.log._replace(epoch=epoch, frames=s.log.frames + frames[len(s.log.frames) :])


# The search.


def successors(s: State, b: Bounds) -> Iterator[Next]:
    """Yield every state that may follow, each with the name of its step."""
    yield from chain(redis_forgets(s, b), people(s, b), watch(s, b))
    for i, worker in enumerate(s.workers):
        if i and worker == s.workers[i - 1]:
            continue
        for rule in WORKER_RULES:
            for name, after, changed in rule(s, worker, b):
                yield name, after._replace(workers=_with(s.workers, i, changed))
    for i, upkeep in enumerate(s.upkeeps):
        if i and upkeep == s.upkeeps[i - 1]:
            continue
        for sweep in UPKEEP_RULES:
            for name, after, swept in sweep(s, upkeep, b):
                yield name, after._replace(upkeeps=_with(s.upkeeps, i, swept))


def _with(processes: tuple[Process, ...], i: int, changed: Process) -> tuple[Process, ...]:
    """Processes of a kind are interchangeable: in order, two states that differ in their names alone are one."""
    return tuple(sorted((*processes[:i], changed, *processes[i + 1 :])))


def violations(s: State) -> Iterator[str]:
    """Yield what must never be, of one state."""
    ended = s.ledger.state in TERMINAL
    shown = "".join(frame for frame in s.told if not frame.startswith("="))
    final = "".join(s.ledger.kept) if ended else ""
    if len({ordinal for ordinal, tokens in TOKENS.items() if set(tokens) & set(shown + final)}) > 1:
        yield TWO_ANSWERS
    if max(s.asked) > 1:
        yield ASKED_TWICE
    if s.ledger.unpaid and s.asked[1]:
        yield UNPAID_RESCUE
    if s.log.epoch > s.ledger.epoch:
        yield FENCE_AHEAD
    if not ended:
        return
    if (s.ledger.state == "truncated") != s.ledger.forced:
        yield NOT_FORCED
    told_end = bool(s.told) and s.told[-1].startswith("=")
    if told_end and s.told[-1] != f"={s.ledger.state}":
        yield WRONG_END
    # What Redis forgot nobody can know: then the author must be right, the length may not be.
    if not s.wiped and not final.startswith(shown):
        yield NO_PREFIX
    if not s.wiped and s.let_go and not told_end:
        yield END_UNTOLD


def broken_by(before: State, name: str, after: State) -> Iterator[str]:
    """Yield what no step may do."""
    if name == OWNER_FENCED:
        yield OWNER_SHUT_OUT
    if before.ledger.state in TERMINAL and before.ledger != after.ledger:
        yield END_CHANGED
    began = before.ledger.state in UNSEEN and after.ledger.state in ("streaming", "answered", "truncated", "bounded")
    if before.human and began:
        yield BEGUN_AFTER_TAKEOVER
    if after.ledger.epoch < before.ledger.epoch:
        yield EPOCH_FELL
    if after.told[: len(before.told)] != before.told:
        yield FRAME_TAKEN_BACK


class Trace(NamedTuple):
    """A violation and the shortest way to it."""

    violation: str
    steps: tuple[str, ...]


class Found(NamedTuple):
    """What a search has seen."""

    states: int
    steps: int
    endings: dict[str, int]
    """How often a turn ended how, its watcher told."""
    violation: Trace | None
    stuck: tuple[str, ...] | None
    """The way to a state from which no end can be reached."""


def search(b: Bounds) -> Found:
    """Visit every state within the bounds, nearest first; stop at the first violation sought."""
    # Millions of tuples without a cycle among them: looking for cycles would take half of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _search(b)
    finally:
        if collects:
            gc.enable()


def _search(b: Bounds) -> Found:
    start = State(
        Ledger(), Log(), (Worker(), Worker()), (Upkeep(),) * b.upkeeps, faults=b.faults, takeovers=b.takeovers
    )
    number, states = {start: 0}, [start]
    came_from: list[tuple[int, str]] = [(0, "")]
    leads_here: list[list[int]] = [[]]
    steps = 0
    queue = deque([0])
    while queue:
        here = queue.popleft()
        for name, after in successors(states[here], b):
            steps += 1
            there = number.get(after)
            if there is None:
                there = number[after] = len(states)
                states.append(after)
                came_from.append((here, name))
                leads_here.append([])
                queue.append(there)
            for violation in chain(violations(after), broken_by(states[here], name, after)):
                if b.seek not in ("", violation):
                    continue
                way = (*_way(came_from, here), name)
                return Found(len(states), steps, {}, Trace(violation, way), None)
            leads_here[there].append(here)
    goals = [i for i, s in enumerate(states) if s.ledger.state in TERMINAL and s.let_go]
    endings: dict[str, int] = {}
    for i in goals:
        endings[states[i].ledger.state] = endings.get(states[i].ledger.state, 0) + 1
    return Found(len(states), steps, endings, None, _stuck(goals, came_from, leads_here))


def _stuck(goals: list[int], came_from: list[tuple[int, str]], leads_here: list[list[int]]) -> tuple[str, ...] | None:
    """Return the way to a state that cannot reach any goal."""
    ends = bytearray(len(came_from))
    for i in goals:
        ends[i] = 1
    queue = deque(goals)
    while queue:
        for before in leads_here[queue.popleft()]:
            if not ends[before]:
                ends[before] = 1
                queue.append(before)
    lost = ends.find(0)
    return None if lost < 0 else _way(came_from, lost)


def _way(came_from: list[tuple[int, str]], to: int) -> tuple[str, ...]:
    names: list[str] = []
    while to:
        to, name = came_from[to]
        names.append(name)
    return tuple(reversed(names))
