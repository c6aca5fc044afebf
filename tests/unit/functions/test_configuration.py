"""Manifest over TOML over preset; what reaches further than training is kept out."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fine_tuning import (
    base_model,
    configuration,
    kohya_toml,
    option_policy,
    option_values,
    options,
    trainer_rules,
)
from fine_tuning.base_model import NamedModel
from fine_tuning.errors import ConfigurationError
from tests.functions_data import EVENTS, REPOSITORY
from tests.resolving import resolve, told

TABLES = REPOSITORY / "container" / "options"
COPIES = REPOSITORY / "functions" / "fine_tuning" / "kohya_options"
VERSIONS = sorted(table.stem.removeprefix("kohya_ss-") for table in TABLES.glob("*.json"))
DATA = Path(__file__).with_name("data")
PRESETS = ["sdxl-character", "sdxl-style", "sdxl-object", "sample-2024"]


def test_the_manifest_outweighs_the_toml_and_the_toml_the_preset() -> None:
    resolved = resolve({"network_dim": 8}, "network_dim = 64\nunet_lr = 2e-4\n")
    values = resolved.values
    assert (values["network_dim"], values["unet_lr"], values["network_alpha"]) == (8, 2e-4, 16)
    assert resolved.findings == ()


def test_sections_of_a_toml_are_flattened_as_the_trainer_does() -> None:
    assert resolve(toml="[a]\nnetwork_dim = 5\n[b]\nseed = 3\n").values["network_dim"] == 5


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_option_of_a_preset_is_one_of_the_trainer_and_allowed(preset: str, version: str) -> None:
    given = configuration.preset(preset)
    kept, findings = options.check(given, options.table(version), preset, version)
    assert findings == []
    assert option_policy.apply(kept, preset, version) == (kept, [])
    assert option_values.check(kept, preset) == (kept, [])
    assert list(trainer_rules.judge(kept, dict.fromkeys(kept, preset), version)) == []
    assert "seed" in given
    assert resolve(preset=preset, kohya_version=version).findings == ()


def test_the_presets_are_those_of_the_schema_each_with_a_sentence_on_what_it_is_for() -> None:
    rule = json.loads((EVENTS / "manifest.schema.json").read_bytes())["properties"]["preset"]
    files = sorted((REPOSITORY / "functions/fine_tuning/presets").glob("*.toml"))
    assert sorted(rule["enum"]) == [file.stem for file in files] == sorted(PRESETS)
    for file in files:
        assert f"{file.stem}: " in rule["description"]
        assert file.read_text(encoding="utf-8").startswith("# ")


def test_the_presets_are_what_they_say() -> None:
    character = resolve().values
    assert (character["network_dim"], character["network_alpha"], character["network_train_unet_only"]) == (
        32,
        16,
        True,
    )
    assert character["cache_latents"]
    assert character["cache_text_encoder_outputs"]
    sample = resolve(preset="sample-2024").values
    assert (sample["network_dim"], sample["train_batch_size"], sample["optimizer_type"]) == (
        256,
        1,
        "Adafactor",
    )
    assert "network_train_unet_only" not in sample


def test_the_option_tables_are_those_of_the_container() -> None:
    """Whoever adds a version there copies its table, without which every run of that version fails."""
    tables, copies = (
        {file.name: file.read_bytes() for file in folder.glob("*.json")} for folder in (TABLES, COPIES)
    )
    assert len(tables) >= 2
    assert sorted(copies) == sorted(tables)
    assert copies == tables


def test_a_version_without_a_table_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"v1\.0\.0.*v22\.6\.2, v25\.2\.2"):
        options.table("v1.0.0")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network_dim", "big"),
        ("network_dim", 1.5),
        ("network_dim", True),
        ("network_dim", 0),
        ("learning_rate", "fast"),
        ("cache_latents", 2),
        ("cache_latents", "true"),
        ("mixed_precision", "fp32"),
        ("max_token_length", 100),
        ("resolution", [1024, 1024]),
        ("network_args", [{"a": 1}]),
        ("train_batch_size", 0),
        ("max_train_steps", 0),
        ("gradient_accumulation_steps", -1),
    ],
)
def test_a_value_that_the_trainer_would_take_silently_is_an_error(name: str, value: Any) -> None:
    resolved = resolve({name: value})
    assert told(resolved) == [("error", "option-invalid", "manifest.json")]
    assert name in resolved.findings[0].message


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_toml_may_write_what_is_no_number(bad: float) -> None:
    assert told(resolve(toml=f"learning_rate = {bad}\n")) == [
        ("error", "option-invalid", "kohya-sdxl-config.toml")
    ]


@pytest.mark.parametrize(
    ("name", "value", "resolved"),
    [
        ("network_dim", 16.0, 16),
        ("resolution", 1024, "1024"),
        ("network_alpha", 8, 8),
        ("optimizer_args", "weight_decay=0.1", ["weight_decay=0.1"]),
        ("text_encoder_lr", 1e-5, [1e-5]),
        ("cache_latents", 1, True),
        ("cache_latents", 0, False),
    ],
)
def test_a_value_in_another_writing_is_understood(name: str, value: Any, resolved: Any) -> None:
    assert resolve({name: value}).values[name] == resolved


def test_a_configuration_of_datasets_is_told_as_what_it_is() -> None:
    resolved = resolve(
        toml="[general]\nkeep_tokens = 0\n[[datasets]]\nresolution = 768\n[[datasets.subsets]]\nnum_repeats = 3\n"
    )
    (finding,) = (one for one in resolved.findings if one.code == "option-unknown")
    assert finding.severity == "warning"
    assert "num_repeats" in finding.message
    assert "dataset_class" not in finding.message
    assert "<repeats>_<token>" in finding.remedy


def test_an_unknown_option_is_a_warning_with_a_suggestion() -> None:
    resolved = resolve(toml="netwrok_dim = 4\n")
    assert told(resolved) == [("warning", "option-unknown", "kohya-sdxl-config.toml")]
    assert "Did you mean 'network_dim'?" in resolved.findings[0].message
    assert "netwrok_dim" not in resolved.values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network_module", "os.system"),
        ("network_module", "lycoris.kohya"),
        ("optimizer_type", "my.module.Optimizer"),
        ("optimizer_type", "AdamWW"),
        ("lr_scheduler", "my.module.Scheduler"),
        ("lr_scheduler_type", "x.Y"),
        ("dataset_class", "x.Y"),
        ("huggingface_repo_id", "me/model"),
        ("huggingface_token", "hf_x"),
        ("wandb_api_key", "x"),
        ("log_with", "wandb"),
        ("dataset_config", "/x.toml"),
        ("network_weights", "/x.pt"),
        ("vae", "/x.pt"),
        ("in_json", "/x"),
        ("output_name", "../x"),
        ("output_config", True),
        ("debug_dataset", True),
        ("deepspeed", True),
        ("save_state_to_huggingface", True),
        ("base_weights", ["/x.pt"]),
    ],
)
def test_an_option_that_reaches_further_than_training_is_refused(name: str, value: Any) -> None:
    resolved = resolve({name: value})
    assert told(resolved) == [("error", "option-refused", "manifest.json")]
    assert resolved.values.get(name) != value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output_dir", "/x"),
        ("train_data_dir", "/x"),
        ("logging_dir", "/x"),
        ("resume", "/x"),
        ("sample_prompts", "/x"),
        ("log_with", "tensorboard"),
        ("log_prefix", "x"),
        ("log_tracker_name", "x"),
        ("log_config", True),
        ("wandb_run_name", "x"),
        ("save_model_as", "ckpt"),
        ("caption_extension", ".caption"),
        ("max_token_length", 75),
        ("dynamo_backend", "no"),
    ],
)
def test_an_option_of_another_machine_is_overridden_with_a_note(name: str, value: Any) -> None:
    resolved = resolve({name: value})
    assert told(resolved) == [("note", "option-overridden", "manifest.json")]
    assert resolved.values.get(name) != value


def test_what_the_graphical_interface_writes_is_taken() -> None:
    """Written by kohya_ss v25.2.2's own lora_gui.py, with its defaults for SDXL and `Persistent data loader` ticked."""
    resolved = resolve(toml=(DATA / "gui-v25.2.2.toml").read_text(encoding="utf-8"))
    said = {(finding.severity, finding.message.split()[2]) for finding in resolved.findings}
    assert {name for severity, name in said if severity == "warning"} == {
        *("epoch", "max_bucket_reso", "noise_offset_type"),
    }
    assert "error" not in {severity for severity, _ in said}
    assert resolved.values["persistent_data_loader_workers"] is True
    assert "dynamo_backend" not in resolved.values
    assert (resolved.values["network_dim"], resolved.layers[1]["max_train_steps"]) == (8, 1600)


