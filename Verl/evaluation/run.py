"""One evaluation from beginning to end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from Verl import provenance
from Verl.adapter.generation import Completion, Request
from Verl.errors import UserError
from Verl.evaluation import printed
from Verl.evaluation.backends import Backend, choose_device, open_backend
from Verl.evaluation.compare import Other, compare
from Verl.evaluation.metrics import all_metrics
from Verl.evaluation.models import ModelSource, find_model, load_tokenizer, template_of_run
from Verl.evaluation.queries import EvaluationQuery, encode, fingerprint, read_questions
from Verl.evaluation.scoring import Scorer
from Verl.evaluation.settings import EvalSettings
from Verl.evaluation.store import Store, read_evaluation
from Verl.reward.parts import gathered, means
from Verl.seeds import rollout_seed

Item = tuple[EvaluationQuery, int, bool, Request]  # question, sample number, whether greedy, what to generate


def evaluate(
    settings: EvalSettings, console: Console, open_backend: Callable[..., Backend] = open_backend
) -> dict[str, Any]:
    """Evaluates, or goes on where an interrupted call stopped; returns what `evaluation.json` holds.

    Args:
        open_backend: loads the model; tests give their own.

    Raises:
        UserError, DataError: bad input, before the model is loaded.
    """
    settings.check()
    questions = read_questions(settings.data, settings.limit, any_source=settings.reward_function is not None)
    other = _read_other(settings, questions)
    device = choose_device(settings.device)
    source = find_model(settings.model)
    settings = replace(settings, template=settings.template or template_of_run(source))
    store = Store(settings.out, settings.identity(source.fingerprint, fingerprint(settings.data), device))
    with store.held():
        evaluation = store.begin()
        if evaluation is None:
            evaluation = _generate_and_count(settings, source, device, questions, store, console, open_backend)
            store.finish(evaluation)
        else:
            console.print(f"{settings.out}: this evaluation is finished already", highlight=False, soft_wrap=True)
        printed.show(console, evaluation)
        if other is not None:
            evaluation = _compare(settings, store, evaluation, other, console)
    return evaluation


def _read_other(settings: EvalSettings, questions: Sequence[EvaluationQuery]) -> Other | None:
    if settings.against is None:
        return None
    evaluation, rows = read_evaluation(settings.against)
    other = Other(str(settings.against), evaluation, rows)
    other.check(settings, {question.key: question.ground_truth for question in questions})
    return other


def _generate_and_count(
    settings: EvalSettings,
    source: ModelSource,
    device: str,
    questions: Sequence[EvaluationQuery],
    store: Store,
    console: Console,
    open_backend: Callable[..., Backend],
) -> dict[str, Any]:
    began = time.monotonic()
    tokenizer = load_tokenizer(source, settings.chat_template)
    kept, too_long = encode(questions, tokenizer, settings.max_prompt_length, settings.template)
    items = [item for question, prompt in kept for item in requests_of(settings, question, prompt)]
    batches = [items[start : start + settings.batch] for start in range(0, len(items), settings.batch)]
    scorer = Scorer(settings.reward_function)
    todo = [number for number in range(len(batches)) if not store.has(number)]
    done_before = len(items) - sum(len(batches[number]) for number in todo)
    progress = printed.EvaluationProgress(console, len(items), done_before, settings.max_response_length)
    if todo:
        console.print(f"loading {source.name} ({source.kind}) on {device}", highlight=False, soft_wrap=True)
        tokens = settings.max_prompt_length + settings.max_response_length
        backend = open_backend(source, tokenizer, device, settings.batch, tokens, store.parts)
    for number in todo:
        requests = [request for _, _, _, request in batches[number]]
        completions = backend.generate(requests, partial(progress.tick, len(requests)))
        rows = [_row(item, done, tokenizer, scorer) for item, done in zip(batches[number], completions, strict=True)]
        store.add(number, rows)
        progress.batch(len(rows), sum(row["strict"] for row in rows) / len(rows))
    rows = store.join(len(batches))
    return {
        "settings": {
            **{
                name: getattr(settings, name) for name in ("model", "limit", "samples", "temperature", "greedy", "seed")
            },
            **{name: getattr(settings, name) for name in ("max_prompt_length", "max_response_length", "batch")},
            "template": settings.template,
            **({"chat_template": settings.chat_template} if settings.chat_template else {}),
            "data": str(settings.data),
            "device": device,
        },
        "metrics": [metric.as_dict() for metric in all_metrics(rows, settings.temperature)],
        **_part_means(rows),
        "counts": _counts(rows, len(kept), len(too_long)),
        "seconds": round(time.monotonic() - began, 1),  # of the last call only, where there were interruptions
        **provenance.describe(),
    }


def requests_of(settings: EvalSettings, question: EvaluationQuery, prompt: list[int]) -> list[Item]:
    """What to ask of one question. The seeds are those of the trainer's own evaluation before training (step 0)."""
    items = []
    for sample in range(settings.samples):
        seed = rollout_seed(settings.seed, 0, question.data_source, question.index, sample, validate=True)
        request = Request(prompt, settings.max_response_length, seed=seed, temperature=settings.temperature)
        items.append((question, sample, False, request))
    if settings.greedy:
        items.append((question, 0, True, Request(prompt, settings.max_response_length, seed=0, temperature=0.0)))
    return items


def _row(item: Item, completion: Completion, tokenizer: Any, scorer: Scorer) -> dict[str, Any]:
    question, sample, greedy, request = item
    text = tokenizer.decode(completion.token_ids, skip_special_tokens=True)
    scores, parts = scorer(question, text, request.seed)
    return {
        "data_source": question.data_source,
        "index": question.index,
        "sample": sample,
        "greedy": greedy,
        "ground_truth": question.ground_truth,
        "text": text,
        **scores._asdict(),
        "parts": json.dumps(parts) if parts else None,
        "log_prob": float(sum(completion.log_probs)),
        "response_length": len(completion.token_ids),
        "stop_reason": completion.stop_reason,
        "tokens": completion.token_ids,
    }


def _part_means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """{"parts": mean of each part of a user's reward over the sampled responses}; empty where there is none."""
    found = means(gathered([json.loads(row["parts"] or "{}") for row in rows if not row["greedy"]]))
    return {"parts": found} if found else {}


def _counts(rows: Sequence[dict[str, Any]], questions: int, too_long: int) -> dict[str, Any]:
    return {
        "questions": questions,
        "too_long": too_long,
        "responses": len(rows),
        "mean_response_length": sum(row["response_length"] for row in rows) / len(rows),
        "cut_off": sum(row["stop_reason"] == "length" for row in rows),
        "failures": int(sum(row["failure"] for row in rows)),
        "timeouts": int(sum(row["timeout"] for row in rows)),
    }


def _compare(
    settings: EvalSettings, store: Store, evaluation: dict[str, Any], other: Other, console: Console
) -> dict[str, Any]:
    _, rows = read_evaluation(settings.out)
    comparisons = compare(all_metrics(rows, settings.temperature), other.metrics)
    if not comparisons:
        raise UserError(
            f"--against {other.name} has no metric in common with this evaluation (greedy, or number of samples)"
        )
    evaluation = {
        **{key: value for key, value in evaluation.items() if key != "identity"},
        "against": {"folder": other.name, "comparisons": [one._asdict() for one in comparisons]},
    }
    store.finish(evaluation)
    printed.show_comparison(console, other.name, comparisons)
    return evaluation
