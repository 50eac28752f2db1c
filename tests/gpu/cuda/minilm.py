"""A small batch of sentences' tokens through MiniLM on the rank's device, against local PyTorch.

    djinn-run -n 2 --device cuda -- python tests/gpu/cuda/minilm.py

The model has MiniLM's shape and seeded random weights, so that nothing is looked for anywhere. Exit status 1: the
embeddings differ.
"""

import torch
from transformers import BertConfig, BertModel

import djinn

BATCH, LENGTH, TOLERANCE = 2, 8, 1e-4


def main():
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=500, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                                 intermediate_size=1536)).eval()
    ids = torch.randint(0, 500, (BATCH, LENGTH))
    mask = torch.ones_like(ids)
    mask[1, LENGTH // 2:] = 0
    with torch.no_grad():
        local = model(ids, attention_mask=mask).last_hidden_state
        djinn.connect()
        model = model.to("djinn")
        remote = model(ids.to("djinn"), attention_mask=mask.to("djinn")).last_hidden_state.cpu()
    worst = (local - remote).abs().max().item()
    print(f"{BATCH} x {LENGTH} tokens: largest difference {worst:.2e}")
    if not worst <= TOLERANCE:
        raise SystemExit("MiniLM differs from local PyTorch")


if __name__ == "__main__":
    main()
