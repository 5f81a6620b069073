"""Texts: windows and their order, recurrent networks, n-grams, information, and writing on."""

import math
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faults import outcome
from helpers import rows, run, summary, train
from torch import nn

import dltrain
from dltrain import metrics, models
from dltrain.build import build
from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.data import markov_text, text
from dltrain.data.dataset import DataError
from dltrain.data.markov_text import stationary
from dltrain.engine import Engine
from dltrain.engine.totals import Totals
from dltrain.models.summary import summarize

SOURCE = ("data=markov_text", "data.num_test=50", "device=cpu", "device.threads=1")
LITTLE_SOURCE = (*SOURCE, "data.num_train=75", "data.val_size=11", "data.length=8", "data.batch_size=10")
RHYME = "Who's there? Nobody's there, said the door; nobody at all. "


def written(tmp_path, content, name="rhyme.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def rehearsed(*words):
    """A run of little text that is built, and not yet trained."""
    return build(compose([*LITTLE_SOURCE, *words]).config)


def test_what_training_a_recurrence_costs():
    """Two operations a multiply-add forward and two more for each factor with a gradient, which one-hot vectors and,
    a small part, the first states do not have."""
    for name, gates in (("rnn", 1), ("gru", 3), ("lstm", 4)):
        model = getattr(models, name)(input_shape=(9,), num_outputs=5, hidden_size=6)
        of_inputs, of_states, of_outputs = 9 * gates * 6 * 5, 9 * gates * 6 * 6, 9 * 6 * 5
        expected = 2 * (2 * of_inputs + 3 * of_states + 3 * of_outputs)
        flops = summarize(model, torch.zeros(2, 9, dtype=torch.int64)).train_flops
        assert flops == pytest.approx(expected, rel=0.03), name


def notes_states(weights, inputs):
    """H_t = tanh(X_t W_xh + H_{t-1} W_hh + b_h) with H_0 = 0, of inputs (T, n, d); returns all states (T, n, h)."""
    w_xh, w_hh, b_h = weights
    state, states = np.zeros((inputs.shape[1], len(b_h))), []
    for step in inputs:
        state = np.tanh(step @ w_xh + state @ w_hh + b_h)
        states.append(state)
    return np.stack(states)


def notes_weights(model):
    """Torch's weights are transposed, and its two biases add up to the notes' one."""
    (layer,) = model.recurrent
    state = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    hidden = (state["weight_ih_l0"].T, state["weight_hh_l0"].T, state["bias_ih_l0"] + state["bias_hh_l0"])
    return hidden, model.output.weight.detach().numpy().T, model.output.bias.detach().numpy()


def test_the_notes_recurrence_over_tokens():
    model = models.rnn(input_shape=(7,), num_outputs=5, hidden_size=6).double()
    model.inputs.register_forward_hook(lambda _module, _inputs, vectors: vectors.double())
    tokens = torch.randint(5, (3, 7), generator=torch.Generator().manual_seed(0))
    hidden, w_hq, b_q = notes_weights(model)
    states = notes_states(hidden, np.eye(5)[tokens.numpy().T])
    ours = model(tokens).detach().numpy()
    np.testing.assert_allclose(ours, (states @ w_hq + b_q).transpose(1, 2, 0), rtol=0, atol=1e-6)


def test_the_notes_recurrence_over_rows_of_images():
    model = models.rnn(input_shape=(2, 4, 3), num_outputs=5, hidden_size=6).double()
    images = torch.rand(3, 2, 4, 3, dtype=torch.float64)
    hidden, w_hq, b_q = notes_weights(model)
    by_row = np.stack([images[:, :, row].reshape(3, -1).numpy() for row in range(4)])
    expected = notes_states(hidden, by_row)[-1] @ w_hq + b_q
    np.testing.assert_allclose(model(images).detach().numpy(), expected, rtol=0, atol=1e-6)


def test_parameters_do_not_grow_with_length_and_a_table_does():
    def count(name, **keywords):
        return sum(p.numel() for p in getattr(models, name)(num_outputs=5, **keywords).parameters())

    for name, gates in (("rnn", 1), ("gru", 3), ("lstm", 4)):
        assert count(name, input_shape=(10,)) == count(name, input_shape=(1000,))
        assert count(name, input_shape=(9,), hidden_size=6) == gates * 6 * (5 + 6 + 2) + 5 * 6 + 5
        two = gates * 6 * (5 + 6 + 2 + 6 + 6 + 2) + 5 * 6 + 5
        assert count(name, input_shape=(9,), hidden_size=6, num_layers=2, dropout=0.5) == two
        assert count(name, input_shape=(9,), hidden_size=6, embedding=3) == 5 * 3 + gates * 6 * (3 + 6 + 2) + 5 * 6 + 5
    assert [count("ngram", input_shape=(10,), order=order) for order in (1, 2, 3, 4)] == [5, 25, 125, 625]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_an_ngram_with_the_logarithms_of_counts_has_no_gradient_left(order):
    """So what descent looks for is the table of counts; a window's first places, which lack tokens, teach nothing."""
    tokens = torch.tensor(markov_text(letters=3, num_train=20, num_test=0).numbers)
    windows, targets = tokens[: 20 * 35].view(20, 35), tokens[1 : 20 * 35 + 1].view(20, 35)
    model = models.ngram(input_shape=(35,), num_outputs=3, order=order)
    counts = torch.zeros(model.table.weight.shape)
    first = max(0, order - 2)
    for window, answers in zip(windows.tolist(), targets.tolist(), strict=True):
        for place in range(first, 35):
            context = window[place - order + 2 : place + 1] if order > 1 else []
            counts[sum(3**age * token for age, token in enumerate(reversed(context))), answers[place]] += 1
    assert counts.sum() == 20 * (35 - first)
    with torch.no_grad():
        model.table.weight.copy_((counts + 1e-30).log())
    F.cross_entropy(model(windows), targets).backward()
    assert model.table.weight.grad.abs().max() < 1e-6
    assert model(windows[:, :1]).shape == (20, 3, 1)


def shown(name, logits, targets):
    """What a row shows of a measure."""
    measure = metrics.MEASURES[name]
    totals = Totals([name], torch.device("cpu"), {name: measure.shown})
    totals.add([measure.sum(logits, targets)], len(logits))
    return totals.read()[name]


def test_perplexity_is_1_when_perfect_and_the_vocabulary_when_uniform():
    targets = torch.randint(7, (4, 9))
    perfect = 60.0 * F.one_hot(targets, 7).movedim(-1, 1)
    wrong = 2000.0 * F.one_hot((targets + 1) % 7, 7).movedim(-1, 1)
    uniform = torch.full((4, 7, 9), 3.0)
    assert shown("perplexity", perfect, targets) == pytest.approx(1)
    assert shown("perplexity", uniform, targets) == pytest.approx(7)
    assert shown("bits", uniform, targets) == pytest.approx(math.log2(7))
    assert shown("entropy", uniform, targets) == pytest.approx(math.log(7))
    assert shown("entropy", perfect, targets) == pytest.approx(0)
    assert shown("perplexity", wrong, targets) is None, "exp(2000) is no number"
    assert shown("bits", wrong, targets) == pytest.approx(2000 / math.log(2), rel=1e-6)


def test_the_inequalities_of_information():
    """Cross-entropy is never below entropy, their difference never negative, and a uniform distribution knows least."""
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.rand(200, 6, generator=generator, dtype=torch.float64).pow(4).log() for _ in range(2))
    of_p = torch.stack([metrics.entropy(each[None], each[None]) for each in p])
    across = torch.stack([metrics.cross_entropy(b[None], a[None].softmax(1)) for a, b in zip(p, q, strict=True)])
    divergence = (p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum(1)
    torch.testing.assert_close(across - of_p, divergence)
    assert (divergence > 0).all()
    torch.testing.assert_close(metrics.cross_entropy(p, p.softmax(1)) / 200, of_p.mean())
    assert (of_p <= math.log(6)).all()


def test_the_entropy_rate_is_that_of_the_stationary_distribution():
    source = markov_text(letters=2)
    source.__dict__["transitions"] = np.array([[0.9, 0.1], [0.5, 0.5]])
    np.testing.assert_allclose(stationary(source.transitions), [5 / 6, 1 / 6])
    of_a = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert source.entropy_rate == pytest.approx(5 / 6 * of_a + 1 / 6 * math.log(2))
    pairs = list(pairwise(source.numbers.tolist()))
    share = sum(pair == (0, 1) for pair in pairs) / sum(first == 0 for first, _ in pairs)
    assert share == pytest.approx(0.1, abs=0.005)


def test_contexts_of_two_letters_are_as_frequent_as_the_stationary_distribution_says():
    source = markov_text(order=2, letters=3)
    found = np.bincount(3 * source.numbers[:-1] + source.numbers[1:], minlength=9) / (len(source.numbers) - 1)
    np.testing.assert_allclose(found, stationary(source.transitions), atol=0.01)


@pytest.mark.parametrize(
    ("words", "reaches"),
    [
        (("model=rnn", "model.hidden_size=32", "trainer.epochs=2"), True),
        (("model=ngram", "trainer.epochs=2", "optim.lr=0.1"), True),
        (("data.order=2", "model=ngram", "model.order=3", "trainer.epochs=3", "optim.lr=0.1"), True),
        (("data.order=2", "model=ngram", "model.order=2", "trainer.epochs=3", "optim.lr=0.1"), False),
    ],
    ids=["rnn", "2-gram", "3-gram", "2-gram of a source that remembers two"],
)
def test_perplexity_comes_within_3_percent_of_the_sources(words, reaches):
    folder = run(*SOURCE, "optim.lr=0.01", *words)
    order = 2 if "data.order=2" in words else 1
    least = math.exp(markov_text(order=order).entropy_rate)
    found = rows(folder, "val")[-1]["perplexity"]
    assert (abs(found / least - 1) < 0.03) == reaches
    assert found > 0.99 * least


def test_what_rows_and_summary_say_of_a_text(capsys):
    folder = run(*LITTLE_SOURCE, "model=gru", "model.hidden_size=8", "model.embedding=3", "trainer.epochs=1")
    assert {"loss", "perplexity", "bits", "entropy"} <= set(rows(folder)[-1])
    for row in rows(folder):
        assert "accuracy" not in row
        assert row["perplexity"] == pytest.approx(math.exp(row["loss"]), rel=1e-6)
        assert row["bits"] == pytest.approx(row["loss"] / math.log(2), rel=1e-6)
        assert 0 < row["entropy"] <= math.log(5) + 1e-6
    assert summary(folder)["val"]["perplexity"] == rows(folder, "val")[-1]["perplexity"]
    assert summary(folder)["best"]["metric"] == "loss"
    assert summary(folder)["precision"] == "fp32"
    assert "<!-- perplexity -->" in (folder / "curves.svg").read_text()
    rate = f"entropy rate is {markov_text().entropy_rate:.4f} nats"
    assert rate in capsys.readouterr().out
    assert main(["data", "check", "data=markov_text"]) == 0
    assert rate in capsys.readouterr().out
    assert main(["runs", "val_loss<9"]) == 0
    assert "loss 1." in capsys.readouterr().out


def test_a_penalty_is_no_part_of_perplexity():
    folder = run(*LITTLE_SOURCE, "model.hidden_size=8", "loss.l2=0.5", "trainer.epochs=1")
    last = rows(folder, "val")[-1]
    assert math.log(last["perplexity"]) < last["loss"] - 0.1


def test_windows_follow_one_another_and_so_do_the_parts():
    parts = markov_text(num_train=20, num_test=5, length=7).load()
    numbers = markov_text(num_train=20, num_test=5, length=7).numbers
    for part, first in (("train", 0), ("test", 20)):
        inputs, targets = parts[part].inputs, parts[part].targets
        assert inputs.ravel().tolist() == numbers[7 * first : 7 * (first + len(inputs))].tolist()
        assert targets.ravel().tolist() == numbers[7 * first + 1 : 7 * (first + len(inputs)) + 1].tolist()


@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_validation_is_the_end_of_the_training_text(shuffle):
    batches = rehearsed(f"data.shuffle={shuffle}").batches
    numbers = markov_text(num_train=75, num_test=50, length=8).numbers
    held_out = torch.cat([inputs for inputs, _ in batches["val"].epoch(0)])
    trained = torch.cat([inputs for inputs, _ in batches["train"].epoch(0)])
    assert held_out.flatten().tolist() == numbers[64 * 8 : 75 * 8].tolist()
    assert sorted(trained.tolist()) == sorted(numbers[: 64 * 8].reshape(64, 8).tolist())


def test_sequential_batches_go_on_where_the_rows_before_ended():
    batches = rehearsed("data.shuffle=false").batches["train"]  # 64 windows: 6 batches of 10 rows, and 4 windows
    *whole, rest = list(batches.epoch(0))
    for (_, targets), (inputs, _) in pairwise(whole):
        assert torch.equal(targets[:, -1], inputs[:, 0]), "the last target is the next input"
    numbers = markov_text(num_train=75, num_test=50, length=8).numbers
    text_of_rows = torch.cat([inputs for inputs, _ in whole], dim=1)
    assert text_of_rows.tolist() == numbers[: 60 * 8].reshape(10, 48).tolist()
    assert rest[0].flatten().tolist() == numbers[60 * 8 : 64 * 8].tolist()
    assert batches.order_digest(0) == batches.order_digest(1)


def test_random_batches_are_a_function_of_seed_epoch_and_position():
    ours, same, other = (rehearsed(f"seed={seed}").batches["train"] for seed in (0, 0, 1))
    digests = [ours.order_digest(epoch) for epoch in range(3)]
    assert digests == [same.order_digest(epoch) for epoch in range(3)]
    assert len({*digests, other.order_digest(0)}) == 4
    third = next(islice(ours.epoch(1), 3, None))
    assert torch.equal(third[0], next(ours.epoch(1, start=3))[0])


class Stop(Exception):  # noqa: N818
    """Ends a run as abruptly as a kill."""


@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_a_text_run_that_goes_on_ends_with_the_same_bits(shuffle, monkeypatch):
    words = [*LITTLE_SOURCE, f"data.shuffle={shuffle}", "model=lstm", "model.hidden_size=6", "model.dropout=0.2"]
    words += ["model.num_layers=2"]
    words += ["trainer.epochs=2", "trainer.checkpoint_every=4 steps", "trainer.log_every=3"]
    whole = outcome(run(*words, name="whole"))
    take = Engine.step

    def step(engine, batch, number):
        if number == 10:
            raise Stop
        take(engine, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", step)
        assert main([*words, "name=cut"]) == 1
    assert outcome(run(*words, name="cut")) == whole


@pytest.mark.parametrize("clip_norm", [0.01, 1e9])
def test_gradients_are_clipped_to_a_norm_and_never_enlarged(clip_norm):
    """g = min(1, theta / ||g||) g, the norm over all parameters together."""
    made = rehearsed("optim=sgd", "optim.lr=1", f"trainer.clip_norm={clip_norm}", "model=rnn", "model.hidden_size=6")
    batch = next(made.batches["train"].epoch(0))
    before = nn.utils.parameters_to_vector(made.model.parameters()).detach().double()
    F.cross_entropy(made.model(batch[0]), batch[1]).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in made.model.parameters()]).double()
    made.engine.step(batch, 0)
    moved = before - nn.utils.parameters_to_vector(made.model.parameters()).detach().double()
    factor = min(1, clip_norm / gradient.norm())
    assert (factor < 1) == (clip_norm < 1)
    torch.testing.assert_close(moved, factor * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", ["rnn", "gru", "lstm"])
def test_rows_of_images_are_learned_as_sequences(model):
    folder = train("trainer=smoke", f"model={model}", "data.image_size=28")
    assert "check passed" in (folder / "train.log").read_text()
    assert summary(folder)["precision"] == "fp32"


@pytest.mark.parametrize("model", ["rnn", "ngram"])
def test_texts_are_learned_in_a_smoke_run(model):
    rate = ("optim=sgd", "trainer.constant_rate=30") if model == "ngram" else ()
    folder = run(*LITTLE_SOURCE, "trainer=smoke", f"model={model}", *rate)
    assert "check passed" in (folder / "train.log").read_text()


def test_the_tokens_of_a_text(tmp_path):
    path = written(tmp_path, "\ufeff" + RHYME * 3)
    characters = text(path=path, length=5, test_size=2)
    assert "".join(characters.vocabulary) == "".join(sorted(set(RHYME)))
    assert characters.facts().num_examples == {"train": (len(RHYME) * 3 - 1) // 5 - 2, "test": 2}
    words = text(path=path, level="word", lower=True, length=3, tokens=15)
    assert words.content[:8] == ["who's", "there", "?", "nobody's", "there", ",", "said", "the"]
    assert len(words.content) == 15
    assert words.fingerprint() != text(path=path, level="word", length=3, tokens=15).fingerprint()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9 " * 100, "not a text in UTF-8"),
        ("", "0 chars; 2 windows of data.length=35 take 71"),
        ("a" * 30 + "b" * 40, "70 chars; 2 windows of data.length=35 take 71"),
        ("a" * 100, "nothing but 'a'"),
        (None, "No such file or directory; name the file with data.path="),
    ],
    ids=["latin-1", "empty", "short", "one letter", "missing"],
)
def test_a_text_that_cannot_be_used_is_refused(tmp_path, content, message, capsys):
    path = str(tmp_path / "none.txt") if content is None else written(tmp_path, content)
    with pytest.raises(DataError):
        text(path=path).facts()
    run("data=text", f"data.path={path}", "data.val_size=0", "device=cpu", expected=66)
    assert message in capsys.readouterr().err.strip().split("\n")[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=text"], "data.path=null: data=text needs the path of a file"),
        (["data.order=3"], "data.order=3: must be from 1 to 2"),
        (["data.length=0"], "data.length=0: must be 1 or more"),
        (["data.classes=[0,1]"], "these data have no classes"),
        (["model=lenet"], "model=lenet needs in_channels and image_size, which these data do not have"),
        (["model=ngram", "model.order=12"], "takes a table of 5 ** 12 numbers, and 100,000,000 is the most"),
        (["model=ngram", "data=synthetic"], "an n-gram model reads tokens, not inputs of 1x96x96"),
        (["model.embedding=0"], "model.embedding=0: must be at least 1"),
        (["trainer.monitor=val_accuracy"], "there is no accuracy without classes; choose val_loss"),
        (["augment=flip"], "augment=flip: it changes images"),
    ],
)
def test_what_does_not_fit_texts_is_refused(words, message, capsys):
    run("data=markov_text", "device=cpu", *words, expected=78)
    assert message in capsys.readouterr().err


