"""What a client of `clip.v1.ClipService` may rely on."""

import math
import struct
import time
import zlib

import grpc
import numpy as np
import pytest
from clip.v1 import clip_pb2 as pb

# Seconds; far above what any call here takes.
TIMEOUT = 60

WORDS = ["dog", "cat", "pizza", "car", "guitar", "airplane", "umbrella", "apple"]
MIB = 1 << 20


def picture(pictures, name):
    return pb.Image(encoded=(pictures / name).read_bytes())


def rgb(width, height, pixels):
    return pb.Image(rgb=pb.RgbImage(width=width, height=height, pixels=pixels))


def gradient(width, height):
    """Pixels that differ in every corner and channel."""
    return bytes(
        value
        for y in range(height)
        for x in range(width)
        for value in (255 * x // width, 255 * y // height, 255 * (x + y) // (width + height))
    )


def png(width, height, pixels):
    """The file of these pixels: RGB, 8 bits, no filter."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + pixels[row * width * 3 : (row + 1) * width * 3] for row in range(height))
    body = zlib.compress(b"".join(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def embed(clip, *contents, **options):
    """Results for images and texts, in order."""
    inputs = [pb.Input(text=each) if isinstance(each, str) else pb.Input(image=each) for each in contents]
    return clip.Embed(pb.EmbedRequest(inputs=inputs, **options), timeout=TIMEOUT).results


def length(values):
    return math.sqrt(sum(value * value for value in values))


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / length(a) / length(b)


def test_mixed_inputs_are_answered_in_order_with_unit_vectors(clip, pictures):
    contents = [
        picture(pictures, "dog.png"),
        "an emoji of dog",
        rgb(40, 30, gradient(40, 30)),
        picture(pictures, "pizza.jpg"),
        "an emoji of a slice of pizza",
    ]
    together = embed(clip, *contents)
    size = clip.GetModel(pb.GetModelRequest(), timeout=TIMEOUT).embedding_size
    assert len(together) == len(contents)
    for content, result in zip(contents, together, strict=True):
        values = result.embedding.values
        assert len(values) == size
        assert length(values) == pytest.approx(1, abs=1e-5)
        [alone] = embed(clip, content)
        # Other company in the batch may change the last bits, which are few in bf16.
        assert cosine(values, alone.embedding.values) > 0.999
    assert together[1].embedding.tokens >= 3, "start, at least one word, end"
    assert together[0].embedding.tokens == 0, "an image has none"
    different = cosine(together[0].embedding.values, together[3].embedding.values)
    assert different < 0.9, "a dog is no pizza"


def test_raw_pixels_are_the_same_as_a_file_of_them(clip):
    pixels = gradient(50, 70)
    raw, file = embed(clip, rgb(50, 70, pixels), pb.Image(encoded=png(50, 70, pixels)))
    assert cosine(raw.embedding.values, file.embedding.values) > 0.99999


def test_without_normalization_only_the_length_differs(clip):
    [unit] = embed(clip, "a red car", normalization=pb.NORMALIZATION_L2)
    [raw] = embed(clip, "a red car", normalization=pb.NORMALIZATION_NONE)
    assert abs(length(raw.embedding.values) - 1) > 0.01
    assert cosine(unit.embedding.values, raw.embedding.values) > 0.999


def test_packed_embeddings_are_arrays_without_a_copy(clip):
    [floats] = embed(clip, "a red car")
    values = np.array(floats.embedding.values, np.float32)

    [packed] = embed(clip, "a red car", embedding_format=pb.EMBEDDING_FORMAT_FLOAT32_BYTES)
    assert not packed.embedding.values
    assert np.array_equal(np.frombuffer(packed.embedding.packed, "<f4"), values)

    [half] = embed(clip, "a red car", embedding_format=pb.EMBEDDING_FORMAT_FLOAT16_BYTES)
    assert np.array_equal(np.frombuffer(half.embedding.packed, "<f2"), values.astype(np.float16))


def test_a_long_text_is_cut_or_refused_as_asked(clip):
    context_length = clip.GetModel(pb.GetModelRequest(), timeout=TIMEOUT).context_length
    text = "cat " * context_length
    [cut] = embed(clip, text)
    assert cut.embedding.truncated
    assert cut.embedding.tokens == context_length + 2, "one a word, start and end"
    [refused] = embed(clip, text, truncate=pb.TRUNCATE_ERROR)
    assert refused.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert refused.error.field == "inputs[0].text"


def test_every_sample_picture_gets_its_word(clip, pictures):
    images = [picture(pictures, f"{word}.png") for word in WORDS]
    request = pb.ClassifyRequest(images=images, labels=WORDS, templates=["an emoji of {}"])
    response = clip.Classify(request, timeout=TIMEOUT)
    assert [result.predictions.predictions[0].label for result in response.results] == WORDS
    for result in response.results:
        predictions = result.predictions.predictions
        scores = [prediction.score for prediction in predictions]
        assert len(predictions) == len(WORDS)
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-4)
        assert all(WORDS[prediction.index] == prediction.label for prediction in predictions)
        assert all(-1 <= prediction.similarity <= 1 for prediction in predictions)
    assert response.timing.inference.ToNanoseconds() > 0

    request.top_k = 2
    best = clip.Classify(request, timeout=TIMEOUT).results
    assert [len(result.predictions.predictions) for result in best] == [2] * len(WORDS)


def test_a_bad_input_is_an_error_in_its_own_place(clip, pictures):
    whole = (pictures / "cat.png").read_bytes()
    results = embed(
        clip,
        "a cat",
        pb.Image(encoded=b"not a picture"),
        pb.Image(encoded=whole[: len(whole) // 2]),
        rgb(10, 10, b"\0" * 299),
        " ",
        pb.Image(),
        picture(pictures, "cat.png"),
    )
    fields = [result.error.field for result in results]
    assert fields == [
        "",
        "inputs[1].image.encoded",
        "inputs[2].image.encoded",
        "inputs[3].image.rgb.pixels",
        "inputs[4].text",
        "inputs[5].image",
        "",
    ]
    for result, field in zip(results, fields, strict=True):
        assert result.HasField("error" if field else "embedding")
        if field:
            assert result.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            assert result.error.message

    images = [pb.Image(encoded=b""), picture(pictures, "cat.png")]
    bad, good = clip.Classify(pb.ClassifyRequest(images=images, labels=WORDS), timeout=TIMEOUT).results
    assert bad.error.field == "images[0].encoded"
    assert good.predictions.predictions[0].label == "cat"


SOME_IMAGE = pb.Image(encoded=b"never looked at")


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (pb.EmbedRequest(), "inputs"),
        (pb.EmbedRequest(inputs=[pb.Input(text="a")] * 257), "inputs"),
        (pb.EmbedRequest(inputs=[pb.Input(text="a")], normalization=9), "normalization"),
        (pb.EmbedRequest(inputs=[pb.Input(text="a")], truncate=9), "truncate"),
        (pb.EmbedRequest(inputs=[pb.Input(text="a")], embedding_format=4), "embedding_format"),
        (pb.ClassifyRequest(labels=["a"]), "images"),
        (pb.ClassifyRequest(images=[SOME_IMAGE]), "labels"),
        (pb.ClassifyRequest(images=[SOME_IMAGE], labels=["a", ""]), "labels[1]"),
        (pb.ClassifyRequest(images=[SOME_IMAGE], labels=["a", "b", "a"]), "labels[2]"),
        (pb.ClassifyRequest(images=[SOME_IMAGE], labels=["a"], templates=["{}", "none"]), "templates[1]"),
    ],
)
def test_a_wrong_request_is_refused_by_the_name_of_the_field(clip, request_message, field):
    call = clip.Embed if isinstance(request_message, pb.EmbedRequest) else clip.Classify
    with pytest.raises(grpc.RpcError) as refused:
        call(request_message, timeout=TIMEOUT)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(f"{field}: ")


def test_a_deadline_ends_the_call_in_time(clip):
    # 4,000 x 4,000 pixels are a small file when they are all black, but tens of milliseconds to decode.
    large = pb.Input(image=pb.Image(encoded=png(4000, 4000, bytes(4000 * 4000 * 3))))
    request = pb.EmbedRequest(inputs=[large] * 64)
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as late:
        clip.Embed(request, timeout=0.05)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - start < 5
    assert len(embed(clip, "still there")) == 1


def test_the_model_describes_itself(clip):
    model = clip.GetModel(pb.GetModelRequest(), timeout=TIMEOUT)
    assert model.name == "emoji-clip"
    assert model.fingerprint.endswith(model.precision)
    _, call = clip.Embed.with_call(pb.EmbedRequest(inputs=[pb.Input(text="a car")]), timeout=TIMEOUT)
    assert ("clip-fingerprint", model.fingerprint) in call.initial_metadata()
    assert model.embedding_size > 0 and model.context_length > 0
    assert model.image_height > 0 and model.image_width > 0
    assert model.logit_scale > 1
    assert model.device in ("cpu", "openvino")
    assert model.precision in ("fp32", "bf16")
    assert model.engine.startswith("onnxruntime ")
    assert model.limits.inputs == 256
    assert model.limits.message_bytes == 16 * MIB
    assert model.limits.timeout.ToSeconds() == 30
    assert model.server_version


def test_a_message_may_be_larger_than_grpcs_default_of_4_mib(clip):
    side = 1300
    [result] = embed(clip, rgb(side, side, bytes(side * side * 3)))
    assert side * side * 3 > 4 * MIB
    assert length(result.embedding.values) == pytest.approx(1, abs=1e-5)


def test_a_message_over_the_limit_is_refused_and_the_connection_goes_on(clip):
    side = 2400
    assert side * side * 3 > 16 * MIB
    with pytest.raises(grpc.RpcError) as refused:
        embed(clip, rgb(side, side, bytes(side * side * 3)))
    assert refused.value.code() == grpc.StatusCode.OUT_OF_RANGE
    assert len(embed(clip, "still there")) == 1
