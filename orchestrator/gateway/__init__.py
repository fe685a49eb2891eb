"""The data plane: authenticate, decide, relay, account.

`upstream` alone opens connections that carry content, and only for a grant. Imports `batch`,
`classify`, `sessions`, `ledger`, `policy`, `signals` and `config`.
"""