def test_what_the_user_chose_is_not_weighed_with_the_presets_other_way_to_it() -> None:
    assert "min_snr_gamma" not in resolve({"debiased_estimation_loss": True}).values
    both = resolve({"debiased_estimation_loss": True, "min_snr_gamma": 1.0}).values
    assert both["min_snr_gamma"] == 1.0
    assert "noise_offset" not in resolve({"multires_noise_iterations": 6}, preset="sdxl-style").values
    assert resolve({"multires_noise_iterations": 0}, preset="sdxl-style").values["noise_offset"] == 0.0357


def test_no_cache_of_a_folder_mixes_up_what_is_validated_with() -> None:
    resolved = resolve({"cache_info": True}, validation_split=0.2)
    assert told(resolved) == [("note", "option-overridden", "manifest.json")]
    assert "cache_info" not in resolved.values


def test_a_backend_that_compiles_nothing_is_not_compiled_with_another() -> None:
    resolved = resolve({"dynamo_backend": "no", "torch_compile": True})
    assert told(resolved) == [("note", "option-overridden", "manifest.json")]
    assert not {"dynamo_backend", "torch_compile"} & set(resolved.values)


def test_empty_values_say_nothing() -> None:
    assert resolve({"vae": "", "wandb_api_key": "", "optimizer_args": []}).findings == ()


