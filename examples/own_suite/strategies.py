"""A kind of step of this project's own: the client leaves, and something leaves once more in its name."""

from collections.abc import Sequence

from hypothesis import strategies as st

from ftmodel.outline import Outline
from ftmodel.steps import After, Cancel, Step, Submit, Token
from ftmodel.strategies import ClusterMachine


def cancels_twice(outline: Outline, timeouts_ms: Sequence[int]) -> st.SearchStrategy[tuple[Step, ...]]:
    """A long stream that is cancelled at a token of it, and again right after."""
    request, first, second = f"r{outline.count + 1}", f"s{outline.count + 2}", f"s{outline.count + 3}"
    return st.sampled_from((5, 1, 40)).map(
        lambda k: (
            Submit(name=request, max_tokens=600),
            Cancel(name=first, request=request, at=Token(request, k)),
            Cancel(name=second, request=request, at=After(first), skew_ms=1),
        )
    )


class CancelsTwice(ClusterMachine):
    """Draws what every machine draws, and this kind besides."""

    own = ((cancels_twice, 3),)
