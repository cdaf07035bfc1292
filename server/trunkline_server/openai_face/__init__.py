"""The OpenAI-compatible face: /v1/chat/completions, /v1/embeddings and /v1/models over HTTP.

It translates OpenAI's JSON to the contract's requests and hands them to the same methods that
gRPC serves, so that callers, permissions, limits, budgets, ledger and routing are the same.
"""
