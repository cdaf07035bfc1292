"""What single hosts of the OpenAI dialect want otherwise in a conversation, by their flags."""

import re
from hashlib import blake2b
from string import ascii_letters, digits
from typing import Any

from trunkline_server.errors import invalid

Json = dict[str, Any]

_ALPHABET = digits + ascii_letters
_NINE = re.compile(r"[a-zA-Z0-9]{9}")


def nine_characters(call_id: str) -> str:
    """The id of a tool call as Mistral takes it: exactly nine of a-z, A-Z and 0-9.

    Such an id stays as it is, so that Mistral's own come back unchanged. Any other becomes one
    that depends on it alone, so that a call and its result agree whoever made the id: two ids
    meet in the same one with a chance of 1 in 13,537,086,546,263,552.
    """
    if _NINE.fullmatch(call_id):
        return call_id
    number = int.from_bytes(blake2b(call_id.encode(), digest_size=16).digest())
    made = ""
    for _ in range(9):
        number, place = divmod(number, len(_ALPHABET))
        made += _ALPHABET[place]
    return made


def alternating(messages: list[Json]) -> list[Json]:
    """The messages as Perplexity takes them: what the system says in one message, first; then
    user and assistant by turns. Messages of one role that follow each other are joined.

    Raises INVALID_REQUEST where the model would have to speak first.
    """
    system = [message for message in messages if message["role"] == "system"]
    turns: list[Json] = []
    for message in messages:
        if message["role"] == "system":
            continue
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = _joined([turns[-1], message])
        else:
            turns.append(message)
    if turns and turns[0]["role"] == "assistant":
        raise invalid("messages", "this provider wants the user's turn before the assistant's")
    return [_joined(system), *turns] if system else turns


def _joined(messages: list[Json]) -> Json:
    """One message of the first one's role with the contents of all."""
    if len(messages) == 1:
        return messages[0]
    contents = [message["content"] or "" for message in messages]
    if all(isinstance(content, str) for content in contents):
        return {**messages[0], "content": "\n\n".join(filter(None, contents))}
    pieces: list[Json] = []
    for content in contents:
        if not isinstance(content, str):
            pieces += content
        elif content:
            pieces.append({"type": "text", "text": content})
    return {**messages[0], "content": pieces}