def test_no_option_that_names_a_path_or_a_secret_is_forgotten() -> None:
    """Every declared option whose name looks like one is refused or overridden."""
    suspicious = (
        "_dir",
        "_path",
        "_file",
        "token",
        "api_key",
        "huggingface",
        "weights",
        "_config",
        "vae",
        "resume",
    )
    harmless = {
        "base_weights_multiplier",
        "dim_from_weights",
        "fp16_master_weights_and_gradients",
        "keep_tokens",
        "keep_tokens_separator",
        "log_config",
        "max_token_length",
        "no_half_vae",
        "scale_weight_norms",
        "token_warmup_min",
        "token_warmup_step",
        "vae_batch_size",
    }
    for version in VERSIONS:
        table = options.table(version)
        for name, option in table.items():
            if not any(part in name for part in suspicious) or name in harmless:
                continue
            value: Any = True if option.type == "flag" else "/x"
            kept, findings = option_policy.apply({name: value}, "x", version)
            assert kept == {}, f"{version}: {name}"
            assert len(findings) == (name != base_model.OPTION)  # told by base_model.judge


@pytest.mark.parametrize(
    ("toml", "said"),
    [("a = = 1", "line 1"), ("x = 1\ny = [1", "line 2"), ("a = 1\na = 2", "line 2"), ("[a", "line 1")],
)
def test_what_is_not_toml_is_told_with_its_line(toml: str, said: str) -> None:
    resolved = resolve(toml=toml)
    assert told(resolved) == [("error", "config-not-toml", "kohya-sdxl-config.toml")]
    assert said in resolved.findings[0].message


def test_the_users_option_wins_over_a_cache_of_the_preset() -> None:
    values = resolve({"shuffle_caption": True}).values
    assert (values["shuffle_caption"], values["cache_text_encoder_outputs"]) == (True, False)
    assert resolve({"network_train_unet_only": False}).values["cache_text_encoder_outputs"] is False
    assert resolve({"random_crop": True}).values["cache_latents"] is False


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("caption_prefix", "a photograph of phx,"),
        ("caption_suffix", "in colour"),
        ("enable_wildcard", True),
        ("secondary_separator", ";;;"),
    ],
)
def test_captions_that_the_trainer_completes_are_not_encoded_before_it_did(option: str, value: Any) -> None:
    """It encodes for its cache what the file says, and completes captions only where nothing is cached."""
    assert resolve({option: value}).values["cache_text_encoder_outputs"] is False
    both = resolve({option: value, "cache_text_encoder_outputs": True})
    assert told(both) == [("error", "options-contradict", "manifest.json")]


