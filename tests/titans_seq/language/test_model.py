"""Language models of every variant: who sees what, streams, decoding, sizes, what is saved and read again."""

import pytest
import torch
import torch.nn.functional as F
from accuracy import assert_equal_to
from safetensors.torch import load_file, save_file
from signed import change_config, change_tensors, sign

from titans_seq.language import VARIANTS, ByteTokenizer, LanguageModel, generate, load_model, save_model, train_bpe
from titans_seq.language.evaluation import read_stream
from titans_seq.language.generation import draw
from titans_seq.language.module import IGNORED, LanguageModule, token_loss
from titans_seq.state_io import load_state, save_state

V = 11
OPTIONS = {
    "lmm": {"chunk_size": 3},
    "mac": {"chunk_size": 3, "segment": 4},
    "mag": {"chunk_size": 3, "window": 4},
    "mal": {"chunk_size": 3, "window": 4},
    "transformer": {"window": 5},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def model(variant="mac", dtype=torch.float64, vocabulary=V, **options):
    torch.manual_seed(0)
    options = {"dim": 8, "layers": 2, "heads": 2, "num_persistent": 2} | OPTIONS[variant] | options
    made = LanguageModel(vocabulary, mixer=VARIANTS[variant], **options).to(dtype).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def tokens(*shape, seed=0):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


@every_variant
def test_no_token_sees_a_later_one(variant):
    made, given = model(variant), tokens(1, 14)
    exact = made(given)[0][0]
    for t in range(14):
        other = given.clone()
        other[0, t] = (other[0, t] + 1) % V
        changed = (made(other)[0][0] - exact).abs().amax(dim=-1) > 1e-12
        assert not changed[:t].any()
        assert changed[t]


@every_variant
def test_decoding_token_by_token_is_one_pass(variant):
    made, given = model(variant), tokens(2, 14)
    with torch.inference_mode():
        whole = made(given)
        state, logits = None, []
        for part in given.split(1, dim=1):
            made_logits, state = made(part, state=state)
            logits.append(made_logits)
        assert_equal_to(torch.cat(logits, dim=1), whole[0], name="logits")
        for a, b in zip(state.tensors(), whole[1].tensors(), strict=True):
            assert_equal_to(a.double(), b.double(), name="state")


@every_variant
def test_tokens_stay_apart_at_the_start(variant):
    """What the blocks add must not drown the embedding: attention, say, adds nearly the same to all tokens."""
    torch.manual_seed(0)
    options = {name: 32 for name in OPTIONS[variant] if name in ("segment", "window")}
    made = LanguageModel(256, 64, layers=4, mixer=VARIANTS[variant], **options)
    with torch.no_grad():
        features = F.normalize(made.encoder(torch.randint(256, (2, 256)))[0], dim=-1)
    assert (features[:, 1:] * features[:, :-1]).sum(dim=-1).mean() < 0.25


@every_variant
@pytest.mark.parametrize("layers", [1, 4])
def test_what_blocks_add_starts_small(variant, layers):
    """As in GPT-2: the maps out of attention, memory and channel mixing at .02 / sqrt(2 layers)."""
    torch.manual_seed(0)
    made = LanguageModel(256, 64, layers=layers, mixer=VARIANTS[variant])
    outs = [m.weight for name, m in made.named_modules() if name.endswith(".out")]
    assert len(outs) == layers * (3 if variant in ("mac", "mag", "mal") else 2)
    for weight in outs:
        assert float(weight.detach().std()) == pytest.approx(0.02 / (2 * layers) ** 0.5, rel=0.05)


@every_variant
def test_every_parameter_is_trained(variant):
    torch.manual_seed(0)
    made = LanguageModel(V, 8, layers=2, heads=2, mixer=VARIANTS[variant], **OPTIONS[variant])
    module = LanguageModule(made)
    module.log = lambda *_, **__: None
    given = tokens(3, 13)
    module.training_step({"tokens": given[:, :-1], "targets": given[:, 1:]}, 0).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    groups = module.make_optimizer().param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))
    decaying = {id(parameter) for parameter in groups[0]["params"]}
    maps = [m for m in made.modules() if isinstance(m, torch.nn.Linear | torch.nn.Embedding)]
    assert decaying == {id(m.weight) for m in maps}
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_rows_that_go_on_cost_what_one_pass_costs():
    made = model("mac")
    module = LanguageModule(made)
    module.log = lambda *_, **__: None
    given = tokens(2, 13)
    pieces = [{"tokens": given[:, a:b], "targets": given[:, a + 1 : b + 1]} for a, b in ((0, 5), (5, 12))]
    for carried in ([True, True], [False, True]):
        module.on_train_epoch_start()
        module.training_step(pieces[0] | {"carried": torch.tensor([True, True])}, 0)  # nothing to go on from yet
        loss = module.training_step(pieces[1] | {"carried": torch.tensor(carried)}, 1)
        whole = made(given[:, :12])[0][:, 5:]
        logits = torch.where(torch.tensor(carried)[:, None, None], whole, made(given[:, 5:12])[0])
        total, count = token_loss(logits, given[:, 6:13])
        torch.testing.assert_close(loss, total / count, rtol=1e-5, atol=0)
    loss.backward()  # no graph to the batch before
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_the_loss_is_over_what_is_asked_for():
    logits, targets = torch.randn(2, 5, V), tokens(2, 5)
    targets[0, :3] = IGNORED
    total, count = token_loss(logits, targets)
    rows = [(b, t) for b in range(2) for t in range(5) if targets[b, t] != IGNORED]
    expected = -sum(logits[b, t].log_softmax(-1)[targets[b, t]] for b, t in rows)
    assert count == len(rows) == 7
    torch.testing.assert_close(total, expected)


