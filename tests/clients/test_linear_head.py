"""The frozen-feature use of CLIP: embed with clipd, fit with scikit-learn, serve with clipd."""

import linear_head
import numpy as np
from clip.v1 import clip_pb2 as pb

COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 200), "yellow": (220, 200, 40)}
SIDE = 48
# Pictures of one request stay below the limit of 256.
PER_COLOUR = 60


def pictures(generator):
    """A blob of one colour on a background of another shade of grey, with noise; and its colour's name."""
    ys, xs = np.mgrid[:SIDE, :SIDE]
    for name, colour in COLOURS.items():
        for _ in range(PER_COLOUR):
            background = np.full((SIDE, SIDE, 3), generator.integers(0, 256), np.float64)
            x, y, radius = *generator.uniform(0.35, 0.65, 2) * SIDE, generator.uniform(0.15, 0.3) * SIDE
            background[(xs - x) ** 2 + (ys - y) ** 2 < radius**2] = colour
            noisy = background + generator.normal(0, 15, background.shape)
            yield noisy.clip(0, 255).astype(np.uint8), name


def as_message(picture):
    return pb.Image(rgb=pb.RgbImage(width=SIDE, height=SIDE, pixels=picture.tobytes()))


def embed(clip, images):
    request = pb.EmbedRequest(inputs=[pb.Input(image=image) for image in images])
    return np.array([result.embedding.values for result in clip.Embed(request).results])


def test_a_head_fitted_with_scikit_learn_answers_as_scikit_learn_does(start, clip, tmp_path):
    images, names = zip(*((as_message(p), n) for p, n in pictures(np.random.default_rng(0))), strict=True)
    unseen, truth = zip(*((as_message(p), n) for p, n in pictures(np.random.default_rng(1))), strict=True)
    head = linear_head.fit(embed(clip, images), names)
    linear_head.save(head, tmp_path, "colours")

    server = start(f"--classifiers={tmp_path}")
    assert list(server.clip.GetModel(pb.GetModelRequest()).classifiers) == ["colours"]
    response = server.clip.Classify(pb.ClassifyRequest(images=unseen, classifier="colours"))
    expected = head.predict_proba(embed(clip, unseen))
    best = []
    for result, probabilities in zip(response.results, expected, strict=True):
        for prediction in result.predictions.predictions:
            assert abs(prediction.score - probabilities[prediction.index]) < 1e-3
        best.append(result.predictions.predictions[0].label)
    accuracy = np.mean([a == b for a, b in zip(best, truth, strict=True)])
    print(f"accuracy on unseen pictures: {accuracy:.3f}")
    assert accuracy > 0.9
    server.terminate()
    assert server.wait() == 0
