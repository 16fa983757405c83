"""The flags of `titans-seq fit|eval|generate lm`."""

from titans_seq.cli.flags import (
    MODEL,
    Command,
    Flag,
    checkpoint_flags,
    file,
    length,
    path,
    positive,
    seed,
    training_flags,
)

FIT = Command(
    "lm:fit_command",
    "Train a language model on a text or on a task with answers, test its best epoch, and write it to a run folder.",
    (
        Flag("--text FILE", "a text in UTF-8", "data=text", "data.text", type=file),
        Flag(
            "--task NAME",
            "instead of a text: passkey, number, uuid, recall, one_fact, two_facts, permutations, swaps or parity",
            "data=task",
            "data.task",
            dest="task_name",  # `task` is the word after the verb
        ),
        Flag("--variant NAME", "lmm, mac (default), mag, mal, or transformer", "model"),
        Flag(
            "--size SIZE",
            "a size of the paper with its recipe for one device: 170m, 340m, 400m or 760m (at 32,000 tokens)",
            "experiment=paper",
        ),
        Flag("--length T", "tokens per sample (default: 256)", "data.length", type=positive),
        Flag(
            "--carry N", "carry the state over N samples of the text in a row (default: 1)", "data.carry", type=positive
        ),
        Flag("--tokenizer FILE", "a tokenizer.json (default: bytes)", "data.tokenizer", type=file),
        Flag(
            "--vocab-size V", "learn V byte pairs from the text; needs titans-seq[lm]", "data.vocab_size", type=positive
        ),
        *training_flags("runs/lm/<text or task>-<variant>-s<seed>"),
    ),
    """examples:
  titans-seq fit lm --text book.txt                                a MAC of bytes
  titans-seq fit lm --variant lmm --text book.txt --length 1024
  titans-seq fit lm --text book.txt --vocab-size 4096              byte pairs learned from the text
  titans-seq fit lm --text book.txt --tokenizer tokenizer.json     of the Hugging Face library tokenizers
  titans-seq fit lm --task passkey --variant mag --length 512      a number hidden in noise; see `eval lm`
  titans-seq fit lm --text book.txt model.segment=128 model.depth=1 data.steps_per_epoch=250
  titans-seq fit lm --variant mag --size 170m --text corpus.txt --tokenizer tokenizer.json --devices 8 \\
      trainer.accumulate_grad_batches=4
  titans-seq fit lm --variant mac --size 760m --text corpus.txt --devices 8 --strategy fsdp \\
      trainer.accumulate_grad_batches=4
  titans-seq fit lm --text book.txt --resume                       continue an interrupted run

The first 90 % of the text train the model, the next 5 % choose the epoch, the last 5 % test it.
KEY=VALUE overrides the configuration; RUN/config.yaml shows all keys.""",
    takes_overrides=True,
)

EVAL = Command(
    "lm_tools:eval_command",
    "Measure a language model: the perplexity of a text in one stream, its accuracy in tasks by length, or tasks of "
    "lm-evaluation-harness.",
    (
        *checkpoint_flags(MODEL),
        Flag(
            "--text FILE", "text to read in one stream, carrying the state from its first token to its last", type=file
        ),
        Flag(
            "--tasks NAME", "tasks of `titans-seq fit lm --help` or of the harness, or `paper`: nine of them", nargs="+"
        ),
        Flag("--lengths T", "tokens per sample (default: 256 512 1024 2048 4096)", type=length, nargs="+"),
        Flag("--samples N", "samples per length (default: 128)", type=positive),
        Flag("--include DIR", "folder with task files of your own", type=path),
        Flag("--limit N", "maximum number of documents of each task of the harness", type=positive),
        Flag("--seed S", "seed of the samples (default: 0)", type=seed),
        Flag("--output PATH", "--text: a JSON file to write; --tasks: a folder (default: RUN/eval)", type=path),
    ),
    """examples:
  titans-seq eval lm --checkpoint runs/lm/book-mac-s0 --text other.txt
  titans-seq eval lm --checkpoint runs/lm/passkey-mac-s0 --tasks passkey --lengths 512 2048 8192
  titans-seq eval lm --checkpoint RUN --tasks wikitext piqa        tasks of lm-evaluation-harness (extra [harness])
  titans-seq eval lm --checkpoint RUN --tasks paper                all that the paper reports
  titans-seq eval lm --checkpoint RUN --tasks mine --include DIR   a task file of your own in DIR""",
)

GENERATE = Command(
    "lm_tools:generate_command",
    "Continue a text. The state can be saved and loaded again: the model then continues from what it has read.",
    (
        *checkpoint_flags(MODEL),
        Flag("--prompt TEXT", "text to continue", required=True),
        Flag("--tokens N", "number of tokens to draw (default: 200)", type=positive, default=200),
        Flag("--temperature X", "0: always the most likely (default: 1)", type=float, default=1.0),
        Flag("--top-k K", "draw among the K most likely", type=positive),
        Flag("--top-p P", "draw among the fewest with this share of the probability", type=float),
        Flag("--seed S", "seed of the draws (default: 0)", type=seed, default=0),
        Flag("--state FILE", "continue from a saved state", type=file),
        Flag("--save-state FILE", "save the state after the printed text", type=path),
    ),
    """examples:
  titans-seq generate lm --checkpoint runs/lm/book-mac-s0 --prompt 'Once upon a time'
  titans-seq generate lm --checkpoint RUN --prompt 'To be' --tokens 500 --temperature 0.8 --top-p 0.95 --seed 1
  titans-seq generate lm --checkpoint RUN --prompt 'Hello' --save-state talk.state
  titans-seq generate lm --checkpoint RUN --prompt ' Well?' --state talk.state""",
)
