"""The messages of proto/greeter.proto, as bytes."""

GREETER = "/greeter.Greeter/"


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def string_field_1(text):
    content = text.encode()
    return b"\x0a" + varint(len(content)) + content


def hello_request(name, think_ms):
    return string_field_1(name) + (b"\x10" + varint(think_ms) if think_ms else b"")


def hello_reply(name):
    return string_field_1(f"Hello, {name}!")


def many_hellos_request(name, count):
    return string_field_1(name) + b"\x10" + varint(count)
