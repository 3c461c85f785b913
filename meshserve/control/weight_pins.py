"""Binds LLMs to the weights that are at their sources when a configuration is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from meshserve.config import desired_state
from meshserve.core.values import desired, llm_spec

IdentifyWeights = Callable[[str, str], Awaitable[llm_spec.Weights | None]]
"""Returns what identifies the weights at a URI and a revision now, None if nobody can say."""


async def pin(
    wanted: desired.Desired, last: desired.Desired, identify: IdentifyWeights
) -> desired.Desired:
    """Return the wanted state with the weights of its LLMs as they are now.

    What can't be found out now is as it was in the `last` state.
    """
    sources = sorted({source for llm in wanted.llms for source in llm.sources})
    if not sources:
        return wanted
    before = known_weights(last)
    # At once, because each of them may ask a server on the network.
    now = await asyncio.gather(*(identify(*source) for source in sources))
    weights = {
        source: pinned
        for source, seen in zip(sources, now, strict=True)
        if (pinned := _newer(before.get(source), seen)) is not None
    }
    return desired_state.with_weights(wanted, weights)


def known_weights(state: desired.Desired) -> Mapping[llm_spec.WeightsSource, llm_spec.Weights]:
    """Return the weights of a state's LLMs and adapters by their source."""
    pairs = [(llm.source, llm.weights) for llm in state.llms]
    pairs += [(part.source, part.weights) for llm in state.llms for part in llm.adapters]
    return {source: weights for source, weights in pairs if weights is not None}


def _newer(
    before: llm_spec.Weights | None, now: llm_spec.Weights | None
) -> llm_spec.Weights | None:
    # Equal weights seen on another machine are no change.
    return before if llm_spec.are_same(before, now) and before is not None else now
