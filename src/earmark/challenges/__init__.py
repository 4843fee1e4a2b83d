"""Challenges: clips on which models differ, with known transcripts and digests.

    import earmark.challenges

    for clip in earmark.challenges.load(category="noisy"):
        print(clip.id, clip.text, clip.audio().seconds)

The set that ships with earmark is small; `draw` makes fresh clips from any seed, `import` takes other corpora in.
"""

from earmark.challenges.collection import Challenge, ChallengeSet, load
from earmark.challenges.manifest import CATEGORIES, Problem

__all__ = ["CATEGORIES", "Challenge", "ChallengeSet", "Problem", "load"]
