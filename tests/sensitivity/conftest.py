"""The tiny Llama's search space, its weights in every format, and the measured truth."""

import pytest

from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import search_space
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity.leave_one_in import LeaveOneIn

MENU = ("int2_g64", "int3_g64", "int4_g64", "int8_g64")


@pytest.fixture(scope="session")
def tiny_space(tiny_llama):
    return search_space(tiny_llama, tuple(named(x) for x in MENU), named("int8_g64"), tied=False)


@pytest.fixture(scope="session")
def tiny_bank(tiny_llama, tiny_space, tmp_path_factory):
    return WeightBank.build(tmp_path_factory.mktemp("bank"), tiny_llama, tiny_space, Rtn())


@pytest.fixture(scope="session")
def measured(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    return LeaveOneIn().estimate(tiny_llama, tiny_tokens, tiny_space, tiny_bank)
