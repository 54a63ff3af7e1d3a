"""FastAPI: an input's bytes in, the first output's bytes out, and pictures by way of Pillow.

    uvicorn raw:app

HOLDFAST_BENCH_MODELS names the folder of models.
"""

import io
import os

import fastapi
import numpy as np
from fastapi import Request, Response
from PIL import Image

import models

app = fastapi.FastAPI()
loaded = models.load(os.environ["HOLDFAST_BENCH_MODELS"])


@app.post("/infer/{name}")
async def infer(name: str, request: Request):
    outputs = loaded[name].run(await request.body())
    return Response(outputs[0].tobytes(), media_type="application/octet-stream")


@app.post("/picture/{name}")
async def picture(name: str, request: Request):
    """The class of a JPEG, as MobileNetV2 takes it: the square in its middle, -1 to 1."""
    model = loaded[name]
    size = model.shape[1]
    image = Image.open(io.BytesIO(await request.body())).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))
    tensor = ((pixels.astype(np.float32) - 127) * (2 / 255))[np.newaxis]
    (given,) = model.session.run(None, {model.name: tensor})
    return {"class": int(given[0].argmax()), "confidence": float(given[0].max())}