# streams and generation -----------------------------------------------------------------------------------------------


@every_variant
def test_a_stream_is_one_pass(variant):
    made, given = model(variant), tokens(30)
    logits = made(given[None, :-1])[0][0]
    nats = -logits.log_softmax(-1).gather(1, given[1:, None]).sum().item()
    for piece in (1, 7, 100):
        *_, (read, found) = read_stream(made, given.numpy(), piece=piece)
        assert read == 30
        assert found == pytest.approx(nats, rel=1e-6)
    with pytest.raises(ValueError, match="eval mode"):
        read_stream(made.train(), given.numpy())
    with pytest.raises(ValueError, match="at least 2"):
        read_stream(made.eval(), given[:1].numpy())


@every_variant
def test_greedy_tokens_are_the_most_likely_ones(variant):
    made, prompt = model(variant), tokens(6)
    drawn = [token for token, _ in generate(made, prompt, tokens=9, temperature=0, piece=4)]
    for i, token in enumerate(drawn):
        read = torch.cat([prompt, torch.tensor(drawn[:i], dtype=torch.int64)])
        assert token == made(read[None])[0][0, -1].argmax()


@pytest.mark.parametrize("temperature", [1e-40, 1e-300])
def test_a_very_low_temperature_takes_the_most_likely(temperature):
    made, prompt = model("lmm"), tokens(6)
    cold = [token for token, _ in generate(made, prompt, tokens=5, temperature=temperature)]
    assert cold == [token for token, _ in generate(made, prompt, tokens=5, temperature=0)]


def test_pieces_without_a_state_are_read_from_the_start():
    made, given = model("mac"), tokens(13)
    *_, (_, found) = read_stream(made, given.numpy(), piece=6, carry=False)
    logits = torch.cat([made(part[None])[0][0] for part in given[:-1].split(6)])
    assert found == pytest.approx(-logits.log_softmax(-1).gather(1, given[1:, None]).sum().item(), rel=1e-6)


def test_generation_goes_on_from_a_state(tmp_path):
    made, prompt = model("mac"), tokens(6)
    whole = [token for token, _ in generate(made, prompt, tokens=8, temperature=0)]
    first = list(generate(made, prompt, tokens=5, temperature=0))
    save_state(tmp_path / "talk", first[-1][1], model=made)
    state = load_state(tmp_path / "talk", model=made)
    rest = [token for token, _ in generate(made, torch.tensor([first[-1][0]]), tokens=3, temperature=0, state=state)]
    assert [token for token, _ in first] + rest == whole


