"""Keys and tokens: by the beginnings that issuers give them, and by how random they are.

The beginnings are those that issuers document and that public secret scanners know. Random
characters of 62 or more kinds have more than 4 bits each over 30 characters; placeholders such
as sk-xxxxxxxx0 are below the floor here.
"""

import re

from trunkline_server.privacy.checks import entropy
from trunkline_server.privacy.rule import Lead, Rule, always

_KIND = "API_KEY"
_WEIGHT = 85
_LEAST_ENTROPY = 3.0


def _is_random(text: str) -> bool:
    """Words with hyphens come to about 3.7 bits; but they seldom have several digits."""
    bits = entropy(text)
    return bits >= 4.2 or (bits >= _LEAST_ENTROPY and len(set(filter(str.isdigit, text))) > 1)


_SHAPES = (
    r"sk-[\w-]{20,}+",  # OpenAI, Anthropic, OpenRouter, DeepSeek and others
    r"gsk_\w{40,}+",  # Groq
    r"xai-\w{40,}+",  # xAI
    r"AIza[\w-]{35}",  # Google
    r"hf_[A-Za-z0-9]{30,}+",  # Hugging Face
    r"r8_[A-Za-z0-9]{37,}+",  # Replicate
    r"pplx-[A-Za-z0-9]{40,}+",  # Perplexity
    r"gh[pousr]_[A-Za-z0-9]{36,}+",  # GitHub
    r"github_pat_\w{60,}+",
    r"glpat-[\w-]{20,}+",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{20,}+",  # Slack
    r"xapp-[A-Za-z0-9-]{20,}+",
    r"[sr]k_(?:live|test)_[A-Za-z0-9]{20,}+",  # Stripe
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[\w-]{50,}+",
    r"dop_v1_[a-f0-9]{64}",  # DigitalOcean
    r"tk_[0-9a-f]{8}_[\w-]{40,}+",  # Trunkline
    # RFC 7519: the beginnings of two JSON objects in base64.
    r"eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]{16,}+",
)

API_KEY = Rule(
    _KIND,
    Lead.RUN,
    _WEIGHT,
    re.compile(rf"(?:{'|'.join(_SHAPES)})(?![\w-])", re.ASCII),
    lambda match: _is_random(match[0]),
)

# AWS: access key ids, in base32, which may lack digits.
AWS_KEY = Rule(
    _KIND,
    Lead.SEARCH,
    _WEIGHT,
    re.compile(r"A(?:KI|SI)A(?<![\w-]....)[A-Z2-7]{16}(?!\w)", re.ASCII),
    lambda match: entropy(match[0]) >= 2.5,
    ("akia", "asia"),
)

# SendGrid and HashiCorp Vault put a dot after their beginnings. The look behind keeps one run
# of characters from being tried twice.
DOTTED_KEY = Rule(
    _KIND,
    Lead.SEARCH,
    _WEIGHT,
    re.compile(
        r"(?:SG\.(?<![\w-]...)[\w-]{20,24}\.[\w-]{40,50}|hvs\.(?<![\w-]....)[\w-]{24,}+)(?![\w-])",
        re.ASCII,
    ),
    lambda match: entropy(match[0]) >= _LEAST_ENTROPY,
    ("sg.", "hvs."),
)

# RFC 7468.
PRIVATE_KEY = Rule(
    _KIND,
    Lead.SEARCH,
    _WEIGHT + 1,
    re.compile(
        r"-----BEGIN (?:[A-Z]{2,12} ){0,2}PRIVATE KEY-----"
        r"(?:[\w+/=\s:,]|-(?!----)){40,10000}+"
        r"-----END (?:[A-Z]{2,12} ){0,2}PRIVATE KEY-----",
        re.ASCII,
    ),
    always,
    ("private key-----",),
)

# RFC 6750, 2.1.
BEARER_TOKEN = Rule(
    _KIND,
    Lead.SEARCH,
    _WEIGHT - 1,
    re.compile(r"[Bb](?i:earer)(?<!\w......) {1,4}(?P<value>[\w.~+/-]{16,}+=*+)", re.ASCII),
    lambda match: entropy(match["value"]) >= 3.5,
    ("bearer ",),
)

# RFC 3986, 3.2.1: the user and the password, without the rest of the URL.
URL_CREDENTIALS = Rule(
    "URL_CREDENTIALS",
    Lead.SEARCH,
    90,
    re.compile(r"://(?P<value>[^\s/?#@:\[\]\"'<>]{0,128}:[^\s/?#@\"'<>]{1,256})@"),
    always,
    ("://",),
)

KEYS = (API_KEY, AWS_KEY, DOTTED_KEY, PRIVATE_KEY, BEARER_TOKEN, URL_CREDENTIALS)
