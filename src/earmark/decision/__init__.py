"""From numbers per clip to decisions with stated error rates: pure functions and small states, no model in sight.

`conformal` judges one clip, `score` folds a fingerprint into one number, `betting` judges a stream of clips that may
be looked at after every one, `drift` finds a change in it, `many` judges many providers, `sprt` is Wald's test,
`power` says beforehand what an audit can find.
"""
