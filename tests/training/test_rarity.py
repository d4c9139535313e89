import torch

from napari_rvae.training.rarity import HARDER, oddness, shares


def test_rare_kinds_have_a_component_of_their_own():
    """Beside two wide spreads of all patches and one impurity that is far off."""
    generator = torch.Generator().manual_seed(0)
    rest = 0.1 * torch.randn(2000, 30, generator=generator)
    rest[:, :2] += torch.randn(2000, 2, generator=generator)
    rest[:20, 2] += 3  # the rare kind
    rest[20:23, 3] += 20
    rest -= rest.mean(0)
    share = shares(rest)
    assert torch.isclose(share.sum(), torch.tensor(1.0))
    told = [torch.linalg.eigh((rest.T * one) @ rest)[1][2, -3:].norm() for one in (share, torch.ones(2000))]
    assert told[0] > 0.9
    assert told[1] < 0.3


def test_what_is_usual_counts_once_and_nothing_counts_without_end():
    distance = torch.cat([torch.linspace(0, 1, 99), torch.tensor([1e6])])
    weight = oddness(distance)
    assert weight[:80].unique().tolist() == [1.0]
    assert float(weight[-1]) == 1 + HARDER
    assert oddness(torch.zeros(5)).tolist() == [1.0] * 5
