"""Keys, tokens and passwords."""

import math
import re
from collections import Counter

from orchestrator.classify.findings import FindingType
from orchestrator.classify.text import Rule, Text

_EDGE = r"(?:^|[^0-9A-Za-z])"

_CLOUD_KEYS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b",  # AWS
    r"AIza[0-9A-Za-z_\-]{35}",  # Google
    r"GOCSPX-[0-9A-Za-z_\-]{20,40}",
    r"ya29\.[0-9A-Za-z_\-]{20,200}",
    r"LTAI[0-9A-Za-z]{12,24}\b",  # Alibaba
    r"do[oprt]_v1_[0-9a-f]{64}",  # DigitalOcean
    r"(?i:AccountKey|SharedAccessKey|SharedSecret)=[0-9A-Za-z+/]{40,90}={0,2}",  # Azure
    r"(?i:[?&]sig)=[0-9A-Za-z%+/]{40,100}",
)
_ACCESS_TOKENS = (
    r"gh[opusr]_[0-9A-Za-z]{30,255}",  # GitHub
    r"github_pat_[0-9A-Za-z_]{22,255}",
    r"gl(?:pat|dt|ptt|soat|rt|cbt|ft|imt|agent)-[0-9A-Za-z_\-]{20,60}",  # GitLab
    r"xox[abceprs]-[0-9A-Za-z\-]{10,250}",  # Slack
    r"xapp-[0-9]-[0-9A-Za-z\-]{20,250}",
    r"hooks\.slack\.com/(?:services|workflows)/[0-9A-Za-z+/]{20,90}",
    r"(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{10,100}",  # Stripe
    r"whsec_[0-9A-Za-z+/]{24,100}",
    r"sk-(?:[a-z]{2,10}-)?(?:[a-z]{2,6}[0-9]{2}-)?[0-9A-Za-z_\-]{20,200}",  # OpenAI, Anthropic
    r"hf_[0-9A-Za-z]{30,60}",  # Hugging Face
    r"gsk_[0-9A-Za-z]{40,60}",
    r"pypi-[0-9A-Za-z_\-]{50,250}",
    r"npm_[0-9A-Za-z]{36}",
    r"SG\.[0-9A-Za-z_\-]{16,32}\.[0-9A-Za-z_\-]{30,64}",  # SendGrid
    r"(?:AC|SK)[0-9a-f]{32}\b",  # Twilio
    r"[0-9]{8,10}:AA[0-9A-Za-z_\-]{33}",  # Telegram
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # Shopify
    r"dapi[0-9a-f]{32}",  # Databricks
    r"hv[bs]\.[0-9A-Za-z_\-]{20,200}",  # Vault
    r"gl(?:sa|c)_[0-9A-Za-z_=+/]{32,120}",  # Grafana
    r"lin_api_[0-9A-Za-z]{30,60}",
    r"dp\.(?:pt|st|ct)\.[0-9A-Za-z.]{30,80}",
    r"sq0(?:atp|csp|idp)-[0-9A-Za-z_\-]{20,60}",  # Square
    r"EAA[0-9A-Za-z]{60,250}",  # Facebook
    r"key-[0-9a-f]{32}\b",  # Mailgun
    r"[0-9a-f]{32}-us[0-9]{1,2}\b",  # Mailchimp
    r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",  # Postman
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
)

_KEY_NAME = (
    r"(?:api|access|secret|private|auth|signing|encryption|account|client|consumer|master|session"
    r"|app|application|service|webhook|bearer|refresh)[ _\-.]?(?:key|token|secret|id[ _\-]?token)"
    r"|apikey|secret|token|authorization|credentials?"
)
_ASSIGN = r"""["'`\]\)]{0,2}[ \t]{0,3}(?::=|=>|->|[:=]|\bis\b)[ \t]{0,3}"""
_QUOTE = r"""["'`]{0,3}"""


def _is_random(value: str, text: Text, end: int) -> bool:
    """Whether a value is a key rather than a word, a name or a path."""
    turns = len(_TURN.findall(value))
    bits = _entropy_bits(value)
    return (turns >= 3 and bits >= 3.0) or (turns >= 2 and bits >= 3.5 and len(value) >= 20)


_TURN = re.compile(r"[0-9](?=[A-Za-z])|[A-Za-z](?=[0-9])")
"""Where letters and digits meet: often in a key, seldom in a name."""


def _is_drawn(value: str, text: Text, end: int) -> bool:
    """Whether the end of a token is no placeholder like `xxxx`."""
    return len(set(value[-16:])) > 4


def _entropy_bits(value: str) -> float:
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts)


_PLACEHOLDER = re.compile(
    r"(?:x+|\*+|\.+|-+|_+|none|null|nil|true|false|undefined|string|str|text|password|passwd|secret"
    r"|required|optional|hidden|redacted|changeme|example|your.*|my.?password|<.*|\$\{.*|\{.*"
    r"|\[.*|%.*%)\W*",
    re.IGNORECASE,
)
_CODE = re.compile(r"[()\[\]{}<>]|[a-z_]\.[a-z_]|->|==|&&|::|^(?:env|get|config)", re.IGNORECASE)
_QUOTES = ("'", '"', "`")


