"""The tiny Llama, ready to export."""

import pytest

from bitfront import formats
from tests import cases
from tests.export.exports import Export


@pytest.fixture
def tiny_export(tiny_llama, tiny_tokenizer):
    menu = tuple(map(formats.named, ("int2_g64", "int3_g64", "int4_g64", "nf4_g32", "bf16")))
    return Export.of(tiny_llama, tiny_tokenizer, menu, formats.named("int8_g64"))


@pytest.fixture
def exportable(tiny_llama, tiny_tokenizer):
    """Makes what the exporter of a name stores as it is."""

    def make(exporter):
        menu = tuple(map(formats.named, cases.EXPORTERS[exporter].formats))
        return Export.of(tiny_llama, tiny_tokenizer, menu, formats.named("int8_g64_sym"))

    return make
