"""The numbers only a gateway has. Turns accepted and refused are counted at admission."""

from prometheus_client import Counter, Gauge

# Open streams, by door. The load of a gateway; falls to 0 while it drains.
WATCHERS = Gauge("fairlead_gateway_watchers", "Streams being watched", ["door"])

# Frames written to watchers.
FRAMES_SENT = Counter("fairlead_gateway_frames_sent_total", "Frames sent to watchers", ["door"])

# Watchers that came back with a position. A burst means connections break: look at proxies and restarts.
RESUMES = Counter("fairlead_gateway_resumes_total", "Streams resumed from a frame", ["door"])

# Why a watcher had to read again instead of following live: `gap`, `lagging` and `resynced` mean lost messages.
REREADS = Counter("fairlead_gateway_rereads_total", "Times a watcher read log and ledger again", ["why"])

# Watchers cut because they did not read.
CUT_WATCHERS = Counter("fairlead_gateway_cut_watchers_total", "Watchers cut because they did not read", ["door"])
