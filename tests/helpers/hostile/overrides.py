"""Hostile KEY=VALUE words."""

import functools
from collections.abc import Iterator

from hostile.case import EITHER, REFUSED, Base, Case
from hostile.paths import command

_OVERRIDES = """

=
==
=3
model
model.
.model=1
model..dim=8
model.dim=
model.dim==8
model.dim=[
model.dim={a
model.dim='8
model.dim="8
model.dim=8 9
model.dim=\\
model.dim=${model.heads
model.dim=${nope}
model.dim=${oc.env:NOPE}
model.dim=${model.dim}
model.dim=1e400
model.dim=nan
model.dim=inf
model.dim=-8
model.dim=0
model.dim=HUGE
model.dim=1,2
model.dim=range(1,3)
model.dim=choice(8)
model.dim=glob(*)
model.dim=!x
+model.dim=8
+model=memory
++model={}
++model=5
~model
~model.dim
~~model.dim
~nothing
model@x=memory
model/x=memory
/model=memory
hydra=5
hydra.run.dir
hydra/launcher=nope
hydra.sweep.dir=[
@=1
model=ESC[31m
model=
model=null
model=[memory,none]
trainer=nope
data=nope
seed=abc
seed=1e400
seed=-1
seed=4294967296
seed=nan
seed=[]
seed=null
task=lm
task=
quiet=maybe
output=[a]
output={a: 1}
training._target_=os.system
model._target_=os.system
trainer.devices=[]
trainer.devices=-5
trainer.max_epochs=inf
trainer.max_epochs=1e400
trainer.precision={}
trainer.accelerator=ESC[31m
data.batch_size=0
data.batch_size=-1
data.batch_size=[]
data.num_workers=-1
data.csv=[]
training.learning_rate=nan
training.learning_rate=[]
training.weight_decay=nan
early_stopping=5
averaging.decay=7
early_stopping.monitor=nope
ä=ö
model.dim=8NUL
LONG=1
model.dim=NESTED
model.dim=OPENED
data.lookback=THREE
model.dropout=2
model.dropout=nan
model.max_surprise=-1
model.theta_scale=nan
model.blocks=1000000000
data.lookback=1000000000000
"""
_WORDS = {
    "LONG": "a" * 100_000,
    "NESTED": "[" * 2000 + "]" * 2000,
    "OPENED": "${" * 300,
    "ESC": "\x1b",
    "NUL": "\x00",
    "THREE": "\u0663",
    "HUGE": str(10**30),
}


def overrides(base: Base) -> Iterator[Case]:
    """KEY=VALUE words of every syntax."""
    small = (
        "--csv",
        str(base.series),
        "--lookback",
        "16",
        "--horizon",
        "4",
        "--epochs",
        "1",
        "--quiet",
        "--output",
        "out",
    )
    harmless = {
        "~nothing",
        "+model.dim=8",
        "+model=memory",
        "model.dim=choice(8)",
        "output=",
        "task=",
        "trainer.max_epochs=inf",
        "hydra.run.dir",
        "early_stopping.monitor=nope",
        "trainer.devices=-5",
    }
    for i, line in enumerate(_OVERRIDES.removeprefix("\n").removesuffix("\n").split("\n")):
        word = functools.reduce(lambda text, name: text.replace(name, _WORDS[name]), _WORDS, line)
        words = ("fit", "forecast", *small, "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")
        if word.startswith("data.lookback"):
            words = ("fit", "forecast", "--csv", str(base.series), "--quiet", "--output", "out")
        yield command(f"override-{i}-{line}", *words, word, exit=EITHER if word in harmless else REFUSED)
