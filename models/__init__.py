"""One file per model family: adapters that put checkpoints behind the interface of their architecture family."""
