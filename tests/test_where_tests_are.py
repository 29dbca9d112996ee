"""Every source file has its tests in the same place: `tests/a/test_b.py` for `a/b.py`, or a line here."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src" / "kontext"

COVERED_BY: dict[str, tuple[str, ...]] = {
    "bench/test_compare.py": ("bench/plots.py", "bench/report.py"),
    "bench/test_speed.py": ("bench/peer.py",),
    "bench/test_suites.py": (
        *("bench/identity.py", "bench/quality.py", "bench/rows.py", "bench/style.py", "bench/text.py"),
    ),
    "checkpoint/test_foreign_files.py": ("checkpoint/files.py", "checkpoint/recognize.py"),
    "checkpoint/test_convert.py": ("checkpoint/save.py",),
    "checkpoint/test_hub.py": ("checkpoint/hub/*.py", "checkpoint/file_names.py", "checkpoint/find.py"),
    "checkpoint/test_layouts.py": (
        *("checkpoint/companions.py", "checkpoint/configs.py", "checkpoint/model.py"),
        "checkpoint/tensors.py",
    ),
    "checkpoint/test_lora.py": (*("checkpoint/lora_names.py", "checkpoint/lora_changes.py"),),
    "checkpoint/test_packed.py": (
        *("checkpoint/fingerprints.py", "checkpoint/gguf_files.py", "checkpoint/mapped.py"),
        "checkpoint/quantized.py",
    ),
    "checkpoint/test_placement.py": ("model/streaming.py",),
    "commands/test_bench.py": ("commands/bench_*.py",),
    "commands/test_output.py": ("commands/edit.py", "commands/generate.py", "commands/inputs.py"),
    "engine/test_editor.py": (
        *("engine/cache.py", "engine/finish.py"),
        *("engine/pipeline.py", "engine/plan.py", "engine/prompt_length.py", "engine/prompts.py"),
    ),
    "engine/test_memory_plan.py": ("engine/memory_sizes.py",),
    "engine/test_regions.py": ("engine/context.py",),
    "engine/test_requests.py": ("values.py",),
    "engine/test_window.py": ("model/window.py",),
    "flow/test_flow.py": ("flow/*.py",),
    "kernels/test_kernels.py": ("kernels/*.py",),
    "model/test_autoencoder.py": ("model/convolutions.py",),
    "model/test_stored.py": ("model/ggml.py", "model/linear.py", "model/storage_formats.py"),
    "model/test_transformer.py": (
        *("model/blocks.py", "model/module_list.py", "model/presets.py", "model/rope.py"),
        "model/tokens.py",
    ),
    "pictures/test_pictures.py": ("pictures/reading.py", "pictures/writing.py"),
    "playground/test_units.py": ("server/http/pages.py",),
    "server/auth/test_access.py": (
        *("server/http/answers.py", "server/jobs/quotas.py", "server/service/metrics.py"),
    ),
    "server/auth/test_keys.py": ("commands/keys.py",),
    "server/http/test_connections.py": ("server/http/logs.py", "server/settings.py"),
    "server/jobs/test_queue.py": (
        *("server/jobs/batching.py", "server/jobs/order.py", "server/jobs/requests.py"),
        "server/jobs/schema.py",
    ),
    "server/routes/test_dialects.py": (
        *("server/http/inputs.py", "server/routes/huggingface.py", "server/service/moderation.py"),
    ),
    "server/routes/test_edits.py": (
        *("server/app.py", "server/jobs/views.py", "server/routes/about.py", "server/routes/common.py"),
        *("server/routes/events.py", "server/routes/pictures.py", "server/routes/sessions.py"),
        *("server/service/event_bus.py", "server/service/positions.py", "server/service/prefills.py"),
    ),
    "server/routes/test_openai.py": ("server/routes/openai_fields.py",),
    "server/test_clusters.py": ("server/workers/ray_executor.py",),
    "server/test_crashes.py": (
        *("commands/serve.py", "server/errors.py", "server/run.py", "server/service/background.py"),
        *("server/service/housekeeping.py", "server/service/results.py", "server/service/scheduler.py"),
        "server/service/service.py",
    ),
    "server/test_storage.py": ("server/http/bodies.py", "server/service/decoders.py", "session/blobs.py"),
    "server/test_fetching.py": ("server/service/webhooks.py",),
    "server/workers/test_worker.py": ("server/workers/executor.py",),
    "session/test_commands.py": (
        *("commands/chat.py", "commands/chat_options.py", "commands/tables.py", "commands/verify.py"),
    ),
    "session/test_database.py": ("session/schema.py",),
    "session/test_provenance.py": ("session/pixels.py", "session/rules.py"),
    "session/test_session.py": ("session/settings.py",),
    "session/test_tree.py": ("session/editors.py", "session/store.py"),
    "test_cli.py": ("__main__.py", "commands/examples.py", "home.py", "session/home.py"),
    "test_failures.py": ("errors.py",),
    "test_mcp.py": ("commands/mcp.py",),
    "test_options.py": ("commands/options.py",),
    "test_public_api.py": ("version.py",),
    "test_threads.py": ("server/workers/launch.py",),
    "train/test_orbits.py": ("train/pairs.py", "train/ring.py"),
    "train/test_attribute_task.py": ("train/attributes.py",),
    "train/test_runs.py": (
        *("train/data.py", "train/distill.py", "train/flow.py", "train/ladd.py"),
        *("train/metrics.py", "precision.py", "train/run.py", "train/student.py", "train/validation.py"),
    ),
    "world/drawing/test_art.py": ("world/drawing/objects.py", "world/drawing/pack.py"),
    "world/language/test_grammar.py": (
        *("world/language/forms.py", "world/language/frames.py", "world/language/held_out.py"),
        *("world/language/spoken.py", "world/language/synonyms.py", "world/language/unchanged.py"),
    ),
    "world/language/test_sentences.py": (
        *("world/language/captions.py", "world/language/phrasings.py", "world/language/templates.py"),
        "world/language/vocabulary.py",
    ),
    "world/tasks/test_chains.py": ("world/tasks/distractors.py",),
    "world/tasks/test_references.py": ("world/tasks/compositions.py", "world/tasks/task_specs.py"),
    "world/tasks/test_samples.py": (
        *("world/drawing/*.py", "world/edits/*.py", "world/scenes/*.py", "world/seeds.py"),
    ),
    "commands/test_weights.py": ("checkpoint/lora_inspect.py",),
    "commands/test_world.py": ("world/sheets.py", "world/variety.py"),
}
"""Test file: source files (patterns) that it covers without carrying their names."""

FILES = [path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py") if path.name != "__init__.py"]


def own_test(source: str) -> Path:
    """Where the test of a source file is expected."""
    path = Path(source)
    return TESTS / path.with_name(f"test_{path.name}")


def patterns() -> list[str]:
    return [pattern for covered in COVERED_BY.values() for pattern in covered]


@pytest.mark.parametrize("source", FILES)
def test_every_source_file_has_a_test_file(source: str) -> None:
    named = own_test(source).exists()
    listed = any(fnmatch(source, pattern) for pattern in patterns())
    assert named or listed, f"add {own_test(source).relative_to(TESTS)}, or name in COVERED_BY what covers it"


def test_the_table_holds_no_more_than_is_needed() -> None:
    missing = [name for name in COVERED_BY if not (TESTS / name).is_file()]
    assert not missing, "test files that do not exist"
    without_own = [source for source in FILES if not own_test(source).exists()]
    idle = [pattern for pattern in patterns() if not any(fnmatch(source, pattern) for source in without_own)]
    assert not idle, "remove from COVERED_BY what has a test file of its own, or is gone"


def test_every_test_file_is_below_a_source_folder() -> None:
    strange = [
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("test_*.py")
        if not (SOURCES / path.parent.relative_to(TESTS)).is_dir()
    ]
    assert not strange, "test folders mirror src/kontext"
