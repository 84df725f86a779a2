"""Models of timm, an optional dependency: run where it is installed, and an error that says so where it is not."""

import sys

import pytest
import torch

from jobs.datasets import dataset_info
from jobs.errors import ConfigError
from jobs.networks.classifier import build_classifier
from jobs.networks.folding import FoldedClassifier
from jobs.plugins import Plugin
from jobs.preflight import describe
from jobs.preflight.checks import network_problem
from jobs.specs.train import TrainSpec
from jobs.validation import build
from tests.jobs.training.test_steps import BASE, GAUSSIAN

SMALL_VIT = {"img_size": 8, "patch_size": 4, "depth": 2}


def test_models_of_timm_are_built_from_random_weights_and_pass_all_checks() -> None:
    pytest.importorskip("timm")
    name = "timm:vit_tiny_patch16_224"
    model = describe._answer("model", name, SMALL_VIT)
    spec = build(TrainSpec, {**BASE, **GAUSSIAN, "architecture": name, "model": Plugin(**model)}, where="train")
    assert network_problem(spec) is None
    torch.manual_seed(0)
    classifier = build_classifier(name, dataset_info("digits"), options=SMALL_VIT).eval()
    inputs_BCHW = torch.rand(3, 1, 8, 8)
    logits_BK = classifier(inputs_BCHW)
    assert logits_BK.shape == (3, 10)
    torch.testing.assert_close(FoldedClassifier(classifier)(inputs_BCHW), logits_BK)
    torch.manual_seed(0)
    again = build_classifier(name, dataset_info("digits"), options=SMALL_VIT).eval()
    assert torch.equal(again(inputs_BCHW), logits_BK)


def test_a_model_that_timm_does_not_have_is_named() -> None:
    pytest.importorskip("timm")
    answer = describe._answer("model", "timm:vit_tiny_patch16_242", {})
    assert "unknown model 'vit_tiny_patch16_242' (did you mean 'vit_tiny_patch16_2" in answer["problems"][0]


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    (problem,) = describe._answer("model", "timm:resnet18", {})["problems"]
    assert problem.startswith(
        "model: timm:resnet18: timm is not installed in this environment; install it (pip install"
    )
    with pytest.raises(ConfigError, match="timm:resnet18: timm is not installed in this environment"):
        build_classifier("timm:resnet18", dataset_info("digits"))
