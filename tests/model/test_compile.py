"""torch.compile takes the whole network as one graph: no break, and one graph for any number of frames."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import empty_twin_stages
from tests.model.test_fast_paths import noise, small

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def clip(num_frames):
    return noise(1, num_frames, 3, 64, 64).sigmoid(), noise(1, num_frames, 3, 32, 32)


DEPTHS = (2, *(1,) * 7)  # the fewest stages, and in one of them shifted windows


def test_the_network_is_one_graph_with_the_same_result_and_gradients():
    network = small(2, depths=DEPTHS)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    inputs = clip(3)
    expected, result = network(*inputs), compiled(*inputs)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)
    weights = [p for p in network.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(y.square().mean(), weights) for y in (expected, result))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-3 * a.abs().max().item() + 1e-7)


def test_one_graph_serves_clips_of_any_length():
    network = small(2, depths=DEPTHS).requires_grad_(False)
    empty_twin_stages(network.vrt)
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(network, backend=count, fullgraph=True, dynamic=False)
    for num_frames in (4, 7):
        inputs = clip(num_frames)
        for tensor in inputs:
            torch._dynamo.maybe_mark_dynamic(tensor, 1)
        torch.testing.assert_close(compiled(*inputs), network(*inputs), rtol=0, atol=1e-4)
    assert len(graphs) == 1
