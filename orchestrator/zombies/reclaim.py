"""Which findings may be given back, and which are."""

from collections.abc import Iterable

from orchestrator.config.spec import Zombies
from orchestrator.zombies.finding import Finding, Kind

RECLAIMABLE = (Kind.IDLE, Kind.ORPHAN)


def obstacle(finding: Finding, rules: Zombies, now_s: float) -> str | None:
    """Why it may not be given back now. None: it may."""
    if finding.kind not in RECLAIMABLE:
        return finding.doubt or "somebody has to do this by hand"
    if finding.doubt is not None:
        return finding.doubt
    left_s = finding.reported_s + rules.notice_s - now_s
    if left_s > 0:
        return f"it was reported {rules.notice_s - left_s:.0f} s ago, and has {left_s:.0f} s left"
    return None


def due(findings: Iterable[Finding], rules: Zombies, now_s: float) -> list[Finding]:
    """What the policy gives back by itself."""
    if rules.idle != "reclaim":
        return []
    return [
        finding
        for finding in findings
        if finding.kind is Kind.IDLE and obstacle(finding, rules, now_s) is None
    ]
