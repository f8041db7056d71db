"""The list of seams: every place that touches internals of transformers or torch, and the test that notices.

Read it before an upgrade of either. Internals are imported in `model.adapter` and `model.dense` only, which
`tests/unit/model/adapter/test_seams.py` holds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """One place. `where` is `module:name` below `faasmoe.model`, `test` is `file::function` below `tests`."""

    where: str
    touches: str
    why: str
    test: str


_UNIT, _LEAN = "unit/model", "integration/test_lean.py"

SEAMS = (
    Seam(where="adapter.light_import:import_transformers", touches="sys.modules['torch._dynamo'] and "
         "torch.distributed.is_available, while transformers is imported", why="the compiler costs 1.6 s and 71 MB",
         test=f"{_LEAN}::test_a_model_is_loaded_without_the_compiler"),
    Seam(where="adapter.light_import:without_values", touches="torch.empty, zeros, ones, rand, randn and full, "
         "transformers.initialization.no_init_weights", why="models are built without memory for weights",
         test=f"{_UNIT}/adapter/test_light_import.py::test_afterwards_torch_is_as_it_was"),
    Seam(where="adapter.exports:exports_kept", touches="transformers.utils.import_utils.define_import_structure, while "
         "transformers is imported", why="else each process reads the sources of all models",
         test=f"{_LEAN}::test_transformers_computes_the_same_numbers_and_its_sources_are_read_once"),
    Seam(where="adapter.torch_build:installed", touches="torch/version.py, read as text",
         why="the gateway warns of a build with CUDA without importing torch",
         test=f"{_UNIT}/adapter/test_torch_build.py::test_the_installed_build_is_the_one_that_torch_says"),
    Seam(where="adapter.hollow:hollow_class", touches="PreTrainedModel, subclassed at run time, and _parameters",
         why="experts' weights must never be in an orchestrator", test="integration/test_int8.py::"
         "test_the_demo_model_through_real_functions"),
    Seam(where="adapter.forwards:call_instead", touches="the code object of an attention's forward, copied",
         why="rotary embedding is a global function of each model's module, with no registry",
         test=f"{_UNIT}/dense/test_rotary.py::test_an_attention_uses_it_and_its_class_does_not"),
    Seam(where="adapter.conversions:get_model_conversion_mapping", touches="transformers.conversion_mapping and "
         "core_model_loading", why="where each parameter lies in a checkpoint",
         test=f"{_UNIT}/weights/test_blocks.py::"
         "test_blocks_tile_every_layer_in_order"),
    Seam(where="adapter.causal_models:MODEL_FOR_CAUSAL_LM_MAPPING", touches="transformers.models.auto.modeling_auto",
         why="the class of a model, without loading its weights", test=f"{_UNIT}/test_architecture.py::"
         "test_geometry"),
    Seam(where="adapter.byte_alphabet:bytes_to_unicode", touches="transformers.convert_slow_tokenizer",
         why="bytes of byte-level tokens", test=f"{_UNIT}/text/test_token_bytes.py::"
         "test_bytes_of_all_tokens_are_those_of_the_text"),
    Seam(where="dense.attention:flat_attention", touches="ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS, and "
         "__dict__ of every module", why="a step is one row of tokens of many sequences",
         test=f"{_UNIT}/dense/test_attention.py::"
         "test_chunks_of_interleaved_sequences_equal_each_sequence_alone"),
    Seam(where="dense.dense:DenseModel", touches="ALL_EXPERTS_FUNCTIONS, and __dict__ of experts modules",
         why="routed experts are called as functions", test="integration/test_parity.py::"
         "test_logits_and_greedy_tokens_through_real_functions"),
    Seam(where="dense.norms:take_over", touches="norm modules, replaced", why="one call instead of six",
         test=f"{_UNIT}/dense/test_norms.py::test_it_is_transformers_own"),
    Seam(where="dense.linears:Crew", touches="nn.Linear modules, replaced", why="kernels that read weights once",
         test=f"{_UNIT}/dense/test_linears.py::test_only_plain_layers_that_the_kernel_reads_are_replaced"),
    Seam(where="dense.overlap:overlap", touches="shared experts, replaced, and torch.utils._pytree",
         why="shared experts run while the routed ones do",
         test=f"{_UNIT}/dense/test_overlap.py::test_a_shared_expert_runs_while_the_routed_ones_do"),
)  # fmt: skip
