"""Pre-training and fine-tuning on the Hugging Face Trainer, with checkpoints that survive a kill."""
