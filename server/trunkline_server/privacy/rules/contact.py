"""How people are reached: mail addresses and telephone numbers."""

import re

from trunkline_server.privacy.rule import Lead, Rule, Words, always, told_after

# RFC 5321, 4.5.3.1: at most 64 characters before the sign and labels of at most 63. Of RFC
# 5322's atoms those signs are left out that code and prose are full of.
EMAIL = Rule(
    "EMAIL_ADDRESS",
    Lead.AT,
    60,
    re.compile(
        r"[A-Za-z0-9_+-]++(?:\.[A-Za-z0-9_+-]++)*+@"
        r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}(?:[A-Za-z]{2,24}|xn--[a-z0-9]{2,59})"
        r"(?![A-Za-z0-9_@-])"
    ),
    # The user of an SSH remote is nobody's address.
    lambda match: not match[0].startswith("git@"),
)

_PHONE_WORDS = Words(
    r"phone(?!_number)|\btel\b|telefon|téléphone|teléfono|mobil|\bcell\b|cellular|handy|\bfax\b|"
    r"\bcall(?:ed|ing)?\b|\bdial\b|\bdesk:|\boffice:|\bsms\b|whatsapp|hotline|helpline|"
    r"\btext me|messages? (?:to|on|at)\b|answering at|reach (?:me|us|him|her|them)|\bring\b",
    (
        *("phone", "tel", "tél", "mobil", "cell", "handy", "fax", "call", "dial", "desk:"),
        *("office:", "sms", "whatsapp", "line", "text me", "message", "answer", "reach", "ring"),
    ),
)
_PHONE_KINDS = re.compile(r"[ \t,\\-]{1,3}(?:office|fax|mobile|desk|home|cell)\b", re.IGNORECASE)

# North American Numbering Plan: area code and exchange begin with 2 to 9.
_NANP = re.compile(
    r"(?:(?:\+?1|001)[ .-]?)?(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?!\d)"
)
# With the trunk prefix 0, as most of Europe, Africa and Oceania write: several groups, of two
# digits each where dots divide them.
_TRUNK = re.compile(r"\(?0[1-9]\d{0,4}\)?(?:[ /-]\d{2,8}){1,4}(?!\d)|0[1-9](?:\.\d{2}){4}(?!\d)")
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{2,4}|\d{4}([./-])\d{1,2}\2\d{1,2}")
_EXTENSION = re.compile(r"[ ]?(?:x|ext\.?)[ ]?\d{1,6}\Z")


def _is_phone(match: re.Match[str]) -> bool:
    """ITU-T E.164: at most 15 digits, country code included, written with a leading plus."""
    text = _EXTENSION.sub("", match[0])
    digits = sum(map(str.isdigit, text))
    if not 7 <= digits <= 15:
        return False
    if text.startswith(("+", "(+")):
        return digits >= 8 and text.lstrip("(+")[0] != "0"
    if _NANP.match(text) or (10 <= digits <= 11 and _TRUNK.match(text)):
        return True
    if _DATE.fullmatch(text):
        return False
    return _PHONE_WORDS.before(match) or told_after(match, _PHONE_KINDS)


PHONE = Rule(
    "PHONE_NUMBER",
    Lead.NUMBER,
    40,
    re.compile(
        r"(?:\+|\(\+?)?\d++"
        r"(?:(?:[ ]?\(\d{1,5}\)[ -]?|\)[ ./-]?|[ ./-])\d++){0,8}+"
        r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?(?![A-Za-z0-9_])"
    ),
    _is_phone,
)

# A number right before other numbers, which the pattern above takes for one that is too long:
# as few digits as make a number, up to where a group ends.
CROWDED_PHONE = Rule(
    "PHONE_NUMBER",
    Lead.NUMBER,
    39,
    re.compile(
        r"(?:\(?\+[1-9](?:[ ./()-]{0,2}\d){9,14}?"
        r"|(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4})(?![A-Za-z0-9_])"
    ),
    always,
)
