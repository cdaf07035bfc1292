"""Every proof, in the order of the report."""

from bench.proofs import degradation, overspend, unbilled
from bench.proofs.base import Proof

PROOFS = (
    Proof(
        "unbilled",
        "Nothing unbilled",
        "after kill -9 of workers, of Postgres and of Redis under load, every answered call is in"
        " the ledger once, with the tokens and the cost that its caller was told; calls that were"
        " left, that broke or that failed are settled too",
        unbilled.run,
    ),
    Proof(
        "degradation",
        "Degradation",
        "with Redis dead or slow, Postgres dead or frozen, or the journal's disk full, calls under"
        " load meet the declared mode and nothing else; it is entered and left with a log line and"
        " a metric, nothing hangs, and the books are whole afterwards",
        degradation.run,
    ),
    Proof(
        "overspend",
        "Overspend",
        "three replicas under one cap, 200 callers and a trace of real traffic take no more than"
        " the cap where it is exact, and no more than is declared beyond it where it is leased",
        overspend.run,
    ),
)
