"""What a user can get wrong on the command line: one sentence each, and exit code 2."""

import numpy as np
import pytest
import typer


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--set", "epoch=3"], "`epoch` is not a field. Did you mean `epochs`?"),
        (["train", "--recipe", "mnist"], "The recipe must be one of"),
        (["train", "--recipe", "shd-papr"], "Did you mean `shd-paper`?"),
        (["train", "--recipe", ""], "The recipe must be one of"),
        (["train", "--epochs", "0"], "`epochs`: input should be greater than or equal to 1"),
        (["train", "--device", "tpu", "--out", "OUT"], "--device must be auto, cpu or"),
        (["train", "--device", "meta", "--out", "OUT/r"], "--device must be auto, cpu or"),
        (["train", "--resume"], "--resume needs --out"),
        (["train", "--resume", "--out", "OUT"], "is not a run folder"),
        (["train", "--dataset", "shd", "--data-dir", "OUT", "--out", "OUT/r"], "shd_train.h5"),
        (["evaluate", "OUT/none"], "does not exist"),
        (["evaluate", "OUT"], "is not a run folder"),
        (["export", "OUT"], "is not a run folder"),
        (["plot", "OUT"], "is not a run folder"),
        (["run", "OUT/none.json", "OUT/x.npz", "-o", "OUT/y.npz"], "none.json"),
        (["data", "inspect", "OUT/none.h5"], "none.h5"),
        (["compare", "--delays", "none,somatic"], "--delays must be a list of"),
        (["compare", "--delays", "fixed,fixed"], "each once; got fixed,fixed"),
        (["compare", "--set", "delays=fixed"], "Name its arms: --delays fixed,learned (or"),
        (
            ["compare", "--set", "granularity=axonal"],
            "--set granularity changes nothing",
        ),
        (["compare", "--axis", "hidden=[8],[ 8]"], "--axis hidden must be a list of different"),
        (["compare", "--axis", "max_delay=8,8.0"], "--axis max_delay must be a list of different"),
        (
            ["train", "--set", "quantization.delay_step=25"],
            "delay_step must be at most the",
        ),
        (["compare", "--resume"], "--resume needs --out"),
        (["compare", "--resume", "--out", "OUT"], "holds no study"),
        (["compare", "--resume", "--out", "OUT", "--epochs", "2"], "Leave out --recipe"),
        (["compare", "--axis", "seed=1,2"], "--axis must be fields other than"),
        (["compare", "--axis", "tau=2", "--axis", "tau=3"], "--axis tau must be given once"),
        (["compare", "--seeds", "0"], "--seeds must be from 1 to 10000"),
        (["compare", "--seeds", "1000000000000"], "--seeds must be from 1 to 10000"),
        (["train", "--set", "max_delay=abc"], "`max_delay`: must be a whole number; got 'abc'"),
        (["train", "--epoch", "3"], "Error: No such option: --epoch"),
        (["train", "--epochs", "abc"], "'--epochs': it must be a whole number."),
        (["train", "--dataset", "shdd"], "Error: Invalid value for '--dataset': 'shdd' is not one"),
        (["trian"], "Error: No such command 'trian'."),
        (["verify"], "Error: Missing argument"),
        (["verify", "a", "b"], "Options and what they mean: snn-delays verify --help."),
        (["data", "fetch"], "Options and what they mean: snn-delays data fetch --help."),
        (["data", "fetsh"], "Options and what they mean: snn-delays data --help."),
        (["train", "--epochs"], "Options and what they mean: snn-delays train --help."),
        (["train", "--set", "amp=maybe"], "`amp`: must be true or false; got 'maybe'"),
        (["export", "OUT/none"], "is not a run folder (it is not there)"),
        (["run", "NETWORK", "synthetic", "-o", "OUT/y.csv"], "-o must be a file name that ends in"),
        (["plot", "OUT", "-o", "OUT/a.png"], "--clip and -o are for one clip, in a network.json."),
        (["plot", "OUT", "--clip", "0"], "--clip and -o are for one clip, in a network.json."),
        (
            ["plot", "NETWORK", "synthetic", "-o", "OUT/a.pdf"],
            "-o must be a file name that ends in",
        ),
        (["evaluate", "NETWORK", "--plot", "OUT/a.png"], "--plot is a picture of variants. Add"),
        (
            ["evaluate", "NETWORK", "--variant", "reverse", "--plot", "a.pdf"],
            "--plot must be a file",
        ),
        (["run", "NETWORK", "OUT/none.npz", "-o", "OUT/y.npz"], "none.npz is not there."),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(call, trained, tmp_path, words, message):
    network = str(trained[0].network_file)
    words = [w.replace("OUT", str(tmp_path)).replace("NETWORK", network) for w in words]
    code, _, err = call(*words)
    assert code == 2
    assert message in err.replace("\n", "")
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1  # no box, no usage


def test_a_command_without_words_shows_its_help(call):
    for words in ((), ("data",)):
        code, out, err = call(*words)
        assert code == 2
        assert "Commands" in out + err


@pytest.mark.parametrize("content", ["empty", "no x", "flat", "text", "nan"])
def test_clips_that_are_no_clips_are_refused(call, trained, tmp_path, content):
    path = tmp_path / "clips.npz"
    if content == "text":
        path.write_text("hello")
    else:
        x = {
            "empty": np.zeros((0, 60, 40)),
            "no x": np.zeros(3),
            "flat": np.zeros((5, 40)),
            "nan": np.full((1, 60, 40), np.nan),
        }[content]
        np.savez(path, **{"y" if content == "no x" else "x": x})
    code, _, err = call("run", trained[0].network_file, path, "-o", tmp_path / "out.npz")
    assert code == 2
    assert "Traceback" not in err
    assert "pickle" not in err  # numpy's advice for what is no archive: load it unsafely
    assert ("no zip archive" in err) == (content == "text")
    assert not (tmp_path / "out.npz").exists()


def test_a_bug_of_ours_is_a_line_and_a_traceback_on_request(call, monkeypatch, tmp_path):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("snn_delays.plots.run.plot_run", broken)
    code, _, err = call("plot", tmp_path)
    assert code == 1
    assert "Internal error (ZeroDivisionError: oops)" in err
    assert "Traceback" not in err
    code, _, err = call("--debug", "plot", tmp_path)
    assert "Traceback" in err


def test_a_question_without_an_answer_does_nothing(call, monkeypatch, tmp_path):
    def asked(*_args, **_kwargs):
        raise typer.Abort

    monkeypatch.setattr("snn_delays.plots.run.plot_run", asked)
    code, _, err = call("plot", tmp_path)
    assert (code, err) == (1, "Error: The question was not answered, so nothing was done.\n")


def test_the_end_of_a_file_is_no_unanswered_question(call, monkeypatch, tmp_path):
    def ended(*_args, **_kwargs):
        raise EOFError

    monkeypatch.setattr("snn_delays.plots.run.plot_run", ended)
    code, _, err = call("plot", tmp_path)
    assert code == 1
    assert "Internal error" in err
