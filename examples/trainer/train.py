"""A small Llama by Hugging Face's Trainer, on Python's own library; the study names the optimizer."""

import sysconfig
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

import optstudy

trial = optstudy.trial()
set_seed(trial.seed)
library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:50]
text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in library)), dtype=torch.uint8)
rows = [{"input_ids": row, "labels": row} for row in text[: len(text) // 64 * 64].view(-1, 64).long()]
train, val = rows[:-100], rows[-100:]
shape = {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 64}
model = LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=2, num_attention_heads=2))
arguments = TrainingArguments(
    output_dir=str(trial.folder / "checkpoints"),
    max_steps=trial["steps"],
    warmup_steps=trial["steps"] // 10,
    lr_scheduler_type="cosine",
    eval_strategy="steps",
    eval_steps=trial["steps"] // 2,
    logging_steps=5,
    include_num_input_tokens_seen=True,
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
    seed=trial.seed,
)
Trainer(
    model,
    arguments,
    train_dataset=train,
    eval_dataset=val,
    optimizers=(trial.optimizer(model), None),
    callbacks=[trial.callback()],
).train()
