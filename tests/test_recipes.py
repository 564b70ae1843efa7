"""Every recipe: its header, its short form on small data, and, marked, its claim in full."""

import importlib.util
import inspect
import math
import pathlib
import re
import shutil

import numpy as np
import pytest

from tests.problems import mostly_on_tensorflow

FOLDER = pathlib.Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
each = pytest.mark.parametrize("name", RECIPES)


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_images():
    """Ten classes of 28 x 28 images: what a recipe without a `small` of its own is tested on."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(300, 28, 28)).astype("float32"), np.arange(300) % 10
    return (x[:200], y[:200]), (x[200:], y[200:])


@each
def test_header_names_result_and_tuning(name):
    text = (FOLDER / f"{name}.py").read_text()
    header = inspect.getdoc(imported(FOLDER / f"{name}.py"))
    assert re.match(r"\S.*\.$", header.splitlines()[0]), "the first line is the title"
    result, tune = (header.find(word) for word in ("\nResult:", "\nTune:"))
    assert 0 < result < tune
    for evidence in (r"\d\.\d|\d{3}", r"seeds? \d", r"Keras 3\.\d+", r"TensorFlow|JAX|PyTorch"):
        assert re.search(evidence, header[result:tune]), f"Result lacks {evidence}"
    assert len(text.splitlines()) <= 150
    assert not re.search(r"(import|from) (recipes|kerasrecipes\.(_|recipes))", text), "public names"
    assert text.endswith('\n\nif __name__ == "__main__":\n    main()\n')


@each
@mostly_on_tensorflow
def test_copied_alone_runs_on_small_data(name, tmp_path, capsys):
    recipe = imported(pathlib.Path(shutil.copy(FOLDER / f"{name}.py", tmp_path)))
    parameters = inspect.signature(recipe.main).parameters
    assert list(parameters)[:3] == ["data", "epochs", "seed"]
    assert parameters["data"].default is None and parameters["seed"].default == 0
    extra = {"figure": tmp_path / "figure.png"} if "figure" in parameters else {}
    result = recipe.main(getattr(recipe, "small", small_images)(), epochs=1, **extra)
    assert result and all(math.isfinite(value) for value in result.values())
    assert len(capsys.readouterr().out.splitlines()) >= 2, "it prints a table"
    assert all(path.stat().st_size > 5000 for path in extra.values())


# The claims of the headers. Each threshold leaves the measured seeds and backends
# (docs/evidence.md) a margin of about their spread: a failure says that something changed.


def autoencoder_cg(found):
    searched, whole = (found[way] for way in ("conjugate gradients", "momentum, all images"))
    assert searched < whole and found["momentum, batches"] < whole


def batch_norm_mnist(found):
    assert found["plain, 1"] < 0.6 and found["batch norm, 1"] > 0.9
    assert 0.968 < found["plain, 50"] < found["batch norm, 50"]
    assert found["batch norm, 50"] > 0.974
    assert found["batch norm, wandering"] < 0.2 and found["plain, wandering"] > 0.4
    assert found["batch norm, change of width"] < 4 and found["plain, change of width"] > 100


def batch_norm_noise(found):
    assert found["batch norm, shift"] < 0.01 < 0.4 < found["batch norm, noise, shift"]
    assert max(found["batch norm, steps"], found["batch norm, noise, steps"]) <= 1250
    assert found["plain, steps"] >= 6000
    assert found["batch norm, noise, best"] > 0.80


def batch_norm_rates(found):
    steps = {name.removesuffix(", steps"): n for name, n in found.items() if "steps" in name}
    assert steps["plain-x1"] >= 6000 and steps["plain-x30"] < steps["plain-x5"] + 500 < 4000
    for factor in ("x1", "x5", "x30"):
        assert steps[f"batch norm-{factor}"] < steps[f"plain-{factor}"]
        assert found[f"batch norm-{factor}, best"] > found[f"plain-{factor}, best"] - 0.003
    assert max(steps["batch norm-x1"], steps["batch norm-x5"]) <= 1250
    assert found["plain-x1, best"] < 0.79 < 0.81 < found["batch norm-x1, best"]


def batch_renorm_noniid(accuracy):
    for norm in ("batch norm", "batch renorm", "group norm"):
        assert accuracy[f"{norm}, all classes"] > 0.87
    assert accuracy["batch norm, two classes"] < 0.4
    assert accuracy["batch renorm, two classes"] > 0.82
    assert accuracy["group norm, two classes"] > 0.86


def curriculum_shapes(error):
    assert min(error.values()) > 0.45 and max(error.values()) < 0.58  # chance is 0.667
    control = error["mixed from the start"]
    assert control < error["GeomShapes alone"]
    assert control < min(error["switch at 1/8"], error["switch at half"])


def curriculum_text(accuracy):  # what short first gains spreads widely, what one pass loses not
    shuffled = accuracy["shuffled, all"]
    assert accuracy["one pass, all"] < 0.4 < shuffled < 0.7
    assert accuracy["short first, all"] > shuffled


def deep_sigmoid_greedy(errors):
    tuned = errors["classical, greedy and tuned"]
    assert errors["classical, end to end"] >= 8900
    assert errors["classical, greedy"] < 1500
    assert tuned < 1450
    assert errors["4 x Glorot, end to end"] < 1450
    assert errors["Glorot, end to end"] > tuned


def linear_interpolation(loss):
    assert loss["relu_end"] < 0.26 < 2.5 < loss["relu_start"]
    assert loss["sigmoid_end"] < 0.4 < 2 < loss["sigmoid_start"]
    assert loss["relu_largest_rise"] < 0.003 and loss["sigmoid_largest_rise"] < 0
    assert max(loss["relu_test_largest_rise"], loss["sigmoid_test_largest_rise"]) < 0.01
    assert loss["control_ends"] < 0.3 and loss["control_barrier"] > 0.9


def glorot_histograms(found):
    for activation in ("tanh", "softsign"):
        for signal in ("activation", "gradient"):
            old, new = (found[f"{activation}, {s}, {signal}"] for s in ("old", "normalized"))
            assert 3 * old < new < 0.65 and old < 0.13
        old, new = (found[f"{activation}, {s}, error"] for s in ("old", "normalized"))
        assert new < old < 0.07
    for start in ("old", "normalized"):
        assert found[f"tanh, {start}, percentile 1"] > 0.99
        assert 0.75 < found[f"softsign, {start}, percentile 1"] < 0.88
        assert found[f"sigmoid, {start}, gradient"] < 0.005
        assert (
            found[f"sigmoid, {start}, percentile 5"] < 0.4
            and found[f"sigmoid, {start}, error"] > 0.8
        )


def group_norm_small_batches(accuracy):
    group = [accuracy[f"group norm, {batch}"] for batch in (32, 8, 4, 2)]
    assert min(group) > 0.85 and max(group) < 0.88
    assert accuracy["batch norm, 32"] > accuracy["group norm, 32"] - 0.005
    assert accuracy["batch norm, 4"] < 0.845
    for name in ("batch norm", "measured anew"):
        assert 0.55 < accuracy[f"{name}, 2"] < 0.72


def image_cnn(found):
    assert found["test accuracy"] > 0.91 and found["validation accuracy"] > 0.915
    assert 3e-4 < found["peak rate"] < 0.03


def one_cycle(accuracy):
    decaying = [accuracy[f"{name}, test"] for name in ("stepped", "cosine", "one cycle")]
    assert accuracy["constant, test"] < 0.8755 < min(decaying)
    assert accuracy["one cycle, test"] > 0.88


def tabular_mlp(found):
    assert found["network accuracy"] > 0.96 and found["network loss"] < 0.12
    assert 0.975 < found["logistic accuracy"] < 0.985


def logistic_lbfgs(found):  # seconds are the machine's, passes are not
    assert found["small, L-BFGS, passes to 0.0025"] <= 20
    assert found["large, L-BFGS, passes to 0.0025"] > 4 * found["large, SGD, passes to 0.0025"]
    assert found["large, L-BFGS, error"] < 0.0755 and found["large, SGD, error"] < 0.0765
    for scale in ("small", "large"):
        assert found[f"{scale}, L-BFGS, loss"] < found[f"{scale}, SGD, loss"] + 1e-6


def pinn_burgers(found):
    assert found["L-BFGS finishes, error"] < 1e-3
    assert found["Adam alone, error"] > 2 * found["L-BFGS finishes, error"]


def vae_kl_annealing(found):
    assert found["annealed test elbo"] > found["fixed test elbo"] > -115
    assert found["annealed test kl"] > found["fixed test kl"] + 1
    assert found["fixed test active"] >= 18 and found["annealed test active"] >= 18


def char_rnn(found):  # of the rhyme; tinyshakespeare is no file of ours
    assert found["held-out loss"] < 0.1 < 1.3 < found["bigram loss"] < 1.5


def finetune_image(found):
    if not found["random weights"]:
        pytest.skip("the figures are those of random weights, and ImageNet's could be had")
    assert found["fine-tuned"] > found["head alone"] + 0.1


def gradual_unfreezing(accuracy):
    assert abs(accuracy["gradual unfreezing"] - accuracy["all at once"]) < 0.03
    others = [accuracy[way] for way in ("from scratch", "all at once", "gradual unfreezing")]
    assert accuracy["head alone"] < 0.75 < 0.82 < min(others)


def path_sgd_unbalanced(found):
    balanced, unbalanced = (found[f"PathSGD, {start}"] for start in ("balanced", "unbalanced"))
    assert abs(balanced - unbalanced) < 0.004 and min(balanced, unbalanced) > 0.944
    assert found["SGD, balanced"] > 0.94 > 0.93 > found["SGD, unbalanced"]
    assert found["PathSGD, unbalanced, loss"] < 0.13 < 0.18 < found["SGD, unbalanced, loss"]


def saddle_free_digits(found):
    newton, free, momentum = (
        found[f"{way}, loss"] for way in ("damped Newton", "saddle-free Newton", "momentum")
    )
    assert free < momentum < newton and free < 0.2 * newton
    lowest = [
        found[f"{way}, smallest eigenvalue"] for way in ("damped Newton", "saddle-free Newton")
    ]
    assert lowest[0] < -5e-4 < -1e-4 < lowest[1]
    assert found["distinct ones"] >= 2 and found["correlation"] > 0.8


def sam(accuracy):
    assert accuracy["SAM"] > accuracy["SGD, as many gradients"]
    assert 0.7 < accuracy["SAM"] < 0.8


def relu_depth(found):
    assert found["Glorot, square"] < 1e-7 and found["Glorot, gradient"] < 1e-7
    for start in ("He", "Glorot, then LSUV"):
        assert 0.03 < found[f"{start}, square"] < 10 and 0.1 < found[f"{start}, gradient"] < 10
    accuracy = [found[f"{start}, accuracy"] for start in ("Glorot", "He", "Glorot, then LSUV")]
    assert accuracy[0] < 0.55 < accuracy[1] < 0.75 < 0.87 < accuracy[2]


def weight_norm_cifar(found):
    if not found["CIFAR-10"]:
        pytest.skip("the figures are those of CIFAR-10, which could not be had")
    mean_only = "weight norm, mean-only batch norm"
    assert abs(found["weight norm"] - found["plain"]) < 0.03
    assert found["batch norm"] > found["plain"] + 0.02
    assert found[mean_only] > found["batch norm"] - 0.005
    assert found[f"{mean_only}, loss"] < found["batch norm, loss"] < found["plain, loss"]


def continuation_rastrigin(share):
    assert share["ever less blur"] > 0.98 and share["no blur"] < 0.03


CLAIMS = {
    one.__name__: one
    for one in (
        autoencoder_cg,
        batch_norm_mnist,
        batch_norm_noise,
        batch_norm_rates,
        batch_renorm_noniid,
        char_rnn,
        curriculum_shapes,
        curriculum_text,
        continuation_rastrigin,
        deep_sigmoid_greedy,
        finetune_image,
        gradual_unfreezing,
        glorot_histograms,
        group_norm_small_batches,
        image_cnn,
        linear_interpolation,
        logistic_lbfgs,
        one_cycle,
        path_sgd_unbalanced,
        pinn_burgers,
        relu_depth,
        saddle_free_digits,
        sam,
        tabular_mlp,
        vae_kl_annealing,
        weight_norm_cifar,
    )
}


def test_every_recipe_has_a_claim_to_check():
    assert sorted(CLAIMS) == RECIPES


@pytest.mark.evidence
@each
def test_claim_in_full(name):
    recipe = imported(FOLDER / f"{name}.py")
    try:
        data = recipe.load()
    except OSError as error:
        pytest.skip(f"no data: {error}")
    CLAIMS[name](recipe.main(data))
