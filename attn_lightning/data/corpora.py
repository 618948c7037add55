"""The data sets by name: where each one is, which classes it has and what its protocols do."""

from typing import Any, ClassVar, Literal

from attn_lightning.data.datamodule import Recipe, TextDataModule
from attn_lightning.data.sources import Columns, Hub, Source, find

Protocol = Literal["official", "jain_wallace"]


class SST(TextDataModule):
    """Stanford Sentiment Treebank, whole sentences, negative 0 and positive 1, neutral ones dropped.

    `official`: 6,920 / 872 / 1,821 sentences, words as the treebank cut them. `jain_wallace` (Jain & Wallace 2019):
    runs of letters and digits only, numbers merged, sentences of at most 5 words and the longest left out, which
    leaves 6,355 / 821 / 1,725.

    Args:
        protocol: `official` or `jain_wallace`.
        **kwargs: see `TextDataModule`.
    """

    corpus: ClassVar[str] = "sst2"

    def __init__(self, protocol: Protocol = "official", **kwargs: Any) -> None:
        self.protocol = protocol
        super().__init__(**kwargs)

    def source(self) -> Source:
        """Local folder `sst2`, else the hub."""
        hub = Hub("SetFit/sst2", "00ea8ccb7a54b4e3780a3e51aa3f80361ff849c0")
        return find(self.corpus, self.root, hub, ("train", "validation", "test"))

    def columns(self) -> Columns:
        """The treebank's words are joined by spaces."""
        if self.protocol == "jain_wallace":
            return Columns()
        return Columns(split_at_spaces=True, annotations=(("token_sentiment", "token_sentiment"),))

    def declared_labels(self) -> tuple[str, ...]:
        """Negative and positive."""
        return ("negative", "positive")

    def protocol_recipe(self) -> Recipe:
        """See the class."""
        if self.protocol == "jain_wallace":
            return Recipe(min_length=6, drop_longest=True, digits="merge", splitting="alphanumeric")
        return Recipe(splitting="treebank")
