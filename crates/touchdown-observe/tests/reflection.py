"""Calls a greeter of which it knows nothing but the address:

    python reflection.py HOST:PORT

It writes the services that the server lists, what it was greeted with, and the server's health. It needs grpcio and
grpcio-reflection. tests/reflection.rs runs it.
"""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def call(channel, pool, service, method, **fields):
    described = pool.FindServiceByName(service).FindMethodByName(method)
    request, reply = (GetMessageClass(it) for it in (described.input_type, described.output_type))
    stub = channel.unary_unary(
        f"/{service}/{method}", request_serializer=request.SerializeToString, response_deserializer=reply.FromString
    )
    return stub(request(**fields), timeout=30)


def main(address):
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        print(*database.get_services())
        print(call(channel, pool, "greeter.Greeter", "SayHello", name="Python").text)
        health = call(channel, pool, "grpc.health.v1.Health", "Check")
        print(health.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[health.status].name)
        # The service describes itself, too.
        for version in ("v1", "v1alpha"):
            file = pool.FindFileContainingSymbol(f"grpc.reflection.{version}.ServerReflection")
            assert file.name == f"grpc/reflection/{version}/reflection.proto", file.name
        for unknown in ("greeter.Nobody", "x" * 10_000):
            try:
                pool.FindMessageTypeByName(unknown)
            except KeyError:
                continue
            raise AssertionError(f"{unknown} is known")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
