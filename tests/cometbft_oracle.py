"""CometBFT's messages as Google's protobuf runtime understands them, from definitions compiled by cosmpy's authors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).parent / "golden" / "cometbft" / "cosmpy_descriptors.binpb"

_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
    _POOL.Add(_file)


def oracle(name: str) -> Any:
    """Return the message class of a full name such as "tendermint.abci.RequestCheckTx"."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))