@pytest.mark.parametrize(
    ("options", "kept"), [({}, V), ({"temperature": 0.5}, V), ({"top_k": 2}, 2), ({"top_p": 0.7}, 2), ({"top_k": 1}, 1)]
)
def test_draws_follow_the_distribution(options, kept):
    logits = torch.tensor([0.5, 0.3, 0.15] + [0.05 / (V - 3)] * (V - 3)).log()[torch.randperm(V)]
    temperature = options.get("temperature", 1.0)
    random = torch.Generator().manual_seed(0)
    drawn = [draw(logits, temperature, options.get("top_k"), options.get("top_p"), random) for _ in range(4000)]
    found = torch.bincount(torch.tensor(drawn), minlength=V) / len(drawn)
    scaled = torch.full_like(logits, -torch.inf)
    order = logits.argsort(descending=True)[:kept]
    scaled[order] = logits[order] / temperature
    assert (found - scaled.softmax(-1)).abs().max() < 0.04
    assert (found > 0).sum() <= kept


def test_the_same_seed_draws_the_same():
    made, prompt = model("mag"), tokens(4)
    one, again, other = ([t for t, _ in generate(made, prompt, tokens=8, seed=seed)] for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": -1}, "tokens must be >= 0"),
        ({"piece": 0}, "piece must be >= 1"),
        ({"temperature": -1}, "temperature must be finite and >= 0"),
        ({"temperature": float("nan")}, "temperature must be finite and >= 0"),
        ({"top_k": 0}, "top_k >= 1"),
        ({"top_p": 0.0}, r"top_p in \(0, 1\]"),
        ({"top_p": 1.5}, r"top_p in \(0, 1\]"),
    ],
)
def test_options_outside_of_their_range(options, message):
    with pytest.raises(ValueError, match=message):
        generate(model(), tokens(3), **options)


def test_prompts_that_cannot_be_read():
    with pytest.raises(ValueError, match="prompt must be at least one token"):
        generate(model(), tokens(0))
    with pytest.raises(ValueError, match="prompt must hold tokens 0 to 10"):
        generate(model(), torch.tensor([3, V]))
    with pytest.raises(ValueError, match="eval mode"):
        generate(model().train(), tokens(3))


def test_a_state_of_another_model_is_refused():
    state = model("mac")(tokens(1, 5))[1]
    with pytest.raises(ValueError, match="state belongs to another layer"):
        list(generate(model("mac", segment=5), tokens(3), state=state))
    with pytest.raises(ValueError, match="state must be a MAGState; got MACState"):
        list(generate(model("mag"), tokens(3), state=state))
    with pytest.raises(ValueError, match="state belongs to another layer"):
        h3 = model("mal", form="h3")(tokens(1, 5))[1]
        list(generate(model("mal"), tokens(3), state=h3))
    with pytest.raises(ValueError, match="state.blocks must be 1 states, one per block; got 2"):
        list(generate(model("mac", layers=1), tokens(3), state=state))


# saving ---------------------------------------------------------------------------------------------------------------


@every_variant
def test_a_saved_model_is_the_same(variant, tmp_path):
    made = model(variant, torch.float32, vocabulary=256)
    save_model(tmp_path / "new" / "folder", made, ByteTokenizer())
    read, tokenizer = load_model(tmp_path / "new" / "folder")
    assert not read.training
    assert torch.equal(read(tokens(2, 9))[0], made(tokens(2, 9))[0])
    assert tokenizer.decode(tokenizer.encode("aß")) == "aß"
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip


def test_a_model_with_learned_byte_pairs(tmp_path):
    tokenizer = train_bpe(["the cat and the hat and the bat " * 20], 264)
    save_model(tmp_path, model("lmm", torch.float32, vocabulary=tokenizer.vocabulary), tokenizer)
    _, read = load_model(tmp_path)
    text = "the cat\nändert 🙂"
    assert read.vocabulary == tokenizer.vocabulary == 264
    assert read.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert len(read.encode("the cat and")) < 11
    assert read.decode(read.encode(text)) == text


def _damage(folder, name, text):
    (folder / name).write_text(text)


def _options(folder, **options):
    change_config(folder, lambda config: config["model"].update(options))


