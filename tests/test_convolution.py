"""The convolution arithmetic of the notes: the functions written out against torch's, sizes, matrix form, shifts."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dltrain.models.convolution import PADDING_MODES, conv1x1, conv2d, correlate, matrix, output_side, pool2d


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_kernel_is_not_flipped():
    image, kernel = torch.arange(9.0).reshape(3, 3), torch.arange(4.0).reshape(2, 2)
    assert correlate(image, kernel).tolist() == [[19, 25], [37, 43]]
    edges = correlate(torch.tensor([[1.0, 1, 0, 0, 1]]), torch.tensor([[1.0, -1]]))
    assert edges.tolist() == [[0, 1, 0, -1]]


def test_inputs_are_summed_over_channels_with_a_kernel_for_each_output():
    images, kernels = drawn(2, 3, 7, 6), drawn(4, 3, 3, 2)
    expected = [
        [sum(correlate(x, k) for x, k in zip(image, kernel, strict=True)) for kernel in kernels] for image in images
    ]
    torch.testing.assert_close(conv2d(images, kernels), torch.stack([torch.stack(each) for each in expected]))


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize(
    ("kernel", "padding", "stride", "dilation", "groups"),
    [
        ((3, 3), 1, 1, 1, 1),
        ((5, 3), (2, 1), 1, 1, 2),
        ((3, 5), (0, 1), (3, 4), 1, 1),
        ((2, 3), 3, 2, (2, 3), 4),
        ((1, 1), 0, 2, 1, 1),
    ],
)
def test_convolution_equals_torchs(mode, kernel, padding, stride, dilation, groups):
    how = {"padding": padding, "stride": stride, "dilation": dilation, "groups": groups, "padding_mode": mode}
    layer = nn.Conv2d(4, 8, kernel, **how).double()
    images = drawn(2, 4, 11, 13)
    torch.testing.assert_close(conv2d(images, layer.weight, layer.bias, **how), layer(images))


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, None, 0), (3, 2, 1), ((2, 3), (2, 3), (0, 1)), (3, 1, 0)]
)
def test_pooling_equals_torchs(kind, kernel, stride, padding):
    images = drawn(2, 3, 9, 8) - 5  # below zero, so that a padded zero would be the largest
    torchs = {"max": F.max_pool2d, "avg": F.avg_pool2d}[kind]
    mine = pool2d(images, kernel, kind=kind, stride=stride, padding=padding)
    torch.testing.assert_close(mine, torchs(images, kernel, stride, padding))
    assert mine.shape[1] == 3, "channels are kept"


def test_a_1x1_convolution_is_a_linear_layer_at_every_pixel():
    images, weight = drawn(2, 3, 4, 5), drawn(6, 3)
    expected = F.linear(images.movedim(1, -1), weight).movedim(-1, 1)
    torch.testing.assert_close(conv1x1(images, weight), expected)
    torch.testing.assert_close(F.conv2d(images, weight[:, :, None, None]), expected)


def test_the_size_formula_is_torchs_and_without_dilation_the_notes():
    some = product((7, 8, 28), (1, 2, 3, 5), (0, 1, 2), (1, 2, 3), (1, 2))
    for side, kernel, padding, stride, dilation in some:
        if side + 2 * padding >= dilation * (kernel - 1) + 1:
            mine = output_side(side, kernel, padding=padding, stride=stride, dilation=dilation)
            images, weight = torch.zeros(1, 1, side, side), torch.zeros(1, 1, kernel, kernel)
            assert F.conv2d(images, weight, None, stride, padding, dilation).shape[2:] == (mine, mine)
            if dilation == 1:
                assert mine == (side - kernel + 2 * padding) // stride + 1
    assert (output_side(96, 7, padding=3, stride=2), output_side(48, 3, padding=1, stride=2)) == (48, 24)
    with pytest.raises(ValueError, match="a window of 5 does not fit a side of 4"):
        output_side(4, 3, dilation=2)


def test_a_convolution_is_a_matrix_of_zeros_and_shared_entries():
    kernel, image = drawn(3, 3), drawn(5, 5)
    form = matrix(kernel, (5, 5))
    assert form.shape == (9, 25)
    assert form.numel() == 225
    assert int((form != 0).sum()) == 81
    assert len(form[form != 0].unique()) == 9
    torch.testing.assert_close((form @ image.flatten()).reshape(3, 3), correlate(image, kernel))


def test_shifting_the_input_shifts_the_output():
    images, weight = drawn(1, 2, 8, 8), drawn(3, 2, 3, 3)

    def circular(inputs):
        return conv2d(inputs, weight, padding=1, padding_mode="circular")

    shift = {"shifts": (2, -3), "dims": (2, 3)}
    assert torch.equal(circular(images.roll(**shift)), circular(images).roll(**shift))
    by_zeros = conv2d(images.roll(**shift), weight, padding=1)
    difference = (by_zeros - conv2d(images, weight, padding=1).roll(**shift)).abs().amax((0, 1)) > 1e-12
    assert difference.any(), "zeros at the borders are not shifted"
    assert not difference[3:7, 1:4].any()
