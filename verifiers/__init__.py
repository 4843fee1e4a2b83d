"""One file per architecture family: what a trace holds, how it is replayed, how it is compared."""
