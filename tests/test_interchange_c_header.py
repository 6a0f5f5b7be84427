"""The C header: compiled, its spikes and voltages are bit for bit those of the engine's stream."""

import shutil
import subprocess

import numpy as np
import pytest
from sample_networks import clips, document

from snn_delays.engine import Engine
from snn_delays.errors import NetworkFormatError
from snn_delays.interchange.c_header import c_header, save_c
from snn_delays.network_format import parse

COMPILER = shutil.which("gcc") or shutil.which("cc")
compiles = pytest.mark.skipif(COMPILER is None, reason="no C compiler is installed")

REAL = {"float": np.float32, "double": np.float64}
PROGRAM = """
#include <stdio.h>
#include "network.h"

int main(void)
{{
    snn_input input[SNN_CHANNELS], silence[SNN_CHANNELS] = {{0}};
    for (int clip = 0; clip < {clips}; clip++) {{
        snn_reset();
        for (int t = 0; t < SNN_STEPS + SNN_TAIL_STEPS; t++) {{
            if (t < SNN_STEPS && fread(input, sizeof input, 1, stdin) != 1)
                return 1;
            snn_step(t < SNN_STEPS ? input : silence);
            {outputs}
        }}
        for (int c = 0; c < SNN_CLASSES; c++)
            printf("%a ", (double)snn_scores[c]);
        printf("%d\\n%s\\n", snn_answer(), snn_classes[snn_answer()]);
    }}
    return 0;
}}
"""
OUTPUT = """for (int o = 0; o < {size}; o++)
                printf("%a ", (double)snn_output{layer}[o]);
"""


