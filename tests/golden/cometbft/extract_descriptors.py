"""Remakes cosmpy_descriptors.binpb: the protobuf definitions that the package cosmpy carries of CometBFT's messages.

Run it in an environment of its own (cosmpy needs an older protobuf than ours):

    python -m venv oracle && oracle/bin/pip install cosmpy==0.12.2
    oracle/bin/python tests/golden/cometbft/extract_descriptors.py

The definitions are CometBFT's (Apache-2.0), as compiled by cosmpy's authors and not by us.
"""

from pathlib import Path

from cosmpy.protos.tendermint.abci import types_pb2 as abci
from cosmpy.protos.tendermint.types import types_pb2 as types
from google.protobuf import descriptor_pb2

found: dict[str, object] = {}


def add(file) -> None:
    for dependency in file.dependencies:
        add(dependency)
    found.setdefault(file.name, file)


for module in (abci, types):
    add(module.DESCRIPTOR)
output = descriptor_pb2.FileDescriptorSet()
for file in found.values():
    file.CopyToProto(output.file.add())
Path(__file__).with_name("cosmpy_descriptors.binpb").write_bytes(output.SerializeToString())
