"""The logits that the worked numbers of these tests belong to."""

import torch


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


TEACHER = double([[4, 2, 1, 0, -1], [0.5, 3, 2.5, -0.5, 1]])
STUDENT = double([[2, 1.5, 0, 0.5, -0.5], [1, 2, 0, 0.5, -1]])
LABELS = torch.tensor([0, 1])

# With a third sample, for what depends on the batch.
TEACHER3 = torch.cat([TEACHER, double([[0, -1, 0.5, 3, 2]])])
STUDENT3 = torch.cat([STUDENT, double([[0.2, -0.3, 0.1, 1.5, 1.8]])])


def close(actual, expected, **tolerance):
    """Equal to the digits that the expected numbers are written with."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.detach().double(), expected, **{"rtol": 0, "atol": 1e-8, **tolerance})


def random_logits(seed=0, samples=6, classes=7, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(samples, classes, generator=generator, dtype=torch.float64) for _ in range(2)] + [
        torch.randint(classes, (samples,), generator=generator)
    ]


def waves(*shape, shift=0.0):
    """Numbers that any program can write down again."""
    return torch.sin(torch.arange(torch.Size(shape).numel(), dtype=torch.float64) * 1.7 + shift).view(shape)