def run_in_c(network, x, real, folder, compiler=(COMPILER, "-std=c99", "-march=native")):
    """Outputs of each layer `[N, T, out]`, scores `[N, classes]`, answers and their names."""
    save_c(network, folder / "network.h")
    sizes = [layer.out_features for layer in network.layers]
    outputs = "".join(OUTPUT.format(size=size, layer=i) for i, size in enumerate(sizes))
    (folder / "main.c").write_text(PROGRAM.format(clips=len(x), outputs=outputs))
    warnings = ["-Wall", "-Wextra", "-pedantic", "-Werror"]
    warnings += ["-Wconversion", "-Wshadow", "-Wdouble-promotion"]
    options = [f"-DSNN_REAL={real}", "-O2", "-ffp-contract=off", *warnings]
    command = [*compiler, *options, "main.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    kind = np.uint16 if network.input.encoding == "spike_counts" else REAL[real]
    done = subprocess.run(
        [folder / "main"], input=x.astype(kind).tobytes(), capture_output=True, check=True
    )
    lines = done.stdout.decode().split("\n")
    steps = network.input.steps + network.input.tail_steps
    values, answers = [], []
    for line in lines[0:-1:2]:
        *numbers, answer = line.split(" ")
        values.append([float.fromhex(number) for number in numbers])
        answers.append(int(answer))
    values = np.array(values)
    scores = values[:, steps * sum(sizes) :]
    stream = values[:, : steps * sum(sizes)].reshape(len(x), steps, -1)
    return np.split(stream, np.cumsum(sizes)[:-1], axis=2), scores, answers, lines[1::2]


def streamed(network, x, dtype):
    """The same of the engine."""
    engine = Engine(network, dtype)
    state = engine.start(len(x))
    tail = np.zeros((len(x), network.input.tail_steps, x.shape[2]))
    steps = [engine.step(state, row) for row in np.concatenate([x, tail], 1).swapaxes(0, 1)]
    layers = zip(*([*step.spikes, step.output] for step in steps), strict=True)
    return [np.stack(layer, 1) for layer in layers], steps[-1].scores, steps[-1].classes


CASES = {
    "plain": {},
    "contacts": {"kernel_count": 3, "sizes": (5, 6, 7, 4)},
    "soft reset": {"soft": True, "tau": 1.7},
    "decaying input": {"decay_input": True, "tau": 3.1},
    "analog": {"encoding": "analog"},
    "one layer": {"sizes": (4, 3), "max_delay": 0, "tail_steps": 0},
    "long delays": {"max_delay": 300, "steps": 400},
    "no leak": {"tau": 1e300},
    "max": {"readout": "max"},
    "mean": {"readout": "mean", "tau": 1.3},
    "last": {"readout": "last"},
    "spike_count": {"readout": "spike_count"},
}


@compiles
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("real", REAL)
def test_the_header_gives_the_numbers_of_the_stream(tmp_path, case, real):
    doc = document(**CASES[case])
    rng = np.random.default_rng(1)
    for layer in doc["layers"]:  # real numbers, whose sums depend on the order
        for name in ("weights", "bias"):
            exact = np.array(layer[name])
            layer[name] = (exact + rng.normal(0, 0.02, exact.shape)).tolist()
    network, x = parse(doc), clips(doc)
    outputs, scores, answers, _ = run_in_c(network, x, real, tmp_path)
    expected, expected_scores, classes = streamed(network, x, REAL[real])
    assert sum(layer.sum() for layer in expected[:-1]) > 0 or len(expected) == 1
    for found, layer in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(found, layer)
    tolerance = 1e-5 if case not in ("max", "mean", "last", "spike_count") else 0  # exp
    np.testing.assert_allclose(scores, expected_scores, rtol=tolerance)
    assert answers == classes.tolist()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler is installed")
@pytest.mark.parametrize("readout", ["softmax_sum", "mean", "spike_count"])
def test_it_is_cpp_too(tmp_path, readout):
    doc = document(readout=readout)
    doc["layers"][1] |= {"weights": np.sign(doc["layers"][1]["weights"]).astype(int).tolist()}
    doc["layers"][1]["weight_scale"] = 0.3
    network, x = parse(doc), clips(doc)
    cpp = ("g++", "-std=c++11", "-march=native", "-x", "c++")
    outputs, scores, *_ = run_in_c(network, x, "float", tmp_path, cpp)
    expected, expected_scores, _ = streamed(network, x, np.float32)
    for found, layer in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(found, layer)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


@compiles
@pytest.mark.parametrize(
    ("largest", "kind"), [(127, "int8_t"), (128, "int16_t"), (40_000, "int32_t")]
)
def test_integer_weights_stay_integers(tmp_path, largest, kind):
    doc = document()
    for layer in doc["layers"]:
        weights = np.rint(np.array(layer["weights"]) * 50)
        weights.flat[0] = largest
        layer |= {"weights": weights.astype(int).tolist(), "weight_scale": 1 / 50}
    doc["layers"][1]["weight_scale"] = [0.25, 0.5, 1.0]
    network, x = parse(doc), clips(doc)
    assert f"static const {kind} snn_weight0[" in c_header(network)
    outputs, _, answers, _ = run_in_c(network, x, "double", tmp_path)
    result = Engine(network).run(x)
    np.testing.assert_array_equal(outputs[0], result.spikes[0])
    np.testing.assert_array_equal(outputs[1], result.output)
    assert answers == result.classes.tolist()


@compiles
@pytest.mark.parametrize("readout", ["mean", "max"])
def test_a_stream_may_outlast_its_counter(tmp_path, readout):
    """Steps are counted in 32 bits: after the last, scores go on as real numbers."""
    save_c(parse(document(readout=readout)), tmp_path / "network.h")
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "network.h"\n'
        "int main(void)\n{\n"
        "    snn_input input[SNN_CHANNELS] = {1, 1, 1, 1, 1};\n"
        "    snn_reset();\n"
        "    snn_step(input);\n"
        "    snn_steps_done = UINT32_MAX - 1;\n"
        "    for (int t = 0; t < 20; t++)\n"
        "        snn_step(input);\n"
        "    for (int c = 0; c < SNN_CLASSES; c++)\n"
        '        printf("%a ", (double)snn_scores[c]);\n'
        "}\n"
    )
    subprocess.run([COMPILER, "-std=c99", "main.c", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    scores = np.array([float.fromhex(word) for word in done.stdout.split()])
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() < (1e-6 if readout == "mean" else 100)


@compiles
def test_names_of_classes_may_be_anything(tmp_path):
    doc = document()
    names = ['a "quoted\\" one', "größer??/", "*/ 7\t"]
    doc["readout"]["classes"] = names
    network, x = parse(doc), clips(doc, samples=8)
    *_, answers, said = run_in_c(network, x, "float", tmp_path)
    assert said == [names[answer] for answer in answers]


def test_it_says_what_it_takes():
    """140-256-20 with 8-bit weights and delays; rings of 25 steps, voltages and outputs."""
    doc = document(sizes=(140, 256, 20), max_delay=24)
    for layer in doc["layers"]:
        layer |= {"weights": np.rint(layer["weights"]).astype(int).tolist(), "weight_scale": 1.0}
    constants = 2 * (140 * 256 + 256 * 20) + 2 * 4 * 276
    variables = 256 * (4 * 26 + 1) + 20 * (4 * 26 + 4) + 4 * (20 + 1 + 2)
    said = f"constants\n * take {constants} bytes, variables {variables}."
    assert said in c_header(parse(doc))


@compiles
def test_two_networks_in_one_file_are_refused_by_the_compiler(tmp_path):
    other = document()
    other["readout"]["kind"] = "max"  # the same layers
    for name, doc in (("a.h", document()), ("b.h", document(seed=1)), ("c.h", other)):
        save_c(parse(doc), tmp_path / name)

    def compiles_with(*names):
        text = "".join(f'#include "{name}"\n' for name in names)
        (tmp_path / "main.c").write_text(text + "int main(void) { return 0; }\n")
        command = [COMPILER, "-std=c99", "-c", "main.c"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0

    assert compiles_with("a.h", "a.h")
    assert not compiles_with("a.h", "b.h")
    assert not compiles_with("a.h", "c.h")


def test_numbers_too_large_for_float_are_refused():
    doc = document()
    doc["layers"][0]["bias"][0] = 1e30
    with pytest.raises(NetworkFormatError, match=r"layers\[0\].*so that no sum overflows"):
        c_header(parse(doc))
