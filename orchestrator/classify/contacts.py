"""How to reach somebody: e-mail and network addresses. Telephones are among the numbers."""

import ipaddress
import re

from orchestrator.classify.findings import FindingType
from orchestrator.classify.text import Rule, Text

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_MASKS_AND_LOOPBACK = ("127.", "0.", "255.")
_NETWORK_WORDS = re.compile(r"\b(?:ip(?:v4)?|addr(?:ess)?|host|server|client|gateway|dns|ping)\b")
_GOES_ON = re.compile(r"\.?[0-9]")
_VERSION_WORDS = re.compile(r"(?:\b(?:v|ver|version|release|section|sec|rfc)|\xa7)[ :=\"'.#\-]*$")


def _is_mailbox(value: str, text: Text, end: int) -> bool:
    # The address of a repository over SSH, `git@host:path`, is nobody's.
    return not value.lower().startswith("git@")


def _is_ipv4(value: str, text: Text, end: int) -> bool:
    before, after = text.before(end - len(value)), text.after(end, 2)
    if value.startswith(_MASKS_AND_LOOPBACK) or _VERSION_WORDS.search(before):
        return False
    if before[-1:] in tuple("0123456789.") or _GOES_ON.match(after):
        return False
    # Four small numbers more often count sections or versions.
    return any(len(octet) > 1 for octet in value.split(".")) or bool(_NETWORK_WORDS.search(before))


def _is_ipv6(value: str, text: Text, end: int) -> bool:
    try:
        address = ipaddress.IPv6Address(value)
    except ValueError:
        return False
    # `a::b` is an address by its form, but far more often a name in a program.
    digits = sum(c.isdigit() for c in value)
    return not address.is_loopback and digits >= 2 and len(value) >= 6


RULES = (
    Rule(
        FindingType.EMAIL,
        r"[A-Za-z0-9_][A-Za-z0-9._%+\-']{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,62})\.){1,5}"
        r"[A-Za-z]{2,24}",
        _is_mailbox,
        hint=r"[A-Za-z0-9_]@[A-Za-z0-9]",
    ),
    Rule(
        FindingType.EMAIL,
        r"(?i:[a-z0-9][a-z0-9._+\-]{0,63}[ ]?(?:\[at\]|\(at\)|\{at\})[ ]?[a-z0-9\-]{1,63}"
        r"(?:[ ]?(?:\[dot\]|\(dot\)|\{dot\}|\.)[ ]?[a-z0-9\-]{2,63}){1,4})",
        hint=r"(?i:[\[({]at[\])}])",
    ),
    Rule(
        FindingType.IP_ADDRESS,
        rf"{_OCTET}(?:\.{_OCTET}){{3}}",
        _is_ipv4,
        hint=r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
    ),
    Rule(
        FindingType.IP_ADDRESS,
        r"(?:^|[^0-9A-Za-z:.])((?:[0-9A-Fa-f]{1,4}:){2,7}[0-9A-Fa-f]{1,4}"
        r"|(?:[0-9A-Fa-f]{1,4}:){1,7}:(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6})?)"
        r"(?:$|[^0-9A-Za-z:])",
        _is_ipv6,
        hint=r"[0-9A-Fa-f]:[0-9A-Fa-f]{0,4}:",
    ),
)
