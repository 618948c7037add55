"""What mixed precision reaches, in words: where an option changes nothing the log says so."""

from torch import nn

from attn_lightning.backbone.encoders import Encoder


def unreached_by(precision: str, model: nn.Module, device_type: str) -> str | None:
    """The sentence for the log where half precision was asked for and the encoder stays in float32; else None.

    Scores, attention, losses and metrics are float32 in any precision, so the encoder is all that could change.

    Args:
        precision: of the trainer, as "bf16-mixed".
        model: the backbone; of one without an `Encoder` nothing is known.
        device_type: "cpu", "cuda", ...: `tensor.device.type`.
    """
    encoder = getattr(model, "encoder", None)
    if not precision.endswith("-mixed") or not isinstance(encoder, Encoder):
        return None
    reason = encoder.stays_in_float32(device_type)
    if reason is None:
        return None
    return (
        f"`--trainer.precision={precision}` changes nothing: {type(encoder).__name__} stays in float32, since {reason}"
    )
