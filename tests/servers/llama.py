"""A llama.cpp server out of PyPI's xllamacpp, for a tiny model with random weights.

    llama.py PORT FILE

Writes the model into FILE with PyPI's gguf, if it is not there, and serves it.
"""

import pathlib
import sys
import threading

import gguf
import numpy as np
import xllamacpp

# Two layers of a Llama, so small that a token takes no time.
WIDTH, LAYERS, HEADS, HIDDEN, CONTEXT = 32, 2, 2, 64, 2048


def tokens():
    """Byte tokens, as Llama's own vocabulary begins, and the printable ASCII as words of a letter."""
    words = [(b"<unk>", gguf.TokenType.UNKNOWN), (b"<s>", gguf.TokenType.CONTROL), (b"</s>", gguf.TokenType.CONTROL)]
    words += [(f"<0x{byte:02X}>".encode(), gguf.TokenType.BYTE) for byte in range(256)]
    words += [("\u2581".encode(), gguf.TokenType.NORMAL)]
    words += [(bytes([byte]), gguf.TokenType.NORMAL) for byte in range(0x21, 0x7F)]
    return words


def write(path):
    writer = gguf.GGUFWriter(path, "llama")
    words = tokens()
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([kind for _, kind in words])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}")
    random = np.random.default_rng(17)
    weights = lambda *shape: (random.standard_normal(shape) * 0.3).astype(np.float32)
    writer.add_tensor("token_embd.weight", weights(len(words), WIDTH))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output.weight", weights(len(words), WIDTH))
    for layer in range(LAYERS):
        own = f"blk.{layer}"
        for norm in ["attn_norm", "ffn_norm"]:
            writer.add_tensor(f"{own}.{norm}.weight", np.ones(WIDTH, np.float32))
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            writer.add_tensor(f"{own}.{part}.weight", weights(WIDTH, WIDTH))
        for part in ["ffn_gate", "ffn_up"]:
            writer.add_tensor(f"{own}.{part}.weight", weights(HIDDEN, WIDTH))
        writer.add_tensor(f"{own}.ffn_down.weight", weights(WIDTH, HIDDEN))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    port, path = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    if not path.exists():
        half = path.with_suffix(".half")
        write(half)
        half.rename(path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_ctx, params.n_parallel = CONTEXT, 2
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.model_alias = ["tiny"]
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)
    threading.Event().wait()


main()
