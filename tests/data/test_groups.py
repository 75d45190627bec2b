from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.data.groups import chain, codes, connected, spread_over


def by_flooding(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """The smallest node that each node can reach, by walking there."""
    neighbours: dict[int, set[int]] = {node: {node} for node in range(count)}
    for first, second in edges:
        neighbours[first].add(second)
        neighbours[second].add(first)
    result = []
    for node in range(count):
        reached, waiting = {node}, [node]
        while waiting:
            for other in neighbours[waiting.pop()] - reached:
                reached.add(other)
                waiting.append(other)
        result.append(min(reached))
    return result


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_components(edges: list[tuple[int, int]]) -> None:
    array = np.array(edges, dtype=np.int64).reshape(-1, 2)
    assert connected(20, array).tolist() == by_flooding(20, edges)


def test_a_long_chain_either_way_round() -> None:
    forward = np.stack([np.arange(50_000), np.arange(1, 50_001)], axis=1)
    assert not connected(50_001, forward).any()
    assert not connected(50_001, forward[::-1, ::-1]).any()


def test_codes_and_chain() -> None:
    assert codes(["x", "y", "x", "z"]).tolist() == [0, 1, 0, 2]
    assert chain(np.array([5, 3, 5, 5]), np.array([10, 11, 12, 13])).tolist() == [[10, 12], [12, 13]]
    assert chain(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).shape == (0, 2)


def test_spread_over() -> None:
    assert spread_over(np.array([4, 4, 7, 7, 9]), np.array([0, 1, 1, 1, 0])).tolist() == [4]
    assert spread_over(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
