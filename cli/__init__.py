"""The command line: `fairlead`. One module composes each command; `main` lists them.

Commands:

- `main`: the commands
- `demo`: a visible conversation, from nothing
- `demo_replay`: its second act: a dead letter and its replay
- `up`: the whole system on this machine
- `chat`: talking to a running system
- `explain`: the whole story of a turn
- `conversations`: taken over by people, written in, given back
- `route`: who would answer a message, without answering it
- `breakers`: lanes that skip their primary, seen and set by hand
- `policy`: what is in force, with the versions of the wording behind it
- `dlq`: dead letters, seen, discarded, exported
- `kb`: knowledge bases: what is in them, what they say to a message
- `kb_add`: documents read into them
- `kb_answers`: answers that somebody writes or corrects
- `replay`: dead letters answered anew: dry run, yes, job, progress
- `replay_jobs`: replay jobs, watched and steered
- `audit`: what operators did
- `drill`: a model taken away under traffic
- `drill_report`: what visitors would have noticed of it
- `doctor`: what is missing or unreachable, and how to mend it
- `access`: tenants, API keys and site keys
- `serve`: one process of a distributed installation
- `contracts`: JSON Schemas, AsyncAPI and OpenAPI documents

A system on this machine:

- `system`: starts what is not given, migrates, waits until all is ready, ends all
- `processes`: what runs, with which environment, and how each is known to be ready
- `supervisor`: child processes, their logs and their end
- `state`: the state directory: one user at a time, its secrets, its log
- `samples`: the sample knowledge base
- `local_keys`: the tenant `demo` and the keys to it
- `endpoints`: where a running system can be reached

Talking to a system:

- `conversation`: messages and frames over a WebSocket that may break
- `screen`: a turn as it happens
- `terminal`: HTML as harmless text for a terminal
- `turns`: how a turn stands
- `operators`: what an operator asks of a gateway, and what a refusal means
- `operator_options`: options that operators' commands share
- `letters`: dead letters as the gateway tells them, and as lines
- `replays`: plans, jobs and items as the gateway tells them, and as lines
- `kb_documents`: a knowledge base's documents as the gateway tells them, and as lines
- `kb_search`: messages looked up as the researcher does it
- `traffic`: a drill's conversations, as visitors would have them
- `story`: everything the gateway tells of a turn
- `sentence`: one sentence that sums a turn up
- `simulated`: what the simulated models shall do, and were asked
- `http`: small requests with JSON in and out

And:

- `checks`: looking at what an installation stands on
- `findings`: what was found, for people and programs
- `tables`: rows of text in columns
- `asyncapi`: the topics as a document
- `failure`: errors that a command ends with
"""