def test_writing_on_is_a_function_of_the_seed_and_knows_no_other_letters(tmp_path, capsys):
    path = written(tmp_path, RHYME * 60)
    words = ("data=text", f"data.path={path}", "data.val_size=5", "data.batch_size=8", "optim.lr=0.02")
    folder = run(*words, "model=gru", "model.hidden_size=48", "device=cpu", "trainer.epochs=8")
    trained = dltrain.load(folder)
    boldly, again, other = (trained.generate("Nobody", length=60, seed=seed, temperature=2) for seed in (1, 1, 2))
    assert boldly == again != other
    assert set(boldly) <= set(RHYME)
    assert len(boldly) == len("Nobody") + 60
    likeliest = trained.generate("Nobody's ", length=60, temperature=0)
    assert set(likeliest.split()[:-1]) <= set(RHYME.split())
    assert likeliest == trained.generate("Nobody's ", length=60, temperature=0, seed=5)
    probabilities = trained.predict(torch.tensor([[1, 2, 3]]))
    assert probabilities.shape == (1, len(set(RHYME)), 3)
    assert probabilities.sum(1).allclose(torch.ones(1, 3))
    capsys.readouterr()
    assert main(["predict", "run", "--prompt", "Nobody", "--length", "60", "--seed", "1", "--temperature", "2"]) == 0
    assert capsys.readouterr().out == boldly + "\n"
    for prompt, message in (("Nobodý", "the training text has no 'ý'"), ("", "the prompt is empty")):
        assert main(["predict", "run", "--prompt", prompt]) == 78
        assert message in capsys.readouterr().err
    assert main(["predict", "run"]) == 2
    assert "--prompt" in capsys.readouterr().err


def test_writing_on_in_words(tmp_path):
    words = ("data=text", f"data.path={written(tmp_path, RHYME * 30)}", "data.level=word", "data.lower=true")
    settings = ("data.val_size=2", "data.length=6", "data.batch_size=8", "model=ngram", "optim.lr=0.5")
    trained = dltrain.load(run(*words, *settings, "device=cpu", "trainer.epochs=8"))
    assert trained.generate("SAID", length=5, temperature=0) == "said the door ; nobody at"
    with pytest.raises(ValueError, match="the training text has no 'window'; it has"):
        trained.generate("the window")


def test_only_runs_that_learned_text_write_on(capsys):
    train("model=mlp", "trainer.epochs=1", "trainer.limit_train_batches=1")
    assert main(["predict", "run", "--prompt", "a"]) == 78
    assert "writes on where text was learned, and run has learned data=synthetic" in capsys.readouterr().err
