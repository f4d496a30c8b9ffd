"""Model servers to try and test against: byte for byte like the real ones, on loopback, failing on demand.

In the order of a request:

- `process.py`: builds the application and runs it until it is told to stop
- `control.py`: which fault the next requests meet, and the routes that set it and read the log
- `tgi.py`: Text Generation Inference 3.3, native and chat routes
- `tgi_bodies.py`: what TGI's routes read, and what the router refuses
- `tgi_wires.py`: how TGI writes answers and errors
- `openai.py`: chat completions, embeddings and images as OpenAI and vLLM speak them
- `openai_wire.py`: how OpenAI and vLLM write answers and errors
- `jsontext.py`: JSON as the servers write it
- `prompts.py`: what a request asks, whichever route it took
- `dialogues.py`: the sample dialogues, and which reply suits a question
- `routing.py`: how the frontier decides who answers, by the words of `routing.yaml`
- `shapes.py`: a JSON value for a JSON schema, filled from a reply
- `answers.py`: the tokens a request is answered with
- `misbehaviour.py`: how a model goes wrong while its server is well
- `serving.py`: carries one answer from headers to its ending, faults included
- `pacing.py`: one timer that sends the tokens of every stream when they are due
- `journal.py`: who called, how far the answer came, how it ended
- `embeddings.py`: small vectors in which similar texts are near
- `images.py`: small PNGs, or their address for who asks for that
- `testing.py`: a simulator inside the test's own event loop
"""
