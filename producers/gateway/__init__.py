"""The visitor's way in and out: HTTP, server-sent events, WebSocket, the OpenAI-compatible API.

In the order a request meets them:

- `process`: composes the parts from the settings and serves them until told to stop
- `parts`: what the routes share
- `app`: the routes and what surrounds them
- `limits`: how large and how slow a request may be
- `strict_json`: bodies read strictly
- `problems`: errors as RFC 9457 problem details, or in OpenAI's shape
- `documents`: the OpenAPI document, with every error in it
- `auth`: who asks, and what they may do
- `tokens`: tokens for visitors, signed and read
- `widget_tokens`: short-lived tokens for visitors of a web page
- `turns`: submitting a turn and asking how it stands
- `briefs`: what the orchestrator found out, as operators may see it
- `conversations`: the transcript
- `assets`: what answers link to
- `takeovers`: people who take conversations over, write in them, give them back
- `watch`: the frames of a turn, every one once, in order, whatever breaks meanwhile
- `streams`: frames as server-sent events
- `websocket`: frames of a conversation over one socket
- `socket_messages`: what a client may send over that socket
- `openai_api`: chat completions for any OpenAI client
- `openai_messages`: their shapes
- `breakers`: lanes that skip their primary, seen and set by operators
- `operators`: what the routes of operators share
- `dead_letters`: what left its lane, listed, shown, discarded
- `replay_jobs`: letting it be answered anew, and what came of it
- `knowledge`: what is in the knowledge base, and answers that somebody writes or corrects
- `audit`: who did what
- `health`: alive, ready, and the numbers
"""
