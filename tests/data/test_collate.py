import numpy as np
import pytest
import torch

from longstrand.data.collate import Collator


def example(ids, labels=None, **more):
    base = {"input_ids": np.array(ids, dtype=np.int32), "num_bases": 7}
    return base | ({} if labels is None else {"labels": labels}) | more


def test_padding_by_hand():
    batch = Collator(pad_token_id=3)(
        [example([1, 5, 2], np.array([-100, 6, -100])), example([1, 2], np.array([-100, 9]))]
    )
    assert set(batch) == {"input_ids", "attention_mask", "labels", "num_bases"} and batch["num_bases"].tolist() == [
        7,
        7,
    ]
    assert batch["input_ids"].tolist() == [[1, 5, 2], [1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 6, -100], [-100, 9, -100]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_packing_by_hand():
    examples = [
        example([1, 5, 2], np.array([-100, 6, -100]), token_type_ids=np.array([0, 0, 1])),
        example([1, 2], np.array([-100, 9]), token_type_ids=np.array([1, 1])),
    ]
    batch = Collator(3, pack=True)(examples)
    assert batch["input_ids"].tolist() == [[1, 5, 2, 1, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1]]
    assert batch["document_ids"].tolist() == [[0, 0, 0, 1, 1]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1, 1, 1]]
    assert batch["labels"].tolist() == [[-100, 6, -100, -100, 9]]
    assert batch["num_bases"].tolist() == [7, 7]
    classes = [example([1, 5, 2], 1), example([1, 2], 0)]
    assert Collator(3, per_token=False, pack=True)(classes)["labels"].tolist() == [1, 0]


def test_labels_of_sequences_and_token_types():
    examples = [
        example([1, 5, 2], 1, token_type_ids=np.array([0, 0, 1])),
        example([1, 2], 0, token_type_ids=np.array([0, 1])),
    ]
    batch = Collator(3, per_token=False)(examples)
    assert batch["labels"].tolist() == [1, 0] and batch["labels"].dtype == torch.int64
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 1, 0]]
    targets = [example([1, 5, 2], np.array([0.5, np.nan])), example([1, 2], np.array([1.0, 2.0]))]
    assert Collator(3, per_token=False)(targets)["labels"].dtype == torch.float32


def test_errors():
    with pytest.raises(ValueError, match="at least one example"):
        Collator(pad_token_id=3)([])


def test_labels_of_bins_end_with_nan():
    rows = [example([1, 5], np.ones((2, 2), dtype=np.float32)), example([1], np.zeros((1, 2), dtype=np.float32))]
    labels = Collator(3, per_token=False)(rows)["labels"]
    assert labels.shape == (2, 2, 2) and labels[1].isnan().tolist() == [[False, False], [True, True]]