def _weights(folder, change):
    change_tensors(folder / "model.safetensors", change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "holds no language model: it has no config.json"),
        (lambda f: _damage(f, "config.json", "{"), "config.json is damaged: it holds no JSON"),
        (lambda f: _damage(f, "config.json", "{}"), "config.json is not that of a titans-seq language model"),
        (lambda f: (f / "model.safetensors").unlink(), "is not whole: it has no model.safetensors"),
        (lambda f: _damage(f, "model.safetensors", "x" * 100), "model.safetensors is damaged"),
        (lambda f: (f / "tokenizer.json").unlink(), "is not whole: it has no tokenizer.json"),
        (lambda f: change_config(f, lambda config: config.pop("model")), "config.json is damaged: it has no model"),
        (
            lambda f: _damage(f, "config.json", (f / "config.json").read_text().replace('"dim"', '"dims"')),
            "not saved together, or config.json was changed",
        ),
        (lambda f: _options(f, dims=8), "config.json is damaged"),
        (lambda f: _options(f, dim=10**9), "config.json is damaged: dim must be at most 1,000,000"),
        (lambda f: _options(f, layers=10**9), "config.json is damaged: layers must be at most"),
        (lambda f: _options(f, depth=10**9), "config.json is damaged: depth must be at most"),
        (lambda f: _options(f, chunk_size=10**9), "config.json is damaged: chunk_size must be at most"),
        (lambda f: _options(f, dim=-8), "config.json is damaged: dim must be >= 1"),
        (lambda f: _options(f, layers="many"), "config.json is damaged: layers must be a whole number"),
        (lambda f: _options(f, mixer=["memory"]), "config.json is damaged"),
        (lambda f: _options(f, dim=999_992), "does not fit config.json"),
        (lambda f: _damage(f, "config.json", "[" * 3000), "config.json is damaged: its JSON is nested too deeply"),
        (lambda f: _damage(f, "tokenizer.json", "[" * 3000) or sign(f), "it holds no JSON"),
        (
            lambda f: _weights(f, lambda weights: {name: value * float("inf") for name, value in weights.items()}),
            "not all weights are finite",
        ),
        (
            lambda f: save_file(load_file(f / "model.safetensors"), f / "model.safetensors"),
            "model.safetensors has no digest",
        ),
        (lambda f: _options(f, mixer="lstm"), "config.json is damaged: mixer must be one of"),
        (lambda f: _damage(f, "tokenizer.json", "[]") or sign(f), "is not a tokenizer.json: it has no model"),
        (
            lambda f: _weights(f, lambda weights: {k: v for k, v in weights.items() if "norm" in k}),
            "model.safetensors does not fit config.json",
        ),
        (
            lambda f: _damage(f, "tokenizer.json", train_bpe(["abc"], 257).to_json()) or sign(f),
            "the tokenizer has 257 tokens, the model 256",
        ),
        (
            lambda f: change_config(f, lambda config: config.update(version=1)),
            "in format 1; this is .*, which reads format 2",
        ),
    ],
)
def test_damaged_models(tmp_path, damage, message):
    save_model(tmp_path, model("lmm", torch.float32, vocabulary=256), ByteTokenizer())
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_a_tokenizer_of_another_vocabulary_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="the tokenizer has 256 tokens, the model 11"):
        save_model(tmp_path, model(), ByteTokenizer())


def test_logits_are_products_of_embeddings_with_mapped_features():
    made, given = model(), tokens(1, 6)
    features = made.encoder(given)[0]
    mapped = torch.einsum("btd,ed->bte", features, made.output.weight)
    assert_equal_to(made(given)[0], torch.einsum("bte,ve->btv", mapped, made.encoder.embedding.weight), name="logits")


def test_the_output_map_keeps_sizes_at_the_start():
    torch.manual_seed(0)
    made = LanguageModel(256, 64, layers=1, mixer="memory")
    features = made.encoder(torch.randint(256, (2, 100)))[0].detach()
    assert float(made.output(features).detach().std() / features.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("options", [{"vocabulary": 0}, {"dim": -8}, {"layers": 0}, {"dim": 8.0}])
def test_sizes_of_nothing(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LanguageModel(**{"vocabulary": V, "dim": 8, "layers": 1, "mixer": "memory", **options})


def test_models_and_states_are_read_as_widely_as_other_files(tmp_path):
    """safetensors writes files for their owner alone."""
    (tmp_path / "other").touch()
    save_model(tmp_path, model(vocabulary=256), ByteTokenizer())
    save_state(tmp_path / "state", model()(tokens(1, 3))[1])
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
