"""Named switches for what published code does and ours would not; the default configuration touches none.

A quirk is a name in ``config.quirks``. Each one is read by exactly one function, named here, and says why it exists.
Numbers published by the original authors may depend on a quirk; new models should never ask for one.
"""

from __future__ import annotations

QUIRKS: dict[str, str] = {
    "double_decoder_bias": (
        "The masked-LM head adds the vocabulary bias twice, as the DNABERT repository does (its decoder owns the bias "
        "and the head adds it again). Read by `heads.MaskedLMHead.forward`."
    ),
    "token_dropout": (
        "Vectors of <mask> are zeroed and all are scaled by 0.88 / (share of real tokens that are not masked), in "
        "evaluation too, as in ESM and Nucleotide Transformer v1. Read by `id_quirks.drop_masked_tokens`."
    ),
    "positions_after_padding": (
        "Learned positions count real tokens only and begin at pad_token_id + 1, as in ESM and Nucleotide Transformer "
        "v1; the rows below are stored and unused. Read by `id_quirks.first_position`."
    ),
    "no_first_attention_norm": (
        "The first layer has no norm before its attention, because the embedding norm is right before it, as in "
        "ModernBERT (ModernGENA). Read by `encoder.first_attention_norm`."
    ),
    "zero_padding": (
        "The encoder's result at padding is exactly 0, as in DNABERT-2, which removes padding before its layers. Read "
        "by `id_quirks.zero_padding`."
    ),
    "unmasked_padding": (
        "Padding is not masked: 1 is added to the scores of real tokens instead of -inf to those of padding, as in the "
        "DNABERT repository since June 2021. Read by `attention.mask.padding_bias`."
    ),
    "zero_random_blocks": (
        "Every random block of BigBird is block 0, counted once for each, as transformers 4.29 and later do outside of "
        "training (the models were trained and evaluated with random ones). Read by "
        "`attention.layouts._bigbird_pattern`."
    ),
    "blocks_of_padded_length": (
        "The blocks of BigBird follow the padded length of the batch, so that a padded row depends on its batch mates, "
        "as in transformers. Read by `attention.layouts.rows_as_documents`."
    ),
    "dropout_before_embedding_norm": (
        "Dropout of the embeddings comes before their norm, as in transformers' BigBird; matters in training only. "
        "Read by `encoder.Embeddings.forward`."
    ),
    "unk_segment_padding": (
        "Segments are padded to segment_length with id 0 ([UNK]) and attention sees the padding, as in GENA-LM's "
        "recurrent sequence classifier, whose published promoter results depend on it. Read by "
        "`memory.padding_of`."
    ),
    "published_bptt": (
        "With bptt_depth, every link before the last ones is cut and the initial memory with it, so that it never "
        "trains, as in GENA-LM's recurrent memory. Read by `recurrence.truncate`."
    ),
    "mean_of_step_losses": (
        "With loss on all segments, each step counts the same, however many labels it has (none: a loss of 0), as in "
        "both published codes of recurrent memory. Read by `segment_losses.step_weights`."
    ),
    "memory_in_vocabulary": (
        "The vocabulary keeps the rows of memory tokens, so that the masked-LM softmax runs over them too, as in both "
        "published codes of recurrent memory. Read by `convert.import_published`, on import."
    ),
}
MEMORY_QUIRKS = ("unk_segment_padding", "published_bptt", "mean_of_step_losses", "memory_in_vocabulary")
"""Those that only mean something with recurrent memory."""
