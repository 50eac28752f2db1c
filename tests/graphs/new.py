"""Architectures that were captured after the detectors had been written: they are scored on these."""

from known import decode, encoder, ids, place, prefill, quiet, trained, translator, vision
from registry import capture

# ---- text ----

PHI = dict(kind="Phi", dtype="bfloat16", hidden_size=1024, intermediate_size=4096, num_hidden_layers=12,
           num_attention_heads=16, vocab_size=51200)
BLOOM = dict(kind="Bloom", hidden_size=768, n_layer=12, n_head=12, vocab_size=32000)
STABLELM = dict(kind="StableLm", dtype="bfloat16", hidden_size=1024, intermediate_size=2816, num_hidden_layers=12,
                num_attention_heads=16, num_key_value_heads=16, vocab_size=50304)
OLMO2 = dict(kind="Olmo2", dtype="bfloat16", hidden_size=1024, intermediate_size=4096, num_hidden_layers=10,
             num_attention_heads=16, num_key_value_heads=4, vocab_size=32000)
GPTJ = dict(kind="GPTJ", n_embd=768, n_layer=8, n_head=12, rotary_dim=32, vocab_size=50400, n_positions=1024)

capture("phi-prefill", "Phi", "prefill", "new", **PHI)(prefill)
capture("phi-decode", "Phi", "decode", "new", **PHI)(decode)
capture("bloom-prefill", "BLOOM", "prefill", "new", **BLOOM)(prefill)
capture("bloom-decode", "BLOOM", "decode", "new", **BLOOM)(decode)
capture("stablelm-prefill", "StableLM", "prefill", "new", **STABLELM)(prefill)
capture("stablelm-decode", "StableLM", "decode", "new", **STABLELM, static=True)(decode)
capture("olmo2-decode", "OLMo 2", "decode", "new", **OLMO2, batch=2)(decode)
capture("gpt-j-prefill", "GPT-J", "prefill", "new", **GPTJ)(prefill)
capture("electra-base", "ELECTRA", "prefill", "new", kind="Electra", batch=8, length=128)(encoder)
capture("albert-base", "ALBERT", "prefill", "new", kind="Albert", batch=4, length=192, hidden_size=768,
        num_attention_heads=12, intermediate_size=3072)(encoder)
capture("deberta-v2", "DeBERTa v2", "prefill", "new", kind="DebertaV2", batch=2, length=128, hidden_size=768,
        num_hidden_layers=6, num_attention_heads=12, intermediate_size=3072, vocab_size=32000,
        relative_attention=True, pos_att_type=["p2c", "c2p"])(encoder)

PEGASUS = dict(kind="Pegasus", d_model=512, encoder_layers=4, decoder_layers=4, encoder_attention_heads=8,
               decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, vocab_size=32000)
capture("pegasus-decode", "Pegasus", "decode", "new", **PEGASUS, part="decoder")(translator)

# ---- vision ----

capture("beit-base", "BEiT", "vision", "new", kind="Beit")(vision)
capture("dinov2-small", "DINOv2", "vision", "new", kind="Dinov2", hidden_size=384, num_attention_heads=6,
        image_size=224)(vision)
capture("segformer-b0", "SegFormer", "vision", "new", kind="Segformer", batch=1, size=512,
        suffix="ForSemanticSegmentation")(vision)
capture("mobilevit", "MobileViT", "vision", "new", kind="MobileViT", size=256)(vision)
capture("mobilenet-v2", "MobileNetV2", "vision", "new", kind="MobileNetV2")(vision)
capture("regnet", "RegNet", "vision", "new", kind="RegNet")(vision)


@capture("sam-encoder", "SAM encoder", "vision", "new")
def sam():
    import torch
    import transformers

    config = transformers.SamVisionConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=6, image_size=512,
                                          global_attn_indexes=[2, 5], mlp_dim=1536)
    model = place(transformers.SamVisionModel(config))
    pixels = torch.randn(1, 3, 512, 512).to("djinn")
    return model, quiet(lambda: model(pixel_values=pixels))


@capture("detr", "DETR", "vision", "new")
def detr():
    import torch
    import transformers

    config = transformers.DetrConfig(use_timm_backbone=False, use_pretrained_backbone=False,
                                     backbone_config=transformers.ResNetConfig(out_features=["stage4"]))
    model = place(transformers.DetrForObjectDetection(config))
    pixels = torch.randn(1, 3, 320, 320).to("djinn")
    return model, quiet(lambda: model(pixel_values=pixels))


# ---- speech ----


def sound(kind, seconds=4, suffix="Model", **sizes):
    import torch
    import transformers

    model = place(getattr(transformers, kind + suffix)(getattr(transformers, kind + "Config")(**sizes)))
    samples = torch.randn(1, 16000 * seconds).to("djinn")
    return model, quiet(lambda: model(samples))


