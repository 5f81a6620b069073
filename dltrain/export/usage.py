"""The lines by which an exported file is used, for its card: five of Python at most, which run beside the file."""

from typing import Any

from dltrain.data.preparation import Pixels, Tokens
from dltrain.trained import Trained

SAFETENSORS = """\
import {imports}
model = dltrain.load("{file}")
{inputs}
{outputs}
"""
TORCH_EXPORT = """\
import json, torch
files = {{"class_names.json": ""}}
model = torch.export.load("{file}", extra_files=files).module()
logits = model(torch.zeros(2, {sizes}, dtype=torch.uint8))  # put pictures here
print([json.loads(files["class_names.json"])[place] for place in logits.argmax(1)])
"""
ONNX = """\
import json, numpy, onnxruntime, PIL.ImageOps
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
{picture}
(logits,) = session.run(["logits"], {{"images": {images}}})
print(json.loads(session.get_modelmeta().custom_metadata_map["class_names"])[logits.argmax()])
"""


def usage(trained: Trained, entry: dict[str, Any]) -> str:
    """The lines for an export, as `exports.json` lists it."""
    shape = entry["input"]["shape"]
    known = {"file": entry["file"], "sizes": ", ".join(map(str, shape))}
    if isinstance(trained.preparation, Pixels):
        images = "numpy.array(image)" + ("[None, None]" if shape[0] == 1 else ".transpose(2, 0, 1)[None]")
        known |= {"picture": _picture(trained, shape), "images": images}
    templates = {"torch_export": TORCH_EXPORT, "onnx": ONNX}
    if entry["format"] in templates:
        return templates[entry["format"]].format(**known)
    return SAFETENSORS.format(**known, **_of_safetensors(trained, known))


def _of_safetensors(trained: Trained, known: dict[str, str]) -> dict[str, str]:
    if isinstance(trained.preparation, Pixels):
        return {
            "imports": "dltrain, numpy, PIL.ImageOps",
            "inputs": f"{known['picture']}\nprobabilities = model.predict({known['images']})",
            "outputs": "print(model.class_names[probabilities.argmax()])",
        }
    if isinstance(trained.preparation, Tokens):
        words = "print(model.generate(prompt, length=60, temperature=0.5, seed=1))"
        prompt = "prompt = model.class_names[0]  # any of its vocabulary"
        return {"imports": "dltrain", "inputs": prompt, "outputs": words}
    rows = f"rows = numpy.zeros((2, {known['sizes']}), numpy.float32)  # put rows of features here"
    return {"imports": "dltrain, numpy", "inputs": rows, "outputs": "print(model.predict(rows))"}


def _picture(trained: Trained, shape: list[int]) -> str:
    """A picture as the run's images were made: grey or colour, squashed or cropped."""
    _, height, width = shape
    picture = f'PIL.Image.open("photo.png").convert("{"L" if shape[0] == 1 else "RGB"}")'
    size = f"({width}, {height}), PIL.Image.BILINEAR"
    if trained.config.data.get("fit", "squash") == "crop":
        return f"image = PIL.ImageOps.fit({picture}, {size})"
    return f"image = {picture}.resize({size})"