def test_the_presets_lasting_processes_give_way_to_a_user_who_wants_none() -> None:
    for resolved in (
        resolve({"max_data_loader_n_workers": 0}),
        resolve(toml="max_data_loader_n_workers = 0"),
    ):
        assert resolved.findings == ()
        assert resolved.values["persistent_data_loader_workers"] is False
    of_user = resolve({"max_data_loader_n_workers": 0}, "persistent_data_loader_workers = true")
    assert of_user.values["persistent_data_loader_workers"] is True
    assert told(of_user) == [("error", "options-contradict", "kohya-sdxl-config.toml")]
    assert resolve({"max_data_loader_n_workers": 1}).values["persistent_data_loader_workers"] is True


def test_what_the_user_contradicts_is_told() -> None:
    resolved = resolve({"cache_text_encoder_outputs": True, "shuffle_caption": True})
    assert told(resolved) == [("error", "options-contradict", "manifest.json")]


def test_a_validation_split_is_an_option_of_newer_trainers_only() -> None:
    assert resolve(validation_split=0.1).values["validation_split"] == 0.1
    older = resolve(validation_split=0.1, kohya_version="v22.6.2")
    assert told(older) == [("warning", "option-unknown", "manifest.json")]
    assert "validation_split" not in older.values


def test_what_names_a_base_model_is_kept_with_its_file() -> None:
    toml = 'pretrained_model_name_or_path = "a/b"'
    assert resolve(toml=toml).named_model == NamedModel("a/b", "kohya-sdxl-config.toml")
    both = resolve({"pretrained_model_name_or_path": "c/d"}, toml)
    assert both.named_model == NamedModel("c/d", "manifest.json")
    assert "pretrained_model_name_or_path" not in both.values
    assert resolve({"pretrained_model_name_or_path": ""}).named_model is None


def test_the_configuration_is_written_as_toml() -> None:
    values = resolve({"optimizer_args": ['betas="b"']}).values
    assert tomllib.loads(kohya_toml.write(values).decode()) == values


SAMPLE = {  # the eight of the original sample that have no effect, and a word of the reason
    "conv_alpha": (1, "network_args"),
    "conv_dim": (1, "network_args"),
    "unit": (1, "networks.dylora"),
    "train_on_input": (True, "LyCORIS"),
    "model_list": ("custom", "graphical interface"),
    "noise_offset_type": ("Original", "graphical interface"),
    "no_token_padding": (False, "older trainers"),
    "sdxl": (True, "SDXL trainer"),
}


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_ineffective_options_of_the_original_sample_say_why(name: str, version: str) -> None:
    value, why = SAMPLE[name]
    resolved = resolve({name: value}, kohya_version=version)
    assert told(resolved) == [("warning", "option-unknown", "manifest.json")]
    assert why in resolved.findings[0].message
    assert name not in resolved.values


@pytest.mark.parametrize(
    ("name", "value", "resolved"),
    [
        ("learning_rate", "1e-4", 1e-4),
        ("network_dim", "16", 16),
        ("lr_warmup_steps", 100.0, 100),  # out of a TOML the trainer would take it for 100 times all steps
        ("lr_warmup_steps", "10%", 0.1),
        ("lr_warmup_steps", 0.1, 0.1),
        ("lr_scheduler", "Cosine_With_Restarts", "cosine_with_restarts"),
        ("network_module", "Networks.LoRA", "networks.lora"),
    ],
)
def test_a_value_is_typed_as_the_trainers_own_parser_would(name: str, value: Any, resolved: Any) -> None:
    result = resolve({name: value})
    assert (result.values[name], type(result.values[name])) == (resolved, type(resolved))
    assert result.findings == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 2**32),
        ("lr_warmup_steps", 10**400),  # found by ./dev fuzz
        ("network_dim", 10**400),
        ("max_bucket_reso", 2**31),
        ("resolution", "1024,999999"),
        ("learning_rate", -1e-4),
        ("caption_dropout_rate", 1.5),
        ("network_dropout", 1.0),
        ("min_timestep", 1000),
        ("save_every_n_steps", -1),
        ("optimizer_args", ["weight_decay"]),
        ("optimizer_args", ["weight_decay=a.b"]),
        ("optimizer_args", ["betas=(" + "(" * 500]),
        ("lr_scheduler_args", ["a=1=2"]),
        ("network_args", ["conv dim=4"]),
        ("network_args", ["conv_dim=four"]),
        ("network_args", ["block_dims=4,4"]),
        ("network_args", ["down_lr_weight=1,1,1,1,1,1,1,1,1,1,1,1"]),
        ("network_args", ["up_lr_weight=1,1,1,1,1,1,1,1,1,1"]),
        ("network_args", ["mid_lr_weight=1,1,1,1"]),
        ("network_args", ["mid_lr_weight=cosine"]),
        ("network_args", ["down_lr_weight=0.5"]),
        ("network_args", ["up_lr_weight=cosin"]),
        ("face_crop_aug_range", "2.0"),
        ("caption_extension", ".tags"),
    ],
)
def test_a_value_that_the_trainer_cannot_work_with_is_an_error(name: str, value: Any) -> None:
    errors = [finding for finding in resolve({name: value}).findings if finding.severity == "error"]
    assert [finding.code for finding in errors] == ["option-invalid"]


