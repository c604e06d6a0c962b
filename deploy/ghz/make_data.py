"""Writes what the load tests send, made of the sample pictures: make_data.py DIRECTORY"""

import base64
import json
import pathlib
import sys

WORDS = ["dog", "cat", "pizza", "car", "guitar", "airplane", "umbrella", "apple"]
PICTURES = pathlib.Path(__file__).parents[2] / "tests/fixtures/images"


def image(word):
    return {"encoded": base64.b64encode((PICTURES / f"{word}.png").read_bytes()).decode()}


def write(path, requests):
    path.write_text(json.dumps(requests, indent=1) + "\n")


directory = pathlib.Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
# ghz sends the messages of an array in turn.
write(directory / "embed.json", [{"inputs": [{"image": image(word)}]} for word in WORDS])
classify = {"labels": WORDS, "templates": ["an emoji of {}"], "topK": 3}
write(directory / "classify.json", [{"images": [image(word)], **classify} for word in WORDS])
