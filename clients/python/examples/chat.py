"""Holds a conversation on the terminal, streaming each answer; Ctrl-D ends it.

usage: python chat.py [MODEL]

TRUNKLINE_TARGET names the router (127.0.0.1:50051 if unset), TRUNKLINE_API_KEY the key.
"""

import sys

from trunkline import Client, TrunklineError, v1


def turn(client: Client, model: str, history: list[v1.Message]) -> v1.Message:
    """Prints the next answer as it is written and returns it for the history."""
    with client.stream(v1.GenerateRequest(model=model, messages=history)) as stream:
        for piece in stream.text():
            print(piece, end="", flush=True)
        print()
        return stream.message()


def main() -> int:
    model = sys.argv[1] if len(sys.argv) > 1 else ""
    history: list[v1.Message] = []
    with Client.from_environment() as client:
        while True:
            try:
                prompt = input("> ")
            except EOFError:
                return 0
            history.append(v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=prompt)]))
            try:
                history.append(turn(client, model, history))
            except TrunklineError as error:
                history.pop()  # The question stays unanswered; the next turn starts clean.
                print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
