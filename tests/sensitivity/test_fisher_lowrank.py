"""FisherLowrank: with every eigenvector kept it is the form of its docstring."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import get_weight, search_space
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity.fisher_lowrank import FisherLowrank


def test_entry_is_the_form_over_all_positions_of_an_image(tiny_vit, unseen_digits, tmp_path):
    images = unseen_digits[0][:3]
    space = search_space(tiny_vit, (named("int3_g32"),), None, tied=False)
    bank = WeightBank.build(tmp_path, tiny_vit, space, Rtn(clip_steps=0))
    values = FisherLowrank(rank=1000, labels="text").estimate(tiny_vit, images, space, bank).values
    for row in (1, len(space.layers) // 2):
        name, seen = space.layers[row].name, {}

        def keep(_, inputs, output, seen=seen):
            seen["inputs"], seen["output"] = inputs[0].detach(), output

        hook = tiny_vit.get_submodule(name).register_forward_hook(keep)
        logits = tiny_vit(images).logits
        hook.remove()
        loss = cross_entropy(logits, logits.argmax(dim=1), reduction="sum")
        gradients = torch.autograd.grad(loss, seen["output"])[0].reshape(
            -1, seen["output"].shape[-1]
        )
        error = bank.weight(name, "int3_g32") - get_weight(tiny_vit, name)
        outputs = (seen["inputs"] @ error.T).reshape(len(gradients), -1)
        fisher = gradients.T @ gradients / len(gradients)
        expected = float(((outputs @ fisher) * outputs).sum()) / (2 * len(images))
        assert values[row, 0] == pytest.approx(expected, rel=1e-3)
