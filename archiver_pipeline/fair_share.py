"""Sharing a budget fairly among claims of any size."""

from __future__ import annotations

from collections.abc import Iterable


def share_out(lags: Iterable[int], budget: int) -> list[int]:
    """Share a budget so that small claims are met whole and large ones evenly (max-min fairness).

    Every claim above zero gets at least 1, so that none starves however many there are.
    """
    claims = list(lags)
    shares = [0] * len(claims)
    left = budget
    order = sorted((claim, index) for index, claim in enumerate(claims) if claim > 0)
    for rank, (claim, index) in enumerate(order):
        shares[index] = min(claim, max(1, left // (len(order) - rank)))
        left = max(0, left - shares[index])
    return shares
