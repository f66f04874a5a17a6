"""Sentence vectors by all-MiniLM-L6-v2 in ONNX Runtime: what any model looks like as an image."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
from lading_agent import Agent, BadRequest
from tokenizers import Tokenizer

HERE = Path(__file__).parent
CONTEXT = 256

agent = Agent("minilm", threads=1)
tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
tokenizer.enable_truncation(CONTEXT)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), options, providers=["CPUExecutionProvider"])


@agent.operation
def embed(input, call):
    texts = input.get("inputs") if isinstance(input, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadRequest('Send {"inputs": ["...", ...]}.')
    vectors, tokens = [], []
    # One at a time: padding beside a longer text would change a vector's last bits.
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        row = session.run(["sentence_vector"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
        vectors.append(row.tolist())
        tokens.append(ids.shape[1])
    return {"vectors": vectors, "tokens": tokens}


agent.run()
