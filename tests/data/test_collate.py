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
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["input_ids"].tolist() == [[1, 5, 2], [1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 6, -100], [-100, 9, -100]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_widths():
    examples = [example([1, 5, 2]), example([1, 2])]
    assert Collator(pad_token_id=3, multiple_of=8)(examples)["input_ids"].shape == (2, 8)
    assert Collator(pad_token_id=3, length=5)(examples)["input_ids"].shape == (2, 5)
    assert Collator(pad_token_id=3, num_bases=True)(examples)["num_bases"].tolist() == [7, 7]


def test_packing_by_hand():
    examples = [
        example([1, 5, 2], np.array([-100, 6, -100]), token_type_ids=np.array([0, 0, 1])),
        example([1, 2], np.array([-100, 9]), token_type_ids=np.array([1, 1])),
    ]
    batch = Collator(pad_token_id=3, multiple_of=4, num_bases=True, pack=True)(examples)
    assert batch["input_ids"].tolist() == [[1, 5, 2, 1, 2, 3, 3, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert batch["document_ids"].tolist() == [[0, 0, 0, 1, 1, -1, -1, -1]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1, 1, 1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, -100, -100, 9, -100, -100, -100]]
    assert batch["num_bases"].tolist() == [7, 7]
    classes = [example([1, 5, 2], 1), example([1, 2], 0)]
    assert Collator(pad_token_id=3, pack=True)(classes)["labels"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="the examples of a batch have 5 tokens, but batches are padded to 4"):
        Collator(pad_token_id=3, length=4, pack=True)(classes)


def test_labels_of_sequences_and_token_types():
    examples = [
        example([1, 5, 2], 1, token_type_ids=np.array([0, 0, 1])),
        example([1, 2], 0, token_type_ids=np.array([0, 1])),
    ]
    batch = Collator(pad_token_id=3)(examples)
    assert batch["labels"].tolist() == [1, 0] and batch["labels"].dtype == torch.int64
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 1, 0]]
    targets = [example([1, 5, 2], np.array([0.5, np.nan])), example([1, 2], np.array([1.0, 2.0]))]
    assert Collator(pad_token_id=3)(targets)["labels"].dtype == torch.float32


def test_errors():
    with pytest.raises(ValueError, match="multiple_of must be positive"):
        Collator(pad_token_id=3, multiple_of=0)
    with pytest.raises(ValueError, match="at least one example"):
        Collator(pad_token_id=3)([])
    with pytest.raises(ValueError, match="an example has 3 tokens, but batches are padded to 2"):
        Collator(pad_token_id=3, length=2)([example([1, 5, 2])])
