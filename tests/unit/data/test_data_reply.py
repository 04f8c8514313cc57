"""What a model says in a reply: thoughts, marks of turns and tags round an answer are taken off."""

import pytest

from exgra_med.data.chat_template import answer_of, answer_start, has_thoughts

HARMONY = (
    "<|channel|>analysis<|message|>The left one? No.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Right<|return|>"
)


@pytest.mark.parametrize(
    "reply",
    [
        "<think>The left one? No.</think>Right",
        "<think>\nThe left one?\n</think>\n\nRight",
        "<thinking>Left?</thinking> Right",
        "<thought>Left?</thought>Right",
        "<reasoning>Left?</reasoning>Right",
        "<THINK>Left?</THINK>Right",
        '<think duration="3">Left?</think>Right',
        "<seed:think>Left?</seed:think>Right",
        "&lt;think&gt;Left?&lt;/think&gt;Right",
        "[THINK]Left?[/THINK]Right",
        "◁think▷Left?◁/think▷Right",
        "<|START_THINKING|>Left?<|END_THINKING|><|START_RESPONSE|>Right<|END_RESPONSE|>",
        "<|begin_of_thought|>Left?<|end_of_thought|><|begin_of_solution|>Right<|end_of_solution|>",
        "<|channel>thought\nLeft?<channel|>Right",
        "<unused94>thought\nLeft?<unused95>Right",
        "thought\nLeft?<unused95>Right",
        HARMONY,
        HARMONY.removeprefix("<|channel|>"),
        "analysisThe left one? No.assistantfinalRight",
        "<|channel|>final<|message|>Right",
        "## Thinking\n\nLeft?\n\n## Final Response\n\nRight",
        "Here is my thought process: Left? Here is my response: Right",
        "Thinking...\nLeft?\n...done thinking.\n\nRight",
        '<details type="reasoning" done="true"><summary>Thought</summary>Left?</details>Right',
        "Left? No.</think>Right",
        "Left? No.[/THINK]Right",
        "Left?</think> Or so.</think>Right",
        "<reasoning>Left? <think>Hm.</think> No.</reasoning>Right",
        "<think></think>Right",
        "<think/>Right",
        "<think>Left?</think><answer>Right</answer>",
        "<SUMMARY>A scan.</SUMMARY><REASONING>Left?</REASONING><CONCLUSION>Right</CONCLUSION>",
        "<answer>\nRight\n</answer><reasoning>cut in the mid",
        "<answer>Right",
        "<|im_start|>assistant\nRight<|im_end|>\n<|im_start|>user\nAnd left?",
        "<start_of_turn>model\nRight<end_of_turn>",
        "<|begin_of_box|>Right<|end_of_box|>",
        "Right</s>",
    ],
)
def test_a_thought_is_no_part_of_the_answer(reply: str) -> None:
    assert answer_of(reply) == "Right"
    assert answer_of(answer_of(reply)) == "Right"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n",
        "<think>It is the left one",
        "<think>Left?</think>",
        "Left.</think>",
        "<think>Left?</think><think>Right?",
        "[THINK]Left",
        "Right <think>or left",
        "<|channel|>analysis<|message|>Left?<|end|>",
        "analysisWe look at the left",
        "thought\nLeft?",
        "<unused94>thought\nLeft?",
        "<think>Draft: <answer>left</answer> no",
    ],
)
def test_a_thought_that_never_ends_is_no_answer(reply: str) -> None:
    assert answer_of(reply) == ""


@pytest.mark.parametrize(
    "text",
    [
        "I think it is the left lung.",
        "analysis shows a mass",
        "The thought\nof a mass",
        "<5 mm and >3 mm",
        "Reasoning is needed [1].",
        "a think tank",
        "<answer>A</answer><answer>B</answer>",
        "p < 0.05 and x > 3",
        "### Findings\nA mass.",
        "## Findings\nA mass.\n## Final Answer\nA mass.",
        "Here is my response: a mass.",
    ],
)
def test_what_is_no_thought_stays(text: str) -> None:
    assert answer_of(text) == text and not has_thoughts(text) and answer_start(text) == 0


def test_an_answer_that_is_written_begins_behind_its_thoughts() -> None:
    reply = "<think>### Left?</think>Right"
    starts = [answer_start(reply[:end]) for end in range(len(reply) + 1)]
    assert starts[6] == 0 and starts[7:24] == list(range(7, 24))
    assert starts[24:] == [24] * 6 and reply[24:] == "Right"