@pytest.mark.parametrize(
    ("given", "message", "remedy"),
    [
        (
            {"optimizer_args": ["weight_decy=0.1"]},
            "Did you mean 'weight_decay'?",
            "AdamW takes: amsgrad, betas",
        ),
        ({"optimizer_args": ["lr=1e-4"]}, "AdamW takes no argument 'lr'", "set learning_rate instead"),
        (
            {"optimizer_type": "prodigy", "learning_rate": 1.0, "optimizer_args": ["d_coeff=2"]},
            "Did you mean 'd_coef'?",
            "Prodigy takes",
        ),
        ({"use_8bit_adam": True, "optimizer_args": ["fused=True"]}, "AdamW8bit takes no", "AdamW8bit takes"),
        (
            {"lr_scheduler": "polynomial", "lr_scheduler_args": ["power=2"]},
            "polynomial takes no argument 'power'",
            "set lr_scheduler_power instead",
        ),
        (
            {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_args": ["num_cycles=2"]},
            "cosine_with_restarts takes no",
            "lr_scheduler_num_cycles",
        ),
    ],
)
def test_an_argument_that_optimizer_or_scheduler_does_not_take_is_an_error(
    given: dict[str, Any], message: str, remedy: str
) -> None:
    """The trainer would load the model, cache everything and stop."""
    (finding,) = [finding for finding in resolve(given).findings if finding.severity == "error"]
    assert finding.code == "option-invalid"
    assert message in finding.message
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    "given",
    [
        {"optimizer_args": ["weight_decay=0.1", "fused=True"]},
        {"optimizer_type": "adafactor", "optimizer_args": ["relative_step=False", "clip_threshold=2.0"]},
        {"optimizer_type": "AdamWScheduleFree", "optimizer_args": ["warmup_steps=10"]},
        {"lr_scheduler": "cosine", "lr_scheduler_args": ["num_cycles=0.4"]},
        # Whoever brings no schedule is handed none of its arguments.
        {"optimizer_type": "AdamWScheduleFree", "lr_scheduler_args": ["anything=1"]},
    ],
)
def test_an_argument_that_is_taken_is_no_error(given: dict[str, Any]) -> None:
    assert [finding for finding in resolve(given).findings if finding.severity == "error"] == []


def test_each_version_has_the_keywords_of_every_name_that_a_run_may_choose() -> None:
    for version in VERSIONS:
        known = options.keywords(version)
        assert set(known["optimizer_args"]) == set(option_policy.allowed_names("optimizer_type", version))
        schedulers = set(option_policy.allowed_names("lr_scheduler", version)) - {"adafactor"}
        assert set(known["lr_scheduler_args"]) == schedulers


@pytest.mark.parametrize("name", ["save_every_n_epochs", "save_every_n_steps", "sample_every_n_steps"])
def test_nought_means_never_and_is_not_divided_by(name: str) -> None:
    resolved = resolve({name: 0})
    assert told(resolved) == [("note", "option-overridden", "manifest.json")]
    assert name not in resolved.values


def test_arguments_go_with_the_option_that_they_were_chosen_for() -> None:
    """The trainer would hand Adafactor's arguments to AdamW and stop."""
    values = resolve({"optimizer_type": "AdamW"}, preset="sample-2024").values
    assert "optimizer_args" not in values
    assert "optimizer_type" not in resolve({"use_8bit_adam": True}).values
    assert resolve({"optimizer_type": "Adafactor"}, preset="sample-2024").values["optimizer_args"]
    both = resolve(
        {"optimizer_type": "Lion", "optimizer_args": ["weight_decay=1"]}, preset="sample-2024"
    ).values
    assert both["optimizer_args"] == ["weight_decay=1"]


