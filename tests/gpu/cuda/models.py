"""Models on the rank's device against local PyTorch: MiniLM's shape, a small Llama in float32 and bfloat16, a small
ResNet.

    djinn-run -n 2 --device cuda -- python tests/gpu/cuda/models.py

Weights are seeded random numbers, so that nothing is looked for anywhere. Each model runs three times: on a GPU the
second run captures its graphs and the third replays them. Exit status 1: a result differs, or an op ran here instead
of on the rank.
"""

import warnings

import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, ResNetConfig
from transformers import ResNetForImageClassification

import djinn


def bert():
    model = BertModel(BertConfig(vocab_size=500, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                                 intermediate_size=1536))
    mask = torch.ones(2, 8, dtype=torch.int64)
    mask[1, 4:] = 0
    return model, {"input_ids": torch.randint(0, 500, (2, 8)), "attention_mask": mask}


def llama():
    model = LlamaForCausalLM(LlamaConfig(vocab_size=200, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                                         num_attention_heads=4, num_key_value_heads=2))
    return model, {"input_ids": torch.randint(0, 200, (2, 9))}


def resnet():
    model = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1],
                                                      num_labels=10))
    return model, {"pixel_values": torch.randn(2, 3, 32, 32)}


CASES = [("MiniLM", bert, torch.float32, 1e-4), ("Llama", llama, torch.float32, 1e-4),
         ("Llama", llama, torch.bfloat16, 3e-2), ("ResNet", resnet, torch.float32, 1e-4)]


@torch.no_grad()
def worst(make, dtype):
    torch.manual_seed(0)
    model, inputs = make()
    model = model.eval().to(dtype)
    local = model(**inputs)[0].float()
    model = model.to("djinn")
    results = [model(**{name: value.to("djinn") for name, value in inputs.items()})[0].cpu().float() for _ in range(3)]
    return max((local - result).abs().max().item() for result in results)


def main():
    warnings.simplefilter("error")  # an op that the rank lacks is told as a warning
    djinn.connect(deadline_ms=100000)
    wrong = []
    for name, make, dtype, tolerance in CASES:
        found = worst(make, dtype)
        print(f"{name} in {dtype}: largest difference {found:.2e} of {tolerance:.0e}", flush=True)
        if not found <= tolerance:
            wrong.append(name)
    if wrong:
        raise SystemExit(f"differ from local PyTorch: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
