"""What a person sees when the router is ready: where it is, and a call to paste."""

import json
import shlex

from trunkline_server.app.sources import Origin
from trunkline_server.settings import Settings

_FROM = {
    Origin.FILE: "its configuration file",
    Origin.ENVIRONMENT: "the provider keys in the environment",
    Origin.SIMULATOR: "simulated providers, since no provider key is in the environment",
}


def banner(  # noqa: PLR0917 - What there is to say, in the order in which it is said.
    settings: Settings,
    origin: Origin,
    address: str,
    ops: str | None,
    openai: str,
    control: str,
    model: str,
) -> str:
    """The text. `openai` and `control` are where the OpenAI-compatible face and the control plane
    are served, empty if nowhere; `model` is a public model to try, empty if there is none."""
    plain = settings.server.tls is None
    lines = [f"Trunkline serves on {address}, with {_FROM[origin]}."]
    if ops is not None:
        lines.append(f"Metrics and readiness: http://{ops}/metrics, http://{ops}/readyz")
    if openai:
        scheme = "http" if plain else "https"
        lines.append(f"OpenAI-compatible: {scheme}://{openai}/v1")
    if control:
        lines.append(f"Control plane: {control}")
    known_callers = settings.keys or settings.issuers or settings.certificates
    if not known_callers and plain and model:
        body = {
            "model": model,
            "messages": [{"role": "ROLE_USER", "parts": [{"text": "Why is the sky blue?"}]}],
        }
        target = "" if address == "127.0.0.1:50051" else f" --target {address}"
        lines += [
            "",
            "Try it:",
            f'  .venv/bin/trunkline call{target} --model {model} "Why is the sky blue?"',
            f"  grpcurl -plaintext -d {shlex.quote(json.dumps(body))} \\",
            f"    {address} trunkline.v1.InferenceService/Generate",
        ]
    return "\n".join(lines)
