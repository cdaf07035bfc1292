"""Every proof, in the order of the report."""

from bench.proofs import unbilled
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
)