@capture("spectrogram", "Audio spectrogram transformer", "speech", "new")
def spectrogram():
    import torch
    import transformers

    model = place(transformers.ASTForAudioClassification(transformers.ASTConfig(num_hidden_layers=6)))
    mel = torch.randn(1, 1024, 128).to("djinn")
    return model, quiet(lambda: model(mel))


@capture("speech2text-encoder", "Speech2Text encoder", "speech", "new")
def speech2text():
    import torch
    import transformers

    model = place(transformers.Speech2TextModel(transformers.Speech2TextConfig(d_model=256, encoder_layers=8)))
    mel = torch.randn(2, 600, 80).to("djinn")
    return model, quiet(lambda: model.get_encoder()(mel))


capture("hubert", "HuBERT", "speech", "new", kind="Hubert", num_hidden_layers=8)(sound)
capture("sew", "SEW", "speech", "new", kind="SEW", num_hidden_layers=8)(sound)

# ---- diffusion ----


@capture("pixart", "PixArt", "diffusion", "new")
def pixart():
    import models_new
    import torch

    model = place(models_new.PixArt())
    noise, steps = torch.randn(2, 4, 32, 32).to("djinn"), torch.randint(0, 1000, (2,)).to("djinn")
    prompt = torch.randn(2, 120, 4096).to("djinn")
    return model, quiet(lambda: model(noise, steps, prompt))


@capture("latent-unet", "Latent diffusion UNet", "diffusion", "new")
def latent():
    import models_new
    import torch

    model = place(models_new.LatentUNet())
    noise, steps = torch.randn(2, 4, 32, 32).to("djinn"), torch.randint(0, 1000, (2,)).to("djinn")
    prompt = torch.randn(2, 77, 768).to("djinn")
    return model, quiet(lambda: model(noise, steps, prompt))


# ---- recommendation ----


@capture("dcn-v2", "DCN v2", "recommendation", "new")
def dcn():
    import models_new
    import torch

    model = place(models_new.DcnV2())
    dense, given = torch.randn(512, 13).to("djinn"), ids(512, 26, 20000)
    return model, quiet(lambda: model(dense, given))


@capture("wide-deep", "Wide and deep", "recommendation", "new")
def wide():
    import models_new
    import torch

    model = place(models_new.WideAndDeep())
    dense, given = torch.randn(512, 8).to("djinn"), ids(512, 20, 30000)
    return model, quiet(lambda: model(dense, given))


@capture("deepfm", "DeepFM", "recommendation", "new")
def deepfm():
    import models_new
    import torch

    model = place(models_new.DeepFm())
    given, values = ids(1024, 39, 20000), torch.rand(1024, 39).to("djinn")
    return model, quiet(lambda: model(given, values))


# ---- training ----


@capture("train-vit", "ViT", "training", "new")
def train_vit():
    import torch
    import transformers

    config = transformers.ViTConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=6,
                                    intermediate_size=1536, hidden_dropout_prob=0.0,
                                    attention_probs_dropout_prob=0.0, num_labels=100)
    model = transformers.ViTForImageClassification(config).to("djinn")
    pixels, labels = torch.randn(8, 3, 224, 224).to("djinn"), ids(1, 8, 100)[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False)
    return trained(model, lambda: torch.nn.functional.cross_entropy(model(pixels).logits, labels), optimizer)


@capture("train-resnet", "ResNet", "training", "new")
def train_resnet():
    import torch
    import transformers

    config = transformers.ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2],
                                       num_labels=100)
    model = transformers.ResNetForImageClassification(config).to("djinn")
    pixels, labels = torch.randn(4, 3, 128, 128).to("djinn"), ids(1, 4, 100)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False)
    return trained(model, lambda: torch.nn.functional.cross_entropy(model(pixels).logits, labels), optimizer)


@capture("train-dcn", "DCN v2", "training", "new")
def train_dcn():
    import models_new
    import torch

    model = models_new.DcnV2(rows=5000).to("djinn")
    dense, given = torch.randn(256, 13).to("djinn"), ids(256, 26, 5000)
    clicks = torch.rand(256, 1).round().to("djinn")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)

    def loss():
        p = model(dense, given)
        return -(clicks * p.log() + (1 - clicks) * (1 - p).log()).mean()

    return trained(model, loss, optimizer)


# ---- none of the phases ----


@capture("gcn", "Graph convolution", "unknown", "new")
def gcn():
    import models_new
    import torch

    model = place(models_new.GraphConvolution())
    x, weight = torch.randn(2000, 256).to("djinn"), torch.rand(10000).to("djinn")
    source, target = ids(1, 10000, 2000)[0], ids(1, 10000, 2000)[0]
    return model, quiet(lambda: model(x, source, target, weight))


@capture("radiance-field", "Radiance field", "unknown", "new")
def field():
    import models_new
    import torch

    model = place(models_new.RadianceField())
    points, ways = torch.rand(4096, 3).to("djinn"), torch.randn(4096, 3).to("djinn")
    return model, quiet(lambda: model(points, ways))
