"""The list of seams: every place that touches internals of transformers or torch, and the test that notices a change.

Read it before an upgrade of either; `docs/transformers.md` has it as a table. What a seam `touches` is compared with
what the sources do: imports from inside the two packages, private names, names of modules in strings, and what is put
in the place of something (`setattr`, `set_submodule`, `__dict__`, classes made by `type`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """One place that relies on internals."""

    where: str  # module:name, below faasmoe
    touches: tuple[str, ...] = ()  # as the sources have it; empty: nothing there shows that it is a seam
    relies_on: str  # sentences, with code in backticks
    since: str  # the oldest version whose sources were seen to have the names; of torch the oldest that was tried
    test: str  # file::function, below tests


_BUILT, _LEAN = "unit/model/test_plan.py::test_a_checkpoint_in_a_new_format_is_served", "integration/test_lean.py"
_OURS = "unit/model/dense/test_dense.py::test_the_layers_that_we_compute_are_ours"
_RECURRENT = "integration/test_recurrent.py::test_logits_and_greedy_tokens"
_EXPERTS = "unit/model/test_expert_form.py::test_known_architectures_are_recognised"

SEAMS = (
    Seam(
        where="model.adapter.light_import:import_transformers",
        touches=(
            "sys.modules",
            "setattr",
            "torch._dynamo",
            "torch._dynamo._trace_wrapped_higher_order_op.TransformGetItemToIndex",
            "torch.distributed.is_available",
            "transformers.*",
            "transformers.modeling_utils",
        ),
        relies_on="While transformers is imported, torch's compiler is a module of marks and torch says that it has "
        "no distribution: the real ones cost 1.6 s and 71 MB.",
        since="transformers 5.0, torch 2.13",
        test=f"{_LEAN}::test_a_model_is_loaded_without_the_compiler",
    ),
    Seam(
        where="model.adapter.light_import:without_compiler",
        touches=("._dynamo",),
        relies_on="For an operation on the meta device torch imports its compiler only to mark a function.",
        since="torch 2.13",
        test=f"{_LEAN}::test_a_model_is_rehearsed_without_the_compiler",
    ),
    Seam(
        where="model.adapter.light_import:without_values",
        touches=("setattr", "transformers.initialization.no_init_weights"),
        relies_on="Model classes make weights by `torch.empty`, `zeros`, `ones`, `rand`, `randn` and `full`, and "
        "give them values by `transformers.initialization`: so a model is built without memory for its "
        "weights.",
        since="transformers 5.0, torch 2.13",
        test="unit/model/adapter/test_light_import.py::test_initial_values_are_not_computed",
    ),
    Seam(
        where="model.adapter.exports:exports_kept",
        touches=("setattr", "sys.meta_path", "transformers.utils.import_utils"),
        relies_on="transformers finds what its packages export by `define_import_structure(path, prefix)`, which "
        "reads the sources of all models; the result is kept in a file for the next process.",
        since="transformers 4.53",
        test=f"{_LEAN}::test_transformers_computes_the_same_numbers_and_its_sources_are_read_once",
    ),
    Seam(
        where="model.adapter.torch_build:installed",
        relies_on="`torch/version.py` assigns constants, which are read as text: the gateway warns of a build with "
        "CUDA without importing torch.",
        since="torch 2.13",
        test="unit/model/adapter/test_torch_build.py::test_the_installed_build_is_the_one_that_torch_says",
    ),
    Seam(
        where="model.adapter.gguf_tokenizers:convert_gguf_tokenizer",
        touches=(
            "transformers.integrations.gguf.gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS",
            "transformers.integrations.gguf.gguf_tokenizer_mapping.GGUF_TOKENIZER_MAPPING",
            "transformers.integrations.gguf.gguf_tokenizer_mapping.convert_gguf_tokenizer",
        ),
        relies_on="`convert_gguf_tokenizer(architecture, values)` makes a tokenizer of a GGUF file's metadata, by the "
        "names of the one table, and splits texts as the other says.",
        since="transformers 5.23",
        test="unit/model/checkpoint/gguf/test_tokenizer.py::test_bytes_are_merged_and_control_tokens_found",
    ),
    Seam(
        where="model.adapter.tokenization:bytes_to_unicode",
        touches=("transformers.convert_slow_tokenizer.bytes_to_unicode",),
        relies_on="The letters in which byte-level tokenizers spell bytes.",
        since="transformers 4.53",
        test="unit/model/text/test_token_bytes.py::test_bytes_of_all_tokens_are_those_of_the_text",
    ),
    Seam(
        where="model.adapter.tokenization:with_none",
        touches=("transformers.utils.chat_template_utils.render_jinja_template",),
        relies_on="How a chat template is rendered, before fields that are None are left out.",
        since="transformers 5.0",
        test="unit/api/chat/test_chat.py::test_a_template_that_wants_arguments_as_text_and_no_content_gets_them_so",
    ),
    Seam(
        where="model.adapter.classes:causal_class",
        touches=("transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING",),
        relies_on="The table from the class of a config to the class of its model.",
        since="transformers 4.53",
        test="unit/model/test_architecture.py::test_geometry",
    ),
    Seam(
        where="model.adapter.classes:built_on_meta",
        relies_on="A class can be called with a config alone, and `tie_weights(recompute_mapping=False)` is the "
        "half of its initialisation that `no_init_weights` leaves out.",
        since="transformers 5.0",
        test="unit/model/weights/test_completeness.py::test_tied_weights_are_stored_once",
    ),
    Seam(
        where="model.adapter.classes:quiet",
        touches=("transformers.utils.logging",),
        relies_on="transformers logs by a module of its own, which takes a level for all of it.",
        since="transformers 4.53",
        test=_BUILT,
    ),
    Seam(
        where="model.adapter.classes:load",
        relies_on="`from_pretrained(None, state_dict=...)` takes tensors as they are, without copying those that "
        "need no conversion, reports `missing_keys`, and raises for tensors of another shape.",
        since="transformers 5.0",
        test=_BUILT,
    ),
    Seam(
        where="model.adapter.classes:optional_weights",
        touches=("._keys_to_ignore_on_load_missing", "._keys_to_ignore_on_load_unexpected"),
        relies_on="A class says which weights a checkpoint may lack, and which tensors of it are left out.",
        since="transformers 4.53",
        test="unit/model/weights/test_completeness.py::"
        "test_modules_that_the_model_does_not_have_are_told_and_not_loaded",
    ),
    Seam(
        where="model.adapter.classes:hollow_class",
        touches=("._is_hf_initialized", "._keep_in_fp32_modules_strict", "setattr", "type"),
        relies_on="A subclass made at run time loads like its class if it has the same name: experts and quantised "
        "linear layers have empty weights in it, so that none are in an orchestrator. Weights that were "
        "loaded have `_is_hf_initialized`, and modules that have it are left alone by `initialize_weights`. What "
        "`_keep_in_fp32_modules_strict` names stays in float32.",
        since="transformers 5.0",
        test=_BUILT,
    ),
    Seam(
        where="model.adapter.conversions:conversions_of",
        touches=(
            "transformers.conversion_mapping.get_model_conversion_mapping",
            "transformers.core_model_loading.Concatenate",
            "transformers.core_model_loading.MergeModulelist",
            "transformers.core_model_loading.Transpose",
            "transformers.core_model_loading.WeightConverter",
            "transformers.core_model_loading.WeightRenaming",
            "transformers.core_model_loading.dot_natural_key",
            "transformers.core_model_loading.rename_source_key",
        ),
        relies_on="The table says which tensors of a checkpoint make up which parameter of a model, and by which "
        "operations, so that experts are mapped without loading a model.",
        since="transformers 5.0",
        test="unit/model/weights/test_blocks.py::test_blocks_tile_every_layer_in_order",
    ),
    Seam(
        where="model.adapter.conversions:revert_weight_conversion",
        touches=("transformers.core_model_loading.revert_weight_conversion",),
        relies_on="The names and shapes in which a model is published, for checkpoints of random weights.",
        since="transformers 5.0",
        test="unit/model/synthesis/test_synthesis.py::test_transformers_loads_what_was_made",
    ),
    Seam(
        where="model.adapter.experts:ExpertsFlags",
        touches=("._apply_gate",),
        relies_on="The decorator `use_experts_implementation` leaves `has_gate`, `has_bias`, `is_concatenated`, "
        "`is_transposed` and `has_post_expert_norm` on a module, and `_apply_gate` or `act_fn`: by them "
        "experts are recognised.",
        since="transformers 5.20",
        test=_EXPERTS,
    ),
    Seam(
        where="model.adapter.experts:own_forward",
        touches=(),
        relies_on="The decorator keeps the class's own `forward(rows, index, weights)` as `__wrapped__`.",
        since="transformers 5.0",
        test=_EXPERTS,
    ),
    Seam(
        where="model.adapter.experts:with_parameters",
        touches=(".__dict__", "._parameters"),
        relies_on="A module's parameters are in `_parameters`, so that a copy of it can have others of another "
        "size.",
        since="torch 2.13",
        test=_EXPERTS,
    ),
    Seam(
        where="model.adapter.language_part:multimodal_class",
        touches=("set_submodule", "transformers.models.auto.modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING"),
        relies_on="Models that also see or hear are in a mapping of their own, and a module of theirs can be replaced.",
        since="transformers 5.0",
        test="integration/test_wrappers.py::test_text_goes_through_models_that_also_see_or_hear",
    ),
    Seam(
        where="model.adapter.unregistered_experts:adapt",
        touches=(".__dict__", "._apply_gate"),
        relies_on="Experts without the decorator take `hidden_states`, `top_k_index` and `top_k_weights`; those of "
        "Llama 4 are called by `Llama4TextMoe`.",
        since="transformers 5.20",
        test="integration/test_wrappers.py::test_experts_that_no_registry_dispatches_are_served",
    ),
    Seam(
        where="model.adapter.stacked_experts:separate_experts",
        touches=(".__dict__",),
        relies_on="`JetMoeMoE` has `input_linear` and `output_linear` with stacked weights, and a `router` whose "
        "`layer` gives logits; its layer takes rows alone from it. The router of `JetMoeMoA` returns an order, rows, "
        "weights, sizes and logits.",
        since="transformers 5.20",
        test="integration/test_wrappers.py::test_experts_that_no_registry_dispatches_are_served",
    ),
    Seam(
        where="model.adapter.forwards:call_instead",
        touches=(".__code__", ".__dict__", ".__globals__", ".__kwdefaults__"),
        relies_on="An attention's forward is a Python function that calls `apply_rotary_pos_emb` by a global name "
        "of its module. There is no registry of rotary embeddings, so one module gets a copy of it with "
        "another global.",
        since="transformers 4.53",
        test="unit/model/dense/test_rotary.py::test_an_attention_uses_it_and_its_class_does_not",
    ),
    Seam(
        where="model.adapter.registries:register_attention",
        touches=(
            "transformers.masking_utils.ALL_MASK_ATTENTION_FUNCTIONS",
            "transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS",
        ),
        relies_on="Models call their attention and make their masks by the name that `set_attn_implementation` "
        "gives.",
        since="transformers 4.53",
        test=_BUILT,
    ),
    Seam(
        where="model.adapter.registries:register_experts",
        touches=("transformers.integrations.moe.ALL_EXPERTS_FUNCTIONS",),
        relies_on="Models run their experts by the name that `set_experts_implementation` gives.",
        since="transformers 5.0",
        test=_BUILT,
    ),
    Seam(
        where="model.adapter.registries:use_eager",
        touches=("._attn_implementation", "._experts_implementation"),
        relies_on="A config names the implementations by these attributes; a checkpoint may name kernels on the hub "
        "there, which are code.",
        since="transformers 5.0",
        test="unit/model/checkpoint/test_hostile.py::test_a_config_cannot_name_code_on_the_hub",
    ),
    Seam(
        where="model.adapter.registries:dispatches_attention",
        touches=("._can_set_attn_implementation",),
        relies_on="A class says whether it calls its attention through the registry.",
        since="transformers 4.57",
        test="unit/model/test_architecture.py::test_geometry",
    ),
    Seam(
        where="model.dense.attention:flat_attention",
        touches=(".__dict__",),
        relies_on="An attention is called with module, query, key, value `[1, heads, T, dim]`, `attention_mask`, "
        "`scaling` and the keywords that are named there; `module.layer_idx` is the layer. Every module "
        "has the row of the step as an attribute.",
        since="transformers 4.53",
        test=_BUILT,
    ),
    Seam(
        where="model.dense.latent.expansions:take_over",
        touches=(".__dict__",),
        relies_on="An attention makes keys and values by its method `expand_kv(latents, rope)`, of `kv_b_proj`; "
        "`kv_lora_rank`, `qk_nope_head_dim`, `qk_rope_head_dim` and `num_heads` are its sizes. What differs is found "
        "by running it.",
        since="transformers 5.23",
        test="unit/model/dense/latent/test_expansions.py::test_attentions_of_transformers_are_recognised",
    ),
    Seam(
        where="model.dense.indexed.indexer:take_over",
        relies_on="An indexer is the module `indexer` of an attention, is called with hidden states, the query's "
        "latent, cos and sin, a mask and `past_key_values`, of which it calls `update_indexer(keys, layer)` once, and "
        "returns the `index_topk` positions that it selects. The attention passes them on as `indices`.",
        since="transformers 5.23",
        test="integration/test_parity.py::test_logits_and_greedy_tokens_through_real_functions",
    ),
    Seam(
        where="model.dense.windows:window_mask",
        relies_on="A mask is asked for with `mask_function(batch, head, query, key)`, by which the window of a "
        "layer is found. Models make no mask for an implementation that has no function registered for it.",
        since="transformers 4.53",
        test=_BUILT,
    ),
    Seam(
        where="model.dense.recurrent.layer_cache:LayerCache",
        relies_on="Layers keep what is neither key nor value by `get_conv_state`, `update_conv_state`, "
        "`get_recurrent_state` and `update_recurrent_state` of their cache, or `get_linear_cache` and "
        "`set_linear_cache`, and may change in place what they get.",
        since="transformers 5.20",
        test=_RECURRENT,
    ),
    Seam(
        where="model.dense.recurrent.token_call:CallForm",
        relies_on="A layer takes its cache as `cache_params` or `past_key_values`, its input first, and other tensors "
        "with a row for each token. It is a module with the number of its layer as `layer_idx`.",
        since="transformers 5.0",
        test=_RECURRENT,
    ),
    Seam(
        where="model.dense.recurrent.recurrent_layer:take_over",
        touches=(".__dict__",),
        relies_on="A module is called by its `forward`, which one module can have another of.",
        since="torch 2.13",
        test=_RECURRENT,
    ),
    Seam(
        where="model.dense.rehearsal:rehearse",
        touches=(".__dict__",),
        relies_on="A model runs a token on the meta device: no code of it reads numbers.",
        since="transformers 5.0",
        test="integration/test_architectures.py::test_many_architectures_are_served",
    ),
    Seam(
        where="model.dense.dense:DenseModel",
        touches=(".__dict__",),
        relies_on="Experts modules get an attribute `routed`; forward takes `position_ids` and `logits_to_keep` as "
        "tensors and `use_cache=False`, and returns `logits`.",
        since="transformers 5.0",
        test=_BUILT,
    ),
    Seam(
        where="model.dense.linear.linears:Crew",
        touches=("set_submodule",),
        relies_on="Models call linear layers as `nn.Linear` modules, which are replaced by layers that read weights "
        "once.",
        since="torch 2.13",
        test=_OURS,
    ),
    Seam(
        where="model.dense.norms:take_over",
        touches=("set_submodule",),
        relies_on="A norm is a module with one weight and `variance_epsilon` or `eps`, which is replaced by one "
        "call instead of six.",
        since="transformers 4.53",
        test="unit/model/dense/test_norms.py::test_it_is_transformers_own",
    ),
    Seam(
        where="model.dense.rotary:take_over",
        relies_on="`apply_rotary_pos_emb(query, key, cos, sin)` of an attention's module turns halves of heads, "
        "which is found by running it.",
        since="transformers 4.53",
        test=_OURS,
    ),
    Seam(
        where="model.dense.routers:take_over",
        touches=(".__code__",),
        relies_on="A router has a parameter `weight`, and its forward calls `F.linear` with it, where `F` is a global "
        "name for `torch.nn.functional`.",
        since="transformers 5.0",
        test="unit/model/dense/test_routers.py::test_transformers_routers_are_taken_over",
    ),
    Seam(
        where="model.dense.overlap:overlap",
        touches=("setattr",),
        relies_on="Shared experts are children of the module that holds the routed ones, and are called with one "
        "tensor, so that a stand-in can run them meanwhile. Its result is a tensor by "
        "`__torch_function__`.",
        since="transformers 5.0, torch 2.13",
        test=_OURS,
    ),
    Seam(
        where="model.dense.replay.recorder:OperationRecorder",
        touches=("torch.utils._python_dispatch.TorchDispatchMode",),
        relies_on="A dispatch mode sees every operation of a forward, and by `decompose` its parts if it has some; "
        "tags say which return what depends on numbers. A function mode sees functions of ours that ask it by "
        "`handle_torch_function`. A mode that `_should_skip_dynamo` denies does not import torch's compiler.",
        since="torch 2.13",
        test="unit/model/dense/replay/test_recorder.py::test_what_depends_on_numbers_is_refused",
    ),
    Seam(
        where="model.dense.replay.early:computes",
        touches=("._schema",),
        relies_on="An operation's `_schema` says whether it changes arguments.",
        since="torch 2.13",
        test="unit/model/dense/replay/test_program.py::test_operations_write_to_memory_that_is_used_again",
    ),
    Seam(
        where="model.dense.replay.program:Program",
        touches=("._schema",),
        relies_on="An operation's `_schema` says whether it changes arguments, and has those of its variant "
        "that writes to given tensors.",
        since="torch 2.13",
        test="unit/model/dense/replay/test_program.py::test_operations_write_to_memory_that_is_used_again",
    ),
    Seam(
        where="model.dense.replay.steps:COPIES",
        touches=("._to_copy",),
        relies_on="The operation that `Tensor.to` becomes.",
        since="torch 2.13",
        test="unit/model/dense/replay/test_steps.py::test_numbers_are_converted_as_by_torch",
    ),
    Seam(
        where="model.dense.linear.backend:linear_backend",
        touches=("torch._C._set_mkldnn_enabled",),
        relies_on="oneDNN can be switched off for one call without the checks of `torch.backends.mkldnn.flags`: "
        "this runs for each linear layer of one row.",
        since="torch 2.13",
        test="unit/model/dense/linear/test_backend.py::test_one_row_goes_past_onednn",
    ),
)
