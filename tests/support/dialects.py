"""Where the simulator speaks each dialect: what a configuration of a provider there needs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spoken:
    """One dialect: its base path at the simulator, the header that takes the key, if it is not
    `authorization`, and a model's name there, to put the honest name into."""

    base: str
    key_header: str = ""
    model: str = "{}"

    def provider(self, name: str, dialect: str, url: str, key: str = "env:TEST_KEY") -> str:
        """The line of a configuration for a provider at the simulator of this URL."""
        auth = f", auth: {{header: {self.key_header}}}" if self.key_header else ""
        return (
            f"  {name}: {{dialect: {dialect}, base_url: '{url}{self.base}', "
            f"api_key: '{key}'{auth}}}"
        )


SPOKEN = {
    "openai": Spoken("/openai/v1"),
    "anthropic": Spoken("/anthropic", "x-api-key"),
    "gemini": Spoken("/gemini/v1beta", "x-goog-api-key"),
    "bedrock": Spoken("/bedrock"),
    "cohere": Spoken("/cohere"),
    "replicate": Spoken("/replicate/v1", model="sim/{}"),
}