def _is_password(value: str, text: Text, end: int) -> bool:
    """After `password:` anything but a placeholder or code."""
    if _PLACEHOLDER.fullmatch(value):
        return False
    is_quoted = text.before(end - len(value), 1) in _QUOTES
    return is_quoted or (not _CODE.search(value) and not value.isalpha())


def _is_said_password(value: str, text: Text, end: int) -> bool:
    """After `password is` or a bare `password` only what is no word of a sentence."""
    value = value.rstrip(".?!")
    return len(value) >= 6 and not _PLACEHOLDER.fullmatch(value) and _is_mixed(value)


def _is_mixed(value: str) -> bool:
    signs = re.search(r"[0-9]", value), re.search(r"[A-Za-z]", value), re.search(r"[^\w']", value)
    return sum(map(bool, signs)) >= 2


_PASSWORD = r"(?i:pass(?:word|wd|phrase|code)|pwd|passw)s?"  # noqa: S105
_SAYS_PASSWORD = r"(?i:passw|passphrase|passcode|pwd)"  # noqa: S105
_VALUE = r"""([^\s"'`,;\x00]{4,64})"""
_SAID = (
    rf"""{_PASSWORD}(?i:[ \t]+(?:was|is|is set to|set to|reset to|to|being|of|:))?[ \t]*"""
    rf"""["'`( ]{{1,3}}{_VALUE}"""
)

RULES = (
    Rule(
        FindingType.PRIVATE_KEY,
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-[23]:",
        hint=r"PRIVATE KEY|PuTTY-User-Key",
    ),
    Rule(
        FindingType.CLOUD_KEY,
        rf"{_EDGE}({'|'.join(_CLOUD_KEYS)})",
        hint=r"A[KSBC][IC]A[0-9A-Z]|AIza|GOCSPX-|ya29\.|LTAI|_v1_|(?i:accountkey|sharedaccess"
        r"|sharedsecret|[?&]sig=)",
    ),
    Rule(
        FindingType.CLOUD_KEY,
        r"(?i:aws|amazon)[^\x00\n]{0,30}?(?i:key|secret|token)[^\x00\n]{0,20}?"
        r"(?:^|[^0-9A-Za-z/+])([0-9A-Za-z/+]{40})(?:$|[^0-9A-Za-z/+=])",
        _is_random,
        hint=r"(?i:aws|amazon)",
    ),
    Rule(
        FindingType.ACCESS_TOKEN,
        rf"{_EDGE}({'|'.join(_ACCESS_TOKENS)})",
        _is_drawn,
        hint=r"gh[opusr]_|github_pat|gl[a-z]{1,5}-|xox[abceprs]-|xapp-|hooks\.slack|_live_|_test_"
        r"|whsec_|sk-|hf_|gsk_|pypi-|npm_|SG\.|[CK][0-9a-f]{32}|:AA|shp[acps]|dapi[0-9a-f]|hv[bs]\."
        r"|gl(?:sa|c)_|lin_api|dp\.|sq0|EAA|key-[0-9a-f]|-us[0-9]|PMAK|AGE-SECRET",
    ),
    Rule(
        FindingType.JWT,
        rf"{_EDGE}(eyJ[0-9A-Za-z_\-]{{10,}}\.[0-9A-Za-z_\-]{{10,}}\.[0-9A-Za-z_\-]*)",
        hint=r"eyJ[0-9A-Za-z_\-]",
    ),
    Rule(
        FindingType.CONNECTION_STRING,
        r"[A-Za-z][A-Za-z0-9+.\-]{1,20}://[^\s/:@\x00\"'<>]{0,64}:([^\s@/\x00\"'<>]{1,128})@[^\s\x00]",
        lambda value, text, end: not _PLACEHOLDER.fullmatch(value),
        hint=r"://[^\s/:@\x00\"'<>]*:",
    ),
    Rule(
        FindingType.CONNECTION_STRING,
        r"(?i:;[ ]?(?:password|pwd)[ ]?=[ ]?)([^;\s\x00]{3,128})",
        lambda value, text, end: not _PLACEHOLDER.fullmatch(value),
        hint=_SAYS_PASSWORD,
    ),
    Rule(
        FindingType.API_KEY,
        rf"(?i:{_KEY_NAME}){_ASSIGN}{_QUOTE}(?i:(?:bearer|basic|token)[ \t]+)?{_QUOTE}"
        r"([0-9A-Za-z+/_\-.=~]{16,200})",
        _is_random,
        hint=rf"(?i:key|token|secret|authorization|credentials?){_ASSIGN}",
    ),
    Rule(
        FindingType.API_KEY,
        r"(?i:\bbearer[ \t]+)([0-9A-Za-z+/_\-.=~]{16,200})",
        lambda value, text, end: _TURN.search(value) is not None and _entropy_bits(value) >= 3.0,
        hint=r"(?i:bearer)",
    ),
    Rule(
        FindingType.PASSWORD,
        rf"{_PASSWORD}{_ASSIGN}{_QUOTE}{_VALUE}",
        _is_password,
        hint=_SAYS_PASSWORD,
    ),
    Rule(FindingType.PASSWORD, _SAID, _is_said_password, hint=_SAYS_PASSWORD),
)
