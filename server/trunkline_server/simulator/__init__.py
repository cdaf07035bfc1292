"""HTTP servers that speak the providers' dialects, for demos, tests and load.

    python -m trunkline_server.simulator --listen 127.0.0.1:18080

| base URL | dialect | key |
| --- | --- | --- |
| `/openai/v1` | chat, responses, vectors, images, audio, rerank, models | `Authorization: Bearer` |
| `/anthropic` | `v1/messages`, its `count_tokens`, models | `x-api-key`, or as a bearer |
| `/replicate/v1` | predictions, which go on until they are cancelled | `Authorization: Bearer` |
| `/gemini/v1beta`, `/gemini/v1` | content, images, speech, vectors, models | `x-goog-api-key` |
| `/azure/openai` | Azure OpenAI: deployments and `v1`, and its filter | `api-key`, or a bearer |
| `/vertex/v1` | publishers google and anthropic, below a project | `Authorization: Bearer` |
| `/bedrock` | Converse, ConverseStream, InvokeModel of vectors | SigV4, or a bearer |
| `/cohere` | `v2/chat`, `v2/embed`, `v2/rerank`, `v1/models` | `Authorization: Bearer` |

Any key is good but "invalid"; SigV4's secret is "simulated-secret", and a session token is good
but "expired". Answers say that they are simulated and repeat what they were
asked; the model that answers is always named `sim-…`. "call NAME" or "call A and B" in the
last user text gives calls of those tools, with arguments that satisfy their schemas.

`GET /sim/calls` tells what has been called and how many callers went away before their answer
had ended; `POST /sim/reset` forgets all of it.

## Scripts

A call may carry settings, `key=value` joined by `;` or `&`: behind a question mark in its
model's name (`sim-large?latency_ms=50`, percent-encoded where the model stands in a path), in
the URL's query, or in the header `x-sim-script`. The later of these wins.

| key | meaning | when not set |
| --- | --- | --- |
| `latency_ms` | time before the answer, failed or not | 0 |
| `chunk_ms` | time after each piece of a stream | 0 |
| `tokens` | length of the answer's text | as it comes |
| `chunk_tokens` | tokens in a piece of a stream | 4 |
| `status` | fail with this HTTP status, 400 to 599, in the vendor's shape | no failure |
| `error` | fail in the vendor's own way, see below | no failure |
| `fault` | break the answer, see below | no failure |
| `at_chunk` | how many pieces come before a fault in the midst of a stream | 3 |
| `retry_after` | seconds that a failure asks the caller to wait | none |
| `fail_first` | only so many calls with this script fail (with 500 if none is set) | all do |
| `error_rate` | only this share of the calls fail, by a random draw | all do |
| `seed` | of that draw | 0 |
| `rpm` | requests per minute that the key may make | no limit |
| `redacted` | 1 gives reasoning in encrypted form, where the vendor has one | 0 |

An `error` is one of `authentication`, `context`, `filter`, `model`, `overloaded`,
`permission`, `quota` and `timeout`; a `fault` is one of those that the models from `sim-filter`
on are named after. An answer that is not streamed counts as two pieces, its halves.

## Models that fail

| model | what happens |
| --- | --- |
| `sim-error-400` to `sim-error-599` | the failure with that HTTP status |
| `sim-error-quota` | the account's money or quota is used up |
| `sim-error-context` | the prompt is too long |
| `sim-error-filter` | the prompt is refused by a filter |
| `sim-error-model` | the model does not exist |
| `sim-error-overloaded` | the vendor is overloaded, by its own status |
| `sim-slow` | a second before the answer, a tenth of one between pieces |
| `sim-flaky` | half of the calls fail with 503 |
| `sim-filter` | the answer is cut short by a filter |
| `sim-hang` | nothing is ever sent |
| `sim-reset` | the connection is reset before anything is sent |
| `sim-close` | the connection is closed before anything is sent |
| `sim-not-http` | bytes that are not HTTP |
| `sim-garbage` | status 200 and a body that is not JSON |
| `sim-empty` | status 200 and an empty body |
| `sim-html` | status 502 and a proxy's HTML page |
| `sim-hang-midstream` | a part of the answer, then silence |
| `sim-reset-midstream` | a part of the answer, then a reset |
| `sim-close-midstream` | a part of the answer, then a close that breaks the HTTP body |
| `sim-end-midstream` | a part of the answer, then an HTTP end in good order |
| `sim-garbage-midstream` | a part of the answer, then data that is not JSON |
| `sim-error-midstream` | a part of the answer, then the vendor's error event |

`sim-large`, `sim-small` (no pictures, smaller limits), `sim-embed` (vectors only), `sim-image`,
`sim-transcribe`, `sim-speech` and `sim-rerank` (that alone) have limits of their own; any other
name can do everything, and is answered as `sim-` and the name.
"""
