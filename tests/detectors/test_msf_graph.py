"""The graphs of MSF: the fast ways of multiplying by them are the plain matrices."""

import math

import pytest
import torch

from outspike.detectors.msf import graph
from outspike.detectors.msf.graph import distance_adjacency, similarity_adjacency


def dense_similarity(z, lengths):
    """The specification's formula, one bag and one number at a time where it matters."""
    rows = torch.zeros(len(z), z.shape[1], z.shape[1], dtype=z.dtype)
    for b, n in enumerate(lengths.tolist()):
        norm = z[b, :n].norm(dim=1)
        cosine = z[b, :n] @ z[b, :n].T / (norm[:, None] * norm + 1e-20)
        rows[b, :n, :n] = torch.where(cosine > 0.7, cosine, 0.0).softmax(dim=1)
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_to_the_similarity_rows_are_the_specification(dtype):
    """The kernel (no gradient) and torch (gradient), with padding and silent snippets."""
    torch.manual_seed(0)
    z = (torch.rand(3, 17, 6) > 0.6).to(dtype)
    z[0, 4] = 0.0
    lengths = torch.tensor([17, 1, 9])
    expected = dense_similarity(z, lengths)
    for values in (z, z.clone().requires_grad_(True)):
        found = similarity_adjacency(values, lengths)
        torch.testing.assert_close(found.detach(), expected, atol=1e-6, rtol=0)
        part = similarity_adjacency(values, lengths, 5, 12)
        torch.testing.assert_close(part.detach(), expected[:, 5:12], atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_rows", [1, 256, 257, 512, 700])
def test_the_band_of_the_distance_graph_is_the_whole_matrix(num_rows):
    """Forward and gradient, below, at and above one block."""
    torch.manual_seed(0)
    x = torch.randn(2, num_rows, 3, requires_grad=True)
    weight = torch.randn(2, num_rows, 3)
    steps = torch.arange(num_rows, dtype=torch.float32)
    dense = torch.exp(-(steps[:, None] - steps).abs() / math.e)
    torch.testing.assert_close(distance_adjacency(num_rows, x), dense)
    results = graph._DistanceGraph(x) @ x, dense @ x
    gradients = [torch.autograd.grad((result * weight).sum(), x)[0] for result in results]
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-5)