def test_a_learning_rate_is_not_overridden_unseen() -> None:
    values = resolve({"learning_rate": 1e-5}, preset="sample-2024").values
    assert values["learning_rate"] == 1e-5
    assert "unet_lr" not in values
    assert "text_encoder_lr" not in values


def test_an_option_in_two_sections_is_told() -> None:
    resolved = resolve(toml="[a]\nnetwork_dim = 5\n[b]\nnetwork_dim = 6\n")
    assert told(resolved) == [("warning", "option-repeated", "kohya-sdxl-config.toml")]
    assert resolved.values["network_dim"] == 6


@pytest.mark.parametrize(
    "argument",
    [
        *("down_lr_weight=1,1,1,1,1,1,1,1,1", "down_lr_weight=0,,1", "up_lr_weight=cosine"),
        *("up_lr_weight=zeros+0.5", "mid_lr_weight=1,0.5,1", "mid_lr_weight=0.5"),
    ],
)
def test_weights_of_blocks_are_taken_as_the_trainer_takes_them(argument: str) -> None:
    assert resolve({"network_args": [argument]}).findings == ()


@pytest.mark.parametrize(
    ("config", "version"),
    [({"network_module": "networks.lora_fa"}, "v25.2.2"), ({"network_module": "networks.lora"}, "v22.6.2")],
)
def test_a_network_that_knows_no_blocks_of_sdxl_is_given_none(config: dict[str, Any], version: str) -> None:
    for number in (23, 25):
        ranks = f"block_dims={','.join('4' * number)}"
        resolved = resolve({**config, "network_args": [ranks]}, kohya_version=version)
        assert told(resolved) == [("error", "option-invalid", "manifest.json")]
    plus = resolve({**config, "network_args": ["loraplus_lr_ratio=4"]}, kohya_version=version)
    assert told(plus) == [("warning", "options-ignored", "manifest.json")]


def test_newer_names_are_for_newer_trainers() -> None:
    for name, value in (("optimizer_type", "AdamWScheduleFree"), ("lr_scheduler", "inverse_sqrt")):
        assert resolve({name: value}).findings == ()
        older = resolve({name: value}, kohya_version="v22.6.2")
        assert told(older) == [("error", "option-refused", "manifest.json")]


@pytest.mark.parametrize("instance_type", ["ml.g4dn.xlarge", "ml.p3.2xlarge"])
def test_bf16_is_not_emulated_for_money(instance_type: str) -> None:
    adapted = resolve(instance_types=["ml.g5.2xlarge", instance_type])
    assert told(adapted) == [("note", "precision-changed", "manifest.json")]
    assert (adapted.values["mixed_precision"], adapted.values["save_precision"]) == ("fp16", "fp16")
    asked = resolve({"mixed_precision": "bf16"}, instance_types=[instance_type])
    assert told(asked) == [("error", "precision-unsupported", "manifest.json")]
    assert resolve({"mixed_precision": "fp16"}, instance_types=[instance_type]).findings == ()
    assert resolve(instance_types=["ml.g5.2xlarge", "ml.g6.2xlarge", "ml.p4d.24xlarge"]).findings == ()


@pytest.mark.parametrize(
    "instance_type", ["ml.m5.large", "ml.trn1.2xlarge", "ml.inf2.xlarge", "ml.g4ad.xlarge"]
)
def test_an_instance_without_an_nvidia_gpu_is_refused(instance_type: str) -> None:
    assert told(resolve(instance_types=[instance_type])) == [
        ("error", "instance-without-gpu", "manifest.json")
    ]


def test_every_run_has_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve({"seed": 7}).values["seed"] == 7
    monkeypatch.setattr(configuration, "preset", lambda name: {"network_dim": 8})
    assert resolve().values["seed"] == configuration.SEED


def test_the_captions_that_the_configuration_names_come_first() -> None:
    assert resolve(toml='caption_extension = ".caption"').preferred_captions == ".caption"
    assert resolve().preferred_captions == ".txt"
