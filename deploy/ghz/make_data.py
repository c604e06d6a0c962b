"""Writes what the load tests send, made of the sample pictures: make_data.py DIRECTORY

ghz reads messages of the wire, each with its length before it, and needs not make them of JSON while it measures.
"""

import pathlib
import sys

WORDS = ["dog", "cat", "pizza", "car", "guitar", "airplane", "umbrella", "apple"]
PICTURES = pathlib.Path(__file__).parents[2] / "tests/fixtures/images"


def varint(number):
    more, last = number >> 7, number & 0x7F
    return bytes([last | 0x80]) + varint(more) if more else bytes([last])


def field(number, content):
    """Of a message: a number, or what has a length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def image(word):
    return field(1, (PICTURES / f"{word}.png").read_bytes())


def write(name, messages):
    directory.joinpath(name).write_bytes(b"".join(varint(len(message)) + message for message in messages))


directory = pathlib.Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
# Calls send the messages in turn; a stream sends one after the other. The numbers are those of clip.proto.
labels = b"".join(field(2, word) for word in WORDS) + field(3, "an emoji of {}") + field(4, 3)
write("embed.bin", [field(1, field(1, image(word))) for word in WORDS])
write("classify.bin", [field(1, image(word)) + labels for word in WORDS])
write("stream_embed.bin", [field(1, tag) + field(2, field(1, image(word))) for tag, word in enumerate(WORDS)])
options = b"".join(field(1, word) for word in WORDS) + field(2, "an emoji of {}") + field(3, 3)
images = [field(2, field(1, tag) + field(2, image(word))) for tag, word in enumerate(WORDS * 8)]
write("stream_classify.bin", [field(1, options), *images])
